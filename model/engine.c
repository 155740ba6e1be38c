/* engine.c: an engine's layers. */
#include "model/engine_internal.h"

#include <stdio.h>
#include <stdlib.h>

const char *const PRECISION_NAMES[] = {"f32", "bf16", "int8", NULL};

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
