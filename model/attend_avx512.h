/* attend_avx512.h: a kernel of attend.h with AVX-512, for any type of operands: included by one file for each type, which is compiled with
 * that type's flags and defines behind this what is declared here.
 *
 * Keys and values of a head are packed once a call into words (attend_internal.h) that one instruction multiplies and adds in each 32-bit
 * lane; then four queries at a time get scores, softmax and results. */
#include <immintrin.h>
#include <string.h>

#include "model/attend_internal.h"

#ifndef ATTEND_TYPE
#error "an element type for which this is compiled must be defined"
#endif

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 4")
#define SIZE element_size(ATTEND_TYPE)
#define PER_WORD (4 / SIZE)

/* ---- what each type brings ---- */

/* sum, s32 or f32, plus the product of every lane's words. */
INLINE __m512i dot(__m512i sum, __m512i a, __m512i b);
/* Once a head, behind packing. */
INLINE void prepare(const attend_job *j, const attend_space *s);
/* What every byte of a query is combined with by exclusive or. */
INLINE __m512i query_flip(void);
INLINE float query_scale(const attend_job *j, size_t row);
/* Scores with the 16 keys from k on: where sums begin, and what they come to. */
INLINE __m512i scores_begin(const attend_space *s, size_t k);
INLINE __m512 scores_end(const attend_space *s, __m512i sum, float scale, size_t k);
/* Sixteen columns of PER_WORD rows of values; rows behind the last key are 0. */
INLINE __m512i value_words(const attend_job *j, size_t key, size_t d0);
/* A row of scores becomes probs; returns what their products with values are to be multiplied with. Those behind `valid`, up to whole
 * vectors of `keys`, are 0. */
INLINE float soften(const attend_space *s, size_t r, const float *mask, size_t valid, size_t keys);
/* Sixteen results at most. */
INLINE void store_results(void *out, __mmask16 columns, __m512i sum, float step);

/* ---- vectors ---- */

INLINE __mmask64 bytes_mask(size_t count) { return count >= 64 ? ~(__mmask64)0 : ((__mmask64)1 << count) - 1; }
INLINE __mmask16 words_mask(size_t count) { return (__mmask16)bytes_mask(count < 16 ? count : 16); }

INLINE const char *row_of(const attend_rows *r, size_t row) { return (const char *)r->data + row * r->stride * SIZE; }

/* Rows of 16 words become columns. */
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

/* ---- softmax ---- */

/* The largest of a row's first `valid` scores in every lane (it may forget a NaN, weigh does not); the mask is added to them on the way. */
INLINE __m512 largest_score(float *row, const float *mask, size_t valid)
{
	__m512 top = _mm512_set1_ps(-3.0e38f);
	for (size_t k = 0; k < valid; k += ATTEND_LANES) {
		const __mmask16 in = words_mask(valid - k);
		__m512 x = _mm512_load_ps(row + k);
		if (mask) {
			x = _mm512_add_ps(x, _mm512_maskz_loadu_ps(in, mask + k));
			_mm512_store_ps(row + k, x);
		}
		top = _mm512_mask_max_ps(top, in, top, x);
	}
	return _mm512_set1_ps(_mm512_reduce_max_ps(top));
}

/* e^(score - top) of the 16 scores from k on: what a mask pushed down must be exactly zero, or padding leaks in; a NaN must stay one (max
 * gives its second). */
INLINE __m512 weigh(const float *row, size_t k, size_t valid, __m512 top)
{
	const __m512 x = _mm512_sub_ps(_mm512_load_ps(row + k), top), least = _mm512_set1_ps(-87);
	const __mmask16 in = _mm512_mask_cmp_ps_mask(words_mask(valid - k), x, least, _CMP_NLT_UQ);
	return _mm512_maskz_mov_ps(in, exponential(_mm512_max_ps(least, x)));
}

/* ---- packing ---- */

static void pack_keys(const attend_job *j, const attend_space *s)
{
	const size_t words = s->dims / PER_WORD, bytes = j->head_dim * SIZE;
	for (size_t k0 = 0; k0 < s->keys; k0 += ATTEND_LANES)
		for (size_t w0 = 0; w0 < words; w0 += 16) {
			const __mmask64 mask = bytes_mask(bytes > 4 * w0 ? bytes - 4 * w0 : 0);
			__m512i r[16];
			for (size_t i = 0; i < 16; i++)
				r[i] = k0 + i < j->keys ? _mm512_maskz_loadu_epi8(mask, row_of(&j->k, k0 + i) + 4 * w0)
							: _mm512_setzero_si512();
			transpose(r);
			for (size_t i = 0; i < 16 && w0 + i < words; i++)
				_mm512_store_si512(s->packed_k + k0 * words + (w0 + i) * ATTEND_LANES, r[i]);
		}
}

static void pack_values(const attend_job *j, const attend_space *s)
{
	for (size_t k = 0; k < s->keys; k += PER_WORD)
		for (size_t d = 0; d < s->dims; d += ATTEND_LANES)
			_mm512_store_si512(s->packed_v + k / PER_WORD * s->dims + d, value_words(j, k, d));
}

/* ---- products ---- */

INLINE __m512i broadcast(const void *word)
{
	int32_t w;
	memcpy(&w, word, sizeof w);
	return _mm512_set1_epi32(w);
}

/* Scores of `rows` queries with 16 * `vectors` keys from k0 on. */
INLINE void score_tile(const attend_space *s, const float *scale, size_t k0, const size_t rows, const size_t vectors)
{
	const size_t words = s->dims / PER_WORD;
	__m512i sum[ATTEND_ROWS][4];
	UNROLL for (size_t v = 0; v < vectors; v++)
		UNROLL for (size_t r = 0; r < rows; r++)
			sum[r][v] = scores_begin(s, k0 + v * ATTEND_LANES);
	const uint32_t *k = s->packed_k + k0 * words;
	const char *q = s->q;
	for (size_t w = 0; w < words; w++, k += ATTEND_LANES, q += 4) {
		__m512i key[4];
		UNROLL for (size_t v = 0; v < vectors; v++)
			key[v] = _mm512_load_si512(k + v * ATTEND_LANES * words);
		UNROLL for (size_t r = 0; r < rows; r++) {
			const __m512i x = broadcast(q + r * s->dims * SIZE);
			UNROLL for (size_t v = 0; v < vectors; v++)
				sum[r][v] = dot(sum[r][v], x, key[v]);
		}
	}
	UNROLL for (size_t v = 0; v < vectors; v++)
		UNROLL for (size_t r = 0; r < rows; r++)
			_mm512_store_ps(s->scores + r * s->keys + k0 + v * ATTEND_LANES,
					scores_end(s, sum[r][v], scale[r], k0 + v * ATTEND_LANES));
}

INLINE void score_rows(const attend_space *s, const float *scale, size_t keys, const size_t rows)
{
	size_t k0 = 0;
	for (; k0 + 4 * ATTEND_LANES <= keys; k0 += 4 * ATTEND_LANES)
		score_tile(s, scale, k0, rows, 4);
	if (k0 + 2 * ATTEND_LANES <= keys) {
		score_tile(s, scale, k0, rows, 2);
		k0 += 2 * ATTEND_LANES;
	}
	if (k0 < keys)
		score_tile(s, scale, k0, rows, 1);
}

/* Results of `rows` queries in 16 * `vectors` columns from d0 on. */
INLINE void result_tile(const attend_job *j, const attend_space *s, const float *step, size_t keys, size_t i0, size_t d0, const size_t rows,
			const size_t vectors)
{
	__m512i sum[ATTEND_ROWS][4];
	UNROLL for (size_t v = 0; v < vectors; v++)
		UNROLL for (size_t r = 0; r < rows; r++)
			sum[r][v] = _mm512_setzero_si512();
	const uint32_t *value = s->packed_v + d0;
	const char *p = s->probs;
	for (size_t k = 0; k < keys; k += PER_WORD, value += s->dims, p += 4) {
		__m512i x[4];
		UNROLL for (size_t v = 0; v < vectors; v++)
			x[v] = _mm512_load_si512(value + v * ATTEND_LANES);
		UNROLL for (size_t r = 0; r < rows; r++) {
			const __m512i w = broadcast(p + r * s->keys * SIZE);
			UNROLL for (size_t v = 0; v < vectors; v++)
				sum[r][v] = dot(sum[r][v], w, x[v]);
		}
	}
	const size_t out_size = ATTEND_TYPE == ELEMENT_BF16 ? 2 : 4;
	UNROLL for (size_t v = 0; v < vectors; v++)
		UNROLL for (size_t r = 0; r < rows; r++) {
			const size_t d = d0 + v * ATTEND_LANES;
			store_results((char *)j->out + ((i0 + r) * j->out_stride + d) * out_size, words_mask(j->head_dim - d), sum[r][v], step[r]);
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

/* ---- a head ---- */

INLINE void take_query(const attend_job *j, const attend_space *s, size_t r, size_t row)
{
	const size_t bytes = j->head_dim * SIZE, room = s->dims * SIZE;
	char *to = (char *)s->q + r * room;
	for (size_t b = 0; b < room; b += 64) {
		const __m512i x = _mm512_maskz_loadu_epi8(bytes_mask(bytes > b ? bytes - b : 0), row_of(&j->q, row) + b);
		_mm512_mask_storeu_epi8(to + b, bytes_mask(room - b), _mm512_xor_si512(x, query_flip()));
	}
}

/* `rows` queries from i0 on. Keys that none of them sees are left out. */
INLINE void attend_rows_from(const attend_job *j, const attend_space *s, size_t i0, const size_t rows)
{
	float scale[ATTEND_ROWS], step[ATTEND_ROWS];
	size_t seen = 0;
	for (size_t r = 0; r < rows; r++) {
		const size_t at = attend_position(&j->queries, i0 + r), valid = attend_valid(j, at);
		take_query(j, s, r, at);
		scale[r] = query_scale(j, at);
		seen = valid > seen ? valid : seen;
	}
	seen = attend_up(seen, ATTEND_LANES);
	score_rows(s, scale, seen, rows);
	for (size_t r = 0; r < rows; r++) {
		const size_t at = attend_position(&j->queries, i0 + r);
		step[r] = soften(s, r, j->mask ? j->mask + at * j->keys : NULL, attend_valid(j, at), seen);
	}
	result_rows(j, s, step, seen, i0, rows);
}

INLINE void attend_head(const attend_job *j)
{
	attend_space s;
	attend_lay_out(&s, j->scratch, ATTEND_TYPE, j->keys, j->head_dim);
	pack_keys(j, &s);
	pack_values(j, &s);
	prepare(j, &s);
	size_t i = 0;
	for (; i + ATTEND_ROWS <= j->queries.count; i += ATTEND_ROWS)
		attend_rows_from(j, &s, i, ATTEND_ROWS);
	for (; i < j->queries.count; i++)
		attend_rows_from(j, &s, i, 1);
}
