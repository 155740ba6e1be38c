/* classifier.c: labels as token paths, scored together.
 *
 * At open, the verbalizers' tokens become a trie. Its inner nodes (those with a successor) are what the forward must see
 * behind the prompt; a label's log-probability is then a sum over its path of log-softmax values in the logit rows of the
 * last prompt token (row 0 of a sample) and of inner nodes (rows 1..). Leaves cost nothing: only their parents' logits count.
 *
 * The classifier is immutable after open and may be shared; a session belongs to one thread and owns every buffer, so
 * classifier_run allocates nothing. */
#include "model/classifier.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/ops.h"
#include "model/prompt.h"

/* One factor of a label's probability: log P(token | the row's context). */
typedef struct path_step {
	int16_t row; /* 0: the last prompt token; 1 + k: inner node k */
	int32_t token;
} path_step;

struct classifier {
	checkpoint parts;
	bool owned;
	path_step *steps; /* of label i: [first_step[i], first_step[i + 1]) */
	int first_step[MAX_LABELS + 1];
	int tail_len; /* inner nodes */
	int32_t *tail_ids;    /* [tail_len] */
	int16_t *tail_parent; /* [tail_len] */
};

struct classifier_session {
	const classifier *c;
	blip2_session *engine;
	int max_batch, max_len; /* max_len: prompt + tail */
	size_t pixels;          /* floats of one image */
	float *pixel_values;    /* [max_batch][pixels]; NULL when max_batch is 1 */
	int32_t *ids;           /* [max_batch][max_len] */
	uint8_t *mask;          /* [max_batch][max_len] */
	int32_t *rows;          /* [max_batch][1 + tail_len] */
	float *logits;          /* [max_batch][1 + tail_len][vocab_size] */
};

/* ---- the trie ---- */

typedef struct trie_node {
	int32_t token;
	int parent;   /* -1: the prompt */
	int label;    /* the label that ends here, or -1 */
	int children;
	int inner;    /* number among the inner nodes */
} trie_node;

typedef struct trie {
	trie_node *nodes;
	int count;
} trie;

static wn_code refuse_prefix(const manifest *man, int a, int b, wn_error *err)
{
	return wn_fail(err, WN_INVALID, "winnow.json: the tokens of verbalizer \"%.60s\" (label %s) begin those of \"%.60s\" "
	               "(label %s): expected verbalizers none of which is a prefix of another",
	               man->labels[a].verbalizer, man->labels[a].name, man->labels[b].verbalizer, man->labels[b].name);
}

/* Any label at or below node k. */
static int label_below(const trie *t, int k)
{
	while (t->nodes[k].label < 0) {
		int child = k + 1;
		while (t->nodes[child].parent != k)
			child++;
		k = child;
	}
	return t->nodes[k].label;
}

/* Adds one label's path; returns its last node through *leaf. */
static wn_code trie_add(trie *t, const manifest *man, int label, const int32_t *ids, int count, int *leaf, wn_error *err)
{
	int at = -1;
	for (int i = 0; i < count; i++) {
		int k = at + 1;
		while (k < t->count && !(t->nodes[k].parent == at && t->nodes[k].token == ids[i]))
			k++;
		if (k == t->count) {
			t->nodes[t->count++] = (trie_node){.token = ids[i], .parent = at, .label = -1};
			if (at >= 0)
				t->nodes[at].children++;
		} else if (t->nodes[k].label >= 0) {
			return refuse_prefix(man, t->nodes[k].label, label, err);
		}
		at = k;
	}
	if (t->nodes[at].children)
		return refuse_prefix(man, label, label_below(t, at), err);
	t->nodes[at].label = label;
	*leaf = at;
	return WN_OK;
}

/* Numbers the inner nodes, in order of creation: parents come before children. */
static wn_code lay_out_tail(classifier *c, trie *t, wn_error *err)
{
	c->tail_ids = calloc((size_t)t->count, sizeof *c->tail_ids);
	c->tail_parent = calloc((size_t)t->count, sizeof *c->tail_parent);
	if (!c->tail_ids || !c->tail_parent)
		return wn_fail(err, WN_NOMEM, "out of memory for %d verbalizer tokens", t->count);
	for (int k = 0; k < t->count; k++) {
		trie_node *n = &t->nodes[k];
		if (!n->children)
			continue;
		n->inner = c->tail_len++;
		c->tail_ids[n->inner] = n->token;
		c->tail_parent[n->inner] = (int16_t)(n->parent < 0 ? -1 : t->nodes[n->parent].inner);
	}
	return WN_OK;
}

static wn_code build_trie(classifier *c, wn_error *err)
{
	const manifest *man = &c->parts.manifest;
	const size_t capacity = (size_t)man->num_labels * VERBALIZER_MAX_TOKENS;
	int leaves[MAX_LABELS], depth[MAX_LABELS], total = 0;
	wn_code rc = WN_OK;
	trie t = {calloc(capacity, sizeof *t.nodes), 0};
	if (!t.nodes)
		return wn_fail(err, WN_NOMEM, "out of memory for %zu verbalizer tokens", capacity);
	for (int i = 0; i < man->num_labels && rc == WN_OK; i++) {
		int32_t ids[VERBALIZER_MAX_TOKENS];
		if ((rc = prompt_encode_verbalizer(c->parts.tokenizer, man->labels[i].verbalizer, ids, &depth[i], err)))
			rc = wn_fail_prefix(err, "winnow.json: label %s", man->labels[i].name);
		else
			rc = trie_add(&t, man, i, ids, depth[i], &leaves[i], err);
		total += depth[i];
	}
	if (rc || (rc = lay_out_tail(c, &t, err)))
		goto done;
	if (!(c->steps = calloc((size_t)total, sizeof *c->steps))) {
		rc = wn_fail(err, WN_NOMEM, "out of memory for %d verbalizer tokens", total);
		goto done;
	}
	for (int i = 0, at = 0; i < man->num_labels; i++) {
		c->first_step[i] = at;
		int k = leaves[i];
		for (int d = depth[i] - 1; d >= 0; d--, k = t.nodes[k].parent) {
			int parent = t.nodes[k].parent;
			c->steps[at + d] = (path_step){(int16_t)(parent < 0 ? 0 : 1 + t.nodes[parent].inner), t.nodes[k].token};
		}
		at += depth[i];
		c->first_step[i + 1] = at;
	}
done:
	free(t.nodes);
	return rc;
}

/* ---- the classifier ---- */

/* Checks that the parts fit together and prepares the paths. */
static wn_code prepare(classifier *c, wn_error *err)
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
	if ((rc = build_trie(c, err)))
		return rc;
	const blip2_config *bc = blip2_get_config(p->model);
	int len = bc->num_query_tokens + p->manifest.max_text_tokens + c->tail_len;
	if (len > bc->max_position_embeddings)
		return wn_fail(err, WN_INVALID, "winnow.json: max_text_tokens %d with %d queries and %d verbalizer tokens makes %d "
		               "positions, config.json has max_position_embeddings %d", p->manifest.max_text_tokens,
		               bc->num_query_tokens, c->tail_len, len, bc->max_position_embeddings);
	return WN_OK;
}

wn_code classifier_open(classifier **out, const char *dir, const checkpoint_options *opt, wn_error *err)
{
	checkpoint ck;
	*out = NULL;
	wn_code rc = checkpoint_load(&ck, dir, opt, err);
	if (rc)
		return rc;
	if ((rc = classifier_from_checkpoint(out, &ck, err))) {
		wn_fail_prefix(err, "%.200s", dir);
		checkpoint_close(&ck);
	}
	return rc;
}

wn_code classifier_from_checkpoint(classifier **out, checkpoint *ckpt, wn_error *err)
{
	classifier *c = calloc(1, sizeof *c);
	*out = NULL;
	if (!c)
		return wn_fail(err, WN_NOMEM, "out of memory");
	c->parts = *ckpt;
	wn_code rc = prepare(c, err);
	if (rc) {
		classifier_close(&c); /* not owned yet: ckpt stays the caller's */
		return rc;
	}
	c->owned = true;
	memset(ckpt, 0, sizeof *ckpt);
	*out = c;
	return WN_OK;
}

wn_code classifier_borrow(classifier **out, const blip2 *m, const tokenizer *t, const image_processor *ip,
                          const manifest *man, wn_error *err)
{
	classifier *c = calloc(1, sizeof *c);
	*out = NULL;
	if (!c)
		return wn_fail(err, WN_NOMEM, "out of memory");
	c->parts = (checkpoint){.model = (blip2 *)m, .tokenizer = (tokenizer *)t, .has_image_processor = true,
	                        .image_processor = *ip, .has_manifest = true, .manifest = *man};
	wn_code rc = prepare(c, err);
	if (rc)
		classifier_close(&c);
	*out = c;
	return rc;
}

void classifier_close(classifier **c)
{
	if (!*c)
		return;
	if ((*c)->owned)
		checkpoint_close(&(*c)->parts);
	free((*c)->steps);
	free((*c)->tail_ids);
	free((*c)->tail_parent);
	free(*c);
	*c = NULL;
}

const checkpoint *classifier_checkpoint(const classifier *c) { return &c->parts; }
int classifier_num_labels(const classifier *c) { return c->parts.manifest.num_labels; }
const label_spec *classifier_label(const classifier *c, int i) { return &c->parts.manifest.labels[i]; }

wn_code classifier_encode_prompt(const classifier *c, const char *text, const char *assist, int32_t *ids, int *count, wn_error *err)
{
	return prompt_encode(c->parts.tokenizer, c->parts.manifest.prompt, c->parts.manifest.max_text_tokens, text, assist, ids,
	                     count, err);
}

/* ---- sessions ---- */

/* Prompt positions of a batch whose longest prompt has len tokens. */
static int bucket(const classifier *c, int len)
{
	int up = (len + PROMPT_BUCKET - 1) / PROMPT_BUCKET * PROMPT_BUCKET, max = c->parts.manifest.max_text_tokens;
	return up < max ? up : max;
}

wn_code classifier_session_open(classifier_session **out, const classifier *c, int max_batch, wn_error *err)
{
	*out = NULL;
	if (max_batch < 1 || max_batch > 4096)
		return wn_fail(err, WN_INVALID, "max_batch: found %d, expected 1 to 4096", max_batch);
	classifier_session *s = calloc(1, sizeof *s);
	if (!s)
		return wn_fail(err, WN_NOMEM, "out of memory");
	const blip2_config *bc = blip2_get_config(c->parts.model);
	const size_t n = (size_t)max_batch, rows = 1 + (size_t)c->tail_len;
	s->c = c;
	s->max_batch = max_batch;
	s->max_len = c->parts.manifest.max_text_tokens + c->tail_len;
	s->pixels = 3 * (size_t)bc->image_size * (size_t)bc->image_size;
	blip2_session_options opt = blip2_session_defaults();
	opt.max_batch = max_batch;
	opt.max_text_len = s->max_len;
	wn_code rc = blip2_session_open(&s->engine, c->parts.model, &opt, err);
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
	blip2_session_close(&(*s)->engine);
	free((*s)->pixel_values);
	free((*s)->ids);
	free((*s)->mask);
	free((*s)->rows);
	free((*s)->logits);
	free(*s);
	*s = NULL;
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
	const int len = prompt_len + c->tail_len, per_sample = 1 + c->tail_len;
	const int32_t pad = bc->pad_token_id >= 0 && bc->pad_token_id < bc->vocab_size ? bc->pad_token_id : 0;
	for (int i = 0; i < n; i++) {
		int32_t *ids = s->ids + (size_t)i * (size_t)len;
		uint8_t *mask = s->mask + (size_t)i * (size_t)len;
		const int padding = prompt_len - in[i].prompt_len;
		for (int t = 0; t < padding; t++)
			ids[t] = pad;
		memcpy(ids + padding, in[i].prompt_ids, (size_t)in[i].prompt_len * sizeof *ids);
		if (c->tail_len)
			memcpy(ids + prompt_len, c->tail_ids, (size_t)c->tail_len * sizeof *ids);
		memset(mask, 0, (size_t)padding);
		memset(mask + padding, 1, (size_t)(len - padding));
		int32_t last = (int32_t)(i * (bc->num_query_tokens + len) + bc->num_query_tokens + prompt_len - 1);
		for (int r = 0; r < per_sample; r++)
			s->rows[i * per_sample + r] = last + r;
	}
}

/* Sums the paths over log-probability rows and normalises over the labels. */
static wn_code label_probabilities(const classifier *c, const float *log_probs, size_t vocab, float *probs, wn_error *err)
{
	const int labels = c->parts.manifest.num_labels;
	double score[MAX_LABELS], best = -INFINITY, sum = 0;
	for (int l = 0; l < labels; l++) {
		score[l] = 0;
		for (int k = c->first_step[l]; k < c->first_step[l + 1]; k++)
			score[l] += log_probs[(size_t)c->steps[k].row * vocab + (size_t)c->steps[k].token];
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
	const int prompt_len = bucket(c, longest);
	const size_t per_sample = 1 + (size_t)c->tail_len, count = (size_t)n * per_sample;
	const size_t vocab = (size_t)blip2_get_config(c->parts.model)->vocab_size;
	fill_batch(s, in, n, prompt_len);
	const blip2_batch b = {.n = n, .text_len = prompt_len + c->tail_len, .pixel_values = gather_pixels(s, in, n),
	                       .input_ids = s->ids, .attention_mask = s->mask, .tail_len = c->tail_len,
	                       .tail_parent = c->tail_parent};
	wn_code rc = blip2_forward(s->engine, &b, err);
	if (rc)
		return rc;
	blip2_logits(s->engine, s->rows, count, s->logits);
	for (size_t r = 0; r < count; r++)
		ops->log_softmax(s->logits + r * vocab, vocab);
	for (int i = 0; i < n && rc == WN_OK; i++)
		rc = label_probabilities(c, s->logits + (size_t)i * per_sample * vocab, vocab,
		                         probs + i * c->parts.manifest.num_labels, err);
	return rc;
}

wn_code classifier_warm(classifier_session *s, wn_error *err)
{
	const int max_prompt = s->c->parts.manifest.max_text_tokens;
	wn_code rc = WN_NOMEM;
	float *blank = calloc(s->pixels, sizeof *blank);
	int32_t *ids = calloc((size_t)max_prompt, sizeof *ids);
	classifier_input *in = calloc((size_t)s->max_batch, sizeof *in);
	float *probs = calloc((size_t)s->max_batch * MAX_LABELS, sizeof *probs);
	if (!blank || !ids || !in || !probs) {
		wn_fail(err, rc, "out of memory for a batch of %d", s->max_batch);
		goto done;
	}
	rc = WN_OK;
	for (int n = 1; n <= s->max_batch && rc == WN_OK; n++)
		for (int len = PROMPT_BUCKET; rc == WN_OK; len += PROMPT_BUCKET) {
			int prompt_len = len < max_prompt ? len : max_prompt;
			for (int i = 0; i < n; i++)
				in[i] = (classifier_input){blank, ids, prompt_len};
			rc = classifier_run(s, in, n, probs, err);
			if (len >= max_prompt)
				break;
		}
done:
	free(blank);
	free(ids);
	free(in);
	free(probs);
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
