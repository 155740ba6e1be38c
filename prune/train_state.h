/* train_state.h: where a run stands, on disk: RUN/state/step-NNNNNNNNN/{state.json, state.safetensors}.
 *
 * Each is a directory written beside its final name, synced and moved there in one step (base/file.h), also over an older one of
 * the same step: kill -9 at any moment costs at most the steps since the last one. The last two are kept; one that lacks a file,
 * because it was being removed, does not count. What a kill leaves of one being written is swept when the run is opened again
 * (run_dir_lock). Everything a step depends on is here or a pure function of the configuration (rng.h): weights and moments bit by
 * bit, and counters. */
#ifndef WINNOW_PRUNE_TRAIN_STATE_H
#define WINNOW_PRUNE_TRAIN_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "prune/adamw.h"

typedef struct train_position {
	int phase;             /* index into the configured phases; stays at the last when all are done */
	int64_t phase_step;    /* steps done in it */
	int64_t step;          /* steps done in all */
	bool has_best;         /* of this phase */
	double best_metric;    /* larger is better */
	double best_loss;      /* decides between equal metrics */
	int64_t best_step;
	int64_t log_bytes;     /* of log.jsonl, on disk before this is (train_log_sync) */
	bool eval_pending;     /* this step's validation is not finished: it is the first thing to do */
	int skipped_in_a_row;  /* steps without an update because the gradient was not finite */
	double smooth_loss;    /* what the progress line shows */
	double phase_seconds;  /* spent in the phase so far, by all processes; 0 in checkpoints that do not know */
	char identity[72];     /* digest of what must not change between runs: shapes, tokenizer, data */
} train_position;

/* Writes run_dir/state/step-… and removes all but the newest two. */
wn_code train_state_save(const char *run_dir, const train_position *p, const float *weights, const adamw *opt, wn_error *err);
/* WN_NOT_FOUND when there is none. Loads the newest; weights and moments must have opt->count floats. */
wn_code train_state_load(const char *run_dir, train_position *p, float *weights, adamw *opt, wn_error *err);
/* The newest one's position alone: what shapes its weights have may hang on it. */
wn_code train_state_position(const char *run_dir, train_position *p, wn_error *err);
/* True when run_dir holds a checkpoint. */
bool train_state_exists(const char *run_dir);

#endif
