/* compress_plan.h: the shapes a run goes through, decided once and kept in RUN/plan.json: a resumed run reads them back, since a
 * latency measured again would be another. */
#ifndef WINNOW_PRUNE_COMPRESS_PLAN_H
#define WINNOW_PRUNE_COMPRESS_PLAN_H

#include "prune/compress/cost.h"
#include "prune/compress/stages.h"
#include "prune/compress/workspace.h"

typedef struct compress_plan {
	plan_result final;   /* costs that were not looked at are 0 */
	double teacher_ms;   /* 0: not measured */
	stage stages[MAX_STAGES];
	int num_stages;
	int count;           /* iterations, the finishing one (stage -1, same shape as before) included */
	iteration iterations[MAX_ITERATIONS];
} compress_plan;

/* From RUN/plan.json when resume and it is there; else from the configuration, by scoring the teacher if a target asks for it. Not
 * written here. */
wn_code compress_plan_make(compress_plan *out, const workspace *w, bool resume, cost_model *cost, wn_error *err);
wn_code compress_plan_save(const compress_plan *p, const workspace *w, cost_model *cost, wn_error *err);
/* "003-inner" into buf. */
void compress_plan_name(const compress_plan *p, int index, char *buf, size_t size);
/* Shapes, parameters and an estimate of the time, from a few timed steps at the first and the last shape. */
wn_code compress_plan_print(const compress_plan *p, const workspace *w, cost_model *cost, FILE *f, wn_error *err);

#endif
