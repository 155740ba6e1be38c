/* attend_vnni.c: attend.h with AVX-512 VNNI; compiled with its flags and called only where the CPU has it.
 *
 * Keys and values of a head are packed once a call, so that four products of bytes meet in each 32-bit lane; then four queries at a
 * time get scores, softmax and results. The instruction multiplies u8 by s8: queries are taken 128 too large, and a key's sum, 128
 * times, is where its score begins. */
#include <immintrin.h>
#include <string.h>

#include "model/attend_internal.h"

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 4")

void attend_int8_vnni(const attend_job *job);

/* ---- packing ---- */

INLINE __mmask64 bytes_mask(size_t count) { return count >= 64 ? ~(__mmask64)0 : ((__mmask64)1 << count) - 1; }
INLINE __mmask16 vector_mask(size_t count) { return (__mmask16)bytes_mask(count); }

/* Rows of 16 dwords become columns. */
INLINE void transpose(__m512i r[16])
{
	__m512i t[16];
	for (int i = 0; i < 16; i += 2) {
		t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
		t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
	}
	for (int i = 0; i < 16; i += 4)
		for (int j = 0; j < 2; j++) {
			r[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + 2 + j]);
			r[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + 2 + j]);
		}
	/* r[4g + c]: of rows 4g .. 4g + 3, in each quarter x, column 4x + c */
	for (int c = 0; c < 4; c++) {
		t[c] = _mm512_shuffle_i32x4(r[c], r[4 + c], 0x88);          /* quarters 0, 2 of rows 0..7 */
		t[4 + c] = _mm512_shuffle_i32x4(r[c], r[4 + c], 0xdd);      /* 1, 3 */
		t[8 + c] = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0x88); /* of rows 8..15 */
		t[12 + c] = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0xdd);
	}
	for (int c = 0; c < 4; c++) {
		r[c] = _mm512_shuffle_i32x4(t[c], t[8 + c], 0x88);
		r[4 + c] = _mm512_shuffle_i32x4(t[4 + c], t[12 + c], 0x88);
		r[8 + c] = _mm512_shuffle_i32x4(t[c], t[8 + c], 0xdd);
		r[12 + c] = _mm512_shuffle_i32x4(t[4 + c], t[12 + c], 0xdd);
	}
}

static void pack_keys(const attend_job *j, const attend_space *s)
{
	const __m512i ones = _mm512_set1_epi8(1);
	for (size_t k0 = 0; k0 < s->keys; k0 += ATTEND_LANES) {
		__m512i sum = _mm512_setzero_si512();
		for (size_t d0 = 0; d0 < s->dims; d0 += 64) {
			const __mmask64 mask = bytes_mask(j->head_dim - d0);
			__m512i r[16];
			for (size_t i = 0; i < 16; i++)
				r[i] = k0 + i < j->keys ? _mm512_maskz_loadu_epi8(mask, j->k.data + (k0 + i) * j->k.stride + d0)
							: _mm512_setzero_si512();
			transpose(r);
			for (size_t i = 0; i < 16 && d0 + 4 * i < s->dims; i++) {
				_mm512_store_si512(s->packed_k + (k0 * s->dims + (d0 + 4 * i) * ATTEND_LANES), r[i]);
				sum = _mm512_dpbusd_epi32(sum, ones, r[i]);
			}
		}
		_mm512_store_si512(s->key_sum + k0, _mm512_mullo_epi32(sum, _mm512_set1_epi32(-128)));
	}
}

/* Sixteen columns of four rows: a byte of each row in every dword. */
INLINE __m512i interleave(const attend_job *j, size_t key, size_t d0)
{
	const __mmask16 mask = vector_mask(j->head_dim - d0);
	const __m512i by_dword = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
	const __m512i by_byte = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
	__m128i r[4];
	for (size_t i = 0; i < 4; i++)
		r[i] = key + i < j->keys ? _mm_maskz_loadu_epi8(mask, j->v.data + (key + i) * j->v.stride + d0) : _mm_setzero_si128();
	__m512i x = _mm512_castsi128_si512(r[0]);
	x = _mm512_inserti32x4(x, r[1], 1);
	x = _mm512_inserti32x4(x, r[2], 2);
	x = _mm512_inserti32x4(x, r[3], 3);
	return _mm512_shuffle_epi8(_mm512_permutexvar_epi32(by_dword, x), by_byte);
}

static void pack_values(const attend_job *j, const attend_space *s)
{
	for (size_t k = 0; k < s->keys; k += 4)
		for (size_t d = 0; d < s->dims; d += ATTEND_LANES)
			_mm512_store_si512(s->packed_v + k * s->dims + d * 4, interleave(j, k, d));
}

static void gather_scales(float *out, const attend_rows *r, size_t count, size_t room)
{
	for (size_t i = 0; i < count; i++)
		out[i] = r->scale[i * r->scale_stride];
	for (size_t i = count; i < room; i++)
		out[i] = 0;
}

/* ---- products ---- */

INLINE __m512i broadcast(const uint8_t *four)
{
	int32_t word;
	memcpy(&word, four, sizeof word);
	return _mm512_set1_epi32(word);
}

/* Scores of `rows` queries with 16 * `vectors` keys from k0 on. */
INLINE void score_tile(const attend_space *s, const float *row_scale, size_t k0, const size_t rows, const size_t vectors)
{
	__m512i sum[ATTEND_ROWS][4];
	UNROLL for (size_t v = 0; v < vectors; v++)
		UNROLL for (size_t r = 0; r < rows; r++)
			sum[r][v] = _mm512_load_si512(s->key_sum + k0 + v * ATTEND_LANES);
	const int8_t *k = s->packed_k + k0 * s->dims;
	for (size_t d = 0; d < s->dims; d += 4, k += 4 * ATTEND_LANES) {
		__m512i key[4];
		UNROLL for (size_t v = 0; v < vectors; v++)
			key[v] = _mm512_load_si512(k + v * ATTEND_LANES * s->dims);
		UNROLL for (size_t r = 0; r < rows; r++) {
			const __m512i q = broadcast(s->q + r * s->dims + d);
			UNROLL for (size_t v = 0; v < vectors; v++)
				sum[r][v] = _mm512_dpbusd_epi32(sum[r][v], q, key[v]);
		}
	}
	UNROLL for (size_t v = 0; v < vectors; v++) {
		const __m512 scale = _mm512_load_ps(s->key_scale + k0 + v * ATTEND_LANES);
		UNROLL for (size_t r = 0; r < rows; r++)
			_mm512_store_ps(s->scores + r * s->keys + k0 + v * ATTEND_LANES,
					_mm512_mul_ps(_mm512_cvtepi32_ps(sum[r][v]), _mm512_mul_ps(scale, _mm512_set1_ps(row_scale[r]))));
	}
}

INLINE void score_rows(const attend_space *s, const float *row_scale, size_t keys, const size_t rows)
{
	size_t k0 = 0;
	for (; k0 + 4 * ATTEND_LANES <= keys; k0 += 4 * ATTEND_LANES)
		score_tile(s, row_scale, k0, rows, 4);
	if (k0 + 2 * ATTEND_LANES <= keys) {
		score_tile(s, row_scale, k0, rows, 2);
		k0 += 2 * ATTEND_LANES;
	}
	if (k0 < keys)
		score_tile(s, row_scale, k0, rows, 1);
}

/* Results of `rows` queries in 16 * `vectors` columns from d0 on. */
INLINE void result_tile(const attend_job *j, const attend_space *s, const float *step, size_t keys, size_t i0, size_t d0, const size_t rows,
			const size_t vectors)
{
	__m512i sum[ATTEND_ROWS][4];
	UNROLL for (size_t v = 0; v < vectors; v++)
		UNROLL for (size_t r = 0; r < rows; r++)
			sum[r][v] = _mm512_setzero_si512();
	const int8_t *value = s->packed_v + d0 * 4;
	for (size_t k = 0; k < keys; k += 4, value += 4 * s->dims) {
		__m512i x[4];
		UNROLL for (size_t v = 0; v < vectors; v++)
			x[v] = _mm512_load_si512(value + v * ATTEND_LANES * 4);
		UNROLL for (size_t r = 0; r < rows; r++) {
			const __m512i p = broadcast(s->probs + r * s->keys + k);
			UNROLL for (size_t v = 0; v < vectors; v++)
				sum[r][v] = _mm512_dpbusd_epi32(sum[r][v], p, x[v]);
		}
	}
	UNROLL for (size_t v = 0; v < vectors; v++) {
		const size_t d = d0 + v * ATTEND_LANES;
		const __mmask16 mask = vector_mask(j->head_dim - d);
		UNROLL for (size_t r = 0; r < rows; r++)
			_mm512_mask_storeu_ps(j->out + (i0 + r) * j->out_stride + d, mask,
					      _mm512_mul_ps(_mm512_cvtepi32_ps(sum[r][v]), _mm512_set1_ps(step[r])));
	}
}

INLINE void result_rows(const attend_job *j, const attend_space *s, const float *step, size_t keys, size_t i0, const size_t rows)
{
	size_t d0 = 0;
	for (; d0 + 4 * ATTEND_LANES <= s->dims; d0 += 4 * ATTEND_LANES)
		result_tile(j, s, step, keys, i0, d0, rows, 4);
	switch ((s->dims - d0) / ATTEND_LANES) {
	case 3:
		result_tile(j, s, step, keys, i0, d0, rows, 3);
		break;
	case 2:
		result_tile(j, s, step, keys, i0, d0, rows, 2);
		break;
	case 1:
		result_tile(j, s, step, keys, i0, d0, rows, 1);
		break;
	}
}

/* ---- softmax ---- */

/* e^x, relative error below 2e-7 for -87 <= x <= 0: Cody-Waite reduction to |r| <= ln2/2, then a degree-6 polynomial. */
INLINE __m512 exponential(__m512 x)
{
	const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504088896341f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
	__m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
	r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
	__m512 p = _mm512_set1_ps(1.3981999507e-3f);
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
	p = _mm512_fmadd_ps(_mm512_mul_ps(p, r), r, _mm512_add_ps(r, _mm512_set1_ps(1)));
	return _mm512_scalef_ps(p, n);
}

/* A row of scores becomes probabilities times 255 over the largest; returns what a step of them is worth. Those behind `valid`,
 * up to whole vectors of `keys`, are 0. */
INLINE float soften(const attend_space *s, float *row, uint8_t *probs, const float *mask, size_t valid, size_t keys)
{
	__m512 top = _mm512_set1_ps(-3.0e38f), sum = _mm512_setzero_ps(), most = sum, poison = sum;
	for (size_t k = 0; k < valid; k += ATTEND_LANES) {
		const __mmask16 in = vector_mask(valid - k);
		__m512 x = _mm512_load_ps(row + k);
		if (mask) {
			x = _mm512_add_ps(x, _mm512_maskz_loadu_ps(in, mask + k));
			_mm512_store_ps(row + k, x);
		}
		top = _mm512_mask_max_ps(top, in, top, x);
	}
	top = _mm512_set1_ps(_mm512_reduce_max_ps(top));
	for (size_t k = 0; k < valid; k += ATTEND_LANES) {
		const __m512 x = _mm512_sub_ps(_mm512_load_ps(row + k), top), least = _mm512_set1_ps(-87);
		/* what a mask pushed down must be exactly zero, or padding leaks in; a NaN must stay one (max gives its second) */
		const __mmask16 in = _mm512_mask_cmp_ps_mask(vector_mask(valid - k), x, least, _CMP_NLT_UQ);
		__m512 e = _mm512_maskz_mov_ps(in, exponential(_mm512_max_ps(least, x)));
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

/* ---- a head ---- */

/* `rows` queries from i0 on. Keys that none of them sees are left out. */
INLINE void attend_rows_from(const attend_job *j, const attend_space *s, size_t i0, const size_t rows)
{
	float row_scale[ATTEND_ROWS], step[ATTEND_ROWS];
	size_t seen = 0;
	for (size_t r = 0; r < rows; r++) {
		const size_t at = attend_position(&j->queries, i0 + r), valid = attend_valid(j, at);
		const int8_t *q = j->q.data + at * j->q.stride;
		row_scale[r] = j->q.scale[at * j->q.scale_stride] * j->scale;
		seen = valid > seen ? valid : seen;
		for (size_t d = 0; d < s->dims; d += 64) {
			const __m512i x = _mm512_maskz_loadu_epi8(bytes_mask(j->head_dim - d), q + d);
			_mm512_mask_storeu_epi8(s->q + r * s->dims + d, bytes_mask(s->dims - d), _mm512_xor_si512(x, _mm512_set1_epi8(-128)));
		}
	}
	seen = attend_up(seen, ATTEND_LANES);
	score_rows(s, row_scale, seen, rows);
	for (size_t r = 0; r < rows; r++) {
		const size_t at = attend_position(&j->queries, i0 + r);
		step[r] = soften(s, s->scores + r * s->keys, s->probs + r * s->keys, j->mask ? j->mask + at * j->keys : NULL,
				 attend_valid(j, at), seen);
	}
	result_rows(j, s, step, seen, i0, rows);
}

void attend_int8_vnni(const attend_job *j)
{
	attend_space s;
	attend_lay_out(&s, j->scratch, j->keys, j->head_dim);
	gather_scales(s.key_scale, &j->k, j->keys, s.keys);
	gather_scales(s.value_scale, &j->v, j->keys, s.keys);
	pack_keys(j, &s);
	pack_values(j, &s);
	size_t i = 0;
	for (; i + ATTEND_ROWS <= j->queries.count; i += ATTEND_ROWS)
		attend_rows_from(j, &s, i, ATTEND_ROWS);
	for (; i < j->queries.count; i++)
		attend_rows_from(j, &s, i, 1);
}
