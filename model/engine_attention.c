/* engine_attention.c: attention between an engine's layers: the operands that lanes share, and each lane's rows of the result.
 *
 * Operands are s8 where the projections are int8, else bf16, in an f32 engine f32, as far as the CPU has a kernel for them (attend.h).
 * Without any they are f32, and a sample's heads are one batch of oneDNN's products with softmax between. */
#include <math.h>
#include <string.h>

#include "model/attend_internal.h"
#include "model/dnn.h"
#include "model/engine_internal.h"
#include "model/ops.h"

static size_t inner_of(const engine_attention *a) { return (size_t)a->num_heads * (size_t)a->head_dim; }

/* s8 where the projections make s32 sums: a projection that was kept from int8 keeps its attention, too. */
static element operands_type(const engine_attention *a, precision p)
{
	if (a->qkv.dst == ELEMENT_S32 && (!a->kv_width || a->kv.dst == ELEMENT_S32) && attend_kernel(ELEMENT_S8))
		return ELEMENT_S8;
	return p != PRECISION_F32 && dnn_has_bf16() && attend_kernel(ELEMENT_BF16) ? ELEMENT_BF16 : ELEMENT_F32;
}

wn_code engine_attention_open(engine_attention *out, engine_opener *op, const attention_params *p, int hidden, wn_error *err)
{
	*out = (engine_attention){.num_heads = p->num_heads, .head_dim = p->head_dim, .kv_width = p->kv_width, .norm = p->norm};
	const size_t inner = inner_of(out), d = (size_t)hidden;
	if (!p->num_heads)
		return WN_OK;
	wn_code rc = engine_open_layer(op, &out->qkv, LAYER_PLAIN, p->qkv_weight, p->qkv_bias, d, p->kv_width ? inner : 3 * inner, err);
	if (!rc && p->kv_width)
		rc = engine_open_layer(op, &out->kv, LAYER_PLAIN, p->kv_weight, p->kv_bias, (size_t)p->kv_width, 2 * inner, err);
	if (!rc)
		rc = engine_open_layer(op, &out->out, LAYER_ACCUMULATES, p->out_weight, p->out_bias, inner, d, err);
	out->type = operands_type(out, op->o->precision);
	return rc;
}

/* ---- operands ---- */

/* Own rows of what y makes, for everybody: row `first` of `to` and those behind it. */
static void write_operand(engine_lane *l, const engine_attention *a, const layer *y, const operand *to, row_range own)
{
	const size_t parts = y->out / (size_t)a->head_dim;
	char *rows = (char *)to->data + own.first * y->out * element_size(a->type);
	if (a->type == ELEMENT_S8)
		layer_write_parts(l, y, own.count, (size_t)a->head_dim, (int8_t *)rows, to->scale + own.first * parts);
	else
		layer_write(l, y, own.count, rows, a->type == ELEMENT_BF16);
}

/* The columns of `to` from `column` on. */
static engine_view view_of(const engine_attention *a, const operand *to, size_t stride, size_t column)
{
	const size_t d = (size_t)a->head_dim;
	return (engine_view){(const char *)to->data + column * element_size(a->type), stride, to->scale + column / d, stride / d};
}

engine_operands engine_attention_operands(engine_lane *l, const engine_block *b, const engine_attention *a, const float *x, const engine_rows *run)
{
	engine_session *s = l->s;
	const size_t inner = inner_of(a), kv_width = (size_t)a->kv_width;
	const row_range own = lane_share(l, (size_t)run->n * (size_t)run->len);
	const row_source in = {.x = x + own.first * (size_t)b->hidden, .norm = b->pre_norm ? &a->norm : NULL, .eps = b->eps};
	const operand *qkv = &s->qkv[l->turn], *kv = &s->kv[l->turn];
	l->turn ^= 1;
	layer_take(l, &a->qkv, &in, own.count);
	write_operand(l, a, &a->qkv, qkv, own);
	if (kv_width) {
		const row_range keys = lane_share(l, (size_t)run->n * (size_t)run->encoder_len);
		const row_source encoder = {.x = run->encoder + keys.first * kv_width};
		layer_take(l, &a->kv, &encoder, keys.count);
		write_operand(l, a, &a->kv, kv, keys);
	}
#pragma omp barrier
	if (kv_width)
		return (engine_operands){view_of(a, qkv, inner, 0), view_of(a, kv, 2 * inner, 0), view_of(a, kv, 2 * inner, inner)};
	return (engine_operands){view_of(a, qkv, 3 * inner, 0), view_of(a, qkv, 3 * inner, inner), view_of(a, qkv, 3 * inner, 2 * inner)};
}

/* v from row `rows` on. */
static engine_view behind(engine_view v, size_t rows, element type)
{
	return (engine_view){v.data + rows * v.stride * element_size(type), v.stride, v.scale + rows * v.scales, v.scales};
}

/* ---- results ---- */

/* Rows of one sample that a lane attends for. */
typedef struct span {
	size_t sample;
	attend_queries queries; /* rows: counted through all samples */
} span;

/* One sample of a run. */
typedef struct attended {
	size_t len, keys;
	bool causal;
	const float *mask; /* [len][keys] or NULL */
} attended;

/* Softmax of all heads' rows in place. */
static void soften(engine_lane *l, const engine_attention *a, const attended *t, const attend_queries *q)
{
	const float scale = 1.0f / sqrtf((float)a->head_dim);
	for (size_t r = 0; r < (size_t)a->num_heads * q->count; r++) {
		const size_t at = attend_position(q, r % q->count);
		float *row = l->scores + r * t->keys;
		ops->softmax(row, t->mask ? t->mask + at * t->keys : NULL, scale, t->causal ? at + 1 : t->keys, t->keys);
	}
}

/* Of v, the sample's, the rows of q behind each other. */
static engine_view gather_queries(engine_lane *l, const engine_attention *a, engine_view v, const attend_queries *q)
{
	const size_t bytes = inner_of(a) * element_size(a->type);
	if (!q->rows)
		return behind(v, q->first, a->type);
	for (size_t i = 0; i < q->count; i++)
		memcpy((char *)l->queries + i * bytes, behind(v, attend_position(q, i), a->type).data, bytes);
	return (engine_view){.data = l->queries, .stride = inner_of(a)};
}

/* All heads as one batch of products, in f32. */
static void attend_heads(engine_lane *l, const engine_attention *a, const engine_operands *o, const attended *t, const attend_queries *queries,
			 void *context)
{
	const int64_t heads = a->num_heads, d = a->head_dim, m = (int64_t)queries->count, n = (int64_t)t->keys, inner = (int64_t)inner_of(a);
	const engine_view q = gather_queries(l, a, o->q, queries);
	const packed_product scores = {.count = heads, .m = m, .n = n, .k = d, .src = ELEMENT_F32, .dst = ELEMENT_F32,
				       .a = {d, (int64_t)q.stride, 1}, .b = {d, 1, (int64_t)o->k.stride}, .c = {m * n, n, 1}};
	const packed_product sums = {.count = heads, .m = m, .n = d, .k = n, .src = ELEMENT_F32, .dst = ELEMENT_F32,
				     .a = {m * n, n, 1}, .b = {d, (int64_t)o->v.stride, 1}, .c = {d, inner, 1}};
	packed_multiply(l->runner, &scores, q.data, o->k.data, l->scores);
	soften(l, a, t, queries);
	packed_multiply(l->runner, &sums, l->scores, o->v.data, context);
}

static attend_rows rows_of(const engine_attention *a, engine_view v, size_t head)
{
	return (attend_rows){v.data + head * (size_t)a->head_dim * element_size(a->type), v.stride, v.scale + head, v.scales};
}

/* One head after the other, by the CPU's own kernel. */
static void attend_each_head(engine_lane *l, const engine_attention *a, attend_fn attend, const engine_operands *o, const attended *t,
			     const attend_queries *queries, char *context)
{
	const size_t d = (size_t)a->head_dim, size = a->type == ELEMENT_BF16 ? 2 : 4;
	for (size_t h = 0; h < (size_t)a->num_heads; h++)
		attend(&(attend_job){.type = a->type, .q = rows_of(a, o->q, h), .k = rows_of(a, o->k, h), .v = rows_of(a, o->v, h), .keys = t->keys,
				     .head_dim = d, .scale = 1.0f / sqrtf((float)d), .causal = t->causal, .mask = t->mask, .queries = *queries,
				     .out = context + h * d * size, .out_stride = inner_of(a), .scratch = l->scores});
}

/* The span that begins with row i of `share`. */
static span span_at(const engine_rows *run, row_range share, size_t i)
{
	const size_t len = (size_t)run->len, at = share.first + i, row = run->kept ? (size_t)run->kept[at] : at, left = share.count - i;
	span p = {.sample = row / len, .queries = {.first = row % len, .rows = run->kept ? run->kept + at : NULL, .len = len}};
	if (run->kept)
		while (p.queries.count < left && (size_t)p.queries.rows[p.queries.count] / len == p.sample)
			p.queries.count++;
	else
		p.queries.count = len - p.queries.first < left ? len - p.queries.first : left;
	return p;
}

void engine_attend(engine_lane *l, const engine_attention *a, bool causal, const engine_operands *o, const engine_rows *run, row_range share)
{
	const bool self = !a->kv_width, bf16 = a->type == ELEMENT_BF16;
	const size_t len = (size_t)run->len, keys = self ? len : (size_t)run->encoder_len, row_bytes = inner_of(a) * (bf16 ? 2 : 4);
	char *context = layer_context(l, &a->out, bf16);
	const attend_fn attend = attend_kernel(a->type);
	for (size_t i = 0; i < share.count;) {
		const span p = span_at(run, share, i);
		const attended t = {.len = len, .keys = keys, .causal = causal && self,
				    .mask = self && run->mask ? run->mask + p.sample * len * len : NULL};
		const engine_operands sample = {behind(o->q, p.sample * len, a->type), behind(o->k, p.sample * keys, a->type),
						behind(o->v, p.sample * keys, a->type)};
		if (attend)
			attend_each_head(l, a, attend, &sample, &t, &p.queries, context + i * row_bytes);
		else
			attend_heads(l, a, &sample, &t, &p.queries, context + i * row_bytes);
		i += p.queries.count;
	}
	layer_take_context(l, &a->out, bf16, share.count);
}
