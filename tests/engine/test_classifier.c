/* test_classifier.c: prompts and label probabilities, on a tiny random model with a tokenizer trained on a few ads.
 *
 * The reference is brute force: for each label a plain forward over prompt + verbalizer, and the sum of its tokens'
 * log-probabilities in double precision. */
#include <errno.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "golden.h"
#include "model/classifier.h"
#include "model/hf_config.h"
#include "model/prompt.h"

#define MAX_PROMPT 40

/* Every allocation of the process passes here (the program's symbols win over libc's, for shared libraries too), so that a
 * test can count those that winnow's code makes. oneDNN's are its own business: its products take workspace from malloc and
 * its primitives' argument lists are maps. A sanitizer's allocator must not be replaced: there the count stays 0. */
static atomic_int allocations;
#if !defined(__SANITIZE_ADDRESS__)
extern const char __executable_start[], etext[];
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t), *__libc_memalign(size_t, size_t);
static void count(const void *caller)
{
	if ((const char *)caller >= __executable_start && (const char *)caller < etext)
		atomic_fetch_add(&allocations, 1);
}
void *malloc(size_t n) { return count(__builtin_return_address(0)), __libc_malloc(n); }
void *calloc(size_t n, size_t m) { return count(__builtin_return_address(0)), __libc_calloc(n, m); }
void *realloc(void *p, size_t n) { return count(__builtin_return_address(0)), __libc_realloc(p, n); }
void *aligned_alloc(size_t a, size_t n) { return count(__builtin_return_address(0)), __libc_memalign(a, n); }
int posix_memalign(void **p, size_t a, size_t n)
{
	count(__builtin_return_address(0));
	return (*p = __libc_memalign(a, n)) ? 0 : ENOMEM;
}
#endif

static const char *const texts[] = {"合规 违禁品 赌博 烟酒违规 医疗违规 虚假宣传", "今日特价 今日特价 全场五折 全场五折 五折",
                                    "内容： 补充： 判定： 内容： 补充： 判定：", "poker poker cards cards cards free free pass pass",
                                    "违禁品 违禁品 违规 违规 医疗 医疗 passion passion block block"};

/* Shared prefixes (违…), a shared one- and two-token start, different lengths. */
static const char *const verbalizers[] = {"合规", "违禁品", "违规医疗", "赌博", "passing", "blocks"};
#define NUM_LABELS 6

static const char *tokenizer_path = "classifier-tokenizer.json"; /* in the test's working directory */

static void make_tokenizer(tokenizer **t)
{
	static const char *const specials[] = {"<s>", "<pad>", "</s>", "<unk>"};
	const bpe_trainer_options opt = {.vocab_size = 320, .special_tokens = specials, .num_special_tokens = 4};
	wn_error err = {0};
	assert_ok(bpe_train(tokenizer_path, texts, sizeof texts / sizeof *texts, &opt, &err), &err);
	assert_ok(tokenizer_open(t, tokenizer_path, &err), &err);
}

static void set_labels(manifest *man, const char *const *verbalizer, int n)
{
	man->num_labels = n;
	for (int i = 0; i < n; i++) {
		label_spec *l = &man->labels[i];
		snprintf(l->name, sizeof l->name, "label%d", i);
		snprintf(l->verbalizer, sizeof l->verbalizer, "%s", verbalizer[i]);
		l->action = i == 0 ? ACTION_PASS : i == 2 ? ACTION_REVIEW : ACTION_BLOCK;
		l->threshold = 0.5;
		l->review_threshold = 0.2;
	}
}

/* A model whose answers depend strongly on image and text, with the manifest and tokenizer above. */
static void make_parts(checkpoint *ck)
{
	golden g;
	wn_error err = {0};
	memset(ck, 0, sizeof *ck);
	golden_open(&g, "base");
	blip2_config *c = malloc(sizeof *c);
	*c = *blip2_get_config(g.ck.model);
	c->vocab_size = 330;
	c->max_position_embeddings = 96;
	c->initializer_range = 0.25f;
	assert_ok(blip2_create(&ck->model, c, &err), &err);
	blip2_init_weights(ck->model, 7);
	ck->image_processor = g.ck.image_processor;
	ck->has_manifest = true;
	snprintf(ck->manifest.name, sizeof ck->manifest.name, "tiny");
	ck->manifest.prompt = strdup("内容：{text} 补充：{assist} 判定：");
	ck->manifest.max_text_tokens = MAX_PROMPT;
	snprintf(ck->manifest.precision, sizeof ck->manifest.precision, "f32");
	set_labels(&ck->manifest, verbalizers, NUM_LABELS);
	make_tokenizer(&ck->tokenizer);
	free(c);
	golden_close(&g);
}

static void random_pixels(float *px, size_t count, unsigned seed)
{
	for (size_t i = 0; i < count; i++) {
		seed = seed * 1664525u + 1013904223u;
		px[i] = (float)(seed >> 8) / (float)(1 << 23) - 1;
	}
}

static void plain_probabilities(const classifier *c, const float *px, const int32_t *prompt, int len, double *probs)
{
	const checkpoint *ck = classifier_checkpoint(c);
	const blip2_config *bc = blip2_get_config(ck->model);
	const int Q = bc->num_query_tokens, V = bc->vocab_size;
	float *logits = malloc((size_t)V * sizeof *logits);
	blip2_session *s = NULL;
	blip2_session_options opt = blip2_session_defaults();
	wn_error err = {0};
	double sum = 0;
	opt.max_text_len = MAX_PROMPT + 40;
	assert_ok(blip2_session_open(&s, ck->model, &opt, &err), &err);
	for (int l = 0; l < classifier_num_labels(c); l++) {
		int32_t ids[MAX_PROMPT + VERBALIZER_MAX_TOKENS]; /* the session holds 40 of them */
		int answer = 0;
		double score = 0;
		memcpy(ids, prompt, (size_t)len * sizeof *ids);
		assert_ok(prompt_encode_verbalizer(ck->tokenizer, classifier_label(c, l)->verbalizer, ids + len, &answer, &err), &err);
		const blip2_batch b = {.n = 1, .text_len = len + answer, .pixel_values = px, .input_ids = ids};
		assert_ok(blip2_forward(s, &b, &err), &err);
		for (int t = 0; t < answer; t++) {
			const int32_t row = Q + len + t - 1;
			double total = 0;
			blip2_logits(s, &row, 1, logits);
			for (int v = 0; v < V; v++)
				total += exp((double)logits[v]);
			score += (double)logits[ids[len + t]] - log(total);
		}
		sum += probs[l] = exp(score);
	}
	for (int l = 0; l < classifier_num_labels(c); l++)
		probs[l] /= sum;
	blip2_session_close(&s);
	free(logits);
}

/* Batches of prompts of different lengths, in every order of asking, equal the brute force. */
static void probabilities_equal_plain_scoring(void **state)
{
	enum { N = 4 };
	static const char *const ads[N] = {"今日特价", "free poker cards, 全场五折", "x", "passion passion passion block"};
	checkpoint ck;
	classifier *c = NULL;
	classifier_session *s = NULL;
	wn_error err = {0};
	make_parts(&ck);
	assert_ok(classifier_from_checkpoint(&c, &ck, &err), &err);
	assert_null(ck.model); /* taken over */
	assert_ok(classifier_session_open(&s, c, N, &err), &err);
	assert_ok(classifier_warm(s, &err), &err);
	const int size = blip2_get_config(classifier_checkpoint(c)->model)->image_size;
	const size_t pixels = 3 * (size_t)size * (size_t)size;
	float *px = malloc(N * (pixels + 5) * sizeof *px), probs[N * NUM_LABELS], alone[NUM_LABELS];
	int32_t ids[N][MAX_PROMPT];
	classifier_input in[N];
	double spread = 0;
	for (int i = 0; i < N; i++) {
		int count = 0;
		float *mine = px + (size_t)i * (pixels + 5); /* not behind each other: the session has to gather them */
		random_pixels(mine, pixels, (unsigned)i + 1);
		assert_ok(classifier_encode_prompt(c, ads[i], i % 2 ? "许可证 123" : "", ids[i], &count, &err), &err);
		in[i] = (classifier_input){mine, ids[i], count};
	}
	assert_int_not_equal(in[0].prompt_len, in[1].prompt_len);
	assert_ok(classifier_run(s, in, N, probs, &err), &err);
	for (int i = 0; i < N; i++) {
		double want[NUM_LABELS], sum = 0;
		plain_probabilities(c, in[i].pixel_values, ids[i], in[i].prompt_len, want);
		assert_ok(classifier_run(s, &in[i], 1, alone, &err), &err);
		for (int l = 0; l < NUM_LABELS; l++) {
			assert_at_most(fabs(probs[i * NUM_LABELS + l] - want[l]), 1e-5, "probability in a batch");
			assert_at_most(fabs(alone[l] - want[l]), 1e-5, "probability of one sample");
			sum += probs[i * NUM_LABELS + l];
			spread = fmax(spread, fabs(want[l] - 1.0 / NUM_LABELS));
		}
		assert_at_most(fabs(sum - 1), 1e-6, "sum of probabilities");
	}
	assert_true(spread > 0.05); /* otherwise everything above compares uniform with uniform */
	assert_int_equal(classifier_run(s, in, N + 1, probs, &err), WN_TOO_LARGE);
	free(px);
	classifier_session_close(&s);
	classifier_close(&c);
}

/* A warm session answers requests of any length without a single allocation. */
static void a_steady_request_allocates_nothing(void **state)
{
	checkpoint ck;
	classifier *c = NULL;
	classifier_session *s = NULL;
	wn_error err = {0};
	float probs[2 * NUM_LABELS];
	static float px[3 * 20 * 20];
	static const char *const ads[] = {"x", "今日特价 free poker cards", "passion passion passion passion passion passion block"};
	make_parts(&ck);
	assert_ok(classifier_from_checkpoint(&c, &ck, &err), &err);
	assert_ok(classifier_session_open(&s, c, 2, &err), &err);
	assert_ok(classifier_warm(s, &err), &err);
	int32_t ids[3][MAX_PROMPT];
	int count[3];
	for (int i = 0; i < 3; i++)
		assert_ok(classifier_encode_prompt(c, ads[i], "", ids[i], &count[i], &err), &err);
#if !defined(__SANITIZE_ADDRESS__)
	assert_true(atomic_load(&allocations) > 0); /* the counter counts */
#endif
	const int before = atomic_load(&allocations);
	for (int round = 0; round < 3; round++)
		for (int i = 0; i < 3; i++) {
			const classifier_input in[2] = {{px, ids[i], count[i]}, {px, ids[(i + 1) % 3], count[(i + 1) % 3]}};
			assert_int_equal(classifier_run(s, in, 1 + round % 2, probs, NULL), WN_OK);
		}
	assert_int_equal(atomic_load(&allocations) - before, 0);
	classifier_session_close(&s);
	classifier_close(&c);
}

static void borrowed_parts_answer_the_same_and_stay_the_callers(void **state)
{
	checkpoint ck;
	classifier *c = NULL;
	classifier_session *s = NULL;
	wn_error err = {0};
	float probs[NUM_LABELS];
	int32_t ids[MAX_PROMPT];
	int count = 0;
	double want[NUM_LABELS];
	make_parts(&ck);
	float *px = calloc(3 * 20 * 20, sizeof *px);
	for (unsigned seed = 1; seed < 3; seed++) { /* each answers with the weights of its day */
		blip2_init_weights(ck.model, seed);
		assert_ok(classifier_borrow(&c, ck.model, ck.tokenizer, &ck.image_processor, &ck.manifest, &err), &err);
		assert_ok(classifier_session_open(&s, c, 1, &err), &err);
		assert_ok(classifier_encode_prompt(c, "poker", "", ids, &count, &err), &err);
		const classifier_input in = {px, ids, count};
		plain_probabilities(c, px, ids, count, want);
		assert_ok(classifier_run(s, &in, 1, probs, &err), &err);
		for (int l = 0; l < NUM_LABELS; l++)
			assert_at_most(fabs(probs[l] - want[l]), 1e-5, "probability");
		classifier_session_close(&s);
		classifier_close(&c);
	}
	free(px);
	assert_non_null(ck.model);
	checkpoint_close(&ck);
}

static void a_verbalizer_that_begins_another_is_refused(void **state)
{
	static const char *const bad[][3] = {{"合规", "xq", "xqz"}, {"xqz", "xq", "合规"}, {"合规", "赌博", "合规"}}; /* xqz has no merges */
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		checkpoint ck;
		classifier *c = NULL;
		wn_error err = {0};
		make_parts(&ck);
		set_labels(&ck.manifest, bad[i], 3);
		assert_int_equal(classifier_from_checkpoint(&c, &ck, &err), WN_INVALID);
		assert_null(c);
		assert_non_null(strstr(err.message, "verbalizer"));
		assert_non_null(ck.model); /* still the caller's */
		checkpoint_close(&ck);
	}
}

static void decisions_follow_the_manifest(void **state)
{
	/* Labels: 0 pass, 2 review, the others block; threshold 0.5, review threshold 0.2. */
	static const struct {
		float probs[NUM_LABELS];
		action suggestion;
		int label;
	} cases[] = {
		{{0.9f, 0.02f, 0.02f, 0.02f, 0.02f, 0.02f}, ACTION_PASS, 0},
		{{0.7f, 0.25f, 0.05f, 0, 0, 0}, ACTION_REVIEW, 0},  /* passes, but a blocking label is too likely */
		{{0.7f, 0.05f, 0.25f, 0, 0, 0}, ACTION_PASS, 0},    /* a review label is not a blocking one */
		{{0.2f, 0.6f, 0.2f, 0, 0, 0}, ACTION_BLOCK, 1},
		{{0.3f, 0.4f, 0.3f, 0, 0, 0}, ACTION_REVIEW, 1},    /* blocks, but not surely */
		{{0.2f, 0.1f, 0.7f, 0, 0, 0}, ACTION_REVIEW, 2},
		{{0, 0.5f, 0, 0.5f, 0, 0}, ACTION_BLOCK, 1},        /* at the threshold; the first of equals */
	};
	checkpoint ck;
	classifier *c = NULL;
	wn_error err = {0};
	make_parts(&ck);
	assert_ok(classifier_borrow(&c, ck.model, ck.tokenizer, &ck.image_processor, &ck.manifest, &err), &err);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		const verdict v = classifier_decide(c, cases[i].probs);
		assert_int_equal(v.suggestion, cases[i].suggestion);
		assert_int_equal(v.label, cases[i].label);
		assert_true(v.score == cases[i].probs[v.label]);
	}
	classifier_close(&c);
	checkpoint_close(&ck);
}

/* ---- prompts ---- */

static int encode(const tokenizer *t, const char *tmpl, int max, const char *text, const char *assist, int32_t *ids)
{
	wn_error err = {0};
	int count = -1;
	assert_ok(prompt_encode(t, tmpl, max, text, assist, ids, &count, &err), &err);
	return count;
}

static int plain(const tokenizer *t, const char *text, int32_t *ids)
{
	wn_error err = {0};
	size_t count = 0;
	assert_ok(tokenizer_encode(t, text, strlen(text), false, ids, 512, &count, &err), &err);
	return (int)count;
}

static bool ends_with(const int32_t *ids, int count, const int32_t *end, int n)
{
	return count >= n && !memcmp(ids + count - n, end, (size_t)n * sizeof *ids);
}

static void control_tokens_work_in_the_frame_and_not_in_user_text(void **state)
{
	tokenizer *t = NULL;
	int32_t ids[512];
	make_tokenizer(&t);
	const int32_t eos = tokenizer_token_id(t, "</s>");
	assert_true(eos >= 0);
	assert_int_equal(encode(t, "</s>{text}", 64, "hi", "", ids) >= 2 ? ids[0] : -1, eos);
	static const char *const attacks[] = {"</s>", "a</s>b", "<<</s>>>", "<s><pad></s><unk>", "</s </s>", "<</s></s>"};
	for (size_t i = 0; i < sizeof attacks / sizeof *attacks; i++)
		for (int where = 0; where < 2; where++) {
			const int n = encode(t, "{text}|{assist}", 256, where ? "" : attacks[i], where ? attacks[i] : "", ids);
			for (int k = 0; k < n; k++)
				assert_true(ids[k] > 3); /* the four special tokens come first */
			char *back = NULL, want[64];
			wn_error err = {0};
			assert_ok(tokenizer_decode(t, ids, (size_t)n, &back, &err), &err);
			snprintf(want, sizeof want, where ? "|%s" : "%s|", attacks[i]);
			assert_string_equal(back, want); /* nothing of the text is lost */
			free(back);
		}
	tokenizer_close(&t);
}

static void placeholders_in_user_text_stay_text(void **state)
{
	tokenizer *t = NULL;
	int32_t ids[512];
	char *back = NULL;
	wn_error err = {0};
	make_tokenizer(&t);
	const int n = encode(t, "{text}|{assist}", 256, "{assist}", "{text}", ids);
	assert_ok(tokenizer_decode(t, ids, (size_t)n, &back, &err), &err);
	assert_string_equal(back, "{assist}|{text}");
	free(back);
	tokenizer_close(&t);
}

static void text_is_cut_first_and_the_frame_never(void **state)
{
	static const char *const frame = "内容：{text} 补充：{assist} 判定：";
	tokenizer *t = NULL;
	int32_t ids[512], head[512], tail[512], words[2048];
	char text[1024] = "", many[1024] = "";
	make_tokenizer(&t);
	for (int i = 0; i < 60; i++) {
		strcat(text, "今日特价");
		strcat(many, "poker ");
	}
	const int heads = plain(t, "内容：", head), tails = plain(t, " 判定：", tail), middles = plain(t, " 补充：", words);
	const int room = MAX_PROMPT - heads - middles - tails;
	assert_true(room >= 8);
	/* A long text beside a short assist: the assist stays whole, the text fills what is left. */
	int n = encode(t, frame, MAX_PROMPT, text, "poker", ids);
	assert_int_equal(n, MAX_PROMPT);
	assert_memory_equal(ids, head, (size_t)heads * sizeof *ids);
	assert_true(ends_with(ids, n, tail, tails));
	const int assist = plain(t, "poker", words);
	assert_true(ends_with(ids, n - tails, words, assist));
	plain(t, text, words);
	assert_memory_equal(ids + heads, words, (size_t)(room - assist) * sizeof *ids);
	/* A long assist does not push the text out: half of the room stays for it. */
	n = encode(t, frame, MAX_PROMPT, text, many, ids);
	assert_int_equal(n, MAX_PROMPT);
	assert_true(ends_with(ids, n, tail, tails));
	assert_memory_equal(ids + heads, words, (size_t)(room / 2) * sizeof *ids);
	/* What fits is not cut. */
	n = encode(t, frame, MAX_PROMPT, "今日特价", "", ids);
	assert_int_equal(n, heads + plain(t, "今日特价", words) + middles + tails);
	tokenizer_close(&t);
}

static void bad_prompts_are_refused(void **state)
{
	static const struct {
		const char *tmpl, *text;
		int max;
		wn_code code;
	} cases[] = {
		{"no placeholder", "a", 40, WN_INVALID},
		{"{text}{text}", "a", 40, WN_INVALID},
		{"{text}{assist}{assist}", "a", 40, WN_INVALID},
		{"a frame that is much longer than the limit {text}", "a", 4, WN_TOO_LARGE},
		{"{text}:", "\xff\xfe", 40, WN_INVALID},
		{"{text}:", "cut behind the limit, then \xe4\xbb", 4, WN_INVALID},
		{"{text}", "", 40, WN_INVALID},
		{"{text}:", "a", 0, WN_INVALID},
		{"{text}:", "a", PROMPT_MAX_TOKENS + 1, WN_INVALID},
	};
	tokenizer *t = NULL;
	make_tokenizer(&t);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		int32_t ids[64];
		int count;
		wn_error err = {0};
		assert_int_equal(prompt_encode(t, cases[i].tmpl, cases[i].max, cases[i].text, "", ids, &count, &err), cases[i].code);
		assert_true(err.message[0]);
	}
	tokenizer_close(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(probabilities_equal_plain_scoring),
		cmocka_unit_test(a_steady_request_allocates_nothing),
		cmocka_unit_test(borrowed_parts_answer_the_same_and_stay_the_callers),
		cmocka_unit_test(a_verbalizer_that_begins_another_is_refused),
		cmocka_unit_test(decisions_follow_the_manifest),
		cmocka_unit_test(control_tokens_work_in_the_frame_and_not_in_user_text),
		cmocka_unit_test(placeholders_in_user_text_stay_text),
		cmocka_unit_test(text_is_cut_first_and_the_frame_never),
		cmocka_unit_test(bad_prompts_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
