/* ops_kernels.c: the kernels of ops.h, written so that the compiler vectorises every inner loop.
 *
 * Compiled once per instruction set with OPS_ISA naming it (model/meson.build). `omp simd` reductions may reassociate;
 * everything else keeps C's order, so the tables differ only by rounding. */
#include <math.h>
#include <string.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "model/ops_internal.h"

static void layer_norm(float *out, float *mean, float *rstd, const float *x, const float *gamma, const float *beta,
                       size_t rows, size_t d, float eps)
{
	for (size_t r = 0; r < rows; r++) {
		const float *xr = x + r * d;
		float *o = out + r * d;
		float sum = 0, sq = 0;
#pragma omp simd reduction(+ : sum)
		for (size_t j = 0; j < d; j++)
			sum += xr[j];
		float m = sum / (float)d;
#pragma omp simd reduction(+ : sq)
		for (size_t j = 0; j < d; j++)
			sq += (xr[j] - m) * (xr[j] - m);
		float s = 1.0f / sqrtf(sq / (float)d + eps);
#pragma omp simd
		for (size_t j = 0; j < d; j++)
			o[j] = (xr[j] - m) * s * gamma[j] + beta[j];
		if (mean) {
			mean[r] = m;
			rstd[r] = s;
		}
	}
}

static void layer_norm_dx(float *dx, const float *dy, const float *x, const float *gamma, const float *mean,
                          const float *rstd, size_t rows, size_t d)
{
	/* out = xhat * gamma + beta, xhat = (x - mean) * rstd:
	 * dx += rstd * (g - average(g) - xhat * average(g * xhat)) with g = dy * gamma */
	for (size_t r = 0; r < rows; r++) {
		const float *xr = x + r * d, *dyr = dy + r * d;
		float *dxr = dx + r * d;
		float m = mean[r], s = rstd[r], a = 0, b = 0;
#pragma omp simd reduction(+ : a, b)
		for (size_t j = 0; j < d; j++) {
			float g = dyr[j] * gamma[j];
			a += g;
			b += g * (xr[j] - m) * s;
		}
		a /= (float)d;
		b /= (float)d;
#pragma omp simd
		for (size_t j = 0; j < d; j++)
			dxr[j] += s * (dyr[j] * gamma[j] - a - (xr[j] - m) * s * b);
	}
}

static void layer_norm_dparam(float *dgamma, float *dbeta, const float *dy, const float *x, const float *mean,
                              const float *rstd, size_t rows, size_t d, size_t c0, size_t c1)
{
	for (size_t r = 0; r < rows; r++) {
		const float *xr = x + r * d, *dyr = dy + r * d;
		float m = mean[r], s = rstd[r];
#pragma omp simd
		for (size_t j = c0; j < c1; j++) {
			dgamma[j] += dyr[j] * (xr[j] - m) * s;
			dbeta[j] += dyr[j];
		}
	}
}

static void add_bias(float *y, const float *bias, size_t rows, size_t d)
{
	for (size_t r = 0; r < rows; r++)
#pragma omp simd
		for (size_t j = 0; j < d; j++)
			y[r * d + j] += bias[j];
}

static void add_bias_residual(float *y, const float *bias, const float *x, size_t rows, size_t d)
{
	for (size_t r = 0; r < rows; r++) {
		float *yr = y + r * d;
		const float *xr = x + r * d;
		if (bias) {
#pragma omp simd
			for (size_t j = 0; j < d; j++)
				yr[j] += bias[j] + xr[j];
		} else {
#pragma omp simd
			for (size_t j = 0; j < d; j++)
				yr[j] += xr[j];
		}
	}
}

static void bias_gelu(float *act, float *pre, const float *bias, size_t rows, size_t d)
{
	for (size_t r = 0; r < rows; r++) {
		float *p = pre + r * d, *a = act + r * d;
		if (bias) {
#pragma omp simd
			for (size_t j = 0; j < d; j++)
				p[j] += bias[j];
		}
#pragma omp simd
		for (size_t j = 0; j < d; j++) {
			float e;
			a[j] = p[j] * normal_cdf(p[j], &e);
		}
	}
}

static void bias_relu(float *act, float *pre, const float *bias, size_t rows, size_t d)
{
	for (size_t r = 0; r < rows; r++) {
		float *p = pre + r * d, *a = act + r * d;
		if (bias) {
#pragma omp simd
			for (size_t j = 0; j < d; j++)
				p[j] += bias[j];
		}
#pragma omp simd
		for (size_t j = 0; j < d; j++)
			a[j] = p[j] > 0 ? p[j] : 0;
	}
}

static void gelu_backward(float *d, const float *pre, size_t count)
{
	/* act = x * Phi(x): d(act)/dx = Phi(x) + x * phi(x) */
#pragma omp simd
	for (size_t i = 0; i < count; i++) {
		float e, cdf = normal_cdf(pre[i], &e);
		d[i] *= cdf + pre[i] * e * 0.39894228040143268f;
	}
}

static void relu_backward(float *d, const float *pre, size_t count)
{
#pragma omp simd
	for (size_t i = 0; i < count; i++)
		d[i] = pre[i] > 0 ? d[i] : 0;
}

static void column_sum(float *out, const float *y, size_t rows, size_t d, size_t c0, size_t c1)
{
	for (size_t r = 0; r < rows; r++)
#pragma omp simd
		for (size_t j = c0; j < c1; j++)
			out[j] += y[r * d + j];
}

static void to_bf16(uint16_t *out, const float *x, size_t count)
{
#pragma omp simd
	for (size_t i = 0; i < count; i++)
		out[i] = round_to_bf16(x[i]);
}

static void widen(float *out, const uint16_t *x, size_t count)
{
#pragma omp simd
	for (size_t i = 0; i < count; i++)
		out[i] = widen_bf16(x[i]);
}

static void dequantize(float *out, const int32_t *sums, float row_scale, const float *scale, const float *bias, size_t count)
{
	if (bias) {
#pragma omp simd
		for (size_t i = 0; i < count; i++)
			out[i] = (float)sums[i] * (row_scale * scale[i]) + bias[i];
	} else {
#pragma omp simd
		for (size_t i = 0; i < count; i++)
			out[i] = (float)sums[i] * (row_scale * scale[i]);
	}
}

static void dequantize_add(float *out, const int32_t *sums, float row_scale, const float *scale, const float *bias, size_t count)
{
	if (bias) {
#pragma omp simd
		for (size_t i = 0; i < count; i++)
			out[i] += (float)sums[i] * (row_scale * scale[i]) + bias[i];
	} else {
#pragma omp simd
		for (size_t i = 0; i < count; i++)
			out[i] += (float)sums[i] * (row_scale * scale[i]);
	}
}

static void axpy(float *y, float a, const float *x, size_t count)
{
#pragma omp simd
	for (size_t i = 0; i < count; i++)
		y[i] += a * x[i];
}

static void softmax(float *p, const float *mask, float scale, size_t valid, size_t cols)
{
	float top = -3.0e38f, sum = 0;
	if (mask) {
#pragma omp simd
		for (size_t j = 0; j < valid; j++)
			p[j] = p[j] * scale + mask[j];
	} else {
#pragma omp simd
		for (size_t j = 0; j < valid; j++)
			p[j] *= scale;
	}
#pragma omp simd reduction(max : top)
	for (size_t j = 0; j < valid; j++)
		top = p[j] > top ? p[j] : top;
#pragma omp simd reduction(+ : sum)
	for (size_t j = 0; j < valid; j++) {
		/* fast_exp clamps: what the mask pushed below its range must be exactly zero, or padding leaks in */
		float z = p[j] - top, e = fast_exp(z);
		e = z < -87.0f ? 0.0f : e;
		p[j] = e;
		sum += e;
	}
	float inv = 1.0f / sum;
#pragma omp simd
	for (size_t j = 0; j < valid; j++)
		p[j] *= inv;
	memset(p + valid, 0, (cols - valid) * sizeof *p);
}

static void softmax_backward(float *dp, const float *p, float scale, size_t cols)
{
	float dot = 0;
#pragma omp simd reduction(+ : dot)
	for (size_t j = 0; j < cols; j++)
		dot += dp[j] * p[j];
#pragma omp simd
	for (size_t j = 0; j < cols; j++)
		dp[j] = scale * p[j] * (dp[j] - dot);
}

/* log(sum(exp(x))) and the maximum. */
static float log_sum_exp(const float *x, size_t cols)
{
	float top = -3.0e38f, sum = 0;
#pragma omp simd reduction(max : top)
	for (size_t j = 0; j < cols; j++)
		top = x[j] > top ? x[j] : top;
#pragma omp simd reduction(+ : sum)
	for (size_t j = 0; j < cols; j++)
		sum += fast_exp(x[j] - top);
	return top + logf(sum);
}

static void log_softmax(float *x, size_t cols)
{
	float lse = log_sum_exp(x, cols);
#pragma omp simd
	for (size_t j = 0; j < cols; j++)
		x[j] -= lse;
}

static float cross_entropy(float *logits, int32_t target, float scale, size_t cols, int32_t *best)
{
	int32_t arg = 0;
	for (size_t j = 1; j < cols; j++)
		if (logits[j] > logits[arg])
			arg = (int32_t)j;
	*best = arg;
	float lse = log_sum_exp(logits, cols), loss = lse - logits[target];
#pragma omp simd
	for (size_t j = 0; j < cols; j++)
		logits[j] = scale * fast_exp(logits[j] - lse);
	logits[target] -= scale;
	return loss;
}

/* Resampling. By hand where there is AVX2: gcc 12 takes the widening of bytes apart lane by lane, which costs four times the
 * arithmetic. Three vectors of sums at once hide the multiplication's latency. */
enum { WEIGHT_BITS = 22 };

static void weigh_scalar(uint8_t *out, const uint8_t *in, size_t stride, const int32_t *weight, size_t taps, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		int32_t v = 1 << (WEIGHT_BITS - 1);
		for (size_t k = 0; k < taps; k++)
			v += in[k * stride + i] * weight[k];
		v >>= WEIGHT_BITS;
		out[i] = (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
	}
}

#if defined(__AVX512F__) || defined(__AVX2__)
#if defined(__AVX512F__)
enum { WIDE = 16 }; /* sums in a vector, and bytes that make them */
typedef __m512i sums;
static inline sums sums_of(int32_t v) { return _mm512_set1_epi32(v); }
static inline sums add_weighted(sums s, const uint8_t *in, sums weight)
{
	sums x = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)in));
	return _mm512_add_epi32(s, _mm512_mullo_epi32(x, weight));
}
static inline void store_clamped(uint8_t *out, sums s)
{
	s = _mm512_max_epi32(_mm512_srai_epi32(s, WEIGHT_BITS), _mm512_setzero_si512());
	_mm_storeu_si128((__m128i *)(void *)out, _mm512_cvtusepi32_epi8(s));
}
#else
enum { WIDE = 8 };
typedef __m256i sums;
static inline sums sums_of(int32_t v) { return _mm256_set1_epi32(v); }
static inline sums add_weighted(sums s, const uint8_t *in, sums weight)
{
	sums x = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)in));
	return _mm256_add_epi32(s, _mm256_mullo_epi32(x, weight));
}
static inline void store_clamped(uint8_t *out, sums s)
{
	/* The packs clamp: to 16 bits without loss (here the sums lie within +-512), then to 0..255. */
	s = _mm256_srai_epi32(s, WEIGHT_BITS);
	__m128i half = _mm_packs_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
	_mm_storel_epi64((__m128i *)(void *)out, _mm_packus_epi16(half, half));
}
#endif

static inline void weigh_vector(uint8_t *out, const uint8_t *in, size_t stride, const int32_t *weight, size_t taps)
{
	sums a = sums_of(1 << (WEIGHT_BITS - 1));
	for (size_t k = 0; k < taps; k++, in += stride)
		a = add_weighted(a, in, sums_of(weight[k]));
	store_clamped(out, a);
}

static void weigh_bytes(uint8_t *out, const uint8_t *in, size_t stride, const int32_t *weight, size_t taps, size_t count)
{
	size_t at = 0;
	for (; at + 3 * WIDE <= count; at += 3 * WIDE) {
		const uint8_t *p = in + at;
		sums a = sums_of(1 << (WEIGHT_BITS - 1)), b = a, c = a;
		for (size_t k = 0; k < taps; k++, p += stride) {
			sums w = sums_of(weight[k]);
			a = add_weighted(a, p, w);
			b = add_weighted(b, p + WIDE, w);
			c = add_weighted(c, p + 2 * WIDE, w);
		}
		store_clamped(out + at, a);
		store_clamped(out + at + WIDE, b);
		store_clamped(out + at + 2 * WIDE, c);
	}
	for (; at + WIDE <= count; at += WIDE)
		weigh_vector(out + at, in + at, stride, weight, taps);
	/* The last vector overlaps the one before it; only fewer bytes than a vector holds need the loop. */
	if (at < count && count >= WIDE)
		weigh_vector(out + count - WIDE, in + count - WIDE, stride, weight, taps);
	else
		weigh_scalar(out + at, in + at, stride, weight, taps, count - at);
}
#else
static void weigh_bytes(uint8_t *out, const uint8_t *in, size_t stride, const int32_t *weight, size_t taps, size_t count)
{
	enum { BLOCK = 16 }; /* sums that registers hold */
	size_t at = 0;
	for (; at + BLOCK <= count; at += BLOCK) {
		int32_t sums[BLOCK];
		for (size_t i = 0; i < BLOCK; i++)
			sums[i] = 1 << (WEIGHT_BITS - 1);
		for (size_t k = 0; k < taps; k++)
			for (size_t i = 0; i < BLOCK; i++)
				sums[i] += in[k * stride + at + i] * weight[k];
		for (size_t i = 0; i < BLOCK; i++) {
			int32_t v = sums[i] >> WEIGHT_BITS;
			out[at + i] = (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
		}
	}
	weigh_scalar(out + at, in + at, stride, weight, taps, count - at);
}
#endif

extern const ops_table PASTE(ops_table_, OPS_ISA);
const ops_table PASTE(ops_table_, OPS_ISA) = {
	.name = STR(OPS_ISA),
	.layer_norm = layer_norm,
	.layer_norm_dx = layer_norm_dx,
	.layer_norm_dparam = layer_norm_dparam,
	.add_bias = add_bias,
	.add_bias_residual = add_bias_residual,
	.bias_gelu = bias_gelu,
	.bias_relu = bias_relu,
	.gelu_backward = gelu_backward,
	.relu_backward = relu_backward,
	.column_sum = column_sum,
	.to_bf16 = to_bf16,
	.widen = widen,
	.bf16_gelu = OPS_NAME(bf16_gelu),
	.bf16_relu = OPS_NAME(bf16_relu),
	.quantize = OPS_NAME(quantize),
	.quantize_norm = OPS_NAME(quantize_norm),
	.quantize_sums = OPS_NAME(quantize_sums),
	.quantize_gelu = OPS_NAME(quantize_gelu),
	.quantize_relu = OPS_NAME(quantize_relu),
	.dequantize = dequantize,
	.dequantize_add = dequantize_add,
	.axpy = axpy,
	.softmax = softmax,
	.softmax_backward = softmax_backward,
	.log_softmax = log_softmax,
	.cross_entropy = cross_entropy,
	.weigh_bytes = weigh_bytes,
};
