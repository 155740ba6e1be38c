/* ops_bf16.c: the kernels of ops.h from bf16 to bf16: an activation between two products.
 *
 * Compiled once per instruction set, like ops_kernels.c. */
#include "model/ops_internal.h"

void OPS_NAME(bf16_gelu)(uint16_t *out, const uint16_t *x, size_t count)
{
#if defined(__AVX512F__)
	const __m512i one = _mm512_set1_epi32(1), below_half = _mm512_set1_epi32(0x7fff), quiet = _mm512_set1_epi32(0x40);
	for (size_t i = 0; i < count; i += ZMM) {
		const __mmask16 in = lanes(count - i);
		const __m512 v = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(in, x + i)), 16)), y = wide_gelu(v);
		const __m512i bits = _mm512_castps_si512(y), high = _mm512_srli_epi32(bits, 16);
		const __m512i even = _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(below_half, _mm512_and_si512(high, one))), 16);
		const __mmask16 none = _mm512_cmp_ps_mask(y, y, _CMP_UNORD_Q);
		_mm256_mask_storeu_epi16(out + i, in, _mm512_cvtepi32_epi16(_mm512_mask_or_epi32(even, none, high, quiet)));
	}
#else
#pragma omp simd
	for (size_t i = 0; i < count; i++) {
		const float v = widen_bf16(x[i]);
		float e;
		out[i] = round_to_bf16(v * normal_cdf(v, &e));
	}
#endif
}

void OPS_NAME(bf16_relu)(uint16_t *out, const uint16_t *x, size_t count)
{
#pragma omp simd
	for (size_t i = 0; i < count; i++)
		out[i] = x[i] >= 0x8000 && x[i] <= 0xff80 ? 0 : x[i]; /* what is below zero, not a NaN */
}
