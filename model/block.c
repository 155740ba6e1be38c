/* block.c: see block.h. The backward of each step quotes the forward line it differentiates. */
#include "model/block.h"

#include <string.h>

#include "model/attention.h"
#include "model/linear.h"
#include "model/norm.h"

static const float *at(const float *base, size_t offset) { return offset == NO_PARAM ? NULL : base + offset; }
static float *grad_at(float *base, size_t offset) { return offset == NO_PARAM ? NULL : base + offset; }

static size_t inner_of(const attention_params *a) { return (size_t)a->num_heads * (size_t)a->head_dim; }

static bool sublayer_alloc(sublayer_state *s, arena *a, size_t rows, size_t hidden)
{
	return arena_floats(a, &s->normed, rows, hidden) && arena_floats(a, &s->sum, rows, hidden) &&
	       arena_floats(a, &s->mean, rows, 1) && arena_floats(a, &s->rstd, rows, 1);
}

static bool attention_alloc(attention_state *s, arena *a, const attention_params *p, int n, int len, int kv_len, size_t hidden)
{
	size_t rows = (size_t)n * (size_t)len, inner = inner_of(p);
	bool cross = p->kv_width > 0;
	if (cross && !arena_floats(a, &s->kv, (size_t)n * (size_t)kv_len, 2 * inner))
		return false;
	return arena_floats(a, &s->qkv, rows, inner * (cross ? 1 : 3)) &&
	       arena_floats(a, &s->probs, rows, (size_t)p->num_heads * (size_t)kv_len) && arena_floats(a, &s->context, rows, inner) &&
	       sublayer_alloc(&s->sub, a, rows, hidden);
}

bool block_state_alloc(block_state *st, arena *a, const block *b, int n, int len, int encoder_len, bool training)
{
	size_t rows = (size_t)n * (size_t)len, hidden = (size_t)b->hidden;
	memset(st, 0, sizeof *st);
	if (!attention_alloc(&st->self, a, &b->self, n, len, len, hidden))
		return false;
	if (b->cross.num_heads && !attention_alloc(&st->cross, a, &b->cross, n, len, encoder_len, hidden))
		return false;
	if (!arena_floats(a, &st->pre, rows, (size_t)b->ffn_dim))
		return false;
	st->act = st->pre;
	if (training && !arena_floats(a, &st->act, rows, (size_t)b->ffn_dim))
		return false;
	return sublayer_alloc(&st->ffn, a, rows, hidden);
}

/* The rows that the inner function of a sublayer reads. */
static const float *sublayer_input(const block *b, const float *w, const norm_params *np, sublayer_state *s, const float *x,
                                   size_t rows)
{
	if (!b->pre_norm)
		return x;
	norm_forward(s->normed, s->mean, s->rstd, x, w + np->weight, w + np->bias, rows, (size_t)b->hidden, b->eps);
	return s->normed;
}

/* The sublayer's output, once sum = x + inner is there. */
static const float *sublayer_output(const block *b, const float *w, const norm_params *np, sublayer_state *s, size_t rows)
{
	if (b->pre_norm)
		return s->sum;
	norm_forward(s->normed, s->mean, s->rstd, s->sum, w + np->weight, w + np->bias, rows, (size_t)b->hidden, b->eps);
	return s->normed;
}

typedef struct qkv_views {
	attention_view q, k, v;
} qkv_views;

/* q, k, v as columns of the fused projections (or of their gradients, which have the same layout). */
static qkv_views split(const attention_params *p, float *qkv, float *kv)
{
	size_t inner = inner_of(p);
	if (p->kv_width)
		return (qkv_views){{qkv, inner}, {kv, 2 * inner}, {kv + inner, 2 * inner}};
	return (qkv_views){{qkv, 3 * inner}, {qkv + inner, 3 * inner}, {qkv + 2 * inner, 3 * inner}};
}

static attention_shape shape_of(const block *b, const attention_params *p, const block_run *run)
{
	bool cross = p->kv_width > 0;
	return (attention_shape){.n = run->n,
	                         .q_len = run->len,
	                         .kv_len = cross ? run->encoder_len : run->len,
	                         .num_heads = p->num_heads,
	                         .head_dim = p->head_dim,
	                         .causal = !cross && b->causal,
	                         .mask = cross ? NULL : run->mask};
}

static const float *attention_sublayer(const block *b, const attention_params *p, const float *w, attention_state *st,
                                       const float *x, const block_run *run)
{
	size_t rows = (size_t)run->n * (size_t)run->len, hidden = (size_t)b->hidden, inner = inner_of(p);
	const float *in = sublayer_input(b, w, &p->norm, &st->sub, x, rows);
	if (p->kv_width) {
		linear_forward(run->cx, st->qkv, in, w + p->qkv_weight, at(w, p->qkv_bias), rows, hidden, inner);
		linear_forward(run->cx, st->kv, run->encoder, w + p->kv_weight, at(w, p->kv_bias), (size_t)run->n * (size_t)run->encoder_len,
		               (size_t)p->kv_width, 2 * inner);
	} else {
		linear_forward(run->cx, st->qkv, in, w + p->qkv_weight, at(w, p->qkv_bias), rows, hidden, 3 * inner);
	}
	attention_shape s = shape_of(b, p, run);
	qkv_views v = split(p, st->qkv, st->kv);
	attention_forward((attention_view){st->context, inner}, st->probs, v.q, v.k, v.v, &s);
	linear_residual_forward(run->cx, st->sub.sum, st->context, w + p->out_weight, at(w, p->out_bias), x, rows, inner, hidden);
	return sublayer_output(b, w, &p->norm, &st->sub, rows);
}

static const float *ffn_sublayer(const block *b, const float *w, block_state *st, const float *x, const block_run *run)
{
	size_t rows = (size_t)run->n * (size_t)run->len;
	size_t hidden = (size_t)b->hidden, width = (size_t)b->ffn_dim;
	const float *in = sublayer_input(b, w, &b->ffn_norm, &st->ffn, x, rows);
	linear_activation_forward(run->cx, st->act, st->pre, in, w + b->fc1_weight, at(w, b->fc1_bias), b->activation, rows, hidden, width);
	linear_residual_forward(run->cx, st->ffn.sum, st->act, w + b->fc2_weight, at(w, b->fc2_bias), x, rows, width, hidden);
	return sublayer_output(b, w, &b->ffn_norm, &st->ffn, rows);
}

const float *block_forward(const block *b, const float *weights, block_state *st, const float *x, const block_run *run)
{
	x = attention_sublayer(b, &b->self, weights, &st->self, x, run);
	if (b->cross.num_heads)
		x = attention_sublayer(b, &b->cross, weights, &st->cross, x, run);
	return ffn_sublayer(b, weights, st, x, run);
}

bool block_scratch_alloc(block_scratch *sc, arena *a, const block *blocks, int count, int n, int len, int encoder_len)
{
	size_t rows = (size_t)n * (size_t)len, wide = 0, kv = 0, context = 0, hidden = 0, attention = 0;
	for (int i = 0; i < count; i++) {
		const block *b = &blocks[i];
		const attention_params *each[] = {&b->self, &b->cross};
		for (int j = 0; j < 2; j++) {
			const attention_params *p = each[j];
			size_t inner = inner_of(p), kv_len = (size_t)(p->kv_width ? encoder_len : len);
			attention_shape s = {.q_len = len, .kv_len = (int)kv_len};
			if (!p->num_heads)
				continue;
			wide = wide > 3 * inner ? wide : 3 * inner;
			context = context > inner ? context : inner;
			if (p->kv_width)
				kv = kv > 2 * inner ? kv : 2 * inner;
			attention = attention > attention_scratch(&s) ? attention : attention_scratch(&s);
		}
		wide = wide > (size_t)b->ffn_dim ? wide : (size_t)b->ffn_dim;
		hidden = hidden > (size_t)b->hidden ? hidden : (size_t)b->hidden;
	}
	return arena_floats(a, &sc->wide, rows, wide) && arena_floats(a, &sc->kv, (size_t)n * (size_t)encoder_len, kv) &&
	       arena_floats(a, &sc->context, rows, context) && arena_floats(a, &sc->hidden, rows, hidden) &&
	       arena_floats(a, &sc->attention, attention, 1);
}

/* Post-norm: out = LN(sum): turns d from the gradient of out into that of sum. */
static void sublayer_output_backward(const block *b, const float *w, float *g, const norm_params *np, const sublayer_state *s,
                                     float *d, size_t rows, const block_scratch *sc)
{
	if (b->pre_norm)
		return;
	size_t bytes = rows * (size_t)b->hidden * sizeof(float);
	memcpy(sc->hidden, d, bytes);
	memset(d, 0, bytes);
	norm_backward(d, g + np->weight, g + np->bias, sc->hidden, s->sum, w + np->weight, s->mean, s->rstd, rows,
	              (size_t)b->hidden);
}

/* d_in: gradient of the inner function's input. Pre-norm: x = …, in = LN(x): d += backward of LN. Post-norm: in = x, and
 * the caller already accumulated into d. */
static void sublayer_input_backward(const block *b, const float *w, float *g, const norm_params *np, const sublayer_state *s,
                                    const float *x, float *d, const float *d_in, size_t rows)
{
	if (b->pre_norm)
		norm_backward(d, g + np->weight, g + np->bias, d_in, x, w + np->weight, s->mean, s->rstd, rows, (size_t)b->hidden);
}

static void attention_sublayer_backward(const block *b, const attention_params *p, const float *w, float *g,
                                        const attention_state *st, const float *x, float *d, float *d_encoder,
                                        const block_run *run, const block_scratch *sc)
{
	size_t rows = (size_t)run->n * (size_t)run->len, hidden = (size_t)b->hidden, inner = inner_of(p);
	sublayer_output_backward(b, w, g, &p->norm, &st->sub, d, rows, sc);
	/* sum = x + context Wo^T + bo: d stays the gradient of x through the residual */
	linear_backward(run->cx, sc->context, 0, g + p->out_weight, grad_at(g, p->out_bias), d, st->context, w + p->out_weight, rows, inner,
	                hidden);
	/* context = attention(q, k, v) */
	attention_shape s = shape_of(b, p, run);
	qkv_views v = split(p, st->qkv, st->kv), dv = split(p, sc->wide, sc->kv);
	attention_backward(dv.q, dv.k, dv.v, (attention_view){sc->context, inner}, st->probs, v.q, v.k, v.v, &s, sc->attention);
	/* q|k|v = in Wqkv^T + b */
	const float *in = b->pre_norm ? st->sub.normed : x;
	float *d_in = b->pre_norm ? sc->hidden : d;
	linear_backward(run->cx, d_in, !b->pre_norm, g + p->qkv_weight, grad_at(g, p->qkv_bias), sc->wide, in, w + p->qkv_weight, rows, hidden,
	                p->kv_width ? inner : 3 * inner);
	if (p->kv_width)
		linear_backward(run->cx, d_encoder, 1, g + p->kv_weight, grad_at(g, p->kv_bias), sc->kv, run->encoder, w + p->kv_weight,
		                (size_t)run->n * (size_t)run->encoder_len, (size_t)p->kv_width, 2 * inner);
	sublayer_input_backward(b, w, g, &p->norm, &st->sub, x, d, sc->hidden, rows);
}

static void ffn_sublayer_backward(const block *b, const float *w, float *g, const block_state *st, const float *x, float *d,
                                  const block_run *run, const block_scratch *sc)
{
	size_t rows = (size_t)run->n * (size_t)run->len, hidden = (size_t)b->hidden, width = (size_t)b->ffn_dim;
	sublayer_output_backward(b, w, g, &b->ffn_norm, &st->ffn, d, rows, sc);
	/* sum = x + act W2^T + b2 */
	linear_backward(run->cx, sc->wide, 0, g + b->fc2_weight, grad_at(g, b->fc2_bias), d, st->act, w + b->fc2_weight, rows, width, hidden);
	/* act = f(pre) */
	activation_backward(sc->wide, st->pre, b->activation, rows, width);
	/* pre = in W1^T + b1 */
	const float *in = b->pre_norm ? st->ffn.normed : x;
	float *d_in = b->pre_norm ? sc->hidden : d;
	linear_backward(run->cx, d_in, !b->pre_norm, g + b->fc1_weight, grad_at(g, b->fc1_bias), sc->wide, in, w + b->fc1_weight, rows, hidden,
	                width);
	sublayer_input_backward(b, w, g, &b->ffn_norm, &st->ffn, x, d, sc->hidden, rows);
}

void block_backward(const block *b, const float *weights, float *grads, const block_state *st, const float *x, float *d,
                    float *d_encoder, const block_run *run, const block_scratch *sc)
{
	const float *x_self = b->pre_norm ? st->self.sub.sum : st->self.sub.normed; /* the self-attention's output */
	const float *x_ffn = x_self;
	if (b->cross.num_heads)
		x_ffn = b->pre_norm ? st->cross.sub.sum : st->cross.sub.normed;
	ffn_sublayer_backward(b, weights, grads, st, x_ffn, d, run, sc);
	if (b->cross.num_heads)
		attention_sublayer_backward(b, &b->cross, weights, grads, &st->cross, x_self, d, d_encoder, run, sc);
	attention_sublayer_backward(b, &b->self, weights, grads, &st->self, x, d, NULL, run, sc);
}
