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

#endif
