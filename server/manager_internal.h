/* manager_internal.h: the manager's state, for manager.c (what happens) and manager_report.c (what is told about it).
 */
#ifndef WINNOW_SERVER_MANAGER_INTERNAL_H
#define WINNOW_SERVER_MANAGER_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "server/loader.h"
#include "server/manager.h"
#include "server/watch.h"

#define MAX_KNOWN 256 /* models that the index shows; more directories under the root are ignored */

struct manager {
	manager_options opt;
	pthread_mutex_t lock; /* models and commands */
	model_entry *models[MAX_KNOWN];
	int count;
	model_command *first, *last;
	bool stop;
	pthread_t thread;
	bool running;
	watch *watch;
	loader *loader;
	_Atomic(served_model *) retired;
	atomic_uint_fast64_t held_bytes; /* of all models that exist, also those that are leaving */
	atomic_int alive;                /* their number */
	bool scan_failed;                /* said so once already */
};

/* For the manager's thread. */
model_entry *manager_find(manager *m, const char *name); /* NULL when no such model is known */
bool manager_is_current(manager *m, const model_entry *e,
			const version_entry *v); /* loaded, from the files on disk now */
wn_code manager_load_version(manager *m, model_entry *e, int number, wn_error *err);
void manager_update_primary(manager *m, model_entry *e); /* by versions_primary; drops what need not stay */

/* manager_trial.c: `number` beside the version that answers, which is held meanwhile. */
wn_code manager_start_trial(manager *m, model_entry *e, int number, trial_mode mode, int percent, wn_error *err);
/* The candidate becomes the one that answers, or goes. */
void manager_end_trial(manager *m, model_entry *e, bool promote, const char *why);
void manager_judge_trial(manager *m, model_entry *e);
/* Those of the configuration. One that cannot be started is logged, and no reason not to serve. */
wn_code manager_start_configured_trials(manager *m, wn_error *err);

#endif
