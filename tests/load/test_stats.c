/* Percentiles equal those of a sorted array; every count is what the samples say; failures never flatter. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>

#include "load/judge.h"
#include "load/schedule.h"

#define MS 1000000
#define S  1000000000LL

static void add(samples *all, double at_s, double latency_ms, outcome o)
{
	const sample s = {.scheduled_ns = (int64_t)(at_s * 1e9),
			  .latency_ns = (int64_t)(latency_ms * 1e6),
			  .own_lag_s = 1e-4f,
			  .send_lag_s = 2e-4f,
			  .outcome = o};
	assert_int_equal(samples_add(all, &s, NULL), WN_OK);
}

static run_stats make(const samples *all, const stats_options *o)
{
	run_stats s;
	wn_error err = {0};
	assert_int_equal(stats_make(&s, all, o, &err), WN_OK);
	return s;
}

static int compare(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

/* The definition, word for word: the smallest value that at least p percent of the values do not exceed. */
static double by_definition(const double *sorted, int n, double p)
{
	for (int i = 0; i < n; i++) {
		int within = 0;
		for (int j = 0; j < n; j++)
			within += sorted[j] <= sorted[i];
		if (100.0 * within >= p * n * (1 - 1e-12))
			return sorted[i];
	}
	return NAN;
}

static void percentiles_equal_the_definition(void **state)
{
	static const double percentiles[] = {0, 1, 10, 50, 90, 99, 99.9, 100};
	uint64_t random = 1;
	for (int n = 1; n <= 300; n = n < 30 ? n + 1 : n * 2) {
		double v[600];
		for (int i = 0; i < n; i++)
			v[i] = (double)(random_next(&random) % 50); /* with ties */
		qsort(v, (size_t)n, sizeof *v, compare);
		for (size_t i = 0; i < sizeof percentiles / sizeof *percentiles; i++)
			assert_true(percentile_of(v, (size_t)n, percentiles[i]) == by_definition(v, n, percentiles[i]));
	}
	assert_true(isnan(percentile_of(NULL, 0, 99)));
	assert_int_equal(percentile_rank(1000, 99.9), 999);
	assert_int_equal(percentile_rank(100, 99), 99);
	assert_int_equal(percentile_rank(101, 99), 100);
	assert_int_equal(percentile_rank(10000000, 99.99), 9999000);
	assert_int_equal(percentile_rank(1, 99), 1);
}

/* Ten thousand samples over several blocks' worth of order: sorted exactly. */
static void summaries_are_exact_over_blocks(void **state)
{
	samples all = {0};
	uint64_t random = 9;
	const int n = SAMPLES_PER_BLOCK + 4321;
	double *v = malloc((size_t)n * sizeof *v);
	for (int i = 0; i < n; i++) {
		v[i] = (double)(random_next(&random) % 1000000) / 1000;
		add(&all, (double)i / n * 10, v[i], 200);
	}
	qsort(v, (size_t)n, sizeof *v, compare);
	run_stats s = make(&all, &(stats_options){.until_ns = 10 * S, .target_ms = v[n / 2], .percentile = 50});
	assert_int_equal(s.answered.count, n);
	assert_true(fabs(s.answered.p50 - v[(n + 1) / 2 - 1]) < 1e-6);
	assert_true(fabs(s.answered.p99 - v[(int)ceil(0.99 * n) - 1]) < 1e-6);
	assert_true(fabs(s.answered.p999 - v[(int)ceil(0.999 * n) - 1]) < 1e-6);
	assert_true(fabs(s.answered.max - v[n - 1]) < 1e-6);
	assert_true(s.met);
	/* the distribution ends at the slowest, never falls, and every point is a value at its rank */
	assert_true(s.num_points > 100);
	assert_true(s.curve[s.num_points - 1].ms == s.answered.max);
	for (size_t i = 1; i < s.num_points; i++)
		assert_true(s.curve[i].ms >= s.curve[i - 1].ms && s.curve[i].one_in > s.curve[i - 1].one_in);
	/* seconds: nothing is lost, and each second's slowest is one of its own */
	size_t due = 0;
	double slowest = 0;
	for (size_t i = 0; i < s.num_buckets; i++) {
		due += s.buckets[i].scheduled;
		slowest = fmax(slowest, s.buckets[i].max);
	}
	assert_int_equal(due, n);
	assert_true(slowest == s.answered.max);
	stats_close(&s);
	samples_close(&all);
	free(v);
}

static void failures_count_as_slower_than_any_answer(void **state)
{
	samples all = {0};
	for (int i = 0; i < 95; i++)
		add(&all, i * 0.1, 10, 200);
	for (int i = 95; i < 100; i++)
		add(&all, i * 0.1, 1, 429); /* refused at once: fast, and no answer */
	run_stats s = make(&all, &(stats_options){.until_ns = 10 * S, .target_ms = 90, .percentile = 99});
	assert_int_equal(s.scheduled, 100);
	assert_int_equal(s.ok, 95);
	assert_int_equal(s.failed, 5);
	assert_int_equal(s.good, 95);
	assert_false(s.met);
	assert_true(isinf(s.at_percentile_ms));
	assert_true(isinf(s.every.p99) && s.every.p90 == 10);
	assert_true(s.answered.p99 == 10); /* of the answers alone: true, and not the target */
	assert_int_equal(judge_run(&s, 5), VERDICT_MISSED);
	assert_int_equal(s.num_outcomes, 2);
	assert_int_equal(s.outcomes[0].outcome, 200);
	assert_int_equal(s.outcomes[1].outcome, 429);
	assert_true(s.outcomes[1].latency.max == 1); /* its own time */
	assert_true(fabs(s.good_rate - 9.5) < 1e-9 && fabs(s.scheduled_rate - 10) < 1e-9);
	stats_close(&s);
	s = make(&all, &(stats_options){.until_ns = 10 * S, .target_ms = 90, .percentile = 95});
	assert_true(s.met);
	assert_true(s.at_percentile_ms == 10);
	stats_close(&s);
	s = make(&all, &(stats_options){.until_ns = 10 * S, .target_ms = 9.9, .percentile = 95});
	assert_false(s.met);
	stats_close(&s);
	samples_close(&all);
}

static void warm_up_and_the_unknown_are_left_out(void **state)
{
	samples all = {0};
	add(&all, 0.5, 5000, 200); /* warm-up */
	add(&all, 1.5, 10, 200);
	add(&all, 1.6, 200, OUTCOME_UNFINISHED); /* late already: a miss */
	add(&all, 1.9, 20, OUTCOME_UNFINISHED);  /* might have made it */
	run_stats s = make(&all, &(stats_options){.from_ns = S, .until_ns = 2 * S, .target_ms = 90, .percentile = 99});
	assert_int_equal(s.scheduled, 2);
	assert_int_equal(s.ok, 1);
	assert_int_equal(s.failed, 1);
	assert_int_equal(s.unknown, 1);
	assert_true(s.answered.max == 10);
	assert_true(s.window_s == 1);
	assert_false(s.met);
	stats_close(&s);
	samples_close(&all);
}

static void nothing_measured_is_not_met(void **state)
{
	samples all = {0};
	run_stats s = make(&all, &(stats_options){.from_ns = S, .until_ns = S, .target_ms = 90, .percentile = 99});
	assert_false(s.met);
	assert_true(isnan(s.answered.p99) && isnan(s.at_percentile_ms) && isnan(s.good_share));
	assert_int_equal(judge_run(&s, 5), VERDICT_NOTHING);
	stats_close(&s);
}

static void a_late_generator_blames_itself(void **state)
{
	samples all = {0};
	for (int i = 0; i < 100; i++) {
		const sample s = {.scheduled_ns = i * 10 * MS,
				  .latency_ns = (i < 90 ? 10 : 100) * MS,
				  .own_lag_s = i < 90 ? 0.0001f : 0.060f,
				  .outcome = 200};
		assert_int_equal(samples_add(&all, &s, NULL), WN_OK);
	}
	run_stats s = make(&all, &(stats_options){.until_ns = S, .target_ms = 90, .percentile = 99});
	assert_int_equal(judge_run(&s, 5), VERDICT_TOO_SLOW);
	assert_int_equal(judge_run(&s, 70), VERDICT_MISSED);
	assert_false(s.missed_surely);
	stats_close(&s);
	s = make(&all, &(stats_options){
			   .until_ns = S, .target_ms = 100, .percentile = 99}); /* met in spite of its lag: met */
	assert_int_equal(judge_run(&s, 5), VERDICT_MET);
	stats_close(&s);
	for (int i = 0; i < 3; i++)
		add(&all, 0.5, 500, 200); /* beyond what a lag of 60 ms explains: the server's doing */
	s = make(&all, &(stats_options){.until_ns = S, .target_ms = 100, .percentile = 99});
	assert_true(s.missed_surely);
	assert_int_equal(judge_run(&s, 5), VERDICT_MISSED);
	stats_close(&s);
	s = make(&all, &(stats_options){.until_ns = S, .target_ms = 100, .percentile = 97});
	assert_int_equal(judge_run(&s, 5), VERDICT_MET);
	stats_close(&s);
	all.count -= 3;
	add(&all, 0.5, 1, OUTCOME_OUT_OF_PORTS);
	add(&all, 0.5, 1, OUTCOME_OUT_OF_DESCRIPTORS);
	s = make(&all, &(stats_options){.until_ns = S, .target_ms = 100, .percentile = 99});
	assert_int_equal(s.own_limits, 2);
	assert_int_equal(judge_run(&s, 70), VERDICT_TOO_SLOW);
	stats_close(&s);
	samples_close(&all);
	assert_int_equal(judge_enough(99), 1000);
	assert_int_equal(judge_enough(50), 20);
}

static void requests_during_swaps_are_told_apart(void **state)
{
	samples all = {0};
	swap_entry entries[] = {{.begun_ns = 2 * S, .ended_ns = 3 * S, .outcome = 200},
				{.begun_ns = 6 * S, .ended_ns = INT64_MAX, .outcome = 404}};
	const swap_log log = {.entries = entries, .count = 2};
	add(&all, 1.0, 100, 200);  /* ends before the first */
	add(&all, 1.5, 600, 200);  /* reaches into it */
	add(&all, 2.5, 10, 200);   /* within */
	add(&all, 2.9, 500, 200);  /* out of it */
	add(&all, 3.5, 10, 200);   /* between */
	add(&all, 5.0, 3000, 503); /* into the second, which never ended */
	run_stats s =
	    make(&all, &(stats_options){.until_ns = 10 * S, .target_ms = 90, .percentile = 99, .swaps = &log});
	assert_int_equal(s.during_swaps.count, 3);
	assert_int_equal(s.between_swaps.count, 2);
	assert_true(s.during_swaps.max == 600 && s.between_swaps.max == 100);
	assert_int_equal(s.failed_during_swaps, 1);
	stats_close(&s);
	samples_close(&all);
}

static void more_kinds_than_rows_do_not_overflow(void **state)
{
	samples all = {0};
	for (int o = 100; o < OUTCOME_END; o++)
		if (o < 1000 || o >= OUTCOME_CONNECT_REFUSED)
			add(&all, 0, 1, (outcome)o);
	run_stats s = make(&all, &(stats_options){.until_ns = S, .target_ms = 90, .percentile = 99});
	assert_int_equal(s.num_outcomes, STATS_MAX_OUTCOMES);
	assert_int_equal(s.scheduled, all.count - 1);
	assert_int_equal(s.unknown, 1); /* the unfinished one was not late yet */
	stats_close(&s);
	samples_close(&all);
	assert_string_equal(outcome_name(OUTCOME_CONNECT_REFUSED).s, "connect_refused");
	assert_string_equal(outcome_name(OUTCOME_OUT_OF_PORTS).s, "out_of_ports");
	assert_string_equal(outcome_name(204).s, "204");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(percentiles_equal_the_definition),
	    cmocka_unit_test(summaries_are_exact_over_blocks),
	    cmocka_unit_test(failures_count_as_slower_than_any_answer),
	    cmocka_unit_test(warm_up_and_the_unknown_are_left_out),
	    cmocka_unit_test(nothing_measured_is_not_met),
	    cmocka_unit_test(a_late_generator_blames_itself),
	    cmocka_unit_test(requests_during_swaps_are_told_apart),
	    cmocka_unit_test(more_kinds_than_rows_do_not_overflow),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
