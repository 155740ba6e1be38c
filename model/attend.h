/* attend.h: attention of one head, on the operands that an engine's projections leave: s8, bf16 or f32.
 *
 * s8 queries, keys and values have a scale a row. Scores are exact s32 sums; the values' scales are folded into the
 * probabilities, so that a row of these is u8 with one scale (its largest is 255), and their product with the values is exact again.
 * (s32 holds the sum of 66,000 keys.) bf16 products are summed in f32, and a row's probabilities are bf16, divided by their sum
 * (of what they were before rounding) only behind the product. Everything between the two products happens on a few rows at a time that stay
 * in the first cache.
 * Source: scaled dot-product attention (arXiv 1706.03762); exponentials, sums and scales are f32. */
#ifndef WINNOW_MODEL_ATTEND_H
#define WINNOW_MODEL_ATTEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/element.h"

/* Rows of one head: its head_dim columns of row i at element i * stride of data; of s8, row i's scale at scale[i * scale_stride]. */
typedef struct attend_rows {
	const void *data;
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
	element type; /* of q, k and v: ELEMENT_S8, _BF16 or _F32 */
	attend_rows q, k, v;
	size_t keys, head_dim;
	float scale;       /* of scores: 1 / sqrt(head_dim) */
	bool causal;       /* a query sees keys up to its own row */
	const float *mask; /* additive, [rows of q][keys], or NULL */
	attend_queries queries;
	void *out;         /* query i's head_dim results from element i * out_stride on: bf16 from bf16 operands, else f32 */
	size_t out_stride;
	void *scratch;     /* attend_scratch bytes, aligned to 64 */
} attend_job;

typedef void (*attend_fn)(const attend_job *job);

size_t attend_scratch(element type, size_t keys, size_t head_dim);

/* This CPU's kernel for operands of `type` (AVX-512, with VNNI for s8 and BF16 for bf16); NULL when it has none, or when WINNOW_ISA
 * (ops.h) forbids it: then an engine has f32 operands and batched products. */
attend_fn attend_kernel(element type);

/* "s8 avx512_vnni", "bf16 avx512_bf16", "f32 avx512"; f32 without a kernel: "f32 oneDNN": what attention on `type` runs on. */
const char *attend_describe(element type);

/* The same in plain C, for each type: what tests compare kernels with. */
void attend_plain(const attend_job *job);

#endif
