/* cut.h: the model that an iteration begins with: what is left of the one before it, and where its structures stand in the teacher.
 *
 * RUN/iterations/NNN-name.pruning.json is written when it is made, before the iteration's first checkpoint:
 *   {"importance":"taylor","scores":{…},"score_lost":{"vision":…,"qformer":…,"text":…},"keep":{…},"teacher_map":{…}}
 * (scores.h, keep.h, teacher_map.h; behind the last slice, where nothing is cut, "teacher_map" alone). An iteration that is resumed
 * cuts by it again: scores that are computed anew differ in their last bits on another machine or with another number of threads, and
 * of two structures that matter alike the other one would stay, under weights that were trained without it. */
#ifndef WINNOW_PRUNE_COMPRESS_CUT_H
#define WINNOW_PRUNE_COMPRESS_CUT_H

#include "prune/compress/compress_plan.h"
#include "prune/compress/teacher_map.h"

typedef struct cut {
	blip2 *student;     /* owned; its weights are the caller's to train */
	teacher_map map;    /* zeroed with start: scratch */
	json_t *score_lost; /* by component (keep_score_lost); NULL where nothing was cut */
} cut;

/* For iteration `index` of p. resume: as pruning.json has it; else it is made, and written there. *out is zeroed on failure. Errors
 * name the file; WN_CANCELLED when stopped while scoring. */
wn_code cut_open(cut *out, const workspace *w, const compress_plan *p, int index, bool resume, wn_error *err);
void cut_close(cut *c);

#endif
