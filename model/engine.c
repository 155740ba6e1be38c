/* engine.c: an engine's layers, and its tokens. */
#include "model/engine_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/ops.h"

const char *const PRECISION_NAMES[] = {"f32", "bf16", "int8", NULL};

int precision_of(const char *name)
{
	for (int p = 0; PRECISION_NAMES[p]; p++)
		if (!strcmp(PRECISION_NAMES[p], name))
			return p;
	return -1;
}

static wn_code open_stack(engine_stack *out, engine_opener *op, const stack *s, wn_error *err)
{
	wn_code rc = WN_OK;
	for (int i = 0; !rc && i < s->num_blocks; i++) {
		rc = engine_block_open(&out->blocks[i], op, &s->blocks[i], err);
		out->num_blocks = i + 1; /* closes what a failed block has opened */
	}
	return rc;
}

static void close_stack(engine_stack *s)
{
	for (int i = 0; i < s->num_blocks; i++)
		engine_block_close(&s->blocks[i]);
}

static void release_buffers(engine_opener *op)
{
	free(op->f32);
	free(op->q);
	free(op->scale);
	*op = (engine_opener){.m = op->m, .o = op->o};
}

/* ---- tokens ---- */

/* The table in s8, as the logits' layer has it: stored that way, or rounded now. */
static void quantize_tokens(token_table *t, const engine_opener *op, const float *f32, size_t vocab, size_t d)
{
	if (!f32) {
		memcpy(t->q, op->q, vocab * d);
		memcpy(t->scale, op->scale, vocab * sizeof *t->scale);
		return;
	}
	engine_quantize_rows(t->q, t->scale, f32, d, vocab);
}

/* Behind the logits' layer, whose weights op still holds. */
static wn_code open_tokens(engine *e, const engine_opener *op, wn_error *err)
{
	token_table *t = &e->tokens;
	const size_t vocab = (size_t)e->m->config.vocab_size, d = (size_t)e->m->text.hidden;
	const precision p = e->logits.precision;
	const bool stored = op->o->source && p == PRECISION_INT8 && weight_source_is_int8(op->o->source, e->m->token_embedding, vocab * d);
	const float *f32 = !op->o->source ? e->m->weights + e->m->token_embedding : stored ? NULL : op->f32;
	if (p == PRECISION_INT8) {
		t->q = malloc(vocab * d);
		t->scale = malloc(vocab * sizeof *t->scale);
	} else if (p == PRECISION_BF16) {
		t->half = malloc(vocab * d * sizeof *t->half);
	} else if (op->o->source) {
		t->own = malloc(vocab * d * sizeof *t->own);
	}
	if ((p == PRECISION_INT8 && (!t->q || !t->scale)) || (p == PRECISION_BF16 && !t->half) || (p == PRECISION_F32 && op->o->source && !t->own))
		return wn_fail(err, WN_NOMEM, "no memory for %zu tokens", vocab);
	if (p == PRECISION_INT8)
		quantize_tokens(t, op, f32, vocab, d);
	else if (p == PRECISION_BF16)
		ops->to_bf16(t->half, f32, vocab * d);
	else if (t->own)
		memcpy(t->own, f32, vocab * d * sizeof *f32);
	t->f32 = t->own ? t->own : f32;
	return WN_OK;
}

static void close_tokens(token_table *t)
{
	free(t->own);
	free(t->half);
	free(t->q);
	free(t->scale);
}

void engine_token(const engine *e, int32_t id, float *out)
{
	const token_table *t = &e->tokens;
	const size_t d = (size_t)e->m->text.hidden, at = (size_t)id * d;
	if (t->half)
		ops->widen(out, t->half + at, d);
	else if (!t->q)
		memcpy(out, t->f32 + at, d * sizeof *out);
	else
		for (size_t i = 0; i < d; i++)
			out[i] = t->scale[id] * t->q[at + i];
}

/* ---- the engine ---- */

static void for_layers(const engine *e, void (*f)(void *ctx, const layer *l), void *ctx)
{
	const engine_stack *stacks[] = {&e->vision, &e->qformer, &e->text};
	const layer *others[] = {&e->patches, &e->projection, &e->logits};
	for (int i = 0; i < 3; i++) {
		f(ctx, others[i]);
		for (int b = 0; b < stacks[i]->num_blocks; b++)
			engine_block_layers(&stacks[i]->blocks[b], f, ctx);
	}
}

static void count_layer(void *ctx, const layer *l) { ((int *)ctx)[l->precision]++; }

int engine_count_layers(const engine *e, precision p)
{
	int counts[] = {0, 0, 0};
	for_layers(e, count_layer, counts);
	return counts[p];
}

/* What the first layer in the engine's precision runs on stands for all of them. */
static void name_kernel(void *ctx, const layer *l)
{
	engine *e = ctx;
	const bool rounded = l->src == ELEMENT_F32 && l->precision != PRECISION_F32;
	if (!e->description[0] && l->precision == e->precision)
		snprintf(e->description, sizeof e->description, "%s%s %s", PRECISION_NAMES[e->precision], rounded ? " weights in f32" : "",
			 packed_kernel(l->packed));
}

/* The first attention stands for all, too; NULL: every one was pruned. */
static const engine_attention *first_attention(const engine *e)
{
	const engine_stack *const stacks[] = {&e->vision, &e->qformer, &e->text};
	for (size_t i = 0; i < sizeof stacks / sizeof *stacks; i++)
		for (int b = 0; b < stacks[i]->num_blocks; b++)
			if (stacks[i]->blocks[b].self.num_heads)
				return &stacks[i]->blocks[b].self;
	return NULL;
}

static void describe(engine *e)
{
	for_layers(e, name_kernel, e);
	if (!e->description[0])
		snprintf(e->description, sizeof e->description, "%s", PRECISION_NAMES[e->precision]);
	const engine_attention *a = first_attention(e);
	const size_t n = strlen(e->description);
	if (a)
		snprintf(e->description + n, sizeof e->description - n, ", attention %s", attend_describe(a->type));
}

static wn_code open_layers(engine *e, engine_opener *op, wn_error *err)
{
	const blip2 *m = e->m;
	const blip2_config *c = &m->config;
	const size_t pixels = 3 * (size_t)c->patch_size * (size_t)c->patch_size, dv = (size_t)m->vision.hidden;
	const size_t dq = (size_t)m->qformer.hidden, dt = (size_t)m->text.hidden;
	/* the largest first, while there is little else in memory */
	wn_code rc = engine_open_layer(op, &e->logits, LAYER_WIDE, m->token_embedding, NO_PARAM, dt, (size_t)c->vocab_size, err);
	if (!rc)
		rc = open_tokens(e, op, err);
	release_buffers(op);
	if (!rc)
		rc = engine_open_layer(op, &e->patches, LAYER_PIXELS, m->patch_weight, NO_PARAM, pixels, dv, err);
	if (!rc)
		rc = open_stack(&e->vision, op, &m->vision, err);
	if (!rc)
		rc = open_stack(&e->qformer, op, &m->qformer, err);
	if (!rc)
		rc = engine_open_layer(op, &e->projection, LAYER_WIDE, m->projection_weight, m->projection_bias, dq, dt, err);
	return rc ? rc : open_stack(&e->text, op, &m->text, err);
}

wn_code engine_open(engine **out, const blip2 *m, const engine_options *o, wn_error *err)
{
	engine_opener op = {.m = m, .o = o};
	engine *e = *out = calloc(1, sizeof *e);
	if (!e)
		return wn_fail(err, WN_NOMEM, "no memory for an engine");
	e->m = m;
	e->precision = o->precision;
	wn_code rc = o->source ? weight_source_fill_small(o->source, err) : WN_OK;
	if (!rc)
		rc = open_layers(e, &op, err);
	release_buffers(&op);
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
	close_tokens(&(*e)->tokens);
	free(*e);
	*e = NULL;
}

precision engine_precision(const engine *e) { return e->precision; }
const char *engine_describe(const engine *e) { return e->description; }
