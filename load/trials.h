/* trials.h: --find-max with real runs: each rate that search.h names is tried with a run of its own. */
#ifndef WINNOW_LOAD_TRIALS_H
#define WINNOW_LOAD_TRIALS_H

#include "load/judge.h"

typedef struct trial {
	double rate;
	uint64_t seed; /* each trial has its own: the same bursts again would prove nothing */
	trial_result result;
	bool given_up; /* ended as soon as it was sure to miss */
	size_t scheduled, ok, failed;
	double good_share, at_percentile_ms, own_lag_p99_ms, busy_share;
} trial;

typedef struct trials {
	search search;
	trial *items; /* [count], owned */
	size_t count;
	bool interrupted;
	/* the last run at search.met, when that is not 0 */
	run_result best;
	run_stats best_stats;
} trials;

typedef struct trials_options {
	run_options run; /* rate, seed, give_up_after are set per trial */
	search_options search;
	double percentile, max_lag_ms;
	/* Called after every trial; may be NULL. */
	void (*tell)(void *context, const trial *t);
	void *context;
} trials_options;

wn_code trials_run(trials *out, const trials_options *o, wn_error *err);
void trials_close(trials *t);

#endif
