/* ops_internal.h: what the files that are compiled once per instruction set share; OPS_ISA names it (model/meson.build). */
#ifndef WINNOW_MODEL_OPS_INTERNAL_H
#define WINNOW_MODEL_OPS_INTERNAL_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>

#include "model/ops.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))

#define PASTE2(a, b) a##b
#define PASTE(a, b)  PASTE2(a, b)
#define STR2(a)      #a
#define STR(a)       STR2(a)
/* A function of this instruction set that another file defines. */
#define OPS_NAME(f)  PASTE(f##_, OPS_ISA)

/* ops_quantize.c: as the table's members say. */
float OPS_NAME(quantize)(int8_t *q, const float *x, size_t count);
float OPS_NAME(quantize_norm)(int8_t *q, float *row, const float *x, const float *gamma, const float *beta, size_t d, float eps);
void OPS_NAME(quantize_sums)(int8_t *q, float *scales, float *row, const int32_t *sums, float row_scale, const float *scale,
			     const float *bias, size_t parts, size_t width);
void OPS_NAME(quantize_gelu)(int8_t *q, float *scales, float *row, const int32_t *sums, float row_scale, const float *scale,
			     const float *bias, size_t parts, size_t width);
void OPS_NAME(quantize_relu)(int8_t *q, float *scales, float *row, const int32_t *sums, float row_scale, const float *scale,
			     const float *bias, size_t parts, size_t width);

/* ops_bf16.c */
void OPS_NAME(bf16_gelu)(uint16_t *out, const uint16_t *x, size_t count);
void OPS_NAME(bf16_relu)(uint16_t *out, const uint16_t *x, size_t count);

/* bf16: exact; to nearest even, a NaN stays one. */
INLINE float widen_bf16(uint16_t half)
{
	union {
		uint32_t u;
		float f;
	} v = {.u = (uint32_t)half << 16};
	return v.f;
}

INLINE uint16_t round_to_bf16(float x)
{
	union {
		float f;
		uint32_t u;
	} v = {.f = x};
	const uint32_t even = (v.u + 0x7fffu + ((v.u >> 16) & 1)) >> 16;
	return (uint16_t)((v.u & 0x7fffffffu) > 0x7f800000u ? (v.u >> 16) | 0x40u : even);
}

/* e^x, relative error below 2e-7; x is clamped to where the result is a normal float. Cody-Waite reduction to
 * |r| <= ln2/2, then a degree-6 polynomial. */
static inline float fast_exp(float x)
{
	x = x < -87.0f ? -87.0f : x;
	x = x > 88.0f ? 88.0f : x;
	float t = x * 1.44269504088896341f + 12582912.0f; /* adding 1.5 * 2^23 rounds to an integer in the low bits */
	float n = t - 12582912.0f;
	float r = x - n * 0.693359375f;
	r = r + n * 2.12194440e-4f;
	float p = 1.3981999507e-3f;
	p = p * r + 8.3334519073e-3f;
	p = p * r + 4.1665795894e-2f;
	p = p * r + 1.6666665459e-1f;
	p = p * r + 5.0000001201e-1f;
	p = p * r * r + r + 1.0f;
	union {
		float f;
		uint32_t i;
	} bits = {.f = p}, in = {.f = t};
	bits.i += in.i << 23; /* times 2^n: the low bits of t hold n, the bias of 1.5 * 2^23 falls off the top */
	return bits.f;
}

/* The normal distribution's Phi(x) and e^(-x*x/2), erf by Abramowitz and Stegun 7.1.26 (absolute error below 1.5e-7). */
static inline float normal_cdf(float x, float *exp_half)
{
	float z = fabsf(x) * 0.70710678118654752f;
	float t = 1.0f / (1.0f + 0.3275911f * z);
	float e = fast_exp(-0.5f * x * x);
	float y = ((((1.061405429f * t - 1.453152027f) * t + 1.421413741f) * t - 0.284496736f) * t + 0.254829592f) * t * e;
	*exp_half = e;
	float half = 0.5f * y; /* the tail beyond |x| */
	return x < 0 ? half : 1.0f - half;
}

#if defined(__AVX512F__)
enum { ZMM = 16 }; /* floats in a vector */

INLINE __mmask16 lanes(size_t left) { return left >= ZMM ? (__mmask16)0xffff : (__mmask16)((1u << left) - 1); }

/* x * Phi(x) = x / 2 + h(x * x), h even and smooth: up to |x| = 4 a polynomial of degree 9 in x * x (Chebyshev interpolation, off by at
 * most 8e-6), beyond that |x| / 2 (by at most 1.3e-4). For kernels whose results are s8 or bf16 operands. */
INLINE __m512 wide_gelu(__m512 x)
{
	static const float h[] = {8.510986065e-3f, -2.027176990e-2f, 2.444114537e-2f, -4.337950768e-2f, 8.166089828e-2f,
				  -1.172046106e-1f, 1.522839473e-1f, -2.267929915e-1f, 7.330385413e-1f, 1.407592071f};
	const __m512 half = _mm512_set1_ps(0.5f), t = _mm512_mul_ps(x, x), u = _mm512_fmadd_ps(t, _mm512_set1_ps(0.125f), _mm512_set1_ps(-1));
	__m512 y = _mm512_set1_ps(h[0]);
	for (int i = 1; i < 10; i++)
		y = _mm512_fmadd_ps(y, u, _mm512_set1_ps(h[i]));
	const __mmask16 beyond = _mm512_cmp_ps_mask(t, _mm512_set1_ps(16), _CMP_GT_OQ);
	return _mm512_fmadd_ps(x, half, _mm512_mask_mul_ps(y, beyond, _mm512_abs_ps(x), half));
}
#endif

#endif
