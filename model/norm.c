/* norm.c: rows over threads for the data gradient, columns over threads for the parameters', so that sums over rows keep
 * their order whatever the number of threads. */
#include "model/norm.h"

#include "model/ops.h"
#include "model/parallel.h"

static size_t row_grain(size_t d) { return 1 + 8192 / d; }

void norm_forward(float *out, float *mean, float *rstd, const float *x, const float *gamma, const float *beta, size_t rows,
                  size_t d, float eps)
{
	PARALLEL_RANGE(rows, row_grain(d), r0, r1)
	ops->layer_norm(out + r0 * d, mean ? mean + r0 : NULL, rstd ? rstd + r0 : NULL, x + r0 * d, gamma, beta, r1 - r0, d, eps);
}

void norm_backward(float *dx, float *dgamma, float *dbeta, const float *dy, const float *x, const float *gamma,
                   const float *mean, const float *rstd, size_t rows, size_t d)
{
	if (dx) {
		PARALLEL_RANGE(rows, row_grain(d), r0, r1)
		ops->layer_norm_dx(dx + r0 * d, dy + r0 * d, x + r0 * d, gamma, mean + r0, rstd + r0, r1 - r0, d);
	}
	PARALLEL_RANGE(d, 64, c0, c1)
	ops->layer_norm_dparam(dgamma, dbeta, dy, x, mean, rstd, rows, d, c0, c1);
}
