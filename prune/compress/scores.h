/* scores.h: how much every structure of a model matters, in one unit per method, and the four ways to find out.
 *
 * A structure is what pruning removes as a whole: a block, an FFN neuron, a head or one of its dimensions, a hidden
 * dimension (of a stack and of everything that touches it), a query token (with its row of text positions). Element-wise
 * methods give every weight a score in a flat buffer of the weights' layout; a structure's score is the sum over all its
 * slices, which the axes of the parameters name (model/blip2.h). Source: arXiv 2312.05795, section 3 (first-order Taylor
 * importance). */
#ifndef WINNOW_PRUNE_COMPRESS_SCORES_H
#define WINNOW_PRUNE_COMPRESS_SCORES_H

#include <jansson.h>

#include "base/error.h"
#include "model/blip2.h"

typedef enum importance_method {
	IMPORTANCE_TAYLOR,     /* |w * dL/dw|, added up over calibration batches */
	IMPORTANCE_MAGNITUDE,  /* |w| */
	IMPORTANCE_ACTIVATION, /* mean size of what a structure computes on calibration batches */
	IMPORTANCE_RANDOM,     /* the baseline that must be beaten */
} importance_method;
extern const char *const IMPORTANCE_NAMES[]; /* "taylor", "magnitude", "activation", "random", NULL */

typedef struct block_scores {
	double total;     /* the block as a whole */
	double *ffn;      /* [ffn_dim] */
	double *self_qk;  /* [num_heads * head_dim] */
	double *self_v;   /* [num_heads * head_dim] */
	double *cross_qk; /* [cross_num_heads * cross_head_dim]; NULL without cross-attention */
	double *cross_v;
} block_scores;

typedef struct structure_scores {
	blip2_config shape;               /* of the scored model */
	double *hidden[NUM_COMPONENTS];   /* [hidden_size] */
	double *queries;                  /* [num_query_tokens] */
	block_scores blocks[NUM_COMPONENTS][MAX_BLOCKS];
	double *memory;                   /* owns all of the above */
	size_t count;                     /* doubles in memory */
} structure_scores;

/* Zeroed scores of the given shape. */
wn_code structure_scores_open(structure_scores *out, const blip2_config *shape, wn_error *err);
void structure_scores_close(structure_scores *s);

/* elements [i] += |weights[i] * grads[i]|: call once a calibration batch. */
void taylor_add(float *elements, const float *weights, const float *grads, size_t count);
/* s, of m's shape, becomes the sums over every structure of m of a flat buffer of element scores: TAYLOR's, or |w| for
 * MAGNITUDE when elements is NULL. Elements that lie on several axes count for each; a block's total counts everything in it. */
void structure_scores_from_elements(structure_scores *s, const blip2 *m, const float *elements);
/* Adds what the last forward of a session with every block's state (keep_hidden or training) computed. With "size" for the mean
 * of |x| over all rows of the batch (padding is not told apart):
 *   ffn                  size behind the activation
 *   self_v, cross_v      size of the context, before the output projection
 *   self_qk, cross_qk    size of the query times that of the key: the mean of |q*k| over all pairs of rows
 *   hidden               size of the blocks' outputs, mean over the stack's blocks
 *   queries              size of the query's rows, mean over dimensions and the Q-Former's blocks
 *   a block's total      sum of |output - input| over sum of |input|
 * A stack that did not run (use_vision false) keeps its scores. */
void structure_scores_add_activations(structure_scores *s, const blip2 *m, const blip2_session *session);
/* Uniform in (0, 1), deterministic in seed. */
void structure_scores_random(structure_scores *s, uint64_t seed);

/* A head's score: its query-key and its value dimensions together. cross: of the cross-attention. */
double head_score(const structure_scores *s, component which, int block, bool cross, int head);

/* {"vision": {"hidden": […], "blocks": [{"total": …, "ffn": […], "self_qk": […], …}]}, …, "queries": […]}; caller's reference,
 * NULL on no memory. */
json_t *structure_scores_json(const structure_scores *s);

#endif
