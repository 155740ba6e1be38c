/* attend_bf16.c: attend.h on bf16 operands. */
#define ATTEND_TYPE ELEMENT_BF16
#include "model/attend_avx512.h"
#include "model/attend_float.h"

void attend_bf16_avx512(const attend_job *job);

INLINE __m512i dot(__m512i sum, __m512i a, __m512i b)
{
	return _mm512_castps_si512(_mm512_dpbf16_ps(_mm512_castsi512_ps(sum), (__m512bh)a, (__m512bh)b));
}

INLINE __m512i wide_row(const attend_job *j, size_t key, size_t d0)
{
	return key < j->keys ? _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(words_mask(j->head_dim - d0), row_of(&j->v, key) + d0 * SIZE))
			     : _mm512_setzero_si512();
}

INLINE __m512i value_words(const attend_job *j, size_t key, size_t d0)
{
	return _mm512_or_si512(wide_row(j, key, d0), _mm512_slli_epi32(wide_row(j, key + 1, d0), 16));
}

INLINE void store_probs(char *probs, size_t k, __m512 p) { _mm256_store_si256((__m256i *)(void *)(probs + k * SIZE), (__m256i)_mm512_cvtneps_pbh(p)); }

INLINE void store_results(void *out, __mmask16 columns, __m512i sum, float step)
{
	const __m512 x = _mm512_mul_ps(_mm512_castsi512_ps(sum), _mm512_set1_ps(step));
	_mm256_mask_storeu_epi16(out, columns, (__m256i)_mm512_cvtneps_pbh(x));
}

void attend_bf16_avx512(const attend_job *j) { attend_head(j); }
