/* norm.h: LayerNorm over the last dimension, forward and backward, f32. Source: torch.nn.LayerNorm. */
#ifndef WINNOW_MODEL_NORM_H
#define WINNOW_MODEL_NORM_H

#include <stddef.h>

/* out[rows][d] = (x - mean) * rstd * gamma + beta. mean, rstd [rows]: kept for the backward, or both NULL. */
void norm_forward(float *out, float *mean, float *rstd, const float *x, const float *gamma, const float *beta, size_t rows,
                  size_t d, float eps);

/* dx += …, dgamma += …, dbeta += … from dy and what the forward kept. dx may be NULL. dx must not be dy. */
void norm_backward(float *dx, float *dgamma, float *dbeta, const float *dy, const float *x, const float *gamma,
                   const float *mean, const float *rstd, size_t rows, size_t d);

#endif
