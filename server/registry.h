/* registry.h: which model is being served.
 *
 * On disk a registry is NAME/VERSION/ directories under one root, reached with openat and without following a symlink;
 * names are [A-Za-z0-9._-]{1,64} without a leading dot, versions are numbers. In memory there is one current model
 * behind one reference-counted pointer: a request takes a reference when its work starts and keeps that version to its
 * end, so replacing the pointer never disturbs anyone. */
#ifndef WINNOW_SERVER_REGISTRY_H
#define WINNOW_SERVER_REGISTRY_H

#include <stdatomic.h>
#include <stdbool.h>

#include "base/error.h"
#include "model/classifier.h"
#include "server/config.h"

typedef struct served_model {
	atomic_int references;
	classifier *classifier; /* owned */
	char name[65];
	char version[24]; /* decimal number; "0" for a directory without one */
	char digest[72];
	int instances;
	classifier_session *sessions[SERVER_MAX_INSTANCES]; /* [i] is used by inference thread i alone */
} served_model;

typedef struct registry registry;

/* Opens the model the configuration names. Errors name the path and what is wrong with it. */
wn_code registry_open(registry **out, const server_config *c, wn_error *err);
void registry_close(registry **r); /* drops the registry's own reference */

/* The current model with one more reference, or NULL when there is none. */
served_model *registry_acquire(registry *r);
/* Gives one reference back and clears *m; the last one frees the model. NULL is fine. */
void registry_release(served_model **m);

#endif
