/* thread.h: threads and timed waits as everything here wants them: signals go to main alone, and time is CLOCK_MONOTONIC. */
#ifndef WINNOW_BASE_THREAD_H
#define WINNOW_BASE_THREAD_H

#include <pthread.h>
#include <stdint.h>
#include <time.h>

/* Runs fn(arg) in a thread of this name (15 bytes of it) in which every signal is blocked, from its first instruction on. 0, or an
 * errno value. */
int thread_start(pthread_t *out, const char *name, void *(*fn)(void *arg), void *arg);

/* A condition variable whose pthread_cond_timedwait goes by CLOCK_MONOTONIC. */
void cond_init_monotonic(pthread_cond_t *cond);

struct timespec timespec_of_ns(int64_t ns);

#endif
