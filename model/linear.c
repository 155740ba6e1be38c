/* linear.c: matrix products through dnn.h, the rest of each layer in one pass over its output. */
#include "model/linear.h"

#include "model/dnn.h"
#include "model/ops.h"
#include "model/parallel.h"

/* Rows that make a thread's share worth waking it: about 16 Ki elements. */
static size_t row_grain(size_t width) { return 1 + 16384 / width; }

/* x rounded into scratch. */
static const uint16_t *rounded(uint16_t *scratch, const float *x, size_t count)
{
	PARALLEL_RANGE(count, 16384, i0, i1)
	ops->to_bf16(scratch + i0, x + i0, i1 - i0);
	return scratch;
}

/* y = x w^T */
static void product(const compute *cx, float *y, const float *x, const float *w, size_t rows, size_t in, size_t out)
{
	int64_t m = (int64_t)rows, n = (int64_t)out, k = (int64_t)in;
	if (cx->bf16)
		dnn_gemm_bf16(false, true, m, n, k, rounded(cx->x16, x, rows * in), k, cx->shadow + (w - cx->weights), k, 0, y, n);
	else
		dnn_sgemm(false, true, m, n, k, 1, x, k, w, k, 0, y, n);
}

void linear_forward(const compute *cx, float *y, const float *x, const float *w, const float *b, size_t rows, size_t in, size_t out)
{
	product(cx, y, x, w, rows, in, out);
	if (!b)
		return;
	PARALLEL_RANGE(rows, row_grain(out), r0, r1)
	ops->add_bias(y + r0 * out, b, r1 - r0, out);
}

void linear_residual_forward(const compute *cx, float *y, const float *x, const float *w, const float *b, const float *residual, size_t rows,
                             size_t in, size_t out)
{
	product(cx, y, x, w, rows, in, out);
	PARALLEL_RANGE(rows, row_grain(out), r0, r1)
	ops->add_bias_residual(y + r0 * out, b, residual + r0 * out, r1 - r0, out);
}

void linear_activation_forward(const compute *cx, float *act, float *pre, const float *x, const float *w, const float *b, activation f,
                               size_t rows, size_t in, size_t out)
{
	product(cx, pre, x, w, rows, in, out);
	PARALLEL_RANGE(rows, row_grain(out), r0, r1)
	{
		if (f == ACTIVATION_GELU)
			ops->bias_gelu(act + r0 * out, pre + r0 * out, b, r1 - r0, out);
		else
			ops->bias_relu(act + r0 * out, pre + r0 * out, b, r1 - r0, out);
	}
}

void linear_backward(const compute *cx, float *dx, int accumulate, float *dw, float *db, const float *dy, const float *x, const float *w,
                     size_t rows, size_t in, size_t out)
{
	/* y = x w^T + b  =>  dx = dy w,  dw = dy^T x,  db = column sums of dy */
	int64_t m = (int64_t)rows, n = (int64_t)out, k = (int64_t)in;
	float beta = accumulate ? 1 : 0;
	if (cx->bf16) {
		const uint16_t *dy16 = rounded(cx->dy16, dy, rows * out);
		if (dx)
			dnn_gemm_bf16(false, false, m, k, n, dy16, n, cx->shadow + (w - cx->weights), k, beta, dx, k);
		dnn_gemm_bf16(true, false, n, k, m, dy16, n, rounded(cx->x16, x, rows * in), k, 1, dw, k);
	} else {
		if (dx)
			dnn_sgemm(false, false, m, k, n, 1, dy, n, w, k, beta, dx, k);
		dnn_sgemm(true, false, n, k, m, 1, dy, n, x, k, 1, dw, k);
	}
	if (!db)
		return;
	PARALLEL_RANGE(out, 64, c0, c1)
	ops->column_sum(db, dy, rows, out, c0, c1);
}

void activation_backward(float *d, const float *pre, activation f, size_t rows, size_t width)
{
	PARALLEL_RANGE(rows, row_grain(width), r0, r1)
	{
		if (f == ACTIVATION_GELU)
			ops->gelu_backward(d + r0 * width, pre + r0 * width, (r1 - r0) * width);
		else
			ops->relu_backward(d + r0 * width, pre + r0 * width, (r1 - r0) * width);
	}
}
