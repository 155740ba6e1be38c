/* text_layout.c: see text_layout.h. */
#include "model/text_layout.h"

#include <string.h>

#include "model/embedding.h"

#define MASKED (-1e30f) /* added to scores that must not be seen; far below any score, yet finite */

wn_code text_check(const blip2_batch *b, int max_batch, int max_text_len, int vocab_size, wn_error *err)
{
	if (b->n < 1 || b->n > max_batch || b->text_len < 1 || b->text_len > max_text_len)
		return wn_fail(err, WN_TOO_LARGE, "batch of %d samples with %d tokens does not fit a session of %d with %d", b->n,
		               b->text_len, max_batch, max_text_len);
	if (b->tail_len < 0 || b->tail_len > b->text_len || (b->tail_len && !b->tail_parent))
		return wn_fail(err, WN_INVALID, "tail_len %d does not fit %d text tokens", b->tail_len, b->text_len);
	for (int k = 0; k < b->tail_len; k++)
		if (b->tail_parent[k] < -1 || b->tail_parent[k] >= k)
			return wn_fail(err, WN_INVALID, "tail_parent[%d] is %d, expected -1 to %d", k, b->tail_parent[k], k - 1);
	for (int i = 0; i < b->n * b->text_len; i++) {
		if (b->input_ids[i] < 0 || b->input_ids[i] >= vocab_size)
			return wn_fail(err, WN_INVALID, "input_ids[%d][%d] is %d, the vocabulary has %d", i / b->text_len, i % b->text_len,
			               (int)b->input_ids[i], vocab_size);
		if (b->labels && b->labels[i] != -100 && (b->labels[i] < 0 || b->labels[i] >= vocab_size))
			return wn_fail(err, WN_INVALID, "labels[%d][%d] is %d, the vocabulary has %d", i / b->text_len, i % b->text_len,
			               (int)b->labels[i], vocab_size);
	}
	return WN_OK;
}

void text_positions(int32_t *positions, const blip2_batch *b, int queries)
{
	const int prompt = b->text_len - b->tail_len, len = queries + b->text_len;
	for (int i = 0; i < b->n; i++) {
		int32_t *p = positions + (size_t)i * (size_t)len;
		const uint8_t *mask = b->attention_mask ? b->attention_mask + (size_t)i * (size_t)b->text_len : NULL;
		int next = 0;
		for (int j = 0; j < queries + prompt; j++)
			p[j] = POSITION_OFFSET + (j < queries || !mask || mask[j - queries] ? next++ : -1);
		for (int k = 0; k < b->tail_len; k++)
			p[queries + prompt + k] =
				b->tail_parent[k] < 0 ? POSITION_OFFSET + next : p[queries + prompt + b->tail_parent[k]] + 1;
	}
}

/* May row r see key c, both inside the tail? Only itself and its ancestors. */
static bool tail_sees(const blip2_batch *b, int r, int c)
{
	while (r > c)
		r = b->tail_parent[r];
	return r == c;
}

bool text_needs_mask(const blip2_batch *b) { return b->attention_mask || b->tail_len; }

void text_mask(float *mask, const blip2_batch *b, int queries)
{
	const int len = queries + b->text_len, tail = len - b->tail_len;
#pragma omp parallel for schedule(static) if (b->n > 1)
	for (int i = 0; i < b->n; i++) {
		const uint8_t *keep = b->attention_mask ? b->attention_mask + (size_t)i * (size_t)b->text_len : NULL;
		float *first = mask + (size_t)i * (size_t)len * (size_t)len;
		for (int j = 0; j < len; j++)
			first[j] = j >= queries && keep && !keep[j - queries] ? MASKED : 0;
		for (int r = 1; r < len; r++)
			memcpy(first + (size_t)r * (size_t)len, first, (size_t)len * sizeof *first);
		for (int r = tail; r < len; r++)
			for (int c = tail; c < r; c++)
				if (!tail_sees(b, r - tail, c - tail))
					first[(size_t)r * (size_t)len + (size_t)c] = MASKED;
	}
}
