/* quantize.c: see quantize.h. */
#include "prune/quantize.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define AT_ONCE 20 /* a twentieth of the layers goes to bf16 between two looks at the whole model */

/* ---- the layers ---- */

typedef struct layer_list {
	const param **first;
	size_t count;
	bool failed;
} layer_list;

/* engine_options.choose: all layers come by. */
static precision note_layer(void *ctx, const param *first, precision p)
{
	layer_list *l = ctx;
	const param **grown = realloc(l->first, (l->count + 1) * sizeof *grown);
	l->failed |= !grown;
	if (grown) {
		l->first = grown;
		l->first[l->count++] = first;
	}
	return p;
}

/* Pixels have values of all sizes and no norm before them (engine_internal.h). */
static bool can_be_int8(const param *p) { return p->rank == 2; }

static wn_code list_layers(quantize_plan *plan, const blip2 *m, wn_error *err)
{
	layer_list l = {0};
	engine *e = NULL;
	wn_code rc = engine_open(&e, m, &(engine_options){.precision = PRECISION_F32, .choose = note_layer, .ctx = &l}, err);
	engine_close(&e);
	if (!rc && (l.failed || !(plan->layers = calloc(l.count, sizeof *plan->layers))))
		rc = wn_fail(err, WN_NOMEM, "no memory for the layers of a model");
	for (size_t i = 0; i < l.count && !rc; i++)
		plan->layers[i] = (quantize_layer){.first = l.first[i], .precision = can_be_int8(l.first[i]) ? PRECISION_INT8 : PRECISION_BF16};
	plan->count = l.count;
	free(l.first);
	return rc;
}

size_t quantize_count_layers(const blip2 *m)
{
	const blip2_config *c = blip2_get_config(m);
	size_t count = 3; /* patches, projection, logits */
	for (int s = 0; s < NUM_COMPONENTS; s++) {
		const stack_config *k = shape_stack(c, (component)s);
		for (int i = 0; i < k->num_hidden_layers; i++)
			count += k->blocks[i].cross_num_heads ? 7 : 4;
	}
	return count;
}

/* ---- trying ---- */

static precision only_this(void *ctx, const param *first, precision p) { return first == ctx ? PRECISION_INT8 : p; }

static precision as_planned(void *ctx, const param *first, precision p)
{
	const quantize_plan *plan = ctx;
	for (size_t i = 0; i < plan->count; i++)
		if (plan->layers[i].first == first)
			return plan->layers[i].precision;
	return p;
}

static wn_code try_layers(quantize_plan *plan, const quantize_probe *probe, const quantize_options *o, wn_error *err)
{
	wn_code rc = WN_OK;
	for (size_t i = 0; i < plan->count && !rc; i++) {
		quantize_layer *l = &plan->layers[i];
		const engine_options alone = {.precision = PRECISION_F32, .choose = only_this, .ctx = (void *)(uintptr_t)l->first};
		if (o->stop && *o->stop)
			return wn_fail(err, WN_CANCELLED, "stopped");
		if (o->progress)
			o->progress(o->ctx, i, plan->count, l->first->name);
		if (l->precision != PRECISION_INT8)
			continue;
		rc = probe->score(probe->ctx, &alone, &l->alone, err);
		l->tried = !rc;
		if (!rc && l->alone.cosine < o->layer_cosine)
			l->precision = PRECISION_BF16;
	}
	return rc;
}

/* The dearest layer that still is int8; NULL when none is. */
static quantize_layer *dearest(quantize_plan *plan)
{
	quantize_layer *worst = NULL;
	for (size_t i = 0; i < plan->count; i++) {
		quantize_layer *l = &plan->layers[i];
		if (l->precision == PRECISION_INT8 && (!worst || l->alone.cosine < worst->alone.cosine))
			worst = l;
	}
	return worst;
}

static bool near_enough(const quantize_plan *plan, const quantize_options *o)
{
	const double lost = plan->f32.accuracy - plan->whole.accuracy;
	return plan->whole.cosine >= o->model_cosine && !(lost > o->max_loss);
}

static wn_code score_whole(quantize_plan *plan, const quantize_probe *probe, const quantize_options *o, wn_error *err)
{
	if (o->stop && *o->stop)
		return wn_fail(err, WN_CANCELLED, "stopped");
	wn_code rc = probe->score(probe->ctx, &(engine_options){.precision = PRECISION_INT8, .choose = as_planned, .ctx = plan}, &plan->whole, err);
	plan->reached = !rc && near_enough(plan, o);
	return rc;
}

static wn_code settle(quantize_plan *plan, const quantize_probe *probe, const quantize_options *o, wn_error *err)
{
	for (;;) {
		wn_code rc = score_whole(plan, probe, o, err);
		if (rc || plan->reached)
			return rc;
		quantize_layer *l = dearest(plan);
		if (!l)
			return WN_OK;
		for (size_t i = 0; l && i < 1 + plan->count / AT_ONCE; i++, l = dearest(plan))
			l->precision = PRECISION_BF16;
	}
}

wn_code quantize_plan_make(quantize_plan *out, const blip2 *m, const quantize_probe *probe, const quantize_options *o, wn_error *err)
{
	*out = (quantize_plan){0};
	wn_code rc = list_layers(out, m, err);
	if (!rc)
		rc = probe->score(probe->ctx, &(engine_options){.precision = PRECISION_F32}, &out->f32, err);
	if (!rc && o->quick)
		rc = score_whole(out, probe, o, err);
	if (!rc && !out->reached)
		rc = try_layers(out, probe, o, err);
	if (!rc && !out->reached)
		rc = settle(out, probe, o, err);
	if (rc)
		quantize_plan_close(out);
	return rc;
}

void quantize_plan_close(quantize_plan *p)
{
	free(p->layers);
	*p = (quantize_plan){0};
}

/* ---- storing ---- */

void quantize_dtypes(dtype *out, const blip2 *m, const quantize_plan *plan)
{
	bool int8 = false;
	for (size_t i = 0; i < blip2_num_params(m); i++) {
		const param *p = blip2_param(m, i);
		/* the other matrices of a fused layer lie right behind its first */
		for (size_t k = 0; plan && k < plan->count; k++)
			if (plan->layers[k].first == p)
				int8 = plan->layers[k].precision == PRECISION_INT8;
		out[i] = !p->decay ? DTYPE_F32 : int8 ? DTYPE_I8 : DTYPE_BF16;
	}
}
