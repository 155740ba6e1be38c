/* manager_internal.h: the manager's state, and what its files do with it:
 *
 *   manager.c          the thread; beginning and end
 *   manager_scan.c     the table of models, kept as the registry on disk is
 *   manager_load.c     versions come into memory, answer, and go
 *   manager_command.c  what clients want loaded and unloaded
 *   manager_trial.c    a version beside the one that answers
 *   manager_report.c   what is told of all this
 *
 * Threads: everything runs on the manager's thread (or, before it exists, on the one that opens), but for the functions
 * that say otherwise. The table of models is written under `lock` and by that thread only, so it reads without. */
#ifndef WINNOW_SERVER_MANAGER_INTERNAL_H
#define WINNOW_SERVER_MANAGER_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "server/loader.h"
#include "server/manager.h"
#include "server/watch.h"

#define MAX_KNOWN 256 /* models that the index shows: the configured ones, and directories under the root as far as there is room */

struct manager {
	manager_options opt;
	pthread_mutex_t lock; /* models, commands and stop */
	model_entry *models[MAX_KNOWN];
	int count;
	model_command *first, *last;
	bool stop;
	pthread_t thread;
	bool running;
	watch *watch;
	loader *loader;
	_Atomic(served_model *) retired; /* nobody's any more, to be freed */
	atomic_uint_fast64_t held_bytes; /* of all models that exist, also those that are leaving */
	atomic_int alive;                /* their number */
	char unread[200];                /* why the last look at the registry failed, "" when it did not */
};

/* manager_scan.c */
model_entry *manager_find(manager *m, const char *name); /* NULL when no such model is known */
model_entry *manager_add(manager *m, const char *name);  /* the known one, or a new one; NULL: no room */
void manager_scan(manager *m);
/* Versions that the configuration lists and that are not there are no reason not to serve the others, but somebody's mistake. */
void manager_tell_absent(manager *m, model_entry *e);
/* Why not one version of a model could even be tried. */
wn_code manager_explain_nothing(manager *m, const model_entry *e, wn_error *err);

/* manager_load.c */
wn_code manager_load_directory(manager *m, wn_error *err); /* model.dir, which then answers */
/* Into memory and the registry, where it answers those who name it: manager_update_primary keeps it there when the table says so.
 * A failure changes nothing but what is known of that version. */
wn_code manager_load_version(manager *m, model_entry *e, int number, wn_error *err);
void manager_update_primary(manager *m, model_entry *e); /* by versions_primary; drops what need not stay */
/* The model stays at a version, as `by` wants it (a string that lives for ever), until it is given back to its policy. */
void manager_hold(manager *m, model_entry *e, int number, const char *by);
/* Loads what the policy wants, one after the other. Returns when to look again, 0: when something changes. *first gets
 * the first failure. */
int64_t manager_reconcile(manager *m, model_entry *e, bool at_once, wn_error *first);
void manager_free_retired(manager *m);
/* A trial's comparisons take a session more of the version that answers and of the candidate, both loaded, for as long as they are:
 * of the memory budget. WN_TOO_LARGE: it has not got that. */
wn_code manager_reckon_trial(manager *m, const model_entry *e, int candidate, wn_error *err);

/* manager_command.c: all that wait, which are refused once the manager is to stop. False: it is. */
bool manager_execute_commands(manager *m);

/* manager_trial.c: `number` beside the version that answers, which is held meanwhile. */
wn_code manager_start_trial(manager *m, model_entry *e, int number, trial_mode mode, int percent, wn_error *err);
/* In the table and the registry; what becomes of the candidate then, manager_update_primary finds there. promote: how it is counted
 * and told. */
void manager_end_trial(manager *m, model_entry *e, bool promote, const char *why);
void manager_judge_trial(manager *m, model_entry *e);
/* Those of the configuration. One that cannot be started is logged, and no reason not to serve. */
wn_code manager_start_configured_trials(manager *m, wn_error *err);

/* manager_report.c: a message without the registry's root. Clients learn of the version, not where it lies. */
const char *manager_for_clients(const manager *m, const char *text);

#endif
