/* planner.h: which shape reaches a target at the least loss of importance.
 *
 * Greedy, from the teacher's shape: of all single moves (one block less of a component, one step less of FFN width, heads,
 * head dimension or hidden width of a component, fewer queries) the one that gives up the least importance per unit of cost
 * saved is taken, until the target is met. Costs come from cost.h, importance from scores.h: a move's loss is the sum of the
 * lowest-scored structures it removes, and the more the less is left of what they are part of (plan_loss.h). Widths are the same in all blocks of a
 * component (Hugging Face's config.json can express the result when uniform_heads keeps heads * head_dim == hidden_size).
 *
 * A step of a width is `multiple`, or a 32nd of the teacher's width when that is more. As kernels round sizes up, one step may
 * save nothing that two or three save: a move may be up to four steps at once. What a move saves beyond the target does not
 * count for it, and what the last one saved too much is given back in single steps where it regains the most importance.
 *
 * With uniform_heads the attention's inner width goes down with the hidden width, and a hidden width is possible when some
 * head_dim (the teacher's, or a multiple of 8 up to 32, of 16 beyond) divides it with no more heads than the teacher has; the
 * largest such head_dim, the nearest to the teacher's, is taken. Cross-attention has the same heads as self-attention.
 *
 * A latency target is verified by measuring the candidate; the prediction is then scaled by measured/predicted and the search
 * goes on, until the measured median is within `tolerance` of the target or three corrections did not help (WN_INVALID says how
 * far it came; a candidate that is faster than asked is taken then, the slowest of them, and at once when it is as fast as was
 * predicted: no nearer shape was found). A candidate that is smaller but not
 * faster than the one before is refused: of the moves between them the kind that promised most is not taken again. */
#ifndef WINNOW_PRUNE_COMPRESS_PLANNER_H
#define WINNOW_PRUNE_COMPRESS_PLANNER_H

#include <stdbool.h>
#include <stdio.h>

#include "prune/compress/block_choice.h"
#include "prune/compress/cost.h"
#include "prune/compress/scores.h"

typedef enum target_kind { TARGET_PARAMETERS, TARGET_FLOPS, TARGET_LATENCY_MS } target_kind;
extern const char *const TARGET_NAMES[]; /* "parameters", "flops", "latency_ms", NULL */

typedef struct plan_limits {
	int min_blocks[NUM_COMPONENTS], min_hidden[NUM_COMPONENTS], min_ffn[NUM_COMPONENTS], min_inner[NUM_COMPONENTS];
	int min_queries;
	int multiple;       /* of hidden and FFN widths: 8 or 16 */
	bool uniform_heads; /* the end is loadable by transformers: heads * head_dim == hidden_size, and some cross_attention_frequency
	                     * says which Q-Former blocks have cross-attention */
} plan_limits;

/* One block each, an eighth of the teacher's widths (at least 16), 2 queries; multiple 16, or 8 when a hidden width of the
 * teacher's is below 128; uniform_heads. A limit is never more than what the teacher has. */
plan_limits plan_limits_default(const blip2_config *teacher);

typedef struct plan_options {
	target_kind kind;
	double target;      /* parameters, FLOPs or milliseconds */
	double tolerance;   /* of a latency, e.g. 0.05 */
	plan_limits limits;
	block_choice block_choice; /* as keep_choose will be told */
	FILE *out;          /* what is being done; NULL: silent */
} plan_options;

typedef struct plan_result {
	blip2_config shape;
	double parameters, flops;
	double predicted_ms, measured_ms; /* 0 when the target is no latency; predicted after all corrections but the last */
	int moves;
} plan_result;

/* WN_INVALID: out of reach: the message has the smallest cost that the limits allow. A teacher that is within the target already
 * is its own plan, with no moves. WN_UNSUPPORTED names a component of the teacher whose blocks differ in width. Where the
 * Q-Former loses blocks the shape has cross-attention where the teacher's first blocks have it; with uniform_heads, and a teacher
 * that is not loadable itself, as the smallest frequency has it for which there are blocks (block_choice.h). */
wn_code plan_shape(plan_result *out, const blip2_config *teacher, const structure_scores *scores, cost_model *cost,
                   const plan_options *o, wn_error *err);

#endif
