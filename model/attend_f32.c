/* attend_f32.c: attend.h on f32 operands. */
#define ATTEND_TYPE ELEMENT_F32
#include "model/attend_avx512.h"
#include "model/attend_float.h"

void attend_f32_avx512(const attend_job *job);

INLINE __m512i dot(__m512i sum, __m512i a, __m512i b)
{
	return _mm512_castps_si512(_mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), _mm512_castsi512_ps(sum)));
}

INLINE __m512i value_words(const attend_job *j, size_t key, size_t d0)
{
	return key < j->keys ? _mm512_maskz_loadu_epi32(words_mask(j->head_dim - d0), row_of(&j->v, key) + d0 * SIZE) : _mm512_setzero_si512();
}

INLINE void store_probs(char *probs, size_t k, __m512 p) { _mm512_store_ps((float *)(void *)probs + k, p); }

INLINE void store_results(void *out, __mmask16 columns, __m512i sum, float step)
{
	_mm512_mask_storeu_ps(out, columns, _mm512_mul_ps(_mm512_castsi512_ps(sum), _mm512_set1_ps(step)));
}

void attend_f32_avx512(const attend_job *j) { attend_head(j); }
