/* plan_loss.h: how much importance a shape gives up: what the planner (planner.h) weighs against cost.
 *
 * The structures that a shape has no room for are those that keep.h would not keep: blocks first (block_choice.h, with the
 * cross-attention that is planned for so many), then inside the kept blocks neurons, heads, and dimensions of kept heads; hidden
 * dimensions; queries.
 *
 * A first-order score tells what one structure is worth beside all others; the sum over many promises too little: the last block
 * of a stack is worth all of them. Of every part (the blocks of a stack, its hidden dimensions, the queries) with scores of T
 * together a shape that lacks r of them therefore gives up -T log(1 - r/T): r to first order, and without end as nothing is left.
 * (Sums alone make a stack of one wide block, beside a text width of 32, out of the bundled teacher at an eighteenth of its
 * parameters; so do they count a hidden dimension's weights again that went with a block.) Every list is sorted once, and which blocks stay is chosen once for every number of them; a shape's loss is
 * a handful of look-ups of prefix sums, and a move's loss the difference of two shapes'. */
#ifndef WINNOW_PRUNE_COMPRESS_PLAN_LOSS_H
#define WINNOW_PRUNE_COMPRESS_PLAN_LOSS_H

#include "base/error.h"
#include "prune/compress/block_choice.h"
#include "prune/compress/scores.h"

/* A shape with the same widths in all blocks of a component. Cross-attention is as wide as self-attention, or as wide as the
 * teacher's where that is narrower. */
typedef struct plan_widths {
	int blocks, hidden, heads, head_dim, ffn;
} plan_widths;

typedef struct plan_shape_widths {
	plan_widths of[NUM_COMPONENTS];
	int queries;
} plan_shape_widths;

typedef struct plan_loss plan_loss;

/* loadable: as cross_pattern_plan takes it. WN_INVALID when a score is no finite number from 0. The scores are not needed
 * afterwards. */
wn_code plan_loss_open(plan_loss **out, const structure_scores *scores, block_choice choice, bool loadable, wn_error *err);
void plan_loss_close(plan_loss **l);

/* Importance given up at these widths, none larger than the scored model's, with numbers of blocks that a pattern was planned for. What goes inside a block never counts for more than
 * its share of the block's own score: where a method (activation, random) gives a block less than its parts together, the two
 * remain comparable. */
double plan_loss_of(const plan_loss *l, const plan_shape_widths *w);

#endif
