/* tensor.c: see tensor.h. The conversions are bit arithmetic without table or branch on hardware support, written so that
 * the compiler vectorises them; the engine has faster ones for hot paths, these are for loading and saving. */
#include "model/tensor.h"

#include <string.h>

size_t dtype_size(dtype d)
{
	static const unsigned char size[] = {[DTYPE_F32] = 4, [DTYPE_F16] = 2, [DTYPE_BF16] = 2, [DTYPE_I64] = 8,
	                                     [DTYPE_I32] = 4, [DTYPE_I8] = 1,  [DTYPE_U8] = 1,   [DTYPE_BOOL] = 1};
	return size[d];
}

const char *dtype_name(dtype d)
{
	static const char *const name[] = {[DTYPE_F32] = "F32", [DTYPE_F16] = "F16", [DTYPE_BF16] = "BF16",
	                                   [DTYPE_I64] = "I64", [DTYPE_I32] = "I32", [DTYPE_I8] = "I8",
	                                   [DTYPE_U8] = "U8",   [DTYPE_BOOL] = "BOOL"};
	return name[d];
}

int64_t shape_count(int rank, const int64_t *shape)
{
	const int64_t limit = (int64_t)1 << 48;
	int64_t product = 1;
	int empty = 0;
	/* Zeros are left out of the product, so that [0, 2^60] is refused too: no partial product of an accepted shape
	 * can overflow. */
	for (int i = 0; i < rank; i++) {
		if (shape[i] < 0)
			return -1;
		if (shape[i] == 0)
			empty = 1;
		else if (shape[i] > limit / product)
			return -1;
		else
			product *= shape[i];
	}
	return empty ? 0 : product;
}

static inline uint32_t float_bits(float f)
{
	uint32_t u;
	memcpy(&u, &f, sizeof u);
	return u;
}

static inline float bits_float(uint32_t u)
{
	float f;
	memcpy(&f, &u, sizeof f);
	return f;
}

/* IEEE binary16 has 5 exponent bits (bias 15) and 10 of mantissa; subnormals are renormalised by one float subtraction. */
static inline float f16_to_f32(uint16_t h)
{
	uint32_t u = (uint32_t)(h & 0x7fff) << 13;
	uint32_t exponent = u & (0x7c00u << 13);
	u += (127u - 15) << 23;
	if (exponent == 0x7c00u << 13) /* infinity, NaN */
		u += (128u - 16) << 23;
	else if (exponent == 0) /* zero, subnormal */
		u = float_bits(bits_float(u + (1u << 23)) - bits_float(113u << 23));
	return bits_float(u | (uint32_t)(h & 0x8000) << 16);
}

static inline uint16_t f32_to_f16(float f)
{
	uint32_t u = float_bits(f), sign = u & 0x80000000u, h;
	u ^= sign;
	if (u >= (127u + 16) << 23) { /* 65536 and up: infinity; what rounds up to it below gets there by the carry */
		h = u > 255u << 23 ? 0x7e00 : 0x7c00;
	} else if (u < 113u << 23) { /* subnormal result: the addition shifts and rounds to nearest even */
		uint32_t magic = ((127u - 15) + (23 - 10) + 1) << 23;
		h = float_bits(bits_float(u) + bits_float(magic)) - magic;
	} else {
		uint32_t odd = u >> 13 & 1;
		h = (u - ((127u - 15) << 23) + 0xfff + odd) >> 13;
	}
	return (uint16_t)(h | sign >> 16);
}

static inline uint16_t f32_to_bf16(float f)
{
	uint32_t u = float_bits(f);
	if ((u & 0x7fffffffu) > 255u << 23) /* rounding could carry a NaN into infinity */
		return (uint16_t)(u >> 16 | 0x40);
	return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

void dtype_to_f32(float *out, const void *in, dtype d, size_t count)
{
	const unsigned char *p = in;
	if (count == 0)
		return;
	if (d == DTYPE_F32) {
		memcpy(out, in, count * sizeof(float));
		return;
	}
	for (size_t i = 0; i < count; i++) {
		uint16_t h;
		memcpy(&h, p + 2 * i, sizeof h);
		out[i] = d == DTYPE_BF16 ? bits_float((uint32_t)h << 16) : f16_to_f32(h);
	}
}

void dtype_from_f32(void *out, const float *in, dtype d, size_t count)
{
	unsigned char *p = out;
	if (count == 0)
		return;
	if (d == DTYPE_F32) {
		memcpy(out, in, count * sizeof(float));
		return;
	}
	for (size_t i = 0; i < count; i++) {
		uint16_t h = d == DTYPE_BF16 ? f32_to_bf16(in[i]) : f32_to_f16(in[i]);
		memcpy(p + 2 * i, &h, sizeof h);
	}
}
