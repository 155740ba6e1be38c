/* loader.h: one thread of low priority that does what live requests must not wait for: hashing, reading, packing,
 * freeing.
 *
 * It and the OpenMP team it starts run at nice 19, so that they take what the serving threads leave. Not SCHED_IDLE: on
 * a machine that is busy to the last cycle such a thread would not get on at all, and a new version would never come.
 * It takes no lock that a serving thread takes: a thread that hardly runs must not be waited for. */
#ifndef WINNOW_SERVER_LOADER_H
#define WINNOW_SERVER_LOADER_H

#include "base/error.h"

typedef struct loader loader;

/* threads: what omp_get_max_threads() gives in it. */
wn_code loader_open(loader **out, int threads, wn_error *err);
void loader_close(loader **l);

/* Runs fn(arg) on it and waits for the end. One caller at a time. */
void loader_run(loader *l, void (*fn)(void *arg), void *arg);

#endif
