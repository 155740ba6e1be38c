/* publish.h: a model directory becomes the next version of a registry, whole or not at all.
 *
 *   REGISTRY/NAME/VERSION/               what servers see: names [A-Za-z0-9._-]{1,64} without a leading dot, versions from 1
 *   REGISTRY/NAME/.publish-PID-RANDOM/   a version being copied, or what a killed publisher left; nothing serves it
 *
 * publish_open does everything that can fail because of the model, and writes nothing: the directory holds winnow.json and
 * the files it names with their SHA-256, nothing else, no link, no subdirectory; it loads as a classifier; it answers with
 * finite numbers, and as its self test says when it has one (model/self_test.h). publish_commit copies into the hidden
 * directory, reads every file back against its digest, syncs, and renames. Whoever kills the process, or the machine, at any
 * moment leaves a registry of whole versions, and at most a hidden directory, which a publish more than a day later removes.
 *
 * Publishers may run at the same time: each gets a number of its own. One thread owns a publication. */
#ifndef WINNOW_PRUNE_PUBLISH_H
#define WINNOW_PRUNE_PUBLISH_H

#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "model/classifier.h"

#define PUBLISH_MAX_VERSION 999999999 /* as the server reads them */

typedef struct publish_options {
	const char *model_dir, *registry, *name; /* borrowed */
	int version; /* 0: one more than the largest there is; else this one, refused when it exists */
	volatile sig_atomic_t *stop; /* borrowed, may be NULL; nonzero: give the copying up and remove it */
} publish_options;

typedef struct publication {
	publish_options options;
	char registry[PATH_MAX / 2]; /* without trailing slashes */
	char model_dir[PATH_MAX / 2];
	int source_fd_plus_1, root_fd_plus_1;
	classifier *classifier; /* loaded from model_dir */
	json_t *self_test;      /* made here; NULL when the model brought its own */
	bool renamed;           /* winnow.json has another name than --name: the published copy gets the new one */
	size_t parameters;
	uint64_t bytes;         /* of the directory's files */
	int version;            /* after open: the number it would get; after commit: the one it has */
	int leftovers_removed;  /* hidden directories of dead publishers */
} publication;

/* Loads and checks; *out zeroed on failure. Every error is one line that names the file, key or tensor. */
wn_code publish_open(publication *out, const publish_options *o, wn_error *err);
/* Copies and renames. WN_CANCELLED when stopped. After a failure nothing of it is visible, except when the message says
 * that the finished version could not be synced. */
wn_code publish_commit(publication *p, wn_error *err);
void publish_close(publication *p);

#endif
