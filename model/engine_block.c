/* engine_block.c: one transformer block for inference: block.h's three residual sublayers on packed layers.
 *
 * Attention's operands are f32 in an f32 engine and bf16 otherwise; scores and softmax are f32. One sample's heads are one batch of
 * products. */
#include <math.h>
#include <string.h>

#include "model/dnn.h"
#include "model/engine_internal.h"
#include "model/ops.h"

static size_t inner_of(const engine_attention *a) { return (size_t)a->num_heads * (size_t)a->head_dim; }
static bool in_bf16(const engine *e) { return e->precision != PRECISION_F32 && dnn_has_bf16(); }

static wn_code open_attention(engine_attention *out, engine_opener *op, const attention_params *p, int hidden, wn_error *err)
{
	*out = (engine_attention){.num_heads = p->num_heads, .head_dim = p->head_dim, .kv_width = p->kv_width, .norm = p->norm};
	const size_t inner = inner_of(out), d = (size_t)hidden;
	if (!p->num_heads)
		return WN_OK;
	wn_code rc = engine_open_layer(op, &out->qkv, LAYER_PLAIN, p->qkv_weight, p->qkv_bias, d, p->kv_width ? inner : 3 * inner, err);
	if (!rc && p->kv_width)
		rc = engine_open_layer(op, &out->kv, LAYER_PLAIN, p->kv_weight, p->kv_bias, (size_t)p->kv_width, 2 * inner, err);
	return rc ? rc : engine_open_layer(op, &out->out, LAYER_ACCUMULATES, p->out_weight, p->out_bias, inner, d, err);
}

wn_code engine_block_open(engine_block *out, engine_opener *op, const block *b, wn_error *err)
{
	const size_t d = (size_t)b->hidden, ffn = (size_t)b->ffn_dim;
	*out = (engine_block){.activation = b->activation, .pre_norm = b->pre_norm, .causal = b->causal, .hidden = b->hidden, .eps = b->eps,
			      .norm = b->ffn_norm};
	wn_code rc = open_attention(&out->self, op, &b->self, b->hidden, err);
	if (!rc)
		rc = open_attention(&out->cross, op, &b->cross, b->hidden, err);
	if (!rc)
		rc = engine_open_layer(op, &out->fc1, LAYER_PLAIN, b->fc1_weight, b->fc1_bias, d, ffn, err);
	return rc ? rc : engine_open_layer(op, &out->fc2, LAYER_ACCUMULATES, b->fc2_weight, b->fc2_bias, ffn, d, err);
}

void engine_block_close(engine_block *b)
{
	layer *all[] = {&b->self.qkv, &b->self.out, &b->cross.qkv, &b->cross.kv, &b->cross.out, &b->fc1, &b->fc2};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		layer_close(all[i]);
}

void engine_block_layers(const engine_block *b, void (*f)(void *ctx, const layer *l), void *ctx)
{
	const layer *all[] = {&b->self.qkv, &b->self.out, &b->cross.qkv, &b->cross.kv, &b->cross.out, &b->fc1, &b->fc2};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		if (all[i]->packed)
			f(ctx, all[i]);
}

/* ---- attention ---- */

/* Rows of an operand of all heads. */
typedef struct view {
	const char *data;
	int64_t stride; /* elements a row */
} view;

typedef struct operands {
	view q, k, v; /* of the first sample */
} operands;

static view behind(view v, size_t rows, size_t size) { return (view){v.data + rows * (size_t)v.stride * size, v.stride}; }

/* Own rows of q, and everybody's rows of k and v: returns when all of them are there. */
static operands make_operands(engine_lane *l, const engine_block *b, const engine_attention *a, const float *x, const engine_rows *run)
{
	engine_session *s = l->s;
	const bool bf16 = in_bf16(s->e);
	const size_t inner = inner_of(a), size = bf16 ? 2 : 4, width = a->kv_width ? inner : 3 * inner, kv_width = (size_t)a->kv_width;
	const row_range own = lane_share(l, (size_t)run->n * (size_t)run->len);
	const row_source in = {.x = x + own.first * (size_t)b->hidden, .norm = b->pre_norm ? &a->norm : NULL, .eps = b->eps};
	char *qkv = s->qkv[l->turn], *kv = s->kv[l->turn];
	l->turn ^= 1;
	layer_take(l, &a->qkv, &in, own.count);
	layer_write(l, &a->qkv, own.count, qkv + own.first * width * size, bf16);
	if (a->kv_width) {
		const row_range keys = lane_share(l, (size_t)run->n * (size_t)run->encoder_len);
		const row_source encoder = {.x = run->encoder + keys.first * kv_width};
		layer_take(l, &a->kv, &encoder, keys.count);
		layer_write(l, &a->kv, keys.count, kv + keys.first * 2 * inner * size, bf16);
	}
#pragma omp barrier
	const view q = {qkv, (int64_t)width}, k = a->kv_width ? (view){kv, (int64_t)(2 * inner)} : (view){qkv + inner * size, q.stride};
	return (operands){q, k, {k.data + inner * size, k.stride}};
}

/* Rows of one sample that a lane attends for. */
typedef struct span {
	size_t sample, count;
	size_t first;        /* position of the first one; they follow each other, or: */
	const int32_t *rows; /* which they are, counted through all samples; else NULL */
} span;

static size_t position_of(const span *p, size_t i, size_t len) { return p->rows ? (size_t)p->rows[i] % len : p->first + i; }

/* Softmax of all heads' rows in place; with bf16 into probs. */
static void soften(engine_lane *l, const engine_attention *a, bool causal, const float *mask, const span *p, size_t len, size_t keys)
{
	const float scale = 1.0f / sqrtf((float)a->head_dim);
	const bool bf16 = in_bf16(l->s->e);
	for (size_t r = 0; r < (size_t)a->num_heads * p->count; r++) {
		const size_t at = position_of(p, r % p->count, len);
		float *row = l->scores + r * keys;
		ops->softmax(row, mask ? mask + at * keys : NULL, scale, causal ? at + 1 : keys, keys);
		if (bf16)
			ops->to_bf16(l->probs + r * keys, row, keys);
	}
}

/* The span's queries, behind each other. */
static view span_queries(engine_lane *l, const engine_attention *a, view q, const span *p, size_t len, size_t size)
{
	const size_t bytes = inner_of(a) * size;
	if (!p->rows)
		return behind(q, p->sample * len + p->first, size);
	for (size_t i = 0; i < p->count; i++)
		memcpy((char *)l->queries + i * bytes, behind(q, (size_t)p->rows[i], size).data, bytes);
	return (view){l->queries, (int64_t)inner_of(a)};
}

static void attend_span(engine_lane *l, const engine_block *b, const engine_attention *a, const operands *o, const engine_rows *run,
			const span *p, void *context)
{
	const bool bf16 = in_bf16(l->s->e), self = !a->kv_width;
	const element type = bf16 ? ELEMENT_BF16 : ELEMENT_F32;
	const size_t size = element_size(type), len = (size_t)run->len, keys = self ? len : (size_t)run->encoder_len;
	const int64_t heads = a->num_heads, d = a->head_dim, m = (int64_t)p->count, n = (int64_t)keys, inner = (int64_t)inner_of(a);
	const view q = span_queries(l, a, o->q, p, len, size), k = behind(o->k, p->sample * keys, size), v = behind(o->v, p->sample * keys, size);
	const packed_product scores = {.count = heads, .m = m, .n = n, .k = d, .src = type, .dst = ELEMENT_F32,
				       .a = {d, q.stride, 1}, .b = {d, 1, k.stride}, .c = {m * n, n, 1}};
	const packed_product sums = {.count = heads, .m = m, .n = d, .k = n, .src = type, .dst = type,
				     .a = {m * n, n, 1}, .b = {d, v.stride, 1}, .c = {d, inner, 1}};
	packed_multiply(l->runner, &scores, q.data, k.data, l->scores);
	soften(l, a, b->causal && self, self && run->mask ? run->mask + p->sample * len * len : NULL, p, len, keys);
	packed_multiply(l->runner, &sums, bf16 ? (void *)l->probs : (void *)l->scores, v.data, context);
}

/* The rows of `share`, sample by sample, into context [share.count][inner]. */
static void attend(engine_lane *l, const engine_block *b, const engine_attention *a, const operands *o, const engine_rows *run,
		   row_range share, char *context)
{
	const size_t len = (size_t)run->len, bytes = inner_of(a) * (in_bf16(l->s->e) ? 2 : 4);
	for (size_t i = 0; i < share.count;) {
		const size_t at = share.first + i, row = run->kept ? (size_t)run->kept[at] : at;
		span p = {.sample = row / len, .first = row % len, .rows = run->kept ? run->kept + at : NULL};
		if (run->kept)
			while (i + p.count < share.count && (size_t)p.rows[p.count] / len == p.sample)
				p.count++;
		else
			p.count = len - p.first < share.count - i ? len - p.first : share.count - i;
		attend_span(l, b, a, o, run, &p, context + i * bytes);
		i += p.count;
	}
}

/* ---- sublayers ---- */

/* Post-norm: x = LN(x). */
static void finish(const engine_lane *l, const engine_block *b, const norm_params *norm, float *x, size_t rows)
{
	const float *w = l->s->e->m->weights;
	if (!b->pre_norm)
		ops->layer_norm(x, NULL, NULL, x, w + norm->weight, w + norm->bias, rows, (size_t)b->hidden, b->eps);
}

/* The rows that l works on behind a self-attention's operands. */
static row_range result_rows(const engine_lane *l, const engine_rows *run)
{
	return lane_share(l, run->kept ? run->num_kept : (size_t)run->n * (size_t)run->len);
}

static void take_kept(const engine_rows *run, const float *x, row_range share, size_t d)
{
	for (size_t i = share.first; i < share.first + share.count; i++)
		memcpy(run->kept_x + i * d, x + (size_t)run->kept[i] * d, d * sizeof *x);
}

/* Behind make_operands. to: where rows of `share` get their results, the first of them. */
static void attention_sublayer(engine_lane *l, const engine_block *b, const engine_attention *a, const operands *o, const engine_rows *run,
			       row_range share, float *to)
{
	const bool bf16 = in_bf16(l->s->e);
	attend(l, b, a, o, run, share, layer_context(l, &a->out, bf16));
	layer_take_context(l, &a->out, bf16, share.count);
	layer_add(l, &a->out, share.count, to);
	finish(l, b, &a->norm, to, share.count);
}

void engine_block_run(engine_lane *l, const engine_block *b, float *x, const engine_rows *run)
{
	const size_t d = (size_t)b->hidden;
	const row_range share = result_rows(l, run);
	float *to = (run->kept ? run->kept_x : x) + share.first * d;
	const operands self = make_operands(l, b, &b->self, x, run);
	if (run->kept)
		take_kept(run, x, share, d); /* of any lane's rows: behind the operands' barrier */
	attention_sublayer(l, b, &b->self, &self, run, share, to);
	if (b->cross.num_heads) {
		const operands cross = make_operands(l, b, &b->cross, x, run);
		attention_sublayer(l, b, &b->cross, &cross, run, share, to);
	}
	const row_source in = {.x = to, .norm = b->pre_norm ? &b->norm : NULL, .eps = b->eps};
	layer_take(l, &b->fc1, &in, share.count);
	layer_activate(l, &b->fc1, b->activation, &b->fc2, share.count);
	layer_add(l, &b->fc2, share.count, to);
	finish(l, b, &b->norm, to, share.count);
}
