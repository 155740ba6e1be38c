/* adamw.h: AdamW with decoupled weight decay over one flat parameter buffer, exactly as torch.optim.AdamW steps.
 *
 *   p *= 1 - lr * weight_decay                 (only in segments that decay)
 *   m  = m + (g - m) * (1 - beta1)
 *   v  = v * beta2 + g * g * (1 - beta2)
 *   p -= lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
 *
 * The moments are two more buffers of the parameters' layout. Every element is independent, so the result does not depend
 * on the number of threads. */
#ifndef WINNOW_PRUNE_ADAMW_H
#define WINNOW_PRUNE_ADAMW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

typedef struct adamw_options {
	double beta1, beta2, eps, weight_decay;
} adamw_options;

typedef struct adamw_segment {
	size_t offset, count; /* floats in the flat buffer */
	bool decay;
	bool frozen; /* takes no part in a step: neither decay nor moments, as a parameter without .grad in torch */
} adamw_segment;

typedef struct adamw {
	adamw_options opt;
	size_t count;            /* floats of the flat buffers */
	float *exp_avg;          /* [count], owned */
	float *exp_avg_sq;       /* [count], owned */
	int64_t step;            /* steps taken */
	adamw_segment *segments; /* owned; what lies between them is alignment and never touched */
	size_t num_segments;
} adamw;

/* Copies the segments; every one must lie inside count. */
wn_code adamw_open(adamw *a, const adamw_options *opt, size_t count, const adamw_segment *segments, size_t num_segments,
		   wn_error *err);
void adamw_close(adamw *a);
/* Freezes or thaws the i-th segment given to adamw_open, from the next step on. */
static inline void adamw_freeze(adamw *a, size_t i, bool frozen) { a->segments[i].frozen = frozen; }
/* Forgets the moments and the step count. */
void adamw_reset(adamw *a);

/* One step with gradients grad_scale * grads (the clipping coefficient, applied in float as torch does in place). */
void adamw_step(adamw *a, float *weights, const float *grads, double lr, float grad_scale);

/* Euclidean norm, accumulated in double in an order that depends on neither threads nor instruction set. */
double grad_norm(const float *grads, size_t count);
/* torch.nn.utils.clip_grad_norm_'s coefficient: min(1, max_norm / (norm + 1e-6)); 1 when max_norm <= 0. */
float grad_clip_scale(double norm, double max_norm);

#endif
