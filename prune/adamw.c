/* adamw.c: see adamw.h. Memory-bound: four streams read, three written; one pass, split over the OpenMP threads. */
#include "prune/adamw.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static float *floats_alloc(size_t count)
{
	size_t bytes = (count * sizeof(float) + 63) / 64 * 64;
	float *p = aligned_alloc(64, bytes ? bytes : 64);
	if (p)
		memset(p, 0, bytes);
	return p;
}

wn_code adamw_open(adamw *a, const adamw_options *opt, size_t count, const adamw_segment *segments, size_t num_segments,
		   wn_error *err)
{
	*a = (adamw){.opt = *opt, .count = count};
	if (count > SIZE_MAX / 64)
		return wn_fail(err, WN_TOO_LARGE, "optimiser: %zu parameters", count);
	for (size_t i = 0; i < num_segments; i++)
		if (segments[i].offset > count || segments[i].count > count - segments[i].offset)
			return wn_fail(err, WN_INTERNAL, "optimiser: segment %zu ends beyond %zu parameters", i, count);
	a->exp_avg = floats_alloc(count);
	a->exp_avg_sq = floats_alloc(count);
	a->segments = calloc(num_segments ? num_segments : 1, sizeof *a->segments);
	if (!a->exp_avg || !a->exp_avg_sq || !a->segments) {
		adamw_close(a);
		return wn_fail(err, WN_NOMEM, "no memory for the moments of %zu parameters", count);
	}
	if (num_segments)
		memcpy(a->segments, segments, num_segments * sizeof *segments);
	a->num_segments = num_segments;
	return WN_OK;
}

void adamw_close(adamw *a)
{
	free(a->exp_avg);
	free(a->exp_avg_sq);
	free(a->segments);
	*a = (adamw){0};
}

void adamw_reset(adamw *a)
{
	memset(a->exp_avg, 0, a->count * sizeof(float));
	memset(a->exp_avg_sq, 0, a->count * sizeof(float));
	a->step = 0;
}

void adamw_step(adamw *a, float *weights, const float *grads, double lr, float grad_scale)
{
	a->step++;
	const double bias1 = 1.0 - pow(a->opt.beta1, (double)a->step);
	const double bias2 = 1.0 - pow(a->opt.beta2, (double)a->step);
	/* torch computes these scalars in double and hands them to float kernels */
	const float w1 = (float)(1.0 - a->opt.beta1), b2 = (float)a->opt.beta2, w2 = (float)(1.0 - a->opt.beta2);
	const float eps = (float)a->opt.eps, sqrt_bias2 = (float)sqrt(bias2);
	const float step_size = (float)(lr / bias1), keep = (float)(1.0 - lr * a->opt.weight_decay);
	for (size_t i = 0; i < a->num_segments; i++) {
		const adamw_segment *s = &a->segments[i];
		if (s->frozen)
			continue;
		float *restrict p = weights + s->offset;
		const float *restrict g = grads + s->offset;
		float *restrict m = a->exp_avg + s->offset;
		float *restrict v = a->exp_avg_sq + s->offset;
		const float k = s->decay ? keep : 1.0f;
		const size_t n = s->count;
		/* clang-format off */
#pragma omp parallel for simd schedule(static) if (n > 16384)
		/* clang-format on */
		for (size_t j = 0; j < n; j++) {
			float gj = g[j] * grad_scale;
			m[j] = m[j] + (gj - m[j]) * w1;
			v[j] = v[j] * b2 + gj * gj * w2;
			p[j] = p[j] * k - step_size * m[j] / (sqrtf(v[j]) / sqrt_bias2 + eps);
		}
	}
}

/* Fixed blocks, each summed in eight fixed lanes, then block sums in order: the tree is the same for any thread count. */
#define NORM_BLOCK ((size_t)1 << 16)

static double block_sum_squares(const float *g, size_t n)
{
	double lane[8] = {0};
	size_t j = 0;
	for (; j + 8 <= n; j += 8)
		for (int k = 0; k < 8; k++)
			lane[k] += (double)g[j + k] * (double)g[j + k];
	for (; j < n; j++)
		lane[j & 7] += (double)g[j] * (double)g[j];
	return ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}

double grad_norm(const float *grads, size_t count)
{
	enum { GROUP = 64 };
	double total = 0;
	for (size_t start = 0; start < count; start += GROUP * NORM_BLOCK) {
		double sums[GROUP] = {0};
		size_t rest = count - start;
		int blocks = rest >= GROUP * NORM_BLOCK ? GROUP : (int)((rest + NORM_BLOCK - 1) / NORM_BLOCK);
#pragma omp parallel for schedule(static) if (blocks > 1)
		for (int b = 0; b < blocks; b++) {
			size_t from = start + (size_t)b * NORM_BLOCK;
			size_t n = count - from < NORM_BLOCK ? count - from : NORM_BLOCK;
			sums[b] = block_sum_squares(grads + from, n);
		}
		for (int b = 0; b < blocks; b++)
			total += sums[b];
	}
	return sqrt(total);
}

float grad_clip_scale(double norm, double max_norm)
{
	if (max_norm <= 0)
		return 1.0f;
	double c = max_norm / (norm + 1e-6);
	return c < 1.0 ? (float)c : 1.0f;
}
