/* linear.h: y = x W^T + b and its backward; products in the precision of `cx`, everything else f32. Source: torch.nn.Linear (weight [out][in]).
 *
 * Rows are split over the calling thread's OpenMP team. Sums run in an order that does not depend on the number of
 * threads, except inside the matrix product itself. */
#ifndef WINNOW_MODEL_LINEAR_H
#define WINNOW_MODEL_LINEAR_H

#include <stddef.h>

#include "model/compute.h"
#include "model/hf_config.h"

/* y[rows][out] = x[rows][in] w^T + b; b [out] may be NULL. */
void linear_forward(const compute *cx, float *y, const float *x, const float *w, const float *b, size_t rows, size_t in, size_t out);

/* y = x w^T + b + residual[rows][out]. */
void linear_residual_forward(const compute *cx, float *y, const float *x, const float *w, const float *b, const float *residual, size_t rows,
                             size_t in, size_t out);

/* pre = x w^T + b; act = f(pre). act may be pre when the backward is not needed. */
void linear_activation_forward(const compute *cx, float *act, float *pre, const float *x, const float *w, const float *b, activation f,
                               size_t rows, size_t in, size_t out);

/* From dy [rows][out]: dx (written, or added to when accumulate; NULL = not wanted), dw += dy^T x, db += sum dy (db NULL
 * without bias). A loss scale belongs in dy. */
void linear_backward(const compute *cx, float *dx, int accumulate, float *dw, float *db, const float *dy, const float *x, const float *w,
                     size_t rows, size_t in, size_t out);

/* d[rows*width] *= f'(pre). */
void activation_backward(float *d, const float *pre, activation f, size_t rows, size_t width);

#endif
