/* workspace.h: everything a compression run works on, made ready: run directory, teacher, data, transfer set.
 *
 * RUN/ manifest.json   what this run is: resolved configuration, seed, digests of teacher and data
 *      plan.json       the shapes on the way (compressor.h)
 *      log.jsonl       one line a step, an iteration, a validation (compress_log.h)
 *      cache/          decoded images (or data.cache), teacher outputs
 *      state/          resumable checkpoints of the iteration at work (prune/train_state.h)
 *      iterations/     a model directory (f32) for each finished iteration, with pruning.json: scores and kept indices
 *      best/ export/   the best student of the last iteration (f32), and the finished one in export.dtype
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
	transfer_set *transfer;
	batch_options batch_options;   /* of training batches */
	char identity[DIGEST_SIZE];
} workspace;

typedef struct workspace_options {
	bool resume;
	bool dry; /* neither lock nor manifest: the decoded images are the only thing written */
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

#endif
