/* classifier.c: labels as token paths (label_trie.h), scored together in one forward.
 *
 * The classifier is immutable after open and may be shared; a session belongs to one thread and owns every buffer, so
 * classifier_run allocates nothing. */
#include "model/classifier.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/label_trie.h"
#include "model/ops.h"
#include "model/prompt.h"

struct classifier {
	checkpoint parts;
	bool owned;
	label_trie trie;
	engine *engine;
};

struct classifier_session {
	const classifier *c;
	engine_session *engine;
	int max_batch, max_len; /* max_len: prompt + tail */
	size_t pixels;          /* floats of one image */
	float *pixel_values;    /* [max_batch][pixels]; NULL when max_batch is 1 */
	int32_t *ids;           /* [max_batch][max_len] */
	uint8_t *mask;          /* [max_batch][max_len] */
	int32_t *rows;          /* [max_batch][1 + tail_len] */
	float *logits;          /* [max_batch][1 + tail_len][vocab_size] */
	void (*observer)(void *ctx, const float *logits, size_t rows, size_t vocab_size);
	void *observer_ctx;
};

/* ---- the classifier ---- */

/* Checks that the parts fit together and prepares the paths. */
static wn_code prepare(classifier *c, const engine_options *o, wn_error *err)
{
	const checkpoint *p = &c->parts;
	if (!p->has_manifest)
		return wn_fail(err, WN_NOT_FOUND, "winnow.json: absent, expected prompt and labels");
	if (!p->tokenizer)
		return wn_fail(err, WN_NOT_FOUND, "tokenizer.json: absent");
	if (p->manifest.num_labels < 2)
		return wn_fail(err, WN_INVALID, "winnow.json: labels: found %d, expected at least 2", p->manifest.num_labels);
	wn_code rc = prompt_check(p->tokenizer, p->manifest.prompt, p->manifest.max_text_tokens, err);
	if (rc)
		return wn_fail_prefix(err, "winnow.json");
	if ((rc = label_trie_build(&c->trie, p->tokenizer, &p->manifest, err)))
		return rc;
	const blip2_config *bc = blip2_get_config(p->model);
	int len = bc->num_query_tokens + p->manifest.max_text_tokens + c->trie.tail_len;
	if (len > bc->max_position_embeddings)
		return wn_fail(err, WN_INVALID, "winnow.json: max_text_tokens %d with %d queries and %d verbalizer tokens makes %d "
		               "positions, config.json has max_position_embeddings %d", p->manifest.max_text_tokens,
		               bc->num_query_tokens, c->trie.tail_len, len, bc->max_position_embeddings);
	return engine_open(&c->engine, p->model, o, err);
}

wn_code classifier_from_checkpoint_as(classifier **out, checkpoint *ckpt, precision run_in, wn_error *err)
{
	classifier *c = calloc(1, sizeof *c);
	*out = NULL;
	if (!c)
		return wn_fail(err, WN_NOMEM, "out of memory");
	c->parts = *ckpt;
	wn_code rc = prepare(c, &(engine_options){.precision = run_in, .source = ckpt->source}, err);
	if (rc) {
		classifier_close(&c); /* not owned yet: ckpt stays the caller's */
		return rc;
	}
	c->owned = true;
	weight_source_close(&c->parts.source);
	memset(ckpt, 0, sizeof *ckpt);
	*out = c;
	return WN_OK;
}

wn_code classifier_open(classifier **out, const char *dir, const classifier_options *opt, wn_error *err)
{
	checkpoint ck;
	checkpoint_options load = opt ? opt->load : (checkpoint_options){0};
	*out = NULL;
	load.leave_weights = true;
	wn_code rc = checkpoint_load(&ck, dir, &load, err);
	if (rc)
		return rc;
	if ((rc = classifier_from_checkpoint_as(out, &ck, opt && opt->precision ? *opt->precision : checkpoint_precision(&ck), err))) {
		wn_fail_prefix(err, "%.200s", dir);
		checkpoint_close(&ck);
	}
	return rc;
}

wn_code classifier_from_checkpoint(classifier **out, checkpoint *ckpt, wn_error *err)
{
	return classifier_from_checkpoint_as(out, ckpt, checkpoint_precision(ckpt), err);
}

wn_code classifier_borrow(classifier **out, const blip2 *m, const tokenizer *t, const image_processor *ip,
                          const manifest *man, wn_error *err)
{
	return classifier_borrow_as(out, m, t, ip, man, &(engine_options){.precision = PRECISION_F32}, err);
}

wn_code classifier_borrow_as(classifier **out, const blip2 *m, const tokenizer *t, const image_processor *ip, const manifest *man,
                             const engine_options *o, wn_error *err)
{
	classifier *c = calloc(1, sizeof *c);
	*out = NULL;
	if (!c)
		return wn_fail(err, WN_NOMEM, "out of memory");
	c->parts = (checkpoint){.model = (blip2 *)m, .tokenizer = (tokenizer *)t, .has_image_processor = true,
	                        .image_processor = *ip, .has_manifest = true, .manifest = *man};
	wn_code rc = prepare(c, o, err);
	if (rc)
		classifier_close(&c);
	*out = c;
	return rc;
}

void classifier_close(classifier **c)
{
	if (!*c)
		return;
	engine_close(&(*c)->engine);
	if ((*c)->owned)
		checkpoint_close(&(*c)->parts);
	label_trie_close(&(*c)->trie);
	free(*c);
	*c = NULL;
}

const checkpoint *classifier_checkpoint(const classifier *c) { return &c->parts; }
const engine *classifier_engine(const classifier *c) { return c->engine; }
int classifier_num_labels(const classifier *c) { return c->parts.manifest.num_labels; }
const label_spec *classifier_label(const classifier *c, int i) { return &c->parts.manifest.labels[i]; }

wn_code classifier_encode_prompt(const classifier *c, const char *text, const char *assist, int32_t *ids, int *count, wn_error *err)
{
	return prompt_encode(c->parts.tokenizer, c->parts.manifest.prompt, c->parts.manifest.max_text_tokens, text, assist, ids,
	                     count, err);
}

/* ---- sessions ---- */

wn_code classifier_session_open(classifier_session **out, const classifier *c, int max_batch, wn_error *err)
{
	*out = NULL;
	if (max_batch < 1 || max_batch > 4096)
		return wn_fail(err, WN_INVALID, "max_batch: found %d, expected 1 to 4096", max_batch);
	classifier_session *s = calloc(1, sizeof *s);
	if (!s)
		return wn_fail(err, WN_NOMEM, "out of memory");
	const blip2_config *bc = blip2_get_config(c->parts.model);
	const size_t n = (size_t)max_batch, rows = 1 + (size_t)c->trie.tail_len;
	s->c = c;
	s->max_batch = max_batch;
	s->max_len = c->parts.manifest.max_text_tokens + c->trie.tail_len;
	s->pixels = 3 * (size_t)bc->image_size * (size_t)bc->image_size;
	wn_code rc = engine_session_open(&s->engine, c->engine, max_batch, s->max_len, (int)(n * rows), err);
	if (rc)
		goto failed;
	s->pixel_values = n > 1 ? calloc(n * s->pixels, sizeof *s->pixel_values) : NULL;
	s->ids = calloc(n * (size_t)s->max_len, sizeof *s->ids);
	s->mask = calloc(n * (size_t)s->max_len, sizeof *s->mask);
	s->rows = calloc(n * rows, sizeof *s->rows);
	s->logits = calloc(n * rows * (size_t)bc->vocab_size, sizeof *s->logits);
	if ((n > 1 && !s->pixel_values) || !s->ids || !s->mask || !s->rows || !s->logits) {
		rc = wn_fail(err, WN_NOMEM, "out of memory for a batch of %d", max_batch);
		goto failed;
	}
	*out = s;
	return WN_OK;
failed:
	classifier_session_close(&s);
	return rc;
}

void classifier_session_close(classifier_session **s)
{
	if (!*s)
		return;
	engine_session_close(&(*s)->engine);
	free((*s)->pixel_values);
	free((*s)->ids);
	free((*s)->mask);
	free((*s)->rows);
	free((*s)->logits);
	free(*s);
	*s = NULL;
}

int classifier_session_created(const classifier_session *s) { return engine_session_created(s->engine); }

size_t classifier_session_bytes(const classifier_session *s)
{
	const size_t n = (size_t)s->max_batch, rows = 1 + (size_t)s->c->trie.tail_len;
	const size_t vocab = (size_t)blip2_get_config(s->c->parts.model)->vocab_size;
	return engine_session_bytes(s->engine) + n * ((s->pixel_values ? s->pixels * sizeof *s->pixel_values : 0) +
	       (size_t)s->max_len * (sizeof *s->ids + sizeof *s->mask) + rows * (sizeof *s->rows + vocab * sizeof *s->logits));
}

int classifier_session_threads(const classifier_session *s) { return engine_session_threads(s->engine); }

void classifier_observe(classifier_session *s, void (*f)(void *ctx, const float *logits, size_t rows, size_t vocab_size), void *ctx)
{
	s->observer = f;
	s->observer_ctx = ctx;
}

/* The batch's images as one block: as they are when they already lie behind each other. */
static const float *gather_pixels(classifier_session *s, const classifier_input *in, int n)
{
	bool together = true;
	for (int i = 1; i < n; i++)
		together &= in[i].pixel_values == in[0].pixel_values + (size_t)i * s->pixels;
	if (together)
		return in[0].pixel_values;
	for (int i = 0; i < n; i++)
		memcpy(s->pixel_values + (size_t)i * s->pixels, in[i].pixel_values, s->pixels * sizeof *s->pixel_values);
	return s->pixel_values;
}

/* Left-padded prompts with the trie behind them, and the logit rows that are wanted. */
static void fill_batch(classifier_session *s, const classifier_input *in, int n, int prompt_len)
{
	const classifier *c = s->c;
	const blip2_config *bc = blip2_get_config(c->parts.model);
	const int32_t pad = bc->pad_token_id < bc->vocab_size ? bc->pad_token_id : 0;
	const size_t len = (size_t)(prompt_len + c->trie.tail_len), per_sample = 1 + (size_t)c->trie.tail_len;
	for (int i = 0; i < n; i++) {
		label_trie_lay_out(&c->trie, s->ids + (size_t)i * len, s->mask + (size_t)i * len, in[i].prompt_ids, in[i].prompt_len,
		                   prompt_len, pad);
		label_trie_rows(&c->trie, s->rows + (size_t)i * per_sample, i, bc->num_query_tokens, prompt_len);
	}
}

/* Sums the paths over log-probability rows and normalises over the labels. */
static wn_code label_probabilities(const classifier *c, const float *log_probs, size_t vocab, float *probs, wn_error *err)
{
	const int labels = c->parts.manifest.num_labels;
	double score[MAX_LABELS], best = -INFINITY, sum = 0;
	for (int l = 0; l < labels; l++) {
		score[l] = 0;
		for (int k = c->trie.first_step[l]; k < c->trie.first_step[l + 1]; k++)
			score[l] += log_probs[(size_t)c->trie.steps[k].row * vocab + (size_t)c->trie.steps[k].token];
		if (!isfinite(score[l]))
			return wn_fail(err, WN_INTERNAL, "label %s: log-probability %f, expected a finite number",
			               c->parts.manifest.labels[l].name, score[l]);
		best = score[l] > best ? score[l] : best;
	}
	for (int l = 0; l < labels; l++)
		sum += score[l] = exp(score[l] - best);
	for (int l = 0; l < labels; l++)
		probs[l] = (float)(score[l] / sum);
	return WN_OK;
}

wn_code classifier_run(classifier_session *s, const classifier_input *in, int n, float *probs, wn_error *err)
{
	const classifier *c = s->c;
	const int max_prompt = c->parts.manifest.max_text_tokens;
	int longest = 0;
	if (n < 1 || n > s->max_batch)
		return wn_fail(err, WN_TOO_LARGE, "batch of %d, expected 1 to %d", n, s->max_batch);
	for (int i = 0; i < n; i++) {
		if (in[i].prompt_len < 1 || in[i].prompt_len > max_prompt)
			return wn_fail(err, WN_TOO_LARGE, "prompt of %d tokens, expected 1 to %d", in[i].prompt_len, max_prompt);
		longest = in[i].prompt_len > longest ? in[i].prompt_len : longest;
	}
	const int prompt_len = label_trie_prompt_len(longest, max_prompt);
	const size_t per_sample = 1 + (size_t)c->trie.tail_len, count = (size_t)n * per_sample;
	const size_t vocab = (size_t)blip2_get_config(c->parts.model)->vocab_size;
	fill_batch(s, in, n, prompt_len);
	const blip2_batch b = {.n = n, .text_len = prompt_len + c->trie.tail_len, .pixel_values = gather_pixels(s, in, n),
	                       .input_ids = s->ids, .attention_mask = s->mask, .tail_len = c->trie.tail_len,
	                       .tail_parent = c->trie.tail_parent};
	wn_code rc = engine_run(s->engine, &b, s->rows, count, s->logits, err);
	if (rc)
		return rc;
	if (s->observer)
		s->observer(s->observer_ctx, s->logits, count, vocab);
	for (size_t r = 0; r < count; r++)
		ops->log_softmax(s->logits + r * vocab, vocab);
	for (int i = 0; i < n && rc == WN_OK; i++)
		rc = label_probabilities(c, s->logits + (size_t)i * per_sample * vocab, vocab,
		                         probs + i * c->parts.manifest.num_labels, err);
	return rc;
}

/* Prompt lengths that label_trie_prompt_len can give. */
static int num_prompt_lengths(const classifier_session *s)
{
	return (s->c->parts.manifest.max_text_tokens + PROMPT_BUCKET - 1) / PROMPT_BUCKET;
}

int classifier_warm_count(const classifier_session *s) { return s->max_batch * num_prompt_lengths(s); }

wn_code classifier_warm_shape(classifier_session *s, int shape, wn_error *err)
{
	const int max_prompt = s->c->parts.manifest.max_text_tokens, lengths = num_prompt_lengths(s);
	const int n = 1 + shape / lengths, len = PROMPT_BUCKET * (1 + shape % lengths);
	wn_code rc = WN_NOMEM;
	float *blank = calloc(s->pixels, sizeof *blank);
	int32_t *ids = calloc((size_t)max_prompt, sizeof *ids);
	classifier_input *in = calloc((size_t)n, sizeof *in);
	float *probs = calloc((size_t)n * MAX_LABELS, sizeof *probs);
	if (blank && ids && in && probs) {
		for (int i = 0; i < n; i++)
			in[i] = (classifier_input){blank, ids, len < max_prompt ? len : max_prompt};
		rc = classifier_run(s, in, n, probs, err);
	} else {
		wn_fail(err, rc, "out of memory for a batch of %d", n);
	}
	free(blank);
	free(ids);
	free(in);
	free(probs);
	return rc;
}

wn_code classifier_warm(classifier_session *s, wn_error *err)
{
	wn_code rc = WN_OK;
	for (int shape = 0; shape < classifier_warm_count(s) && rc == WN_OK; shape++)
		rc = classifier_warm_shape(s, shape, err);
	return rc;
}

verdict classifier_decide(const classifier *c, const float *probs)
{
	const manifest *man = &c->parts.manifest;
	int best = 0;
	for (int i = 1; i < man->num_labels; i++)
		if (probs[i] > probs[best])
			best = i;
	verdict v = {man->labels[best].action, best, probs[best]};
	if (v.suggestion != ACTION_PASS) {
		if (v.score < man->labels[best].threshold)
			v.suggestion = ACTION_REVIEW;
		return v;
	}
	for (int i = 0; i < man->num_labels; i++)
		if (man->labels[i].action == ACTION_BLOCK && probs[i] >= man->labels[i].review_threshold)
			v.suggestion = ACTION_REVIEW;
	return v;
}
