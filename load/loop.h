/* loop.h: one thread's event loop: epoll for sockets, a timerfd for the moment of the next arrival, and an account of
 * its own time.
 *
 * epoll_wait counts in milliseconds and may be late by the thread's timer slack; the timerfd is a high-resolution timer
 * on CLOCK_MONOTONIC, so a request leaves within tens of microseconds of its schedule when a processor is free. What
 * the loop does outside its waits is added up: a load generator that has no time left must say so instead of blaming
 * the server. */
#ifndef WINNOW_LOAD_LOOP_H
#define WINNOW_LOAD_LOOP_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

#define LOOP_NEVER INT64_MAX

typedef struct loop_source loop_source;
struct loop_source {
	void (*ready)(loop_source *s, uint32_t events); /* EPOLL* bits; edge-triggered: work until EAGAIN */
	uint64_t added_in;                              /* the loop's own */
};

typedef struct loop {
	int epoll_plus_1, timer_plus_1; /* 0: not open */
	int64_t armed_ns;               /* when the timer fires; LOOP_NEVER: not at all */
	uint64_t batch;
	int64_t opened_ns, waited_ns; /* since loop_account_start */
	int64_t cpu_at_start_ns;      /* this thread's processor time then */
} loop;

wn_code loop_open(loop *l, wn_error *err);
/* Safe on a zeroed loop. */
void loop_close(loop *l);

/* CLOCK_MONOTONIC, nanoseconds. */
int64_t loop_now(void);

/* Registers a descriptor for reading and writing, edge-triggered; closing the descriptor takes it out. False: out of
 * memory or of the system's watches. */
bool loop_add(loop *l, int fd, loop_source *s);

/* Waits until something is ready or until_ns has come, with `during` as the signal mask meanwhile (pselect's way: a
 * signal that is blocked otherwise arrives here and nowhere else), and calls the sources that are ready. Returns early
 * after a signal. */
wn_code loop_wait(loop *l, int64_t until_ns, const sigset_t *during, wn_error *err);

/* The account, from now on. */
void loop_account_start(loop *l);
/* Shares of the time since then: not waiting, and really computing (less when others hold the processor). */
void loop_account(const loop *l, double *busy_share, double *cpu_share);

#endif
