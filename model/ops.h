/* ops.h: the element-wise and row-wise kernels between matrix products, and the one that resamples images.
 *
 * Three sources (ops_kernels.c, ops_quantize.c, ops_bf16.c) are compiled for plain C, AVX2 and AVX-512; `ops` points at the best table this CPU runs.
 * Kernels are single-threaded and allocate nothing: layers split rows or columns over threads. */
#ifndef WINNOW_MODEL_OPS_H
#define WINNOW_MODEL_OPS_H

#include <stddef.h>
#include <stdint.h>

typedef struct ops_table {
	const char *name; /* "c", "avx2", "avx512" */

	/* Per row of x [rows][d]: out = (x - mean) * rstd * gamma + beta. mean, rstd: [rows] or both NULL. nn.LayerNorm. */
	void (*layer_norm)(float *out, float *mean, float *rstd, const float *x, const float *gamma, const float *beta,
	                   size_t rows, size_t d, float eps);
	/* dx += gradient of layer_norm's input, from dy [rows][d]. */
	void (*layer_norm_dx)(float *dx, const float *dy, const float *x, const float *gamma, const float *mean,
	                      const float *rstd, size_t rows, size_t d);
	/* Columns [c0, c1) only: dgamma += sum dy * xhat, dbeta += sum dy, over rows in order. */
	void (*layer_norm_dparam)(float *dgamma, float *dbeta, const float *dy, const float *x, const float *mean,
	                          const float *rstd, size_t rows, size_t d, size_t c0, size_t c1);

	/* y[rows][d] += bias[d]. */
	void (*add_bias)(float *y, const float *bias, size_t rows, size_t d);
	/* y[rows][d] += bias[d] + x[rows][d]; bias may be NULL. */
	void (*add_bias_residual)(float *y, const float *bias, const float *x, size_t rows, size_t d);
	/* pre[rows][d] += bias[d] (NULL = 0); act = gelu_erf(pre) / relu(pre). act may be pre itself. */
	void (*bias_gelu)(float *act, float *pre, const float *bias, size_t rows, size_t d);
	void (*bias_relu)(float *act, float *pre, const float *bias, size_t rows, size_t d);
	/* d[i] = d[i] * f'(pre[i]) in place. */
	void (*gelu_backward)(float *d, const float *pre, size_t count);
	void (*relu_backward)(float *d, const float *pre, size_t count);
	/* Columns [c0, c1): out[c] += sum over rows of y[row][c], rows in order. */
	void (*column_sum)(float *out, const float *y, size_t rows, size_t d, size_t c0, size_t c1);
	/* Rounds to nearest even; a NaN stays a NaN. */
	void (*to_bf16)(uint16_t *out, const float *x, size_t count);
	/* The other way, exact. */
	void (*widen)(float *out, const uint16_t *x, size_t count);
	/* out = gelu_erf(x) (within 1.3e-4, absolute) or relu(x), bf16 to bf16. A NaN stays one. out may be x. */
	void (*bf16_gelu)(uint16_t *out, const uint16_t *x, size_t count);
	void (*bf16_relu)(uint16_t *out, const uint16_t *x, size_t count);
	/* Symmetric int8: q[i] = round(x[i] / scale), to nearest even, scale = largest |x[i]| / 127, which is returned (0 for zeros;
	 * NaN when some x[i] is NaN or infinite, as with all kernels here that end in int8). */
	float (*quantize)(int8_t *q, const float *x, size_t count);
	/* layer_norm of one row, quantised; row [d] is scratch. Returns the scale. */
	float (*quantize_norm)(int8_t *q, float *row, const float *x, const float *gamma, const float *beta, size_t d, float eps);
	/* What `parts` times `width` sums of an int8 product stand for (dequantize), as it is or behind gelu_erf or relu, quantised with a
	 * scale for each part; row [parts * width] is scratch. gelu_erf within 1.3e-4, absolute. */
	void (*quantize_sums)(int8_t *q, float *scales, float *row, const int32_t *sums, float row_scale, const float *scale,
			      const float *bias, size_t parts, size_t width);
	void (*quantize_gelu)(int8_t *q, float *scales, float *row, const int32_t *sums, float row_scale, const float *scale,
			      const float *bias, size_t parts, size_t width);
	void (*quantize_relu)(int8_t *q, float *scales, float *row, const int32_t *sums, float row_scale, const float *scale,
			      const float *bias, size_t parts, size_t width);
	/* out[i] = (or +=) sums[i] * row_scale * scale[i] + bias[i]; bias NULL = 0: what an int8 product stands for. */
	void (*dequantize)(float *out, const int32_t *sums, float row_scale, const float *scale, const float *bias, size_t count);
	void (*dequantize_add)(float *out, const int32_t *sums, float row_scale, const float *scale, const float *bias, size_t count);
	/* y += a * x. */
	void (*axpy)(float *y, float a, const float *x, size_t count);

	/* p[cols] = softmax(p * scale + mask), entries from `valid` on become 0; mask [cols] additive or NULL. In place. */
	void (*softmax)(float *p, const float *mask, float scale, size_t valid, size_t cols);
	/* dp[cols] = scale * p * (dp - sum(dp * p)): from the gradient of softmax's output to that of its unscaled input. */
	void (*softmax_backward)(float *dp, const float *p, float scale, size_t cols);
	/* In place logits -> log-probabilities. */
	void (*log_softmax)(float *x, size_t cols);
	/* logits [cols] -> scale * (softmax - onehot(target)) in place; returns the cross-entropy, *best the arg-max. */
	float (*cross_entropy)(float *logits, int32_t target, float scale, size_t cols, int32_t *best);

	/* out[count] = sum over k < taps of weight[k] * in[k * stride + i], rounded and clamped to 0..255; weights have 22
	 * bits behind the point, and their absolute values sum to less than 2. Integers only: all tables give the same bytes. */
	void (*weigh_bytes)(uint8_t *out, const uint8_t *in, size_t stride, const int32_t *weight, size_t taps, size_t count);
} ops_table;

/* Chosen once before main: the widest table the CPU supports, or the one named by the environment variable WINNOW_ISA
 * (c, avx2, avx512) when the CPU supports it. */
extern const ops_table *ops;

/* Every table this CPU can run, widest first, NULL-terminated: for tests that compare kernels with their plain twin. */
const ops_table *const *ops_all(void);

#endif
