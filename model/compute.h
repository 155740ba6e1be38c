/* compute.h: in which precision the matrix products of a session run, and the buffers that needs.
 *
 * f32: nothing. bf16: `shadow` is the flat weight buffer rounded to bf16, at the same offsets, refreshed once a forward;
 * the other operand is rounded into scratch right before its product. Sums, norms, softmax, residuals, gradients and the
 * master weights stay f32 (what PyTorch calls autocast). */
#ifndef WINNOW_MODEL_COMPUTE_H
#define WINNOW_MODEL_COMPUTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct compute {
	bool bf16;
	const float *weights;   /* start of the flat buffer; every weight pointer given to linear.h points into it */
	uint16_t *shadow;       /* [weights_count] */
	uint16_t *x16, *dy16;   /* scratch for the largest operand of a layer */
} compute;

#endif
