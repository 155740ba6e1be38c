/* compress_plan.h: the shapes a run goes through, decided once and kept in RUN/plan.json: a resumed run reads them back, since a
 * latency measured again would be another. How it is shown: compress_plan_print.h. */
#ifndef WINNOW_PRUNE_COMPRESS_PLAN_H
#define WINNOW_PRUNE_COMPRESS_PLAN_H

#include "prune/compress/cost.h"
#include "prune/compress/stages.h"
#include "prune/compress/workspace.h"

#define PLAN_FINISH (-1) /* iteration.stage of the steps behind the last slice */

typedef struct compress_plan {
	plan_result final;   /* costs that were not looked at are 0 */
	double teacher_ms;   /* 0: not measured */
	stage stages[MAX_STAGES];
	int num_stages;
	int count;           /* iterations, the finishing one (PLAN_FINISH, same shape as before) included */
	iteration iterations[MAX_ITERATIONS + 1];
	bool read;           /* from plan.json: the run goes on */
} compress_plan;

/* From RUN/plan.json when resume and it is there; else from the configuration, by scoring the teacher if a target asks for it. Not
 * written here. */
wn_code compress_plan_make(compress_plan *out, const workspace *w, bool resume, cost_model *cost, wn_error *err);
/* Into RUN/plan.json; one that was read from there stays as it is. */
wn_code compress_plan_save(const compress_plan *p, const workspace *w, cost_model *cost, wn_error *err);
/* "003-inner" into buf. */
void compress_plan_name(const compress_plan *p, int index, char *buf, size_t size);
/* RUN/iterations/003-inner, with `suffix` behind it, into buf (PATH_MAX). */
wn_code compress_plan_path(const compress_plan *p, const workspace *w, int index, const char *suffix, char *buf, wn_error *err);

#endif
