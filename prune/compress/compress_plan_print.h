/* compress_plan_print.h: a plan for people, before the first step: shapes, parameters, steps, and how long it will take. */
#ifndef WINNOW_PRUNE_COMPRESS_PLAN_PRINT_H
#define WINNOW_PRUNE_COMPRESS_PLAN_PRINT_H

#include "prune/compress/compress_plan.h"

/* Of a plan that was just made, a few batches are timed at the first and the last shape; one that was read back is printed
 * without times. WN_CANCELLED when stopped, WN_TOO_LARGE when training it does not fit the machine's memory. */
wn_code compress_plan_print(const compress_plan *p, const workspace *w, cost_model *cost, FILE *f, wn_error *err);

#endif
