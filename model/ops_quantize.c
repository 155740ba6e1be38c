/* ops_quantize.c: the kernels of ops.h that end in s8: a row is made, its largest value is found on the way, and it is scaled.
 *
 * Compiled once per instruction set, like ops_kernels.c. With AVX-512 by hand: gcc 12 spends three times the instructions on the
 * loop over a head's 64 columns. */
#include <math.h>
#include <stdbool.h>

#include "model/ops_internal.h"

enum { AS_IT_IS, GELU, RELU };

/* From bits; NaN for infinity as well: no scale stands for such a row. */
INLINE float largest_of(int32_t bits)
{
	union {
		int32_t i;
		float f;
	} v = {.i = bits};
	return bits < 0x7f800000 ? v.f : NAN;
}

#if defined(__AVX512F__)
/* Of a row under way: the bits of the largest |x|. As whole numbers a NaN is larger than infinity and that than all others: both stay. */
INLINE __m512i widened(__m512i most, __m512 x) { return _mm512_max_epi32(most, _mm512_castps_si512(_mm512_abs_ps(x))); }

/* q = x by the scale that the largest |x| has; returns it. */
INLINE float quantize_by(int8_t *q, const float *x, __m512i most, size_t count)
{
	const float largest = largest_of(_mm512_reduce_max_epi32(most));
	const __m512 inverse = _mm512_set1_ps(largest > 0 ? 127.0f / largest : 0);
	for (size_t i = 0; i < count; i += ZMM) {
		const __mmask16 in = lanes(count - i);
		const __m512i v = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_maskz_loadu_ps(in, x + i), inverse));
		if (in == 0xffff)
			_mm_storeu_si128((__m128i *)(void *)(q + i), _mm512_cvtepi32_epi8(v));
		else
			_mm_mask_storeu_epi8(q + i, in, _mm512_cvtepi32_epi8(v));
	}
	return largest / 127.0f;
}

INLINE float quantize_part(int8_t *q, float *row, const int32_t *sums, float row_scale, const float *scale, const float *bias, size_t count,
			   int f)
{
	const __m512 by = _mm512_set1_ps(row_scale);
	__m512i most = _mm512_setzero_si512();
	for (size_t i = 0; i < count; i += ZMM) {
		const __mmask16 in = lanes(count - i);
		const __m512 sum = _mm512_cvtepi32_ps(_mm512_maskz_loadu_epi32(in, sums + i));
		__m512 v = _mm512_fmadd_ps(sum, _mm512_mul_ps(by, _mm512_maskz_loadu_ps(in, scale + i)),
					   bias ? _mm512_maskz_loadu_ps(in, bias + i) : _mm512_setzero_ps());
		if (f == GELU)
			v = wide_gelu(v);
		else if (f == RELU)
			v = _mm512_max_ps(v, _mm512_setzero_ps());
		most = widened(most, v);
		_mm512_mask_storeu_ps(row + i, in, v);
	}
	return quantize_by(q, row, most, count);
}

float OPS_NAME(quantize)(int8_t *q, const float *x, size_t count)
{
	__m512i most = _mm512_setzero_si512();
	for (size_t i = 0; i < count; i += ZMM)
		most = widened(most, _mm512_maskz_loadu_ps(lanes(count - i), x + i));
	return quantize_by(q, x, most, count);
}

float OPS_NAME(quantize_norm)(int8_t *q, float *row, const float *x, const float *gamma, const float *beta, size_t d, float eps)
{
	__m512 sum = _mm512_setzero_ps(), squares = sum;
	__m512i most = _mm512_setzero_si512();
	for (size_t i = 0; i < d; i += ZMM)
		sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(lanes(d - i), x + i));
	const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / (float)d);
	for (size_t i = 0; i < d; i += ZMM) {
		const __m512 v = _mm512_maskz_sub_ps(lanes(d - i), _mm512_maskz_loadu_ps(lanes(d - i), x + i), mean);
		squares = _mm512_fmadd_ps(v, v, squares);
	}
	const __m512 rstd = _mm512_set1_ps(1.0f / sqrtf(_mm512_reduce_add_ps(squares) / (float)d + eps));
	for (size_t i = 0; i < d; i += ZMM) {
		const __mmask16 in = lanes(d - i);
		const __m512 v = _mm512_mul_ps(_mm512_maskz_sub_ps(in, _mm512_maskz_loadu_ps(in, x + i), mean), rstd);
		const __m512 y = _mm512_fmadd_ps(v, _mm512_maskz_loadu_ps(in, gamma + i), _mm512_maskz_loadu_ps(in, beta + i));
		most = widened(most, y);
		_mm512_mask_storeu_ps(row + i, in, y);
	}
	return quantize_by(q, row, most, d);
}
#else
INLINE int32_t magnitude(float x)
{
	union {
		float f;
		int32_t i;
	} v = {.f = x};
	return v.i & 0x7fffffff;
}

/* most: the bits of the largest |x|; a NaN's are larger than infinity's, and these than all others. */
INLINE float quantize_by(int8_t *q, const float *x, int32_t most, size_t count)
{
	const float largest = largest_of(most), inverse = largest > 0 ? 127.0f / largest : 0;
#pragma omp simd
	for (size_t i = 0; i < count; i++) {
		union {
			float f;
			int32_t i;
		} v = {.f = x[i] * inverse + 12582912.0f}; /* adding 1.5 * 2^23 rounds to an integer in the low bits */
		q[i] = (int8_t)(v.i - 0x4b400000);
	}
	return largest / 127.0f;
}

INLINE float quantize_part(int8_t *q, float *row, const int32_t *sums, float row_scale, const float *scale, const float *bias, size_t count,
			   int f)
{
	int32_t most = 0;
#pragma omp simd reduction(max : most)
	for (size_t i = 0; i < count; i++) {
		float v = (float)sums[i] * (row_scale * scale[i]) + (bias ? bias[i] : 0), e;
		if (f == GELU)
			v *= normal_cdf(v, &e);
		else if (f == RELU)
			v = v > 0 ? v : 0;
		const int32_t a = magnitude(v);
		row[i] = v;
		most = a > most ? a : most;
	}
	return quantize_by(q, row, most, count);
}

float OPS_NAME(quantize)(int8_t *q, const float *x, size_t count)
{
	int32_t most = 0;
#pragma omp simd reduction(max : most)
	for (size_t i = 0; i < count; i++) {
		const int32_t a = magnitude(x[i]);
		most = a > most ? a : most;
	}
	return quantize_by(q, x, most, count);
}

float OPS_NAME(quantize_norm)(int8_t *q, float *row, const float *x, const float *gamma, const float *beta, size_t d, float eps)
{
	float sum = 0, squares = 0;
	int32_t most = 0;
#pragma omp simd reduction(+ : sum)
	for (size_t j = 0; j < d; j++)
		sum += x[j];
	const float mean = sum / (float)d;
#pragma omp simd reduction(+ : squares)
	for (size_t j = 0; j < d; j++)
		squares += (x[j] - mean) * (x[j] - mean);
	const float rstd = 1.0f / sqrtf(squares / (float)d + eps);
#pragma omp simd reduction(max : most)
	for (size_t j = 0; j < d; j++) {
		const float v = (x[j] - mean) * rstd * gamma[j] + beta[j];
		const int32_t a = magnitude(v);
		row[j] = v;
		most = a > most ? a : most;
	}
	return quantize_by(q, row, most, d);
}
#endif

/* f, and whether there is a bias, are constants inside the loops. */
#define QUANTIZE_PARTS(name, f)                                                                                                        \
	void OPS_NAME(name)(int8_t *q, float *scales, float *row, const int32_t *sums, float row_scale, const float *scale,            \
			    const float *bias, size_t parts, size_t width)                                                             \
	{                                                                                                                              \
		for (size_t p = 0, i = 0; p < parts; p++, i += width)                                                                  \
			scales[p] = bias ? quantize_part(q + i, row + i, sums + i, row_scale, scale + i, bias + i, width, f)           \
					 : quantize_part(q + i, row + i, sums + i, row_scale, scale + i, NULL, width, f);              \
	}
QUANTIZE_PARTS(quantize_sums, AS_IT_IS)
QUANTIZE_PARTS(quantize_gelu, GELU)
QUANTIZE_PARTS(quantize_relu, RELU)
