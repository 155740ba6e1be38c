/* plan_moves.h: which shapes a planner (planner.h) may look at, and the single steps between them.
 *
 * Every kind of width of every component goes down a ladder from where a plan starts to what the limits allow: a step down
 * is the next rung, a step up the one before. */
#ifndef WINNOW_PRUNE_COMPRESS_PLAN_MOVES_H
#define WINNOW_PRUNE_COMPRESS_PLAN_MOVES_H

#include <stdbool.h>

#include "base/error.h"
#include "prune/compress/plan_loss.h"
#include "prune/compress/planner.h"

typedef enum move_kind { MOVE_BLOCKS, MOVE_FFN, MOVE_HEADS, MOVE_HEAD_DIM, MOVE_HIDDEN, MOVE_QUERIES, NUM_MOVES } move_kind;
extern const char *const MOVE_NAMES[NUM_MOVES];

typedef struct plan_space {
	const blip2_config *teacher;
	const plan_limits *limits;
	plan_shape_widths full;  /* the teacher's */
	plan_shape_widths start; /* the same, with the heads and the cross-attention that uniform_heads wants */
} plan_space;

/* Borrows both. WN_UNSUPPORTED names a component whose blocks differ in width, WN_INVALID one whose heads make up no hidden
 * width down to the limit, or whose blocks no cross_attention_frequency. */
wn_code plan_space_init(plan_space *out, const blip2_config *teacher, const plan_limits *limits, wn_error *err);

void plan_space_shape(blip2_config *out, const plan_space *p, const plan_shape_widths *w);
int plan_width(const plan_shape_widths *w, int which, move_kind kind);

/* Takes one step; false when the limits forbid it (*to is then of no use). Queries are moves of COMPONENT_QFORMER. */
bool plan_step_down(const plan_space *p, int which, move_kind kind, plan_shape_widths *to);
/* The other way; false, and *to as it was, at the start. */
bool plan_step_up(const plan_space *p, int which, move_kind kind, plan_shape_widths *to);
/* As small as the limits allow. */
plan_shape_widths plan_smallest(const plan_space *p);

#endif
