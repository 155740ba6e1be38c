/* run.h: one run: a schedule, requests that leave when it says, and what became of every one of them.
 *
 * One thread, one loop. Arrivals become due whatever the server does: a request that finds every connection busy waits
 * in line, and the wait is part of its latency, as everything after the scheduled time is. After the last arrival the
 * run waits for what is under way, at most the timeout. */
#ifndef WINNOW_LOAD_RUN_H
#define WINNOW_LOAD_RUN_H

#include <signal.h>
#include <stdbool.h>

#include "load/known.h"
#include "load/payload.h"
#include "load/progress.h"
#include "load/samples.h"
#include "load/schedule.h"
#include "load/swap.h"

typedef struct run_options {
	const endpoint *to;
	const payloads *requests; /* at least one; taken in turn */
	arrival_kind arrivals;
	double rate; /* per second */
	uint64_t seed;
	int64_t warmup_ns, duration_ns;
	int max_connections;
	int64_t timeout_ns;
	double target_ms; /* for the progress line and give_up_after */
	bool check_labels;
	known_answers *known; /* counts every answer of the run, the warm-up's too; NULL: none */
	size_t give_up_after; /* stop once more requests than this are known to miss the target; SIZE_MAX: never */
	swap_options swap;    /* every_ns 0: none */
	progress *progress;   /* NULL: silent */
	const volatile sig_atomic_t *stop;     /* set by a signal handler; NULL: never */
	const sigset_t *signals_while_waiting; /* mask in which stop's signals arrive; NULL: as it is */
} run_options;

typedef enum run_end {
	RUN_COMPLETE,
	RUN_INTERRUPTED, /* by `stop` */
	RUN_GIVEN_UP,    /* give_up_after was passed */
} run_end;

/* The first thing that was said with an outcome other than 2xx. */
typedef struct outcome_note {
	outcome outcome;
	char text[160];
} outcome_note;

#define RUN_MAX_NOTES 32

typedef struct run_result {
	samples samples;
	swap_log swaps;
	run_end end;
	int64_t measured_from_ns,
	    measured_until_ns;        /* from the start: after the warm-up, to the last arrival or the stop */
	double busy_share, cpu_share; /* of the loop's time */
	uint64_t connections_made;
	int most_connections;
	size_t most_waiting; /* requests in line for a connection */
	outcome_note notes[RUN_MAX_NOTES];
	int num_notes;
} run_result;

/* Fails only when the load generator itself cannot go on (no memory, no descriptors at the start). *out is zeroed then.
 */
wn_code run_load(run_result *out, const run_options *o, wn_error *err);
void run_close(run_result *r);
const char *run_note(const run_result *r, outcome o); /* "" when there is none */

#endif
