/* overseer.h: a bound for work that has none of its own. Whoever must be done by some time starts an overseer before and stops
 * it behind; when the time comes first, the process ends as it is. */
#ifndef WINNOW_SERVER_OVERSEER_H
#define WINNOW_SERVER_OVERSEER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct overseer {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int64_t until_ns;
	int exit_code;
	bool over, watching;
} overseer;

/* Ends the process with exit_code at until_ns (monotonic_ns). Without memory for a thread there is no bound. */
void overseer_start(overseer *o, int64_t until_ns, int exit_code);
void overseer_stop(overseer *o);

#endif
