/* trials.c: see trials.h. */
#include "load/trials.h"

#include <stdlib.h>
#include <time.h>

/* After a trial that was given up the server still works off what nobody waits for any more. */
#define SETTLE_NS 500000000

/* Runs one trial; its result and statistics are the caller's to close. */
static wn_code run_trial(trial *t, run_result *result, run_stats *stats, const trials_options *o, wn_error *err)
{
	run_options r = o->run;
	r.rate = t->rate;
	r.seed = t->seed;
	/* The schedule is known, so it is known how many misses decide. */
	const size_t expected = schedule_count(r.arrivals, r.rate, r.seed, r.warmup_ns, r.warmup_ns + r.duration_ns);
	r.give_up_after = expected ? expected - percentile_rank(expected, o->percentile) : 0;
	wn_code code = run_load(result, &r, err);
	if (code != WN_OK)
		return code;
	const stats_options so = {.from_ns = result->measured_from_ns,
				  .until_ns = result->measured_until_ns,
				  .target_ms = r.target_ms,
				  .percentile = o->percentile,
				  .swaps = &result->swaps};
	code = stats_make(stats, &result->samples, &so, err);
	if (code != WN_OK)
		return code;
	t->given_up = result->end == RUN_GIVEN_UP;
	t->scheduled = stats->scheduled;
	t->ok = stats->ok;
	t->failed = stats->failed;
	t->good_share = stats->good_share;
	t->at_percentile_ms = stats->at_percentile_ms;
	t->own_lag_p99_ms = stats->own_lag.p99;
	t->busy_share = result->busy_share;
	const verdict v = judge_run(stats, o->max_lag_ms);
	t->result = v == VERDICT_MET && !t->given_up ? TRIAL_MET
		    : v == VERDICT_TOO_SLOW          ? TRIAL_OWN_LIMIT
						     : TRIAL_MISSED;
	return WN_OK;
}

static void settle(const trials_options *o)
{
	struct timespec left = {.tv_nsec = SETTLE_NS};
	if (!o->run.stop || !*o->run.stop)
		nanosleep(&left, NULL);
}

wn_code trials_run(trials *out, const trials_options *o, wn_error *err)
{
	double rate;
	*out = (trials){0};
	out->items = calloc((size_t)o->search.max_trials, sizeof *out->items);
	if (!out->items)
		return wn_fail(err, WN_NOMEM, "no memory for %d trials", o->search.max_trials);
	search_start(&out->search, &o->search);
	while (search_next(&out->search, &rate)) {
		run_result result = {0};
		run_stats stats = {0};
		trial *t = &out->items[out->count];
		*t = (trial){.rate = rate, .seed = o->run.seed + out->count};
		wn_code code = run_trial(t, &result, &stats, o, err);
		out->interrupted = code == WN_OK && result.end == RUN_INTERRUPTED;
		if (code != WN_OK || out->interrupted) {
			stats_close(&stats);
			run_close(&result);
			return code;
		}
		out->count++;
		search_record(&out->search, t->result);
		if (o->tell)
			o->tell(o->context, t);
		if (t->result == TRIAL_MET) {
			stats_close(&out->best_stats);
			run_close(&out->best);
			out->best_stats = stats;
			out->best = result;
		} else {
			stats_close(&stats);
			run_close(&result);
			settle(o);
		}
	}
	return WN_OK;
}

void trials_close(trials *t)
{
	free(t->items);
	stats_close(&t->best_stats);
	run_close(&t->best);
	*t = (trials){0};
}
