/* ops_internal.h: what the files that are compiled once per instruction set share; OPS_ISA names it (model/meson.build). */
#ifndef WINNOW_MODEL_OPS_INTERNAL_H
#define WINNOW_MODEL_OPS_INTERNAL_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>

#include "model/ops.h"

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

#endif
