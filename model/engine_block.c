/* engine_block.c: one transformer block for inference: block.h's three residual sublayers on packed layers. */
#include <string.h>

#include "model/engine_internal.h"
#include "model/ops.h"

wn_code engine_block_open(engine_block *out, engine_opener *op, const block *b, wn_error *err)
{
	const size_t d = (size_t)b->hidden, ffn = (size_t)b->ffn_dim;
	*out = (engine_block){.activation = b->activation, .pre_norm = b->pre_norm, .causal = b->causal, .hidden = b->hidden, .eps = b->eps,
			      .norm = b->ffn_norm};
	wn_code rc = engine_attention_open(&out->self, op, &b->self, b->hidden, err);
	if (!rc)
		rc = engine_attention_open(&out->cross, op, &b->cross, b->hidden, err);
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

/* to: where rows of `share` get their results, the first of them. */
static void attention_sublayer(engine_lane *l, const engine_block *b, const engine_attention *a, const engine_operands *o, const engine_rows *run,
			       row_range share, float *to)
{
	engine_attend(l, a, b->causal, o, run, share);
	layer_add(l, &a->out, share.count, to);
	finish(l, b, &a->norm, to, share.count);
}

static float *results_of(const engine_rows *run, float *x, row_range share, size_t d)
{
	return (run->kept ? run->kept_x : x) + share.first * d;
}

void engine_block_attend(engine_lane *l, const engine_block *b, float *x, const engine_rows *run)
{
	const size_t d = (size_t)b->hidden;
	const row_range share = result_rows(l, run);
	const engine_operands self = engine_attention_operands(l, b, &b->self, x, run);
	if (run->kept)
		take_kept(run, x, share, d); /* of any lane's rows: behind the operands' barrier */
	attention_sublayer(l, b, &b->self, &self, run, share, results_of(run, x, share, d));
}

void engine_block_finish(engine_lane *l, const engine_block *b, float *x, const engine_rows *run)
{
	const row_range share = result_rows(l, run);
	float *to = results_of(run, x, share, (size_t)b->hidden);
	if (b->cross.num_heads) {
		const engine_operands cross = engine_attention_operands(l, b, &b->cross, x, run);
		attention_sublayer(l, b, &b->cross, &cross, run, share, to);
	}
	const row_source in = {.x = to, .norm = b->pre_norm ? &b->norm : NULL, .eps = b->eps};
	layer_take(l, &b->fc1, &in, share.count);
	layer_activate(l, &b->fc1, b->activation, &b->fc2, share.count);
	layer_add(l, &b->fc2, share.count, to);
	finish(l, b, &b->norm, to, share.count);
}

void engine_block_run(engine_lane *l, const engine_block *b, float *x, const engine_rows *run)
{
	engine_block_attend(l, b, x, run);
	engine_block_finish(l, b, x, run);
}
