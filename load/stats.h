/* stats.h: what a run's samples say. Pure functions, called after the run.
 *
 * Latency counts from the scheduled time, and nothing that was scheduled is left out. A percentile is the nearest rank:
 * the smallest measured value that at least that share does not exceed. "Every request" counts a failure as slower than
 * any answer, so that a server cannot shed its way into the target; in the distributions of one outcome a failure has
 * its own time (a timeout its timeout). The target is met when at least `percentile` percent of all requests got an
 * answer (2xx) within target_ms, which is the same as: that percentile over every request is at most target_ms. */
#ifndef WINNOW_LOAD_STATS_H
#define WINNOW_LOAD_STATS_H

#include <stdbool.h>

#include "load/samples.h"
#include "load/swap_log.h"

#define STATS_MAX_OUTCOMES 32

typedef struct latency_summary {
	size_t count;
	double mean, p50, p90, p99, p999, max; /* ms; NaN: no value; INFINITY: a failure stands at this rank */
} latency_summary;

typedef struct outcome_row {
	outcome outcome;
	latency_summary latency;
} outcome_row;

typedef struct time_bucket {
	double start_s; /* from the start of what is measured */
	size_t scheduled, ok, good, failed;
	double p50, p99, max; /* ms of the answers (2xx); NaN: none */
} time_bucket;

typedef struct curve_point {
	double one_in; /* one request in this many is slower */
	double ms;
} curve_point;

typedef struct stats_options {
	int64_t from_ns;  /* samples scheduled before are warm-up */
	int64_t until_ns; /* end of the measured window: rates are over [from_ns, until_ns) */
	double target_ms, percentile;
	const swap_log *swaps; /* may be NULL */
} stats_options;

typedef struct run_stats {
	double window_s;
	size_t scheduled, ok, failed, good; /* good: 2xx within the target; scheduled = ok + failed */
	size_t unknown; /* stopped before they were late: nothing can be said of them, and they are in no count */
	size_t waited;  /* all connections were busy when they were due */
	size_t labels_right, labels_wrong;
	size_t own_limits;                         /* failures that the load generator's own limits caused */
	double scheduled_rate, ok_rate, good_rate; /* per second */
	double good_share;                         /* of scheduled */
	double at_percentile_ms;                   /* the target's percentile over every request; INFINITY: a failure */
	bool met;
	bool missed_surely; /* even if each request is allowed twice the most that the load generator was ever late */
	latency_summary every, answered; /* answered: 2xx */
	latency_summary own_lag, send_lag;
	latency_summary during_swaps, between_swaps; /* 2xx; by overlap with a swap; empty without swaps */
	size_t failed_during_swaps;
	outcome_row outcomes[STATS_MAX_OUTCOMES]; /* most frequent first; of more kinds, those met first */
	int num_outcomes;
	time_bucket *buckets; /* [num_buckets], owned */
	size_t num_buckets;
	double bucket_s;
	curve_point *curve; /* [num_points], owned: the distribution over answers, up to the slowest */
	size_t num_points;
} run_stats;

/* *out is zeroed on failure (no memory). Without samples everything is NaN or 0 and the target is not met. */
wn_code stats_make(run_stats *out, const samples *s, const stats_options *o, wn_error *err);
void stats_close(run_stats *s);

/* Nearest rank of percentile p (0 to 100) in n sorted values; NaN when n is 0. */
double percentile_of(const double *sorted, size_t n, double p);
/* How many of n must be within the target. */
size_t percentile_rank(size_t n, double p);

#endif
