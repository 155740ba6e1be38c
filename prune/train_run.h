/* train_run.h: everything a training run works on, made ready: directories, data, tokenizer, model.
 *
 * RUN/ manifest.json   what this run is: the configuration it began with, seed, digests of data and tokenizer, version
 *      tokenizer.json  the tokenizer in use (trained here, or a copy)
 *      cache/          decoded images (or data.cache)
 *      log.jsonl       one line a step (train_log.h)
 *      state/          resumable checkpoints (train_state.h)
 *      best/ last/     complete model directories, f32
 *      lock            held while a process works here
 *
 * Owned by one thread. */
#ifndef WINNOW_PRUNE_TRAIN_RUN_H
#define WINNOW_PRUNE_TRAIN_RUN_H

#include <signal.h>
#include <stdbool.h>

#include "model/blip2.h"
#include "model/image.h"
#include "model/manifest.h"
#include "model/tokenizer.h"
#include "prune/split.h"
#include "prune/train_config.h"

typedef struct train_run {
	const train_config *config;         /* borrowed */
	volatile sig_atomic_t *stop;        /* borrowed; nonzero: end soon (may be NULL) */
	FILE *out;                          /* progress and notes */
	int lock_fd_plus_1;
	char *tokenizer_path;               /* RUN/tokenizer.json */
	blip2 *model;
	tokenizer *tokenizer;
	manifest manifest;                  /* name, prompt, labels; no lineage */
	image_processor image_processor;
	split_data train[NUM_TASKS], validation[NUM_TASKS];
	char identity[DIGEST_SIZE];         /* of shapes, tokenizer, data, seed: equal when a resume continues the same run */
	json_t *changed;                    /* what a resumed run is told otherwise (run_changes.h); NULL: nothing */
	int max_len;                        /* text tokens that fit beside the queries */
} train_run;

typedef struct train_run_options {
	bool resume;
	bool dry; /* read and check, but write nothing and decode no image */
	volatile sig_atomic_t *stop;
	FILE *out;
} train_run_options;

/* *out zeroed on failure. Errors name the file or key; WN_CANCELLED when stopped. */
wn_code train_run_open(train_run *out, const train_config *c, const train_run_options *o, wn_error *err);
void train_run_close(train_run *r);

/* Optimiser steps of a phase. */
int64_t train_run_steps(const train_run *r, task t);
/* Path RUN/name into buf (PATH_MAX). */
wn_code train_run_path(const train_config *c, const char *name, char *buf, wn_error *err);

#endif
