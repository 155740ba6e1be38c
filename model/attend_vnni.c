/* attend_vnni.c: attend.h on s8 operands. The instruction multiplies u8 by s8: queries are taken 128 too large, and a key's sum, 128
 * times, is where its score begins. */
#define ATTEND_TYPE ELEMENT_S8
#include "model/attend_avx512.h"

void attend_s8_vnni(const attend_job *job);

INLINE __m512i dot(__m512i sum, __m512i a, __m512i b) { return _mm512_dpbusd_epi32(sum, a, b); }

static void gather_scales(float *out, const attend_rows *r, size_t count, size_t room)
{
	for (size_t i = 0; i < count; i++)
		out[i] = r->scale[i * r->scale_stride];
	for (size_t i = count; i < room; i++)
		out[i] = 0;
}

INLINE void prepare(const attend_job *j, const attend_space *s)
{
	const __m512i ones = _mm512_set1_epi8(1);
	const uint32_t *k = s->packed_k;
	gather_scales(s->key_scale, &j->k, j->keys, s->keys);
	gather_scales(s->value_scale, &j->v, j->keys, s->keys);
	for (size_t k0 = 0; k0 < s->keys; k0 += ATTEND_LANES) {
		__m512i sum = _mm512_setzero_si512();
		for (size_t w = 0; w < s->dims / PER_WORD; w++, k += ATTEND_LANES)
			sum = _mm512_dpbusd_epi32(sum, ones, _mm512_load_si512(k));
		_mm512_store_si512(s->key_sum + k0, _mm512_mullo_epi32(sum, _mm512_set1_epi32(-128)));
	}
}

INLINE __m512i query_flip(void) { return _mm512_set1_epi8(-128); }
INLINE float query_scale(const attend_job *j, size_t row) { return j->q.scale[row * j->q.scale_stride] * j->scale; }

INLINE __m512i scores_begin(const attend_space *s, size_t k) { return _mm512_load_si512(s->key_sum + k); }

INLINE __m512 scores_end(const attend_space *s, __m512i sum, float scale, size_t k)
{
	return _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_mul_ps(_mm512_load_ps(s->key_scale + k), _mm512_set1_ps(scale)));
}

INLINE __m512i value_words(const attend_job *j, size_t key, size_t d0)
{
	const __mmask16 mask = words_mask(j->head_dim - d0);
	const __m512i by_dword = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
	const __m512i by_byte = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
	__m128i r[4];
	for (size_t i = 0; i < 4; i++)
		r[i] = key + i < j->keys ? _mm_maskz_loadu_epi8(mask, row_of(&j->v, key + i) + d0) : _mm_setzero_si128();
	__m512i x = _mm512_castsi128_si512(r[0]);
	x = _mm512_inserti32x4(x, r[1], 1);
	x = _mm512_inserti32x4(x, r[2], 2);
	x = _mm512_inserti32x4(x, r[3], 3);
	return _mm512_shuffle_epi8(_mm512_permutexvar_epi32(by_dword, x), by_byte);
}

/* Probabilities times 255 over the largest. */
INLINE float soften(const attend_space *s, size_t r, const float *mask, size_t valid, size_t keys)
{
	float *row = s->scores + r * s->keys;
	uint8_t *probs = (uint8_t *)s->probs + r * s->keys;
	const __m512 top = largest_score(row, mask, valid);
	__m512 sum = _mm512_setzero_ps(), most = sum, poison = sum;
	for (size_t k = 0; k < valid; k += ATTEND_LANES) {
		__m512 e = weigh(row, k, valid, top);
		sum = _mm512_add_ps(sum, e);
		e = _mm512_mul_ps(e, _mm512_load_ps(s->value_scale + k));
		most = _mm512_max_ps(most, e);
		poison = _mm512_fmadd_ps(e, _mm512_setzero_ps(), poison); /* a maximum forgets a NaN */
		_mm512_store_ps(row + k, e);
	}
	const float largest = _mm512_reduce_max_ps(most);
	const __m512 inverse = _mm512_set1_ps(largest > 0 ? 255.0f / largest : 0);
	size_t k = 0;
	for (; k < valid; k += ATTEND_LANES)
		_mm_store_si128((__m128i *)(void *)(probs + k),
				_mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(_mm512_load_ps(row + k), inverse))));
	memset(probs + k, 0, keys - k);
	return largest / 255.0f / _mm512_reduce_add_ps(sum) + _mm512_reduce_add_ps(poison);
}

INLINE void store_results(void *out, __mmask16 columns, __m512i sum, float step)
{
	_mm512_mask_storeu_ps(out, columns, _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(step)));
}

void attend_s8_vnni(const attend_job *j) { attend_head(j); }
