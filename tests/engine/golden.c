/* golden.c: see golden.h. */
#include "golden.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *golden_path(const char *name, const char *file)
{
	static char path[PATH_MAX];
	snprintf(path, sizeof path, "%s/golden/%s%s%s", ENGINE_TESTS, name, *file ? "/" : "", file);
	return path;
}

const float *golden_floats(const safetensors *st, const char *name, size_t count)
{
	const tensor *t = safetensors_find(st, name);
	if (!t)
		fail_msg("%s: missing from the golden file", name);
	assert_int_equal(t->dtype, DTYPE_F32);
	assert_int_equal((size_t)shape_count(t->rank, t->shape), count);
	return t->data;
}

static int32_t *narrow(const tensor *t)
{
	const size_t count = (size_t)shape_count(t->rank, t->shape);
	int32_t *out = malloc(count * sizeof *out);
	for (size_t i = 0; i < count; i++) {
		int64_t v;
		memcpy(&v, (const char *)t->data + i * sizeof v, sizeof v);
		out[i] = (int32_t)v;
	}
	return out;
}

void golden_open(golden *g, const char *name)
{
	wn_error err = {0};
	memset(g, 0, sizeof *g);
	assert_ok(checkpoint_load(&g->ck, golden_path(name, ""), NULL, &err), &err);
	assert_ok(safetensors_open(&g->in, golden_path(name, "in.safetensors"), &err), &err);
	assert_ok(safetensors_open(&g->out, golden_path(name, "out.safetensors"), &err), &err);
	if (access(golden_path(name, "grad.safetensors"), R_OK) == 0)
		assert_ok(safetensors_open(&g->grad, golden_path(name, "grad.safetensors"), &err), &err);
	const tensor *px = safetensors_find(g->in, "pixel_values"), *ids = safetensors_find(g->in, "input_ids");
	const tensor *mask = safetensors_find(g->in, "attention_mask"), *labels = safetensors_find(g->in, "labels");
	assert_non_null(px);
	assert_non_null(ids);
	const size_t pixels = (size_t)shape_count(px->rank, px->shape), count = (size_t)shape_count(ids->rank, ids->shape);
	g->pixels = malloc(pixels * sizeof *g->pixels);
	memcpy(g->pixels, px->data, pixels * sizeof *g->pixels);
	g->ids = narrow(ids);
	g->labels = labels ? narrow(labels) : NULL;
	if (mask) {
		int32_t *wide = narrow(mask);
		g->mask = malloc(count);
		for (size_t i = 0; i < count; i++)
			g->mask[i] = (uint8_t)wide[i];
		free(wide);
	}
	g->batch = (blip2_batch){.n = (int)ids->shape[0], .text_len = (int)ids->shape[1], .pixel_values = g->pixels,
	                         .input_ids = g->ids, .attention_mask = g->mask, .labels = g->labels};
}

void golden_close(golden *g)
{
	safetensors_close(&g->in);
	safetensors_close(&g->out);
	safetensors_close(&g->grad);
	checkpoint_close(&g->ck);
	free(g->pixels);
	free(g->ids);
	free(g->labels);
	free(g->mask);
	memset(g, 0, sizeof *g);
}

double worst_difference(const float *a, const float *b, size_t count)
{
	double worst = 0, scale = 0;
	for (size_t i = 0; i < count; i++) {
		double d = fabs((double)a[i] - b[i]), s = fabs((double)b[i]);
		if (!isfinite(d))
			return INFINITY;
		worst = d > worst ? d : worst;
		scale = s > scale ? s : scale;
	}
	return scale > 0 ? worst / scale : worst > 0 ? INFINITY : 0;
}

double norm_difference(const float *a, const float *b, size_t count)
{
	double diff = 0, norm = 0;
	for (size_t i = 0; i < count; i++) {
		double d = (double)a[i] - b[i];
		if (!isfinite(d))
			return INFINITY;
		diff += d * d;
		norm += (double)b[i] * b[i];
	}
	return norm > 0 ? sqrt(diff / norm) : diff > 0 ? INFINITY : 0;
}
