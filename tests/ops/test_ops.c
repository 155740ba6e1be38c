/* test_ops.c: every kernel table this CPU runs, against formulas in double precision, on random shapes with odd sizes. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "model/ops.h"

#define MAX_ROWS 5
#define MAX_COLS 300

static const size_t widths[] = {1, 2, 3, 7, 15, 16, 17, 31, 33, 64, 65, 100, 192, 255, 300};
static uint64_t seed = 1;

static float uniform(float lo, float hi)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return lo + (hi - lo) * (float)(seed >> 40) / 16777216.0f;
}

static void fill(float *x, size_t count, float lo, float hi)
{
	for (size_t i = 0; i < count; i++)
		x[i] = uniform(lo, hi);
}

static void expect_close(const char *what, const ops_table *t, size_t width, size_t i, double got, double want, double tol)
{
	if (!(fabs(got - want) <= tol * (1 + fabs(want))))
		fail_msg("%s on %s, width %zu, element %zu: got %.9g, expected %.9g", what, t->name, width, i, got, want);
}

typedef void (*check_fn)(const ops_table *t, size_t width);

/* Runs a check for every table and width; *state is the check. */
static void every_table(void **state)
{
	check_fn check = *(check_fn *)*state;
	for (const ops_table *const *t = ops_all(); *t; t++)
		for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
			check(*t, widths[w]);
}

static double gelu(double x) { return 0.5 * x * (1 + erf(x / sqrt(2.0))); }

static void check_layer_norm(const ops_table *t, size_t d)
{
	float x[MAX_ROWS * MAX_COLS] = {0}, g[MAX_COLS] = {0}, b[MAX_COLS] = {0}, out[MAX_ROWS * MAX_COLS], mean[MAX_ROWS], rstd[MAX_ROWS];
	fill(x, MAX_ROWS * d, -3, 5);
	fill(g, d, -1, 1);
	fill(b, d, -1, 1);
	t->layer_norm(out, mean, rstd, x, g, b, MAX_ROWS, d, 1e-5f);
	for (size_t r = 0; r < MAX_ROWS; r++) {
		double m = 0, v = 0;
		for (size_t j = 0; j < d; j++)
			m += x[r * d + j] / (double)d;
		for (size_t j = 0; j < d; j++)
			v += (x[r * d + j] - m) * (x[r * d + j] - m) / (double)d;
		double s = 1 / sqrt(v + 1e-5);
		expect_close("mean", t, d, r, mean[r], m, 1e-5);
		expect_close("rstd", t, d, r, rstd[r], s, 1e-4);
		for (size_t j = 0; j < d; j++)
			expect_close("layer_norm", t, d, j, out[r * d + j], (x[r * d + j] - m) * s * g[j] + b[j], 1e-4);
	}
	/* mean and rstd may be left out */
	float again[MAX_ROWS * MAX_COLS];
	t->layer_norm(again, NULL, NULL, x, g, b, MAX_ROWS, d, 1e-5f);
	assert_memory_equal(out, again, MAX_ROWS * d * sizeof *out);
}

/* Finite differences in double of sum(dy * LN(x)). */
static double norm_objective(const float *x, const float *g, const float *dy, size_t d, size_t at, double step)
{
	double m = 0, v = 0, sum = 0;
	for (size_t j = 0; j < d; j++)
		m += (x[j] + (j == at ? step : 0)) / (double)d;
	for (size_t j = 0; j < d; j++) {
		double z = x[j] + (j == at ? step : 0) - m;
		v += z * z / (double)d;
	}
	for (size_t j = 0; j < d; j++)
		sum += dy[j] * g[j] * (x[j] + (j == at ? step : 0) - m) / sqrt(v + 1e-5);
	return sum;
}

static void check_layer_norm_backward(const ops_table *t, size_t d)
{
	float x[MAX_ROWS * MAX_COLS], dy[MAX_ROWS * MAX_COLS], g[MAX_COLS], zero[MAX_COLS] = {0}, out[MAX_ROWS * MAX_COLS];
	float mean[MAX_ROWS], rstd[MAX_ROWS], dx[MAX_ROWS * MAX_COLS], dg[MAX_COLS], db[MAX_COLS];
	if (d < 3)
		return; /* with one or two columns the output hardly depends on x: differences are all rounding */
	fill(x, MAX_ROWS * d, -3, 5);
	fill(dy, MAX_ROWS * d, -1, 1);
	fill(g, d, 0.5f, 1.5f);
	fill(dx, MAX_ROWS * d, 2, 2);
	fill(dg, d, 1, 1);
	fill(db, d, 1, 1);
	t->layer_norm(out, mean, rstd, x, g, zero, MAX_ROWS, d, 1e-5f);
	t->layer_norm_dx(dx, dy, x, g, mean, rstd, MAX_ROWS, d);
	t->layer_norm_dparam(dg, db, dy, x, mean, rstd, MAX_ROWS, d, 0, d / 2);
	t->layer_norm_dparam(dg, db, dy, x, mean, rstd, MAX_ROWS, d, d / 2, d);
	for (size_t r = 0; r < MAX_ROWS; r++)
		for (size_t j = 0; j < d; j++) {
			double up = norm_objective(x + r * d, g, dy + r * d, d, j, 1e-4), down = norm_objective(x + r * d, g, dy + r * d, d, j, -1e-4);
			expect_close("layer_norm_dx adds", t, d, j, dx[r * d + j], 2 + (up - down) / 2e-4, 2e-3);
		}
	for (size_t j = 0; j < d; j++) {
		double wg = 1, wb = 1;
		for (size_t r = 0; r < MAX_ROWS; r++) {
			wg += dy[r * d + j] * ((double)x[r * d + j] - mean[r]) * rstd[r];
			wb += dy[r * d + j];
		}
		expect_close("layer_norm dgamma", t, d, j, dg[j], wg, 1e-4);
		expect_close("layer_norm dbeta", t, d, j, db[j], wb, 1e-4);
	}
}

static void check_activations(const ops_table *t, size_t d)
{
	float pre[MAX_ROWS * MAX_COLS], act[MAX_ROWS * MAX_COLS], bias[MAX_COLS] = {0}, start[MAX_ROWS * MAX_COLS], grad[MAX_ROWS * MAX_COLS];
	size_t count = MAX_ROWS * d;
	fill(start, count, -9, 9);
	start[0] = -40; /* far tails: exp underflows, nothing may become NaN */
	start[count - 1] = 40;
	fill(bias, d, -1, 1);
	memcpy(pre, start, count * sizeof *pre);
	t->bias_gelu(act, pre, bias, MAX_ROWS, d);
	fill(grad, count, 1, 1);
	t->gelu_backward(grad, pre, count);
	for (size_t i = 0; i < count; i++) {
		double z = (double)start[i] + bias[i % d];
		expect_close("bias_gelu keeps pre", t, d, i, pre[i], z, 1e-6);
		expect_close("bias_gelu", t, d, i, act[i], gelu(z), 1e-5);
		expect_close("gelu_backward", t, d, i, grad[i], (gelu(z + 1e-5) - gelu(z - 1e-5)) / 2e-5, 1e-5);
	}
	memcpy(pre, start, count * sizeof *pre);
	t->bias_relu(act, pre, bias, MAX_ROWS, d);
	fill(grad, count, 3, 3);
	t->relu_backward(grad, pre, count);
	for (size_t i = 0; i < count; i++) {
		double z = (double)start[i] + bias[i % d];
		expect_close("bias_relu", t, d, i, act[i], z > 0 ? z : 0, 1e-6);
		expect_close("relu_backward", t, d, i, grad[i], pre[i] > 0 ? 3 : 0, 0);
	}
}

static void check_sums(const ops_table *t, size_t d)
{
	float y[MAX_ROWS * MAX_COLS], x[MAX_ROWS * MAX_COLS], start[MAX_ROWS * MAX_COLS], bias[MAX_COLS] = {0}, sum[MAX_COLS];
	size_t count = MAX_ROWS * d;
	fill(start, count, -2, 2);
	fill(x, count, -2, 2);
	fill(bias, d, -2, 2);
	memcpy(y, start, count * sizeof *y);
	t->add_bias(y, bias, MAX_ROWS, d);
	t->add_bias_residual(y, bias, x, MAX_ROWS, d);
	t->add_bias_residual(y, NULL, x, MAX_ROWS, d);
	t->axpy(y, -0.5f, x, count);
	for (size_t i = 0; i < count; i++)
		expect_close("bias and residual", t, d, i, y[i], (double)start[i] + 2.0 * bias[i % d] + 1.5 * x[i], 1e-5);
	fill(sum, d, 1, 1);
	t->column_sum(sum, x, MAX_ROWS, d, d / 3, d);
	for (size_t j = 0; j < d; j++) {
		double want = 1;
		for (size_t r = 0; r < MAX_ROWS && j >= d / 3; r++)
			want += x[r * d + j];
		expect_close("column_sum stays in its columns", t, d, j, sum[j], want, 1e-5);
	}
}

static void check_softmax(const ops_table *t, size_t d)
{
	float s[MAX_COLS], p[MAX_COLS], mask[MAX_COLS] = {0}, dp[MAX_COLS], start[MAX_COLS];
	size_t valid = d > 2 ? d - 2 : d;
	fill(s, d, -20, 20);
	for (size_t j = 0; j < d; j++)
		mask[j] = j % 3 == 1 ? -1e30f : 0;
	memcpy(p, s, d * sizeof *p);
	t->softmax(p, mask, 0.5f, valid, d);
	double top = -1e300, sum = 0;
	for (size_t j = 0; j < valid; j++)
		top = fmax(top, 0.5 * s[j] + mask[j]);
	for (size_t j = 0; j < valid; j++)
		sum += exp(0.5 * s[j] + mask[j] - top);
	for (size_t j = 0; j < d; j++) {
		double want = j < valid ? exp(0.5 * s[j] + mask[j] - top) / sum : 0;
		expect_close("softmax", t, d, j, p[j], want, 1e-5);
		if (j >= valid || (mask[j] != 0 && d > 1))
			assert_true(p[j] == 0); /* not merely small: padding must not leak */
	}
	fill(dp, d, -1, 1);
	memcpy(start, dp, d * sizeof *dp);
	t->softmax_backward(dp, p, 0.5f, d);
	double dot = 0;
	for (size_t j = 0; j < d; j++)
		dot += (double)start[j] * p[j];
	for (size_t j = 0; j < d; j++)
		expect_close("softmax_backward", t, d, j, dp[j], 0.5 * p[j] * (start[j] - dot), 1e-5);
}

static void check_cross_entropy(const ops_table *t, size_t d)
{
	float x[MAX_COLS], logits[MAX_COLS], logp[MAX_COLS];
	fill(x, d, -10, 10);
	int32_t target = (int32_t)(d / 2), best = -1, want_best = 0;
	double top = -1e300, sum = 0;
	for (size_t j = 0; j < d; j++) {
		if (x[j] > x[want_best])
			want_best = (int32_t)j;
		top = fmax(top, x[j]);
	}
	for (size_t j = 0; j < d; j++)
		sum += exp(x[j] - top);
	memcpy(logits, x, d * sizeof *x);
	memcpy(logp, x, d * sizeof *x);
	double loss = t->cross_entropy(logits, target, 0.25f, d, &best);
	t->log_softmax(logp, d);
	assert_int_equal(best, want_best);
	expect_close("cross_entropy", t, d, 0, loss, top + log(sum) - x[target], 1e-5);
	for (size_t j = 0; j < d; j++) {
		double p = exp(x[j] - top) / sum;
		expect_close("cross_entropy gradient", t, d, j, logits[j], 0.25 * (p - (j == (size_t)target)), 1e-5);
		expect_close("log_softmax", t, d, j, logp[j], x[j] - top - log(sum), 1e-5);
	}
}

static void check_int8(const ops_table *t, size_t d)
{
	float x[MAX_COLS] = {0}, scale[MAX_COLS] = {0}, bias[MAX_COLS] = {0}, out[MAX_COLS] = {0}, again[MAX_COLS] = {0};
	int8_t q[MAX_COLS] = {0};
	int32_t sums[MAX_COLS] = {0};
	uint16_t half[MAX_COLS] = {0};
	fill(x, d, -3, 5);
	fill(scale, d, 0.001f, 0.01f);
	fill(bias, d, -1, 1);
	double most = 0;
	for (size_t i = 0; i < d; i++)
		most = fmax(most, fabs(x[i]));
	const float s = t->quantize(q, x, d);
	expect_close("quantize's scale", t, d, 0, s, most / 127, 1e-6);
	bool reached = false;
	for (size_t i = 0; i < d; i++) {
		/* nearest: half a step off at most, and a little for the product that decides */
		if (fabs(q[i] * (double)s - x[i]) > (0.5 + 1e-4) * s)
			fail_msg("quantize on %s, width %zu: %g became %d x %g", t->name, d, x[i], q[i], s);
		reached |= abs(q[i]) == 127;
		sums[i] = (int32_t)(uniform(-1, 1) * 5e5f);
	}
	assert_true(reached);
	memset(x, 0, sizeof x);
	assert_true(t->quantize(q, x, d) == 0 && q[0] == 0 && q[d - 1] == 0);
	for (int with_bias = 0; with_bias < 2; with_bias++) {
		memcpy(again, scale, sizeof again);
		t->dequantize(out, sums, 0.03f, scale, with_bias ? bias : NULL, d);
		t->dequantize_add(again, sums, 0.03f, scale, with_bias ? bias : NULL, d);
		for (size_t i = 0; i < d; i++) {
			const double want = sums[i] * 0.03 * scale[i] + (with_bias ? bias[i] : 0);
			expect_close("dequantize", t, d, i, out[i], want, 1e-6);
			expect_close("dequantize_add", t, d, i, again[i], scale[i] + want, 1e-6);
		}
	}
	t->to_bf16(half, out, d);
	t->widen(again, half, d);
	for (size_t i = 0; i < d; i++)
		assert_true(fabsf(again[i] - out[i]) <= fabsf(out[i]) / 256);
}

static void check_bf16(const ops_table *t, size_t d)
{
	float x[MAX_COLS], y[MAX_COLS];
	uint16_t in[MAX_COLS], out[MAX_COLS + 1];
	void (*const kernels[])(uint16_t *, const uint16_t *, size_t) = {t->bf16_gelu, t->bf16_relu};
	static const char *const names[] = {"bf16_gelu", "bf16_relu"};
	fill(x, d, -6, 6);
	x[0] = -40;
	if (d > 2) {
		x[1] = -NAN;
		x[d - 1] = NAN;
	}
	t->to_bf16(in, x, d);
	t->widen(x, in, d);
	for (int k = 0; k < 2; k++) {
		out[d] = 77;
		kernels[k](out, in, d);
		t->widen(y, out, d);
		for (size_t i = 0; i < d; i++) {
			const double want = k ? fmax(x[i], 0) : gelu(x[i]);
			if (isnan(x[i]) ? !isnan(y[i]) : !(fabs(y[i] - want) <= fabs(want) / 250 + (k ? 0 : 1.3e-4)))
				fail_msg("%s on %s, width %zu, element %zu: %g of %g, expected %g", names[k], t->name, d, i, y[i], x[i], want);
		}
		assert_int_equal(out[d], 77);
	}
}

/* q times its scale is a row within half a step. */
static void expect_quantized(const char *what, const ops_table *t, size_t d, const int8_t *q, double scale, const double *want)
{
	double most = 0;
	for (size_t i = 0; i < d; i++)
		most = fmax(most, fabs(want[i]));
	expect_close(what, t, d, 0, scale, most / 127, 1e-5);
	for (size_t i = 0; i < d; i++)
		if (fabs(q[i] * scale - want[i]) > (0.5 + 1e-3) * scale + 1e-6)
			fail_msg("%s on %s, width %zu, element %zu: %d x %g, expected %g", what, t->name, d, i, q[i], scale, want[i]);
}

/* Kernels that end in s8, against the formula in double precision: two parts, with and without a bias. */
static void check_quantized(const ops_table *t, size_t d)
{
	enum { PARTS = 2 };
	int32_t sums[PARTS * MAX_COLS];
	int8_t q[PARTS * MAX_COLS];
	float scale[PARTS * MAX_COLS], bias[PARTS * MAX_COLS], row[PARTS * MAX_COLS], scales[PARTS];
	double want[3][PARTS * MAX_COLS];
	fill(scale, PARTS * d, 0.001f, 0.01f);
	fill(bias, PARTS * d, -1, 1);
	for (size_t i = 0; i < PARTS * d; i++)
		sums[i] = (int32_t)(uniform(-1, 1) * 9e3f);
	for (int with_bias = 0; with_bias < 2; with_bias++) {
		for (size_t i = 0; i < PARTS * d; i++) {
			const double x = sums[i] * 0.03 * scale[i] + (with_bias ? bias[i] : 0);
			want[0][i] = x;
			want[1][i] = gelu(x);
			want[2][i] = x > 0 ? x : 0;
		}
		void (*const kernels[])(int8_t *, float *, float *, const int32_t *, float, const float *, const float *, size_t, size_t) = {
			t->quantize_sums, t->quantize_gelu, t->quantize_relu};
		static const char *const names[] = {"quantize_sums", "quantize_gelu", "quantize_relu"};
		for (int k = 0; k < 3; k++) {
			kernels[k](q, scales, row, sums, 0.03f, scale, with_bias ? bias : NULL, PARTS, d);
			for (int p = 0; p < PARTS; p++)
				expect_quantized(names[k], t, d, q + (size_t)p * d, scales[p], want[k] + (size_t)p * d);
		}
	}
	/* what is no number shows, wherever it stands */
	for (size_t i = 0; i < d; i += 1 + d / 3) {
		const float was = scale[i];
		scale[i] = i % 2 ? NAN : INFINITY;
		sums[i] += sums[i] == 0;
		t->quantize_sums(q, scales, row, sums, 0.03f, scale, NULL, 1, d);
		if (!isnan(scales[0]))
			fail_msg("quantize_sums on %s, width %zu: a scale of %g from element %zu", t->name, d, scales[0], i);
		assert_true(isnan(t->quantize(q, scale, d)));
		assert_true(isnan(t->quantize_norm(q, row, bias, scale, bias, d, 1e-5f)));
		scale[i] = was;
	}
	/* of a row: what layer_norm makes of it */
	float x[MAX_COLS], normed[MAX_COLS];
	fill(x, d, -3, 5);
	t->layer_norm(normed, NULL, NULL, x, scale, bias, 1, d, 1e-5f);
	for (size_t i = 0; i < d; i++)
		want[0][i] = normed[i];
	scales[0] = t->quantize_norm(q, row, x, scale, bias, d, 1e-5f);
	expect_quantized("quantize_norm", t, d, q, scales[0], want[0]);
}

static void a_table_is_chosen(void **state)
{
	(void)state;
	assert_non_null(ops);
	size_t n = 0;
	while (ops_all()[n])
		n++;
	assert_true(n >= 1);
	assert_string_equal(ops_all()[n - 1]->name, "c");
}

static check_fn checks[] = {check_layer_norm, check_layer_norm_backward, check_activations, check_sums, check_softmax, check_cross_entropy, check_int8,
			     check_quantized, check_bf16};

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_table_is_chosen),
		{"LayerNorm", every_table, NULL, NULL, &checks[0]},
		{"LayerNorm backward", every_table, NULL, NULL, &checks[1]},
		{"GELU and ReLU, forward and backward", every_table, NULL, NULL, &checks[2]},
		{"biases, residuals and column sums", every_table, NULL, NULL, &checks[3]},
		{"softmax with masks, and its backward", every_table, NULL, NULL, &checks[4]},
		{"cross-entropy and log-softmax", every_table, NULL, NULL, &checks[5]},
		{"int8 and bf16, there and back", every_table, NULL, NULL, &checks[6]},
		{"rows that end in int8", every_table, NULL, NULL, &checks[7]},
		{"activations from bf16 to bf16", every_table, NULL, NULL, &checks[8]},
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
