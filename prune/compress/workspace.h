/* workspace.h: everything a compression run works on, made ready: run directory, teacher, data, transfer set.
 *
 * RUN/ manifest.json   what this run is: the configuration it began with, seed, digests of teacher, tokenizer and data
 *      plan.json       the shapes on the way (compress_plan.h)
 *      log.jsonl       one line a step, an iteration, a validation (compress_log.h)
 *      cache/          decoded images (or data.cache), teacher outputs
 *      state/          resumable checkpoints of the iteration at work (prune/train_state.h)
 *      iterations/     NNN-name/, a model directory (f32), for each finished iteration; NNN-name.pruning.json, the scores and what was
 *                      kept, for each that was begun (cut.h)
 *      best/ export/   the best student of the last iteration (f32), and the finished one in export.dtype (exporter.h)
 *      lock            held while a process works here
 *
 * Owned by one thread. */
#ifndef WINNOW_PRUNE_COMPRESS_WORKSPACE_H
#define WINNOW_PRUNE_COMPRESS_WORKSPACE_H

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>

#include "model/checkpoint.h"
#include "model/label_trie.h"
#include "prune/compress/compress_config.h"
#include "prune/compress/teacher.h"
#include "prune/compress/transfer.h"
#include "prune/metrics.h"
#include "prune/split.h"

typedef struct workspace {
	const compress_config *config; /* borrowed */
	volatile sig_atomic_t *stop;   /* borrowed; nonzero: end soon (may be NULL) */
	FILE *out;                     /* progress and notes */
	int lock_fd_plus_1;
	checkpoint teacher;
	manifest manifest;             /* the student's, without lineage: shallow copy of the teacher's under the student's name */
	char tokenizer_path[4096];     /* the teacher's */
	label_trie trie;
	split_data train, validation, test, unlabelled;
	split_data ads; /* the labelled ones and those behind them, when unlabelled ads take part */
	transfer_set *transfer;
	batch_options batch_options;   /* of training batches */
	char identity[DIGEST_SIZE];
	json_t *changed;               /* what a resumed run is told otherwise (prune/run_changes.h); NULL: nothing */
} workspace;

typedef struct workspace_options {
	bool resume;
	bool dry; /* for a plan alone: neither lock nor manifest, and the decoded images of the transfer set are the only thing written */
	volatile sig_atomic_t *stop;
	FILE *out;
} workspace_options;

/* *out zeroed on failure. Errors name the file or key; WN_CANCELLED when stopped. */
wn_code workspace_open(workspace *out, const compress_config *c, const workspace_options *o, wn_error *err);
void workspace_close(workspace *w);

/* The teacher's answers on the transfer set; hidden: block outputs as well. */
wn_code workspace_open_teacher(const workspace *w, bool hidden, teacher **out, wn_error *err);

/* A model of the teacher's family on validation or test, as it would be served. */
wn_code workspace_evaluate(const workspace *w, const split_data *s, const blip2 *m, metrics *out, wn_error *err);
/* The same as E of compress_log.h, the caller's; JSON null for a split that is not configured; NULL on failure. */
wn_code workspace_evaluate_json(const workspace *w, const split_data *s, const blip2 *m, json_t **out, wn_error *err);

/* A student as a model directory whose lineage says how it came to be: in the iteration of this name, at which step, and how good it
 * was on validation (eval: NULL when nobody looked). */
wn_code workspace_save_student(const workspace *w, const char *dir, const blip2 *student, dtype d, const char *name, int64_t step,
                               const json_t *eval, wn_error *err);

#endif
