/* compressor.h: the run: score, slice, distil, measure, keep; again; then finish, export.
 *
 * Every iteration starts from the last one's model directory, cut by its own pruning.json (cut.h), so a checkpoint only has to
 * hold weights and moments: a run that was killed anywhere and resumed ends with the same bits as one that was not. Source:
 * arXiv 2312.05795, section 3. */
#ifndef WINNOW_PRUNE_COMPRESS_COMPRESSOR_H
#define WINNOW_PRUNE_COMPRESS_COMPRESSOR_H

#include "prune/compress/compress_plan.h"

typedef struct compressor_options {
	bool resume;
	int64_t max_steps; /* stop (with a checkpoint) after this many steps in all; 0: run to the end */
} compressor_options;

/* Runs the plan to its end, or until w->stop: then a checkpoint is written and WN_CANCELLED returned. */
wn_code compressor_run(workspace *w, const compress_plan *p, cost_model *cost, const compressor_options *o, wn_error *err);

#endif
