/* engine_block.c: one transformer block for inference: block.h's three residual sublayers on packed layers.
 *
 * Attention's operands are f32 in an f32 engine and bf16 otherwise; scores and softmax are f32. One sample's heads are one batch of
 * products. */
#include <math.h>

#include "model/dnn.h"
#include "model/engine_internal.h"
#include "model/norm.h"
#include "model/ops.h"
#include "model/parallel.h"

static const float *at(const blip2 *m, size_t offset) { return offset == NO_PARAM ? NULL : m->weights + offset; }
static size_t inner_of(const engine_attention *a) { return (size_t)a->num_heads * (size_t)a->head_dim; }
static bool in_bf16(const engine *e) { return e->precision != PRECISION_F32 && dnn_has_bf16(); }

static wn_code open_attention(engine_attention *out, const blip2 *m, const attention_params *p, int hidden, precision prec, wn_error *err)
{
	*out = (engine_attention){.num_heads = p->num_heads, .head_dim = p->head_dim, .kv_width = p->kv_width, .norm = p->norm};
	const size_t inner = inner_of(out), d = (size_t)hidden;
	const layer_options plain = {.precision = prec}, residual = {.precision = prec, .accumulate = true};
	if (!p->num_heads)
		return WN_OK;
	wn_code rc = layer_open(&out->qkv, &plain, at(m, p->qkv_weight), at(m, p->qkv_bias), d, p->kv_width ? inner : 3 * inner, err);
	if (!rc && p->kv_width)
		rc = layer_open(&out->kv, &plain, at(m, p->kv_weight), at(m, p->kv_bias), (size_t)p->kv_width, 2 * inner, err);
	return rc ? rc : layer_open(&out->out, &residual, at(m, p->out_weight), at(m, p->out_bias), inner, d, err);
}

wn_code engine_block_open(engine_block *out, const blip2 *m, const block *b, precision p, wn_error *err)
{
	const layer_options plain = {.precision = p}, residual = {.precision = p, .accumulate = true};
	const size_t d = (size_t)b->hidden, ffn = (size_t)b->ffn_dim;
	*out = (engine_block){.activation = b->activation, .pre_norm = b->pre_norm, .causal = b->causal, .hidden = b->hidden, .eps = b->eps,
			      .norm = b->ffn_norm};
	wn_code rc = open_attention(&out->self, m, &b->self, b->hidden, p, err);
	if (!rc)
		rc = open_attention(&out->cross, m, &b->cross, b->hidden, p, err);
	if (!rc)
		rc = layer_open(&out->fc1, &plain, at(m, b->fc1_weight), at(m, b->fc1_bias), d, ffn, err);
	return rc ? rc : layer_open(&out->fc2, &residual, at(m, b->fc2_weight), at(m, b->fc2_bias), ffn, d, err);
}

void engine_block_close(engine_block *b)
{
	layer *all[] = {&b->self.qkv, &b->self.out, &b->cross.qkv, &b->cross.kv, &b->cross.out, &b->fc1, &b->fc2};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		layer_close(all[i]);
}

/* ---- attention ---- */

typedef struct view {
	const char *data; /* of the first sample */
	int64_t stride;   /* elements a row */
} view;

/* Softmax of all heads' rows in place; with bf16 into buf.probs. */
static void soften(engine_session *s, const engine_attention *a, bool causal, const float *mask, int m, int n, bool bf16)
{
	const float scale = 1.0f / sqrtf((float)a->head_dim);
	const size_t rows = (size_t)a->num_heads * (size_t)m, cols = (size_t)n;
	PARALLEL_RANGE(rows, 1 + 4096 / cols, r0, r1)
	for (size_t r = r0; r < r1; r++) {
		const size_t i = r % (size_t)m;
		float *p = s->buf.scores + r * cols;
		ops->softmax(p, mask ? mask + i * cols : NULL, scale, causal ? i + 1 : cols, cols);
		if (bf16)
			ops->to_bf16(s->buf.probs + r * cols, p, cols);
	}
}

static void attend(engine_session *s, const engine_attention *a, bool causal, view q, view k, view v, const engine_rows *run)
{
	const bool bf16 = in_bf16(s->e);
	const element type = bf16 ? ELEMENT_BF16 : ELEMENT_F32;
	const int m = run->len, n = a->kv_width ? run->encoder_len : run->len, d = a->head_dim;
	const int64_t heads = a->num_heads, area = (int64_t)m * n, inner = (int64_t)inner_of(a);
	const size_t size = element_size(type);
	const packed_product scores = {.count = heads, .m = m, .n = n, .k = d, .src = type, .dst = ELEMENT_F32,
				       .a = {d, q.stride, 1}, .b = {d, 1, k.stride}, .c = {area, n, 1}};
	const packed_product context = {.count = heads, .m = m, .n = d, .k = n, .src = type, .dst = type,
					.a = {area, n, 1}, .b = {d, v.stride, 1}, .c = {d, inner, 1}};
	for (int i = 0; i < run->n; i++) {
		const size_t q_at = (size_t)i * (size_t)m, k_at = (size_t)i * (size_t)n;
		packed_multiply(s->runner, &scores, q.data + q_at * (size_t)q.stride * size, k.data + k_at * (size_t)k.stride * size,
				s->buf.scores);
		soften(s, a, causal, run->mask && !a->kv_width ? run->mask + (size_t)i * (size_t)area : NULL, m, n, bf16);
		packed_multiply(s->runner, &context, bf16 ? (void *)s->buf.probs : (void *)s->buf.scores,
				v.data + k_at * (size_t)v.stride * size, (char *)s->buf.context + q_at * (size_t)inner * size);
	}
}

/* ---- sublayers ---- */

static row_source input_of(const engine_block *b, const norm_params *norm, const float *x)
{
	return (row_source){.x = x, .norm = b->pre_norm ? norm : NULL, .eps = b->eps};
}

/* Post-norm: x = LN(x). */
static void finish(const engine_session *s, const engine_block *b, const norm_params *norm, float *x, size_t rows)
{
	const float *w = s->e->m->weights;
	if (!b->pre_norm)
		norm_forward(x, NULL, NULL, x, w + norm->weight, w + norm->bias, rows, (size_t)b->hidden, b->eps);
}

static void attention_sublayer(engine_session *s, const engine_block *b, const engine_attention *a, float *x, const engine_rows *run)
{
	const bool bf16 = in_bf16(s->e);
	const size_t rows = (size_t)run->n * (size_t)run->len, inner = inner_of(a), size = bf16 ? 2 : 4;
	const row_source in = input_of(b, &a->norm, x), encoder = {.x = run->encoder};
	layer_take(s, &a->qkv, &in, rows);
	layer_write(s, &a->qkv, rows, s->buf.qkv, bf16);
	const char *qkv = s->buf.qkv;
	view q = {qkv, (int64_t)(3 * inner)}, k = {qkv + inner * size, q.stride}, v = {qkv + 2 * inner * size, q.stride};
	if (a->kv_width) {
		const size_t keys = (size_t)run->n * (size_t)run->encoder_len;
		layer_take(s, &a->kv, &encoder, keys);
		layer_write(s, &a->kv, keys, s->buf.kv, bf16);
		q.stride = (int64_t)inner;
		k = (view){s->buf.kv, (int64_t)(2 * inner)};
		v = (view){(const char *)s->buf.kv + inner * size, k.stride};
	}
	attend(s, a, b->causal && !a->kv_width, q, k, v, run);
	layer_take_context(s, &a->out, s->buf.context, bf16, rows);
	layer_add(s, &a->out, rows, x);
	finish(s, b, &a->norm, x, rows);
}

void engine_block_run(engine_session *s, const engine_block *b, float *x, const engine_rows *run)
{
	const size_t rows = (size_t)run->n * (size_t)run->len;
	attention_sublayer(s, b, &b->self, x, run);
	if (b->cross.num_heads)
		attention_sublayer(s, b, &b->cross, x, run);
	const row_source in = input_of(b, &b->norm, x);
	layer_take(s, &b->fc1, &in, rows);
	layer_activate(s, &b->fc1, b->activation, &b->fc2, rows);
	layer_add(s, &b->fc2, rows, x);
	finish(s, b, &b->norm, x, rows);
}
