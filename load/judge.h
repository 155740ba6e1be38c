/* judge.h: what a run means. */
#ifndef WINNOW_LOAD_JUDGE_H
#define WINNOW_LOAD_JUDGE_H

#include "load/run.h"
#include "load/search.h"
#include "load/stats.h"

typedef enum verdict {
	VERDICT_MET,
	VERDICT_MISSED,
	VERDICT_TOO_SLOW, /* missed, and the load generator itself was late: nothing can be said of the server */
	VERDICT_NOTHING,  /* no request was measured */
} verdict;

/* Was the load generator itself the bottleneck: its own lag's p99 above the bound, or out of descriptors or ports? Its
 * lag is a sample of how long anything waits for the loop, answers too, for arrivals come at random times. */
bool judge_own_limit(const run_stats *s, double max_lag_ms);
/* A target that is met is met in spite of any lag of our own, since lag counts as latency; one that is missed may be
 * our fault, unless it is missed by more than our lag explains. */
verdict judge_run(const run_stats *s, double max_lag_ms);
const char *verdict_name(verdict v); /* "met", "missed", "load_generator_too_slow", "nothing_measured" */
const char *search_end_name(search_end e);

/* The fewest requests of which the percentile is more than one of a handful of the slowest: ten must lie beyond it. */
size_t judge_enough(double percentile);

#endif
