/* attend_float.h: what the kernels of attend.h on bf16 and on f32 operands share: sums are f32, and no row has a scale of its own. Behind
 * attend_avx512.h, and behind these two: */

INLINE __m512i value_words(const attend_job *j, size_t key, size_t d0);
INLINE void store_probs(char *probs, size_t k, __m512 p);

INLINE void prepare(const attend_job *j, const attend_space *s)
{
	(void)j;
	(void)s;
}

INLINE __m512i query_flip(void) { return _mm512_setzero_si512(); }

INLINE float query_scale(const attend_job *j, size_t row)
{
	(void)row;
	return j->scale;
}

INLINE __m512i scores_begin(const attend_space *s, size_t k)
{
	(void)s;
	(void)k;
	return _mm512_setzero_si512();
}

INLINE __m512 scores_end(const attend_space *s, __m512i sum, float scale, size_t k)
{
	(void)s;
	(void)k;
	return _mm512_mul_ps(_mm512_castsi512_ps(sum), _mm512_set1_ps(scale));
}

INLINE float soften(const attend_space *s, size_t r, const float *mask, size_t valid, size_t keys)
{
	float *row = s->scores + r * s->keys;
	char *probs = (char *)s->probs + r * s->keys * SIZE;
	const __m512 top = largest_score(row, mask, valid);
	__m512 sum = _mm512_setzero_ps();
	size_t k = 0;
	for (; k < valid; k += ATTEND_LANES) {
		const __m512 e = weigh(row, k, valid, top);
		sum = _mm512_add_ps(sum, e);
		store_probs(probs, k, e);
	}
	memset(probs + k * SIZE, 0, (keys - k) * SIZE);
	return 1 / _mm512_reduce_add_ps(sum);
}
