/* registry.h: which loaded model answers.
 *
 * For every model name a slot: its loaded versions, and the one of them that answers when a request names none. One
 * lock guards the pointers and is held for a few instructions only, by threads of normal priority only; a request takes
 * a reference when its work starts and keeps that version to its end. What lies on disk, and when something is loaded
 * or let go, is the manager's business (manager.h): nothing here waits, reads or frees. */
#ifndef WINNOW_SERVER_REGISTRY_H
#define WINNOW_SERVER_REGISTRY_H

#include <stddef.h>

#include "server/served_model.h"
#include "server/trial.h"

#define REGISTRY_MAX_MODELS   16
#define REGISTRY_MAX_VERSIONS 8 /* of one model, loaded at once */

typedef struct registry registry;

/* default_name answers requests that name no model; NULL: the first model that is put. */
wn_code registry_open(registry **out, const char *default_name, wn_error *err);
void registry_close(registry **r); /* drops the registry's own references */

/* The default model with one more reference, or NULL when there is none. */
served_model *registry_acquire(registry *r);
/* The same by name ("": the default) and version ("": the one that answers; else it must be loaded). */
served_model *registry_find(registry *r, const char *name, const char *version);

typedef struct registry_choice {
	served_model *model; /* that answers; NULL: there is none */
	served_model *other; /* that is asked afterwards, NULL unless `trial` is set */
	trial *trial;        /* the trial whose share the request belongs to, or NULL */
} registry_choice;

/* registry_find for a request: one that names no version may be in the share of a trial. A reference to each of the
 * three. */
registry_choice registry_choose(registry *r, const char *name, const char *version);
/* The trial of a loaded version beside the one that answers, whose reference passes to the registry; NULL ends it. */
void registry_set_trial(registry *r, const char *name, const char *candidate, trial *t);

/* Whether the slot exists, with or without a version in it: one without makes room when it is needed, but for the default's. */
bool registry_knows(registry *r, const char *name);

/* Whether this version could be put: WN_TOO_LARGE when there is no room. */
wn_code registry_check_room(registry *r, const char *name, const char *version, wn_error *err);
/* Adds m, whose one reference passes to the registry on success, and lets it answer when `primary`. A loaded version of
 * the same number is replaced. Once it returns no new request gets what was replaced. WN_TOO_LARGE: no room. */
wn_code registry_put(registry *r, served_model *m, bool primary, wn_error *err);
/* A loaded version becomes the one that answers. False when it is not loaded. */
bool registry_promote(registry *r, const char *name, const char *version);
/* Lets go of one version ("": of all). A primary that is dropped leaves the model without one. */
void registry_drop(registry *r, const char *name, const char *version);

/* Every loaded version, each with one more reference; primary[i] says whether it answers. Returns how many. */
#define REGISTRY_MAX_LOADED (REGISTRY_MAX_MODELS * REGISTRY_MAX_VERSIONS)
size_t registry_loaded(registry *r, served_model *out[REGISTRY_MAX_LOADED], bool primary[REGISTRY_MAX_LOADED]);

#endif
