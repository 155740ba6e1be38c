/* linear.c: matrix products through dnn.h, the rest of each layer in one pass over its output. */
#include "model/linear.h"

#include "model/dnn.h"
#include "model/ops.h"
#include "model/parallel.h"

/* Rows that make a thread's share worth waking it: about 16 Ki elements. */
static size_t row_grain(size_t width) { return 1 + 16384 / width; }

void linear_forward(float *y, const float *x, const float *w, const float *b, size_t rows, size_t in, size_t out)
{
	dnn_sgemm(false, true, (int64_t)rows, (int64_t)out, (int64_t)in, 1, x, (int64_t)in, w, (int64_t)in, 0, y, (int64_t)out);
	if (!b)
		return;
	PARALLEL_RANGE(rows, row_grain(out), r0, r1)
	ops->add_bias(y + r0 * out, b, r1 - r0, out);
}

void linear_residual_forward(float *y, const float *x, const float *w, const float *b, const float *residual, size_t rows,
                             size_t in, size_t out)
{
	dnn_sgemm(false, true, (int64_t)rows, (int64_t)out, (int64_t)in, 1, x, (int64_t)in, w, (int64_t)in, 0, y, (int64_t)out);
	PARALLEL_RANGE(rows, row_grain(out), r0, r1)
	ops->add_bias_residual(y + r0 * out, b, residual + r0 * out, r1 - r0, out);
}

void linear_activation_forward(float *act, float *pre, const float *x, const float *w, const float *b, activation f,
                               size_t rows, size_t in, size_t out)
{
	dnn_sgemm(false, true, (int64_t)rows, (int64_t)out, (int64_t)in, 1, x, (int64_t)in, w, (int64_t)in, 0, pre, (int64_t)out);
	PARALLEL_RANGE(rows, row_grain(out), r0, r1)
	{
		if (f == ACTIVATION_GELU)
			ops->bias_gelu(act + r0 * out, pre + r0 * out, b, r1 - r0, out);
		else
			ops->bias_relu(act + r0 * out, pre + r0 * out, b, r1 - r0, out);
	}
}

void linear_backward(float *dx, int accumulate, float *dw, float *db, const float *dy, const float *x, const float *w,
                     size_t rows, size_t in, size_t out)
{
	/* y = x w^T + b  =>  dx = dy w,  dw = dy^T x,  db = column sums of dy */
	if (dx)
		dnn_sgemm(false, false, (int64_t)rows, (int64_t)in, (int64_t)out, 1, dy, (int64_t)out, w, (int64_t)in,
		          accumulate ? 1 : 0, dx, (int64_t)in);
	dnn_sgemm(true, false, (int64_t)out, (int64_t)in, (int64_t)rows, 1, dy, (int64_t)out, x, (int64_t)in, 1, dw,
	          (int64_t)in);
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
