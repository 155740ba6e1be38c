/* engine_layer.c: one Linear in its precision, and the rows between products.
 *
 * Between two products a row is read in the type that the first one wrote, worked on in f32 in a buffer that stays in the first
 * cache, and written in the type that the second one reads. */
#include <stdlib.h>
#include <string.h>

#include "model/dnn.h"
#include "model/engine_internal.h"
#include "model/ops.h"
#include "model/parallel.h"

/* Rows that make a thread's share worth waking it: about 8 Ki elements. */
static size_t row_grain(size_t width) { return 1 + 8192 / width; }

/* ---- weights ---- */

void engine_quantize_rows(int8_t *q, float *scale, const float *w, size_t in, size_t out)
{
	PARALLEL_RANGE(out, row_grain(in), j0, j1)
	for (size_t j = j0; j < j1; j++)
		scale[j] = ops->quantize(q + j * in, w + j * in, in);
}

static wn_code open_int8(layer *l, const layer_weights *w, wn_error *err)
{
	int8_t *made = w->q ? NULL : malloc(l->in * l->out);
	l->scale = malloc(l->out * sizeof *l->scale);
	wn_code rc = (w->q || made) && l->scale ? WN_OK : wn_fail(err, WN_NOMEM, "no memory for a layer of %zu x %zu", l->out, l->in);
	if (!rc) {
		if (w->q)
			memcpy(l->scale, w->scale, l->out * sizeof *l->scale);
		else
			engine_quantize_rows(made, l->scale, w->f32, l->in, l->out);
		l->src = ELEMENT_S8;
		l->dst = ELEMENT_S32;
		l->bias = w->bias;
		const packed_spec spec = {.in = (int64_t)l->in, .out = (int64_t)l->out, .src = l->src, .dst = l->dst,
					  .quantized = w->q ? w->q : made};
		rc = packed_open(&l->packed, &spec, err);
	}
	free(made);
	return rc;
}

static wn_code open_float(layer *l, const layer_options *o, bool bf16, const layer_weights *w, wn_error *err)
{
	l->src = bf16 ? ELEMENT_BF16 : ELEMENT_F32;
	l->dst = bf16 && !o->accumulate && !o->wide ? ELEMENT_BF16 : ELEMENT_F32;
	const packed_spec spec = {.in = (int64_t)l->in, .out = (int64_t)l->out, .src = l->src, .dst = l->dst, .accumulate = o->accumulate,
				  .weight = w->f32, .bias = w->bias};
	return packed_open(&l->packed, &spec, err);
}

static void scale_weights(float *values, const int8_t *q, const float *scale, size_t in, size_t out)
{
	PARALLEL_RANGE(out, row_grain(in), j0, j1)
	for (size_t j = j0; j < j1; j++)
		for (size_t i = 0; i < in; i++)
			values[j * in + i] = scale[j] * q[j * in + i];
}

/* f32 with the weights as the precision rounds them: for a CPU that has no kernel for it. */
static wn_code open_rounded(layer *l, const layer_options *o, const layer_weights *w, wn_error *err)
{
	const size_t count = l->in * l->out;
	float *values = malloc(count * sizeof *values), *scale = malloc(l->out * sizeof *scale);
	int8_t *q = malloc(count);
	uint16_t *half = malloc(count * sizeof *half);
	wn_code rc = values && scale && q && half ? WN_OK : wn_fail(err, WN_NOMEM, "no memory for a layer of %zu x %zu", l->out, l->in);
	if (!rc && w->q) {
		scale_weights(values, w->q, w->scale, l->in, l->out);
	} else if (!rc && o->precision == PRECISION_INT8) {
		engine_quantize_rows(q, scale, w->f32, l->in, l->out);
		scale_weights(values, q, scale, l->in, l->out);
	} else if (!rc) {
		ops->to_bf16(half, w->f32, count);
		ops->widen(values, half, count);
	}
	if (!rc)
		rc = open_float(l, o, false, &(layer_weights){.f32 = values, .bias = w->bias}, err);
	free(values);
	free(scale);
	free(q);
	free(half);
	return rc;
}

wn_code layer_open(layer *l, const layer_options *o, const layer_weights *w, size_t in, size_t out, wn_error *err)
{
	*l = (layer){.in = in, .out = out, .precision = o->precision};
	wn_error local = {0};
	wn_code rc;
	if (o->precision == PRECISION_F32)
		rc = open_float(l, o, false, w, &local);
	else if (o->precision == PRECISION_BF16)
		rc = dnn_has_bf16() ? open_float(l, o, true, w, &local) : WN_UNSUPPORTED;
	else
		rc = open_int8(l, w, &local);
	if (rc == WN_UNSUPPORTED) {
		local = (wn_error){0};
		layer_close(l);
		*l = (layer){.in = in, .out = out, .precision = o->precision};
		rc = open_rounded(l, o, w, &local);
	}
	if (!rc)
		return WN_OK;
	layer_close(l);
	return wn_fail(err, rc, "%s", local.message);
}

void layer_close(layer *l)
{
	packed_close(&l->packed);
	free(l->scale);
	*l = (layer){0};
}

/* ---- where weights come from ---- */

/* Room for `count` elements, whatever was there before. */
static wn_code need_room(void **buffer, size_t *room, size_t count, size_t size, wn_error *err)
{
	if (*room >= count)
		return WN_OK;
	free(*buffer);
	*buffer = malloc(count * size);
	*room = *buffer ? count : 0;
	return *buffer ? WN_OK : wn_fail(err, WN_NOMEM, "no memory for a layer's %zu weights", count);
}

static wn_code read_weights(engine_opener *op, layer_weights *w, bool int8, size_t weight, size_t in, size_t out, wn_error *err)
{
	wn_code rc;
	if (!int8) {
		rc = need_room((void **)&op->f32, &op->f32_room, in * out, sizeof *op->f32, err);
		w->f32 = op->f32;
		return rc ? rc : weight_source_read(op->o->source, weight, in * out, op->f32, err);
	}
	rc = need_room((void **)&op->q, &op->q_room, in * out, 1, err);
	if (!rc)
		rc = need_room((void **)&op->scale, &op->scale_room, out, sizeof *op->scale, err);
	if (!rc)
		weight_source_read_int8(op->o->source, weight, in * out, op->q, op->scale);
	w->q = op->q;
	w->scale = op->scale;
	return rc;
}

wn_code engine_open_layer(engine_opener *op, layer *l, layer_kind kind, size_t weight, size_t bias, size_t in, size_t out, wn_error *err)
{
	const engine_options *eo = op->o;
	layer_options o = {.precision = eo->precision, .accumulate = kind == LAYER_ACCUMULATES, .wide = kind >= LAYER_WIDE};
	layer_weights w = {.bias = bias == NO_PARAM ? NULL : op->m->weights + bias};
	const bool stored = eo->source && weight_source_is_int8(eo->source, weight, in * out);
	wn_code rc = WN_OK;
	if (o.precision == PRECISION_INT8 && !stored && eo->source && weight_source_is_quantized(eo->source))
		o.precision = PRECISION_BF16;
	if (o.precision == PRECISION_INT8 && kind == LAYER_PIXELS)
		o.precision = PRECISION_BF16;
	if (eo->choose)
		o.precision = eo->choose(eo->ctx, blip2_param_at(op->m, weight), o.precision);
	if (eo->source)
		rc = read_weights(op, &w, stored && o.precision == PRECISION_INT8, weight, in, out, err);
	else
		w.f32 = op->m->weights + weight;
	if (!rc)
		rc = layer_open(l, &o, &w, in, out, err);
	if (eo->source)
		weight_source_release(eo->source, weight, in * out);
	return rc;
}

/* ---- rows ---- */

/* Row r of what y reads. */
static void store_row(engine_lane *l, const layer *y, size_t r, const float *row)
{
	const size_t at = r * y->in;
	if (y->src == ELEMENT_S8)
		l->in_scale[r] = ops->quantize((int8_t *)l->in + at, row, y->in);
	else if (y->src == ELEMENT_BF16)
		ops->to_bf16((uint16_t *)l->in + at, row, y->in);
	else if ((float *)l->in + at != row)
		memcpy((float *)l->in + at, row, y->in * sizeof *row);
}

/* Row r of what y wrote into raw, bias included, as f32: where it stands already, or in l->row. */
static float *load_row(engine_lane *l, const layer *y, size_t r)
{
	const size_t at = r * y->out;
	if (y->dst == ELEMENT_F32)
		return (float *)l->raw + at;
	if (y->dst == ELEMENT_BF16)
		ops->widen(l->row, (uint16_t *)l->raw + at, y->out);
	else
		ops->dequantize(l->row, (int32_t *)l->raw + at, l->in_scale[r], y->scale, y->bias, y->out);
	return l->row;
}

static void product(engine_lane *l, const layer *y, size_t rows, void *dst)
{
	if (rows) /* a lane may have none */
		packed_run(l->runner, y->packed, (int64_t)rows, l->in, dst);
}

void layer_take(engine_lane *l, const layer *y, const row_source *src, size_t rows)
{
	const float *w = l->s->e->m->weights;
	for (size_t r = 0; r < rows; r++) {
		const float *x = src->x + r * y->in;
		if (src->norm && y->src == ELEMENT_S8) {
			l->in_scale[r] = ops->quantize_norm((int8_t *)l->in + r * y->in, l->row, x, w + src->norm->weight, w + src->norm->bias,
							    y->in, src->eps);
			continue;
		}
		float *row = y->src == ELEMENT_F32 ? (float *)l->in + r * y->in : l->row;
		if (src->norm) {
			ops->layer_norm(row, NULL, NULL, x, w + src->norm->weight, w + src->norm->bias, 1, y->in, src->eps);
			x = row;
		}
		store_row(l, y, r, x);
	}
}

void *layer_context(const engine_lane *l, const layer *y, bool bf16)
{
	return y->src == (bf16 ? ELEMENT_BF16 : ELEMENT_F32) ? l->in : l->context;
}

void layer_take_context(engine_lane *l, const layer *y, bool bf16, size_t rows)
{
	if (layer_context(l, y, bf16) == l->in)
		return;
	for (size_t r = 0; r < rows; r++) {
		if (bf16)
			ops->widen(l->row, (const uint16_t *)l->context + r * y->in, y->in);
		store_row(l, y, r, bf16 ? l->row : (const float *)l->context + r * y->in);
	}
}

void layer_add(engine_lane *l, const layer *y, size_t rows, float *x)
{
	if (y->dst != ELEMENT_S32) {
		product(l, y, rows, x); /* opened to accumulate */
		return;
	}
	product(l, y, rows, l->raw);
	for (size_t r = 0; r < rows; r++)
		ops->dequantize_add(x + r * y->out, (int32_t *)l->raw + r * y->out, l->in_scale[r], y->scale, y->bias, y->out);
}

void layer_write(engine_lane *l, const layer *y, size_t rows, void *out, bool bf16)
{
	if (y->dst == (bf16 ? ELEMENT_BF16 : ELEMENT_F32)) {
		product(l, y, rows, out);
		return;
	}
	product(l, y, rows, l->raw);
	for (size_t r = 0; r < rows; r++) {
		const float *row = load_row(l, y, r);
		if (bf16)
			ops->to_bf16((uint16_t *)out + r * y->out, row, y->out);
		else
			memcpy((float *)out + r * y->out, row, y->out * sizeof *row);
	}
}

void layer_write_parts(engine_lane *l, const layer *y, size_t rows, size_t width, int8_t *out, float *scale)
{
	const size_t parts = y->out / width;
	product(l, y, rows, l->raw);
	for (size_t r = 0; r < rows; r++)
		ops->quantize_sums(out + r * y->out, scale + r * parts, l->row, (int32_t *)l->raw + r * y->out, l->in_scale[r], y->scale, y->bias,
				   parts, width);
}

static void activate_row(engine_lane *l, const layer *y, activation f, const layer *next, size_t r)
{
	const bool gelu = f == ACTIVATION_GELU;
	if (y->dst == ELEMENT_S32 && next->src == ELEMENT_S8) {
		(gelu ? ops->quantize_gelu : ops->quantize_relu)((int8_t *)l->in + r * next->in, &l->in_scale[r], l->row,
								 (int32_t *)l->raw + r * y->out, l->in_scale[r], y->scale, y->bias, 1, y->out);
	} else if (y->dst == ELEMENT_BF16 && next->src == ELEMENT_BF16) {
		(gelu ? ops->bf16_gelu : ops->bf16_relu)((uint16_t *)l->in + r * next->in, (uint16_t *)l->raw + r * y->out, y->out);
	} else {
		float *row = load_row(l, y, r), *act = next->src == ELEMENT_F32 ? (float *)l->in + r * next->in : row;
		(gelu ? ops->bias_gelu : ops->bias_relu)(act, row, NULL, 1, y->out);
		store_row(l, next, r, act);
	}
}

void layer_activate(engine_lane *l, const layer *y, activation f, const layer *next, size_t rows)
{
	product(l, y, rows, l->raw);
	for (size_t r = 0; r < rows; r++)
		activate_row(l, y, f, next, r);
}
