/* engine.c: an engine's layers, a session's memory, and the forward of the three stacks in it.
 *
 * Left out, because nobody reads it: rows of logits that were not asked for, and the final norm of rows without logits. Computed once,
 * when a session opens: the normed query tokens. */
#include "model/engine_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <omp.h>

#include "model/dnn.h"
#include "model/embedding.h"
#include "model/norm.h"
#include "model/text_layout.h"

const char *const PRECISION_NAMES[] = {"f32", "bf16", "int8", NULL};

/* ---- the engine ---- */

static wn_code open_stack(engine_stack *out, const blip2 *m, const stack *s, precision p, wn_error *err)
{
	wn_code rc = WN_OK;
	for (int i = 0; !rc && i < s->num_blocks; i++) {
		rc = engine_block_open(&out->blocks[i], m, &s->blocks[i], p, err);
		out->num_blocks = i + 1; /* closes what a failed block has opened */
	}
	return rc;
}

static void close_stack(engine_stack *s)
{
	for (int i = 0; i < s->num_blocks; i++)
		engine_block_close(&s->blocks[i]);
}

/* What the first layer of the language model runs on stands for all of its kind. */
static void describe(engine *e)
{
	const layer *l = e->text.num_blocks ? &e->text.blocks[0].fc1 : &e->logits;
	const bool rounded = l->src == ELEMENT_F32 && e->precision != PRECISION_F32;
	snprintf(e->description, sizeof e->description, "%s%s %s", PRECISION_NAMES[e->precision], rounded ? " weights in f32" : "",
		 packed_kernel(l->packed));
}

wn_code engine_open(engine **out, const blip2 *m, precision p, wn_error *err)
{
	const blip2_config *c = &m->config;
	engine *e = *out = calloc(1, sizeof *e);
	if (!e)
		return wn_fail(err, WN_NOMEM, "no memory for an engine");
	e->m = m;
	e->precision = p;
	/* pixels are few rows of many values of all sizes: int8 would lose more there than it saves */
	const layer_options pixels = {.precision = p == PRECISION_INT8 ? PRECISION_BF16 : p, .wide = true};
	const layer_options wide = {.precision = p, .wide = true};
	wn_code rc = layer_open(&e->patches, &pixels, m->weights + m->patch_weight, NULL,
				3 * (size_t)c->patch_size * (size_t)c->patch_size, (size_t)m->vision.hidden, err);
	if (!rc)
		rc = open_stack(&e->vision, m, &m->vision, p, err);
	if (!rc)
		rc = open_stack(&e->qformer, m, &m->qformer, p, err);
	if (!rc)
		rc = layer_open(&e->projection, &wide, m->weights + m->projection_weight, m->weights + m->projection_bias,
				(size_t)m->qformer.hidden, (size_t)m->text.hidden, err);
	if (!rc)
		rc = open_stack(&e->text, m, &m->text, p, err);
	if (!rc)
		rc = layer_open(&e->logits, &wide, m->weights + m->token_embedding, NULL, (size_t)m->text.hidden, (size_t)c->vocab_size, err);
	if (rc)
		engine_close(out);
	else
		describe(e);
	return rc;
}

void engine_close(engine **e)
{
	if (!*e)
		return;
	close_stack(&(*e)->vision);
	close_stack(&(*e)->qformer);
	close_stack(&(*e)->text);
	layer_close(&(*e)->patches);
	layer_close(&(*e)->projection);
	layer_close(&(*e)->logits);
	free(*e);
	*e = NULL;
}

precision engine_precision(const engine *e) { return e->precision; }
const char *engine_describe(const engine *e) { return e->description; }

/* ---- a session's memory ---- */

/* Elements of the shared buffers, as the largest user of each needs them. */
typedef struct needs {
	size_t in, rows, raw, qkv, kv, scores, context, row;
} needs;

static void raise(size_t *most, size_t n) { *most = n > *most ? n : *most; }

static void need_layer(needs *most, const layer *l, size_t rows)
{
	raise(&most->in, rows * l->in);
	raise(&most->raw, rows * l->out);
	raise(&most->rows, rows);
	raise(&most->row, l->in > l->out ? l->in : l->out);
}

static void need_attention(needs *most, const engine_attention *a, size_t n, size_t len, size_t encoder_len)
{
	const size_t inner = (size_t)a->num_heads * (size_t)a->head_dim, keys = a->kv_width ? encoder_len : len;
	if (!a->num_heads)
		return;
	need_layer(most, &a->qkv, n * len);
	need_layer(most, &a->out, n * len);
	if (a->kv_width) {
		need_layer(most, &a->kv, n * encoder_len);
		raise(&most->kv, n * encoder_len * 2 * inner);
	}
	raise(&most->qkv, n * len * a->qkv.out);
	raise(&most->context, n * len * inner);
	raise(&most->scores, (size_t)a->num_heads * len * keys);
}

static void need_stack(needs *most, const engine_stack *s, size_t n, size_t len, size_t encoder_len)
{
	for (int i = 0; i < s->num_blocks; i++) {
		const engine_block *b = &s->blocks[i];
		need_attention(most, &b->self, n, len, encoder_len);
		need_attention(most, &b->cross, n, len, encoder_len);
		need_layer(most, &b->fc1, n * len);
		need_layer(most, &b->fc2, n * len);
	}
}

static bool lay_out_buffers(engine_session *s, arena *a, const needs *most)
{
	engine_buffers *b = &s->buf;
	float *in, *raw, *qkv, *kv, *context;
	b->row_width = (most->row + 15) / 16 * 16;
	const bool ok = arena_floats(a, &in, most->in, 1) && arena_floats(a, &b->in_scale, most->rows, 1) &&
			arena_floats(a, &raw, most->raw, 1) && arena_floats(a, &qkv, most->qkv, 1) && arena_floats(a, &kv, most->kv, 1) &&
			arena_floats(a, &b->scores, most->scores, 1) && arena_floats(a, &context, most->context, 1) &&
			arena_floats(a, &b->row, (size_t)s->max_threads, b->row_width) &&
			(b->probs = arena_alloc(a, most->scores * sizeof *b->probs));
	if (ok) {
		b->in = in;
		b->raw = raw;
		b->qkv = qkv;
		b->kv = kv;
		b->context = context;
	}
	return ok;
}

static bool lay_out(engine_session *s, arena *a)
{
	const engine *e = s->e;
	const blip2_config *c = &e->m->config;
	const size_t n = (size_t)s->max_batch, patches = (size_t)blip2_num_patches(c), queries = (size_t)c->num_query_tokens;
	const size_t len = queries + (size_t)s->max_text_len;
	const size_t dv = (size_t)e->m->vision.hidden, dq = (size_t)e->m->qformer.hidden, dt = (size_t)e->m->text.hidden;
	needs most = {.kv = 1};
	need_layer(&most, &e->patches, n * patches);
	need_stack(&most, &e->vision, n, 1 + patches, 0);
	need_stack(&most, &e->qformer, n, queries, 1 + patches);
	need_layer(&most, &e->projection, n * queries);
	need_stack(&most, &e->text, n, len, 0);
	need_layer(&most, &e->logits, (size_t)s->max_rows);
	return lay_out_buffers(s, a, &most) && arena_floats(a, &s->pixels, n * patches, e->patches.in) &&
	       arena_floats(a, &s->embedded, n * patches, dv) && arena_floats(a, &s->vision_x, n * (1 + patches), dv) &&
	       arena_floats(a, &s->query_x, n * queries, dq) && arena_floats(a, &s->query_first, queries, dq) &&
	       arena_floats(a, &s->projected, n * queries, dt) && arena_floats(a, &s->text_x, n * len, dt) &&
	       arena_floats(a, &s->final_rows, (size_t)s->max_rows, dt) && arena_floats(a, &s->mask, n * len, len) &&
	       (s->positions = arena_alloc(a, n * len * sizeof *s->positions));
}

static wn_code check_sizes(const engine *e, int max_batch, int max_text_len, int max_rows, wn_error *err)
{
	const blip2_config *c = &e->m->config;
	if (max_batch < 1 || max_batch > 65536 || max_text_len < 1 || max_rows < 1)
		return wn_fail(err, WN_INVALID, "a session needs a batch of 1 to 65536, one text token and one row of logits, found %d, %d and %d",
			       max_batch, max_text_len, max_rows);
	if (max_text_len > c->max_position_embeddings - c->num_query_tokens)
		return wn_fail(err, WN_TOO_LARGE, "%d queries and %d text tokens exceed max_position_embeddings %d", c->num_query_tokens,
			       max_text_len, c->max_position_embeddings);
	return WN_OK;
}

wn_code engine_session_open(engine_session **out, const engine *e, int max_batch, int max_text_len, int max_rows, wn_error *err)
{
	const blip2 *m = e->m;
	arena dry = {0};
	*out = NULL;
	wn_code rc = check_sizes(e, max_batch, max_text_len, max_rows, err);
	if (rc)
		return rc;
	engine_session *s = calloc(1, sizeof *s);
	if (!s)
		return wn_fail(err, WN_NOMEM, "no memory for a session");
	*s = (engine_session){.e = e, .max_batch = max_batch, .max_text_len = max_text_len, .max_rows = max_rows,
			       .max_threads = omp_get_max_threads()};
	rc = lay_out(s, &dry) ? arena_open(&s->memory, dry.peak, err)
			      : wn_fail(err, WN_TOO_LARGE, "a session of batch %d overflows memory", max_batch);
	if (!rc && !lay_out(s, &s->memory))
		rc = wn_fail(err, WN_INTERNAL, "a session's layout changed between measuring and mapping");
	if (!rc)
		rc = packed_runner_open(&s->runner, err);
	if (rc) {
		engine_session_close(&s);
		return rc;
	}
	norm_forward(s->query_first, NULL, NULL, m->weights + m->query_tokens, m->weights + m->query_norm.weight,
		     m->weights + m->query_norm.bias, (size_t)m->config.num_query_tokens, (size_t)m->qformer.hidden,
		     m->config.qformer.layer_norm_eps);
	*out = s;
	return WN_OK;
}

void engine_session_close(engine_session **s)
{
	if (!*s)
		return;
	packed_runner_close(&(*s)->runner);
	arena_close(&(*s)->memory);
	free(*s);
	*s = NULL;
}

int engine_session_created(const engine_session *s) { return packed_runner_created(s->runner); }

/* ---- the forward ---- */

static void run_stack(engine_session *s, const engine_stack *blocks, float *x, const engine_rows *run)
{
	for (int i = 0; i < blocks->num_blocks; i++)
		engine_block_run(s, &blocks->blocks[i], x, run);
}

/* Leaves post_layernorm's output in vision_x. */
static void run_vision(engine_session *s, const blip2_batch *b)
{
	const blip2 *m = s->e->m;
	const blip2_config *c = &m->config;
	const int patches = blip2_num_patches(c);
	const size_t d = (size_t)m->vision.hidden, rows = (size_t)b->n * (size_t)patches;
	const row_source pixels = {.x = s->pixels};
	patches_gather(s->pixels, b->pixel_values, b->n, c->image_size, c->patch_size, NULL, patches);
	layer_take(s, &s->e->patches, &pixels, rows);
	layer_write(s, &s->e->patches, rows, s->embedded, false);
	vision_rows_forward(s->vision_x, s->embedded, m->weights + m->patch_bias, m->weights + m->class_embedding,
			    m->weights + m->vision_position, b->n, NULL, patches, d);
	run_stack(s, &s->e->vision, s->vision_x, &(engine_rows){.n = b->n, .len = 1 + patches});
	norm_forward(s->vision_x, NULL, NULL, s->vision_x, m->weights + m->vision_norm.weight, m->weights + m->vision_norm.bias,
		     (size_t)b->n * (size_t)(1 + patches), d, c->vision.layer_norm_eps);
}

/* Leaves the projected queries in `projected`. */
static void run_qformer(engine_session *s, const blip2_batch *b)
{
	const blip2 *m = s->e->m;
	const size_t queries = (size_t)m->config.num_query_tokens, d = (size_t)m->qformer.hidden, rows = (size_t)b->n * queries;
	const row_source in = {.x = s->query_x};
	for (int i = 0; i < b->n; i++)
		memcpy(s->query_x + (size_t)i * queries * d, s->query_first, queries * d * sizeof(float));
	run_stack(s, &s->e->qformer, s->query_x,
		  &(engine_rows){.n = b->n, .len = (int)queries, .encoder = s->vision_x, .encoder_len = 1 + blip2_num_patches(&m->config)});
	layer_take(s, &s->e->projection, &in, rows);
	layer_write(s, &s->e->projection, rows, s->projected, false);
}

static void run_text(engine_session *s, const blip2_batch *b)
{
	const blip2 *m = s->e->m;
	const size_t queries = (size_t)m->config.num_query_tokens, d = (size_t)m->text.hidden, len = queries + (size_t)b->text_len;
	const bool masked = text_needs_mask(b);
	text_positions(s->positions, b, (int)queries);
	if (masked)
		text_mask(s->mask, b, (int)queries);
	for (int i = 0; i < b->n; i++)
		memcpy(s->text_x + (size_t)i * len * d, s->projected + (size_t)i * queries * d, queries * d * sizeof(float));
	text_rows_forward(s->text_x, m->weights + m->token_embedding, m->weights + m->text_position, b->input_ids, s->positions, b->n,
			  (int)queries, b->text_len, d);
	run_stack(s, &s->e->text, s->text_x, &(engine_rows){.n = b->n, .len = (int)len, .mask = masked ? s->mask : NULL});
}

wn_code engine_run(engine_session *s, const blip2_batch *b, const int32_t *rows, size_t count, float *out, wn_error *err)
{
	const blip2 *m = s->e->m;
	const size_t d = (size_t)m->text.hidden;
	wn_code rc = text_check(b, s->max_batch, s->max_text_len, m->config.vocab_size, err);
	if (!rc && (count < 1 || count > (size_t)s->max_rows))
		rc = wn_fail(err, WN_TOO_LARGE, "%zu rows of logits, expected 1 to %d", count, s->max_rows);
	if (!rc && omp_get_max_threads() > s->max_threads)
		rc = wn_fail(err, WN_INTERNAL, "a session opened for %d OpenMP threads is run with %d", s->max_threads, omp_get_max_threads());
	if (rc)
		return rc;
	run_vision(s, b);
	run_qformer(s, b);
	run_text(s, b);
	for (size_t i = 0; i < count; i++)
		memcpy(s->final_rows + i * d, s->text_x + (size_t)rows[i] * d, d * sizeof(float));
	const row_source last = {.x = s->final_rows, .norm = &m->text_norm, .eps = m->config.text.layer_norm_eps};
	layer_take(s, &s->e->logits, &last, count);
	layer_write(s, &s->e->logits, count, out, false);
	return WN_OK;
}
