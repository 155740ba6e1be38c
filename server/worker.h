/* worker.h: a fixed set of threads that take items from one queue and run a function on them.
 *
 * The pool owns its threads, not the queue nor the items. Signals are blocked in every worker: they belong to main. */
#ifndef WINNOW_SERVER_WORKER_H
#define WINNOW_SERVER_WORKER_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "server/queue.h"

#define WORKER_MAX_ITEMS 16

typedef struct worker_options {
	const char *name; /* thread name, at most 12 characters are shown */
	queue *in;
	int threads;
	size_t max_items; /* items per call at most, 1 to WORKER_MAX_ITEMS */
	void *cls;
	/* Runs once in each thread before its first item (may be NULL); a failure stops the whole pool's opening. */
	wn_code (*start)(void *cls, int worker, wn_error *err);
	void (*run)(void *cls, int worker, void **items, size_t count);
} worker_options;

typedef struct worker_pool worker_pool;

/* Returns when every thread's start hook has returned, with the first error if one failed. */
wn_code worker_pool_open(worker_pool **out, const worker_options *opt, wn_error *err);
/* Runs fn(arg) on thread `worker` between two calls of opt.run and waits for its end: at once when the thread has nothing to
 * do, else after at most WORKER_CHORE_EVERY more calls, so that neither starves the other. False, and fn was not run, when
 * the pool is closing. One caller at a time for each worker. */
#define WORKER_CHORE_EVERY 4
bool worker_pool_run_on(worker_pool *p, int worker, void (*fn)(void *arg), void *arg);

/* Shuts the queue, lets the threads finish what is in it, joins them. */
void worker_pool_close(worker_pool **p);

#endif
