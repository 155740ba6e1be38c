/* report_words.c: what all three reports say in words; see report.h. */
#include "load/report.h"

#include <math.h>
#include <stdarg.h>

ms_text report_ms(double ms)
{
	ms_text t;
	if (isnan(ms))
		snprintf(t.s, sizeof t.s, "nothing");
	else if (isinf(ms))
		snprintf(t.s, sizeof t.s, "a failure");
	else
		snprintf(t.s, sizeof t.s, ms < 9.995 ? "%.2f ms" : ms < 9999.5 ? "%.1f ms" : "%.0f ms", ms);
	return t;
}

static void conclude_search(const report *r, char *out, size_t size)
{
	const search *s = &r->trials->search;
	const load_options *o = r->options;
	char more[120] = "";
	if (s->end == SEARCH_AT_MAX_RATE)
		snprintf(more, sizeof more, "; that is --max-rate, the server may hold more");
	else if (s->end == SEARCH_OWN_LIMIT)
		snprintf(more, sizeof more, "; beyond it the load generator was too slow, the server may hold more");
	else if (s->end == SEARCH_OUT_OF_TRIALS)
		snprintf(more, sizeof more, "; not confirmed, the trials contradict each other");
	else if (s->end == SEARCH_RUNNING)
		snprintf(more, sizeof more, " so far; the search was interrupted");
	if (s->met > 0)
		snprintf(out, size,
			 "%.4g requests/s is the highest rate found with p%g within %g ms (%d trial%s in a row)%s",
			 s->met, o->percentile, o->target_ms, s->met_count, s->met_count == 1 ? "" : "s", more);
	else if (s->end == SEARCH_NOTHING_MET)
		snprintf(out, size, "no rate met p%g within %g ms, down to %.3g requests/s", o->percentile,
			 o->target_ms, s->missed);
	else
		snprintf(out, size, "no rate with p%g within %g ms was found%s", o->percentile, o->target_ms, more);
}

void report_conclusion(const report *r, char *out, size_t size)
{
	const load_options *o = r->options;
	if (r->trials) {
		conclude_search(r, out, size);
		return;
	}
	const run_stats *s = r->stats;
	switch (r->verdict) {
	case VERDICT_NOTHING:
		snprintf(out, size, "no request was measured");
		return;
	case VERDICT_TOO_SLOW:
		if (s->own_lag.p99 > o->max_lag_ms)
			snprintf(out, size,
				 "load generator too slow: it was itself %s late at p99 (bound %g ms); p%g of %g ms "
				 "missed, but that says "
				 "nothing of the server",
				 report_ms(s->own_lag.p99).s, o->max_lag_ms, o->percentile, o->target_ms);
		else
			snprintf(out, size,
				 "load generator too slow: %zu requests failed for want of descriptors or local ports; "
				 "p%g of %g ms missed, but "
				 "that says nothing of the server",
				 s->own_limits, o->percentile, o->target_ms);
		return;
	default:
		snprintf(out, size,
			 "target p%g within %g ms %s: p%g is %s, %.2f %% of all requests were answered within it",
			 o->percentile, o->target_ms, r->verdict == VERDICT_MET ? "met" : "missed", o->percentile,
			 report_ms(s->at_percentile_ms).s, 100 * s->good_share);
	}
}

static void __attribute__((format(printf, 2, 3))) remark(remarks *out, const char *fmt, ...)
{
	if (out->count == REPORT_MAX_REMARKS)
		return;
	va_list args;
	va_start(args, fmt);
	vsnprintf(out->lines[out->count++], sizeof *out->lines, fmt, args);
	va_end(args);
}

static void remark_swaps(const report *r, remarks *out)
{
	const swap_log *l = &r->run->swaps;
	const swap_tally t = swap_log_tally(l);
	if (t.bad)
		remark(out,
		       "%zu of %zu swaps were refused or failed (the first: %s): the run has failed, whatever its times are",
		       l->count - t.good, l->count, outcome_name(t.bad->outcome).s);
	else if (t.unchanged && !t.changed)
		remark(out, "no swap changed the version that answers: nothing is shown about swaps (--swap-body, once for each version)");
	if (l->skipped)
		remark(out, "%zu swaps were skipped, for the one before was still under way", l->skipped);
}

void report_remarks(const report *r, remarks *out)
{
	const load_options *o = r->options;
	out->count = 0;
	if (r->interrupted)
		remark(out, "interrupted: this is what was measured so far");
	if (!r->run)
		return;
	const run_stats *s = r->stats;
	if (s->unknown)
		remark(out, "%zu requests were under way at the stop and not late yet: they are in no count",
		       s->unknown);
	if (s->scheduled && s->scheduled < judge_enough(o->percentile))
		remark(out,
		       "p%g of %zu requests says little: %zu of them may miss the target; take %zu requests or more "
		       "(--duration)",
		       o->percentile, s->scheduled, s->scheduled - percentile_rank(s->scheduled, o->percentile),
		       judge_enough(o->percentile));
	if (s->own_limits)
		remark(out,
		       "%zu requests failed for want of descriptors or local ports: the load generator's limits, not "
		       "the server's",
		       s->own_limits);
	if (r->verdict != VERDICT_TOO_SLOW && s->own_lag.p99 > o->max_lag_ms)
		remark(out,
		       "load generator too slow: %s late at p99 (bound %g ms); the target was %s, but latencies look "
		       "longer than they were",
		       report_ms(s->own_lag.p99).s, o->max_lag_ms,
		       s->met ? "met in spite of it" : "missed by more than that explains");
	if (r->run->busy_share > 0.8)
		remark(out, "the load generator's loop was busy %.0f %% of the time: it is near its limit",
		       100 * r->run->busy_share);
	if (s->waited)
		remark(out,
		       "%zu requests waited for a free connection (all %d were busy): the wait is in their latency",
		       s->waited, o->connections);
	if (r->known && *known_answers_first(r->known))
		remark(out, "not every answer is the one that is known: %s", known_answers_first(r->known));
	if (o->expect_labels && s->labels_right + s->labels_wrong == 0)
		remark(out, "no answer could be compared with a label");
	remark_swaps(r, out);
}
