/* attention.h: multi-head scaled dot-product attention over already projected q, k, v, forward and backward, f32.
 *
 * The inner width num_heads * head_dim is independent of any hidden width. q, k and v may be column ranges of one fused
 * projection: each has its own row stride. The scale is head_dim^-0.5, as in every Hugging Face class used here. */
#ifndef WINNOW_MODEL_ATTENTION_H
#define WINNOW_MODEL_ATTENTION_H

#include <stdbool.h>
#include <stddef.h>

typedef struct attention_shape {
	int n;          /* samples */
	int q_len, kv_len;
	int num_heads, head_dim;
	bool causal;       /* row i sees keys 0..i (q_len == kv_len) */
	const float *mask; /* [n][q_len][kv_len] added to the scores after scaling, or NULL */
} attention_shape;

typedef struct attention_view {
	float *data; /* [n * len][stride], the heads side by side from column 0 */
	size_t stride;
} attention_view;

/* out [n*q_len][num_heads*head_dim] (stride in the view); probs [n][num_heads][q_len][kv_len] is written and, for the
 * backward, kept. */
void attention_forward(attention_view out, float *probs, attention_view q, attention_view k, attention_view v,
                       const attention_shape *s);

/* Floats of scratch that attention_backward needs: a score matrix for each of the caller's omp_get_max_threads() now. */
size_t attention_scratch(const attention_shape *s);

/* Writes dq, dk, dv (not accumulated) from dout and what the forward kept. */
void attention_backward(attention_view dq, attention_view dk, attention_view dv, attention_view dout, const float *probs,
                        attention_view q, attention_view k, attention_view v, const attention_shape *s, float *scratch);

#endif
