/* judge.c: see judge.h. */
#include "load/judge.h"

#include <math.h>

bool judge_own_limit(const run_stats *s, double max_lag_ms)
{
	return s->own_limits > 0 || (s->own_lag.count && s->own_lag.p99 > max_lag_ms);
}

verdict judge_run(const run_stats *s, double max_lag_ms)
{
	if (!s->scheduled)
		return VERDICT_NOTHING;
	if (s->met)
		return VERDICT_MET;
	return judge_own_limit(s, max_lag_ms) && !s->missed_surely ? VERDICT_TOO_SLOW : VERDICT_MISSED;
}

const char *verdict_name(verdict v)
{
	static const char *const NAMES[] = {"met", "missed", "load_generator_too_slow", "nothing_measured"};
	return NAMES[v];
}

const char *search_end_name(search_end e)
{
	static const char *const NAMES[] = {
	    "interrupted", "found", "nothing_met", "max_rate", "load_generator_too_slow", "not_confirmed"};
	return NAMES[e];
}

size_t judge_enough(double percentile)
{
	return percentile >= 100 ? 1 : (size_t)ceil(10 / (1 - percentile / 100) - 1e-6);
}
