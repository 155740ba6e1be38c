/* blip2_backward.c: the loss and its way back through the three stacks.
 *
 *   cross-entropy at the labelled rows -> tied embedding, final_layer_norm -> text stack -> tokens, positions, projection
 *   -> Q-Former stack -> query tokens, and through cross-attention the encoder rows -> post_layernorm -> vision stack -> patches
 *
 * blip2_vision_first is the short way: from the vision rows straight to the tied embedding. Everything adds to the caller's
 * gradients; the activations are the session's, from the forward just before. */
#include <string.h>

#include "model/blip2_internal.h"
#include "model/embedding.h"
#include "model/linear.h"
#include "model/norm.h"
#include "model/ops.h"
#include "model/parallel.h"

/* The rows whose next token is labelled. */
static size_t labelled_rows(blip2_session *s, const blip2_batch *b)
{
	size_t count = 0;
	int queries = s->m->config.num_query_tokens;
	for (int i = 0; i < b->n; i++)
		for (int j = 1; j < b->text_len; j++) {
			int32_t label = b->labels[(size_t)i * (size_t)b->text_len + (size_t)j];
			if (label == -100)
				continue;
			s->rows[count] = i * s->len + queries + j - 1;
			s->targets[count++] = label;
		}
	return count;
}

/* From the gradient of the logits of some rows, in s->logits, to that of final_layer_norm's output (d_norm, at those rows)
 * and of the tied embedding. */
static void logits_backward(blip2_session *s, const int32_t *rows, size_t count, float *grads)
{
	const blip2 *m = s->m;
	size_t d = (size_t)m->text.hidden;
	/* logits = hidden E^T */
	linear_backward(&s->cx, s->logit_d, 0, grads + m->token_embedding, NULL, s->logits, s->logit_in, m->weights + m->token_embedding,
	                count, d, (size_t)m->config.vocab_size);
	for (size_t r = 0; r < count; r++)
		memcpy(s->d_norm + (size_t)rows[r] * d, s->logit_d + r * d, d * sizeof(float));
}

/* Cross-entropy over the labelled rows, and its way back to d_norm. */
static float cross_entropy_backward(blip2_session *s, size_t count, float scale, float *grads, int *correct)
{
	const blip2 *m = s->m;
	size_t d = (size_t)m->text.hidden, vocab = (size_t)m->config.vocab_size;
	double loss = 0;
	memset(s->d_norm, 0, (size_t)s->n * (size_t)s->len * d * sizeof(float));
	for (size_t i = 0; i < count; i += LOGIT_CHUNK) {
		size_t part = count - i < LOGIT_CHUNK ? count - i : LOGIT_CHUNK;
		float row_loss[LOGIT_CHUNK];
		int32_t best[LOGIT_CHUNK];
		blip2_logits_of(s, s->rows + i, part, s->logits);
		PARALLEL_RANGE(part, 4, r0, r1)
		for (size_t r = r0; r < r1; r++)
			row_loss[r] = ops->cross_entropy(s->logits + r * vocab, s->targets[i + r], scale / (float)count, vocab, &best[r]);
		logits_backward(s, s->rows + i, part, grads);
		for (size_t r = 0; r < part; r++) {
			loss += row_loss[r];
			*correct += best[r] == s->targets[i + r];
		}
	}
	return count ? (float)(loss / (double)count) : 0;
}

/* Names the component to a loss that looks at blocks' outputs. */
typedef struct component_tap {
	const blip2_loss *loss;
	component which;
} component_tap;

static void add_hidden(void *ctx, int index, float *d)
{
	const component_tap *t = ctx;
	t->loss->hidden(t->loss->ctx, t->which, index, d);
}

static stack_tap tap_of(component_tap *t) { return t->loss && t->loss->hidden ? (stack_tap){add_hidden, t} : (stack_tap){0}; }

static void text_backward(blip2_session *s, const blip2_batch *b, const blip2_loss *l, float *grads)
{
	const blip2 *m = s->m;
	size_t queries = (size_t)m->config.num_query_tokens, d = (size_t)m->text.hidden, rows = (size_t)s->n * (size_t)s->len;
	memset(s->d_text, 0, rows * d * sizeof(float));
	norm_backward(s->d_text, grads + m->text_norm.weight, grads + m->text_norm.bias, s->d_norm, s->text_last,
	              m->weights + m->text_norm.weight, s->text_norm.mean, s->text_norm.rstd, rows, d);
	block_run run = blip2_text_run(s);
	stack_backward(&m->text, m->weights, grads, &s->text, s->d_text, NULL, &run, &s->text_scratch,
	               tap_of(&(component_tap){l, COMPONENT_TEXT}));
	text_rows_backward(grads + m->token_embedding, grads + m->text_position, s->d_text, b->input_ids, s->positions, s->n,
	                   (int)queries, s->t, d, m->config.pad_token_id);
	for (int i = 0; i < s->n; i++)
		memcpy(s->projected + (size_t)i * queries * d, s->d_text + (size_t)i * (size_t)s->len * d, queries * d * sizeof(float));
}

static void qformer_backward(blip2_session *s, const blip2_loss *l, float *grads)
{
	const blip2 *m = s->m;
	size_t queries = (size_t)m->config.num_query_tokens, d = (size_t)m->qformer.hidden, all = (size_t)s->n * queries;
	/* projected = qformer_last Wp^T + bp */
	linear_backward(&s->cx, s->d_query, 0, grads + m->projection_weight, grads + m->projection_bias, s->projected, s->qformer_last,
	                m->weights + m->projection_weight, all, d, (size_t)m->text.hidden);
	memset(s->d_vision_norm, 0, (size_t)s->n * (size_t)(1 + blip2_num_patches(&m->config)) * (size_t)m->vision.hidden * sizeof(float));
	block_run run = blip2_qformer_run(s);
	stack_backward(&m->qformer, m->weights, grads, &s->qformer, s->d_query, s->d_vision_norm, &run, &s->qformer_scratch,
	               tap_of(&(component_tap){l, COMPONENT_QFORMER}));
	/* query_x = LN(query_tokens), the same for every sample: sum first, the norm's backward is linear in it */
	for (int i = 1; i < s->n; i++)
		ops->axpy(s->d_query, 1, s->d_query + (size_t)i * queries * d, queries * d);
	norm_backward(grads + m->query_tokens, grads + m->query_norm.weight, grads + m->query_norm.bias, s->d_query,
	              m->weights + m->query_tokens, m->weights + m->query_norm.weight, s->query_norm.mean, s->query_norm.rstd, queries, d);
}

static void vision_backward(blip2_session *s, const blip2_batch *b, const blip2_loss *l, float *grads)
{
	const blip2 *m = s->m;
	const blip2_config *c = &m->config;
	int patches = s->patches_seen;
	size_t d = (size_t)m->vision.hidden, rows = (size_t)s->n * (size_t)(1 + patches);
	memset(s->d_vision, 0, rows * d * sizeof(float));
	norm_backward(s->d_vision, grads + m->vision_norm.weight, grads + m->vision_norm.bias, s->d_vision_norm, s->vision_last,
	              m->weights + m->vision_norm.weight, s->vision_norm.mean, s->vision_norm.rstd, rows, d);
	block_run run = {.cx = &s->cx, .n = s->n, .len = 1 + patches};
	stack_backward(&m->vision, m->weights, grads, &s->vision, s->d_vision, NULL, &run, &s->vision_scratch,
	               tap_of(&(component_tap){l, COMPONENT_VISION}));
	vision_rows_backward(s->embedded, grads + m->patch_bias, grads + m->class_embedding, grads + m->vision_position, s->d_vision,
	                     s->n, s->kept, patches, d);
	linear_backward(&s->cx, NULL, 0, grads + m->patch_weight, NULL, s->embedded, s->patches, m->weights + m->patch_weight,
	                (size_t)s->n * (size_t)patches, 3 * (size_t)c->patch_size * (size_t)c->patch_size, d);
}

static void stacks_backward(blip2_session *s, const blip2_batch *b, const blip2_loss *l, float *grads)
{
	text_backward(s, b, l, grads);
	qformer_backward(s, l, grads);
	if (s->opt.use_vision)
		vision_backward(s, b, l, grads);
}

static wn_code check_backward(const blip2_session *s, const blip2_batch *b, wn_error *err)
{
	if (!s->opt.training)
		return wn_fail(err, WN_INVALID, "a backward needs a training session");
	if (b->n != s->n || b->text_len != s->t)
		return wn_fail(err, WN_INVALID, "a backward needs the batch of the last forward");
	return WN_OK;
}

wn_code blip2_backward(blip2_session *s, const blip2_batch *b, float scale, float *grads, float *loss, int *correct, int *total,
                       wn_error *err)
{
	wn_code code = check_backward(s, b, err);
	if (!code && !b->labels)
		code = wn_fail(err, WN_INVALID, "a backward needs labels");
	if (code)
		return code;
	size_t count = labelled_rows(s, b);
	int hits = 0;
	*loss = cross_entropy_backward(s, count, scale, grads, &hits);
	if (correct)
		*correct = hits;
	if (total)
		*total = (int)count;
	if (count)
		stacks_backward(s, b, NULL, grads);
	return WN_OK;
}

wn_code blip2_backward_loss(blip2_session *s, const blip2_batch *b, const blip2_loss *l, float *grads, wn_error *err)
{
	wn_code code = check_backward(s, b, err);
	if (code)
		return code;
	if (l->count > (size_t)s->opt.max_loss_rows)
		return wn_fail(err, WN_TOO_LARGE, "a loss over %zu rows of logits, the session has room for %d", l->count, s->opt.max_loss_rows);
	for (size_t i = 0; i < l->count; i++)
		if (l->rows[i] < 0 || l->rows[i] >= s->n * s->len)
			return wn_fail(err, WN_INVALID, "rows[%zu] is %d, the forward had %d", i, (int)l->rows[i], s->n * s->len);
	memset(s->d_norm, 0, (size_t)s->n * (size_t)s->len * (size_t)s->m->text.hidden * sizeof(float));
	if (l->count) {
		blip2_logits_of(s, l->rows, l->count, s->logits);
		l->logits(l->ctx, s->logits);
		logits_backward(s, l->rows, l->count, grads);
	}
	stacks_backward(s, b, l, grads);
	return WN_OK;
}

/* Samples' first labels as targets of rows 0.. (one row a sample). */
static size_t first_labels(blip2_session *s, const blip2_batch *b)
{
	size_t count = 0;
	for (int i = 0; i < b->n; i++)
		for (int j = 0; j < b->text_len; j++) {
			int32_t label = b->labels[(size_t)i * (size_t)b->text_len + (size_t)j];
			if (label == -100)
				continue;
			s->rows[count] = i;
			s->targets[count++] = label;
			break;
		}
	return count;
}

/* Mean over the vision rows of each sample, [n][Dv]. */
static void pool_rows(float *pooled, const float *rows, int n, size_t count, size_t d)
{
	memset(pooled, 0, (size_t)n * d * sizeof *pooled);
	for (int i = 0; i < n; i++)
		for (size_t r = 0; r < count; r++)
			ops->axpy(pooled + (size_t)i * d, 1.0f / (float)count, rows + ((size_t)i * count + r) * d, d);
}

wn_code blip2_vision_first(blip2_session *s, const blip2_batch *b, const int32_t *kept, int num_kept, float scale, float *grads, float *loss, int *correct, int *total,
                           wn_error *err)
{
	const blip2 *m = s->m;
	size_t dv = (size_t)m->vision.hidden, dt = (size_t)m->text.hidden;
	if (m->vision.hidden != m->qformer.hidden)
		return wn_fail(err, WN_UNSUPPORTED, "vision first needs one hidden width for vision and Q-Former, found %d and %d",
		               m->vision.hidden, m->qformer.hidden);
	if (!s->opt.training || !s->opt.use_vision || !b->labels)
		return wn_fail(err, WN_INVALID, "vision first needs a training session that sees images, and labels");
	wn_code code = blip2_begin(s, b, err);
	if (code)
		return code;
	if (kept) {
		int grid = blip2_num_patches(&m->config);
		for (int k = 0; k < num_kept; k++)
			if (kept[k] < 0 || kept[k] >= grid || (k && kept[k] <= kept[k - 1]))
				return wn_fail(err, WN_INVALID, "kept[%d] is %d, expected ascending indices below %d", k, (int)kept[k], grid);
		if (num_kept < 1)
			return wn_fail(err, WN_INVALID, "no patch is kept");
		s->kept = kept;
		s->patches_seen = num_kept;
	}
	size_t count = 1 + (size_t)s->patches_seen;
	blip2_vision_forward(s, b);
	/* hidden = LN(mean(rows) Wp^T + bp), one row a sample */
	s->len = 1;
	s->t = 0; /* a blip2_backward would find nothing of its own here: it asks for the batch of a blip2_forward */
	size_t n = (size_t)b->n, labelled = first_labels(s, b);
	int hits = 0;
	float *pooled = s->query_x, *d_pooled = s->d_query;
	pool_rows(pooled, s->vision_norm.out, b->n, count, dv);
	linear_forward(&s->cx, s->projected, pooled, m->weights + m->projection_weight, m->weights + m->projection_bias, n, dv, dt);
	norm_forward(s->text_norm.out, s->text_norm.mean, s->text_norm.rstd, s->projected, m->weights + m->text_norm.weight,
	             m->weights + m->text_norm.bias, n, dt, m->config.text.layer_norm_eps);
	*loss = cross_entropy_backward(s, labelled, scale, grads, &hits);
	if (correct)
		*correct = hits;
	if (total)
		*total = (int)labelled;
	if (labelled == 0) {
		s->kept = NULL;
		return WN_OK;
	}
	memset(s->d_text, 0, n * dt * sizeof(float));
	norm_backward(s->d_text, grads + m->text_norm.weight, grads + m->text_norm.bias, s->d_norm, s->projected,
	              m->weights + m->text_norm.weight, s->text_norm.mean, s->text_norm.rstd, n, dt);
	linear_backward(&s->cx, d_pooled, 0, grads + m->projection_weight, grads + m->projection_bias, s->d_text, pooled,
	                m->weights + m->projection_weight, n, dv, dt);
	memset(s->d_vision_norm, 0, n * count * dv * sizeof(float));
	for (size_t row = 0; row < n * count; row++)
		ops->axpy(s->d_vision_norm + row * dv, 1.0f / (float)count, d_pooled + row / count * dv, dv);
	vision_backward(s, b, NULL, grads);
	s->kept = NULL; /* the caller's memory */
	return WN_OK;
}
