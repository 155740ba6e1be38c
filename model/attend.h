/* attend.h: attention of one head on int8 operands, for engines whose projections are int8.
 *
 * Queries, keys and values are s8 with a scale a row. Scores are exact s32 sums; the values' scales are folded into the
 * probabilities, so that a row of these is u8 with one scale (its largest is 255), and their product with the values is exact again.
 * (s32 holds the sum of 66,000 keys.) Everything between the two products happens on a few rows at a time that stay in the first cache.
 * Source: scaled dot-product attention (arXiv 1706.03762); exponentials, sums and scales are f32. */
#ifndef WINNOW_MODEL_ATTEND_H
#define WINNOW_MODEL_ATTEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Rows of one head: its head_dim columns of row i at data + i * stride, row i's scale at scale[i * scale_stride]. */
typedef struct attend_rows {
	const int8_t *data;
	size_t stride;
	const float *scale;
	size_t scale_stride;
} attend_rows;

/* Which queries attend, by their row in q: first + i, or, when rows is given, rows[i] % len. */
typedef struct attend_queries {
	size_t first, count;
	const int32_t *rows;
	size_t len;
} attend_queries;

typedef struct attend_job {
	attend_rows q, k, v;
	size_t keys, head_dim;
	float scale;       /* of scores: 1 / sqrt(head_dim) */
	bool causal;       /* a query sees keys up to its own row */
	const float *mask; /* additive, [rows of q][keys], or NULL */
	attend_queries queries;
	float *out;        /* query i's head_dim results at out + i * out_stride */
	size_t out_stride;
	void *scratch;     /* attend_scratch bytes, aligned to 64 */
} attend_job;

typedef void (*attend_fn)(const attend_job *job);

size_t attend_scratch(size_t keys, size_t head_dim);

/* This CPU's kernel (AVX-512 with VNNI); NULL when it has none, or when WINNOW_ISA (ops.h) forbids it: then bf16 or f32 products
 * serve better. */
attend_fn attend_int8(void);

/* The same in plain C: what tests compare kernels with. */
void attend_int8_plain(const attend_job *job);

#endif
