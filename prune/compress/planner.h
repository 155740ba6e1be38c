/* planner.h: which shape reaches a target at the least loss of importance.
 *
 * Greedy, from the teacher's shape: of all single moves (one block less of a component, one step less of FFN width, heads,
 * head dimension or hidden width of a component, fewer queries) the one that gives up the least importance per unit of cost
 * saved is taken, until the target is met. Costs come from cost.h, importance from scores.h: a move's loss is the sum of the
 * lowest-scored structures it removes. Widths are the same in all blocks of a component (Hugging Face's config.json can
 * express the result when uniform_heads keeps heads * head_dim == hidden_size). A latency target is verified by measuring
 * the candidate; the prediction is then scaled by measured/predicted and the search goes on, until the measured median is
 * within `tolerance` of the target or three corrections did not help (WN_INVALID says how far it came). A candidate that
 * is smaller but not faster than the one before is refused: the move that made it is not taken again. */
#ifndef WINNOW_PRUNE_COMPRESS_PLANNER_H
#define WINNOW_PRUNE_COMPRESS_PLANNER_H

#include <stdbool.h>
#include <stdio.h>

#include "prune/compress/cost.h"
#include "prune/compress/scores.h"

typedef enum target_kind { TARGET_PARAMETERS, TARGET_FLOPS, TARGET_LATENCY_MS } target_kind;
extern const char *const TARGET_NAMES[]; /* "parameters", "flops", "latency_ms", NULL */

typedef struct plan_limits {
	int min_blocks[NUM_COMPONENTS], min_hidden[NUM_COMPONENTS], min_ffn[NUM_COMPONENTS], min_inner[NUM_COMPONENTS];
	int min_queries;
	int multiple;       /* of hidden and FFN widths: 8 or 16 */
	bool uniform_heads; /* heads * head_dim == hidden_size at the end, as transformers needs */
} plan_limits;

typedef struct plan_options {
	target_kind kind;
	double target;      /* parameters, FLOPs or milliseconds */
	double tolerance;   /* of a latency, e.g. 0.05 */
	plan_limits limits;
	FILE *out;          /* what is being done; NULL: silent */
} plan_options;

typedef struct plan_result {
	blip2_config shape;
	double parameters, flops;
	double predicted_ms, measured_ms; /* 0 when the target is no latency */
	int moves;
} plan_result;

/* WN_INVALID: out of reach: the message has the smallest cost that the limits allow. */
wn_code plan_shape(plan_result *out, const blip2_config *teacher, const structure_scores *scores, cost_model *cost,
                   const plan_options *o, wn_error *err);

#endif
