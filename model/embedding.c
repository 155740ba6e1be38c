/* embedding.c: gathers and scatters. Scatters run over columns in parallel and rows in order: a token that occurs twice
 * gets its sum in the same order every time. */
#include "model/embedding.h"

#include <string.h>

#include "model/ops.h"
#include "model/parallel.h"

/* Grid index of the k-th patch taken. */
static int grid_index(const int32_t *kept, int k) { return kept ? kept[k] : k; }

void patches_gather_range(float *patches, const float *pixels, int size, int patch, const int32_t *kept, int count, size_t first, size_t end)
{
	const size_t grid = (size_t)(size / patch), side = (size_t)size, p = (size_t)patch;
	for (size_t row = first; row < end; row++) {
		const size_t i = row / (size_t)count, at = (size_t)grid_index(kept, (int)(row % (size_t)count)), gy = at / grid, gx = at % grid;
		float *out = patches + row * 3 * p * p;
		for (size_t c = 0; c < 3; c++)
			for (size_t y = 0; y < p; y++, out += p)
				memcpy(out, pixels + ((i * 3 + c) * side + gy * p + y) * side + gx * p, p * sizeof *out);
	}
}

void patches_gather(float *patches, const float *pixels, int n, int size, int patch, const int32_t *kept, int count)
{
	PARALLEL_RANGE((size_t)n * (size_t)count, 1, first, end)
	patches_gather_range(patches, pixels, size, patch, kept, count, first, end);
}

void vision_rows_range(float *x, const float *embedded, const float *bias, const float *class_embedding, const float *position,
                       const int32_t *kept, int count, size_t hidden, size_t first, size_t end)
{
	const size_t len = (size_t)count + 1;
	for (size_t r = first; r < end; r++) {
		const size_t i = r / len, k = r % len;
		float *row = x + r * hidden;
		memcpy(row, k ? embedded + (i * (size_t)count + k - 1) * hidden : class_embedding, hidden * sizeof *x);
		if (k)
			ops->add_bias(row, bias, 1, hidden);
		ops->axpy(row, 1, position + (k ? 1 + (size_t)grid_index(kept, (int)k - 1) : 0) * hidden, hidden);
	}
}

void vision_rows_forward(float *x, const float *embedded, const float *bias, const float *class_embedding,
                         const float *position, int n, const int32_t *kept, int count, size_t hidden)
{
	PARALLEL_RANGE((size_t)n * (1 + (size_t)count), 1 + 8192 / hidden, first, end)
	vision_rows_range(x, embedded, bias, class_embedding, position, kept, count, hidden, first, end);
}

void vision_rows_backward(float *d_embedded, float *dbias, float *dclass, float *dposition, const float *dx, int n,
                          const int32_t *kept, int count, size_t hidden)
{
	size_t rows = (size_t)count + 1;
	for (int i = 0; i < n; i++) {
		const float *dxi = dx + (size_t)i * rows * hidden;
		ops->axpy(dclass, 1, dxi, hidden);
		ops->axpy(dposition, 1, dxi, hidden);
		for (int k = 0; k < count; k++)
			ops->axpy(dposition + (size_t)(1 + grid_index(kept, k)) * hidden, 1, dxi + (size_t)(1 + k) * hidden, hidden);
		memcpy(d_embedded + (size_t)i * (size_t)count * hidden, dxi + hidden, (size_t)count * hidden * sizeof *dx);
	}
	ops->column_sum(dbias, d_embedded, (size_t)n * (size_t)count, hidden, 0, hidden);
}

void text_rows_forward(float *x, const float *token, const float *position, const int32_t *ids, const int32_t *positions, int n,
                       int lead, int t, size_t hidden)
{
	int len = lead + t;
	for (int i = 0; i < n; i++)
		for (int j = 0; j < len; j++) {
			float *row = x + ((size_t)i * (size_t)len + (size_t)j) * hidden;
			if (j >= lead)
				memcpy(row, token + (size_t)ids[(size_t)i * (size_t)t + (size_t)(j - lead)] * hidden, hidden * sizeof *x);
			ops->axpy(row, 1, position + (size_t)positions[(size_t)i * (size_t)len + (size_t)j] * hidden, hidden);
		}
}

void text_rows_backward(float *dtoken, float *dposition, const float *dx, const int32_t *ids, const int32_t *positions, int n,
                        int lead, int t, size_t hidden, int32_t padding_idx)
{
	int len = lead + t;
	PARALLEL_RANGE(hidden, 64, c0, c1)
	for (int i = 0; i < n; i++)
		for (int j = 0; j < len; j++) {
			const float *row = dx + ((size_t)i * (size_t)len + (size_t)j) * hidden;
			int32_t id = j >= lead ? ids[(size_t)i * (size_t)t + (size_t)(j - lead)] : padding_idx;
			if (id != padding_idx)
				ops->axpy(dtoken + (size_t)id * hidden + c0, 1, row + c0, c1 - c0);
			ops->axpy(dposition + (size_t)positions[(size_t)i * (size_t)len + (size_t)j] * hidden + c0, 1, row + c0, c1 - c0);
		}
}
