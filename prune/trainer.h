/* trainer.h: the training loop: phases of steps, validation, checkpoints, the finished model.
 *
 * A step's samples, their augmentation and the learning rate are pure functions of the configuration and the step's number
 * (rng.h, schedule.h), sums are made in fixed orders, and the state (train_state.h) holds the rest: a run that was killed
 * anywhere and resumed ends with the same bits as one that was not.
 *
 * One thread runs the loop; the engine and the optimiser use OpenMP inside it. Batches are prepared on the same threads
 * between steps: at the sizes trained here that takes about a hundredth of a step (log.jsonl has batch_s and step_s). */
#ifndef WINNOW_PRUNE_TRAINER_H
#define WINNOW_PRUNE_TRAINER_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "prune/train_run.h"

/* The seam for data-parallel ranks. Every rank plans the same global batch and computes the micro-batches whose number is
 * its own modulo `ranks`; sum() then replaces values[0..n) by the sum over the ranks. Alone: {0, 1, NULL, NULL}. */
typedef struct grad_reducer {
	int rank, ranks;
	wn_code (*sum_floats)(void *ctx, float *values, size_t n, wn_error *err);
	wn_code (*sum_doubles)(void *ctx, double *values, size_t n, wn_error *err);
	void *ctx;
} grad_reducer;

typedef struct trainer_options {
	bool resume;        /* continue from RUN/state when there is something */
	int64_t max_steps;  /* stop (with a checkpoint) after this many steps in all; 0: run to the end */
	grad_reducer reducer;
} trainer_options;

/* Trains r to the end, or until r->stop: then a checkpoint is written and WN_CANCELLED returned. */
wn_code trainer_run(train_run *r, const trainer_options *o, wn_error *err);

#endif
