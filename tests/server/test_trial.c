/* A trial's share of the traffic, its numbers and what is concluded from them. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "server/trial.h"

static trial *open_trial(trial_mode mode, int percent)
{
	trial *t;
	wn_error err = {0};
	if (trial_open(&t, mode, percent, NULL, NULL, &err) != WN_OK)
		fail_msg("%s", err.message);
	return t;
}

static void a_share_is_exact_and_even(void **state)
{
	static const int PERCENTS[] = {1, 7, 10, 33, 50, 99, 100};
	for (size_t i = 0; i < sizeof PERCENTS / sizeof PERCENTS[0]; i++) {
		trial *t = open_trial(TRIAL_CANARY, PERCENTS[i]);
		int selected = 0, gap = 0, widest = 0;
		for (int n = 1; n <= 1000; n++) {
			gap++;
			if (trial_selects(t)) {
				selected++;
				widest = gap > widest ? gap : widest;
				gap = 0;
			}
			if (n % 100 == 0)
				assert_int_equal(selected, n / 100 * PERCENTS[i]);
		}
		assert_in_range(widest, 1, (100 + PERCENTS[i] - 1) / PERCENTS[i]);
		assert_int_equal(trial_read(t).selected, selected);
		trial_release(&t);
		assert_null(t);
	}
	trial *t;
	assert_int_equal(trial_open(&t, TRIAL_CANARY, 0, NULL, NULL, NULL), WN_INVALID);
	assert_int_equal(trial_open(&t, TRIAL_CANARY, 101, NULL, NULL, NULL), WN_INVALID);
}

static void count(void *cls) { (*(int *)cls)++; }

static void results_are_summed_up(void **state)
{
	int told = 0;
	trial *t;
	assert_int_equal(trial_open(&t, TRIAL_SHADOW, 5, count, &told, NULL), WN_OK);
	trial_summary s = trial_read(t);
	assert_int_equal(s.candidate_ns, 0);
	/* One slow comparison in ten moves no median. */
	for (int i = 0; i < 1000; i++)
		trial_compared(t, i % 4 != 0, i % 10 ? 200 + i % 3 : 1000000, 100);
	trial_dropped(t);
	trial_failed(t);
	s = trial_read(t);
	assert_int_equal(s.mode, TRIAL_SHADOW);
	assert_int_equal(s.percent, 5);
	assert_int_equal(s.compared, 1000);
	assert_int_equal(s.agreed, 750);
	assert_int_equal(s.dropped, 1);
	assert_int_equal(s.failed, 1);
	assert_in_range(s.candidate_ns, 200, 202);
	assert_int_equal(s.primary_ns, 100);
	assert_int_equal(told, 1001);
	trial_release(&t);
}

/* Whoever looks while others compare, and always find agreement, sees agreement in all of them. */
static void *compare_until_told(void *cls)
{
	trial *t = cls;
	while (trial_read(t).failed == 0)
		for (int i = 0; i < 256; i++)
			trial_compared(t, true, 1, 1);
	return NULL;
}

static void a_reader_sees_comparisons_whole(void **state)
{
	trial *t = open_trial(TRIAL_CANARY, 50);
	pthread_t threads[4];
	trial_summary s = {0};
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, compare_until_told, t), 0);
	for (int i = 0; i < 20000 || s.compared < 20000; i++) {
		s = trial_read(t);
		assert_int_equal(s.agreed, s.compared);
	}
	trial_failed(t);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	trial_release(&t);
}

static void the_rules_decide(void **state)
{
	static const struct {
		int automatic;
		trial_summary s;
		trial_verdict verdict;
	} CASES[] = {
	    {CANARY_BOTH, {.compared = 99, .agreed = 0, .candidate_ns = 9, .primary_ns = 1}, TRIAL_GOES_ON},
	    {CANARY_BOTH, {.compared = 100, .agreed = 90, .candidate_ns = 15, .primary_ns = 10}, TRIAL_PROMOTE},
	    {CANARY_ROLLBACK, {.compared = 100, .agreed = 90, .candidate_ns = 15, .primary_ns = 10}, TRIAL_GOES_ON},
	    {CANARY_ROLLBACK, {.compared = 100, .agreed = 89, .candidate_ns = 15, .primary_ns = 10}, TRIAL_ROLL_BACK},
	    {CANARY_BOTH, {.compared = 100, .agreed = 100, .candidate_ns = 16, .primary_ns = 10}, TRIAL_ROLL_BACK},
	    {CANARY_BOTH, {.failed = 1}, TRIAL_GOES_ON},
	    {CANARY_BOTH, {.failed = 2}, TRIAL_ROLL_BACK},
	    {CANARY_OFF, {.compared = 100, .agreed = 0, .failed = 9}, TRIAL_GOES_ON},
	};
	for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
		char why[160];
		server_config c = {.canary_automatic = CASES[i].automatic,
				   .canary_min_requests = 100,
				   .canary_min_agreement = 0.9,
				   .canary_max_latency_ratio = 1.5,
				   .canary_max_errors = 2};
		if (trial_judge(&CASES[i].s, &c, why) != CASES[i].verdict)
			fail_msg("case %zu", i);
		if (CASES[i].verdict != TRIAL_GOES_ON)
			assert_true(why[0] != 0);
	}
	server_config lenient = {.canary_automatic = CANARY_BOTH, .canary_min_requests = 1};
	trial_summary slow = {.compared = 1, .candidate_ns = 1000, .primary_ns = 1, .failed = 50};
	assert_int_equal(trial_judge(&slow, &lenient, NULL), TRIAL_PROMOTE); /* 0: not judged */
}

static void configured_trials_are_read_strictly(void **state)
{
	trial_spec s;
	wn_error err = {0};
	assert_int_equal(trial_spec_parse(&s, "ad-audit/3:10", &err), WN_OK);
	assert_string_equal(s.name, "ad-audit");
	assert_int_equal(s.version, 3);
	assert_int_equal(s.percent, 10);
	assert_int_equal(s.mode, TRIAL_CANARY);
	assert_int_equal(trial_spec_parse(&s, "a/12:100:shadow", &err), WN_OK);
	assert_int_equal(s.mode, TRIAL_SHADOW);
	assert_int_equal(trial_spec_parse(&s, "a/12:1:canary", &err), WN_OK);
	static const char *const BAD[] = {"",         "a",        "a/1",        "a/1:",           "a/1:0",
					  "a/1:101",  "a/0:5",    "/1:5",       "../1:5",         "a/x:5",
					  "a/1:5:",   "a/1:5:no", "a/1:5%",     "a/1:5:shadowx",  "a/01:5",
					  "a/1:1000", "a/1:-5",   "a/latest:5", "a/1: 5:shadow x"};
	for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++)
		if (trial_spec_parse(&s, BAD[i], NULL) == WN_OK)
			fail_msg("accepted \"%s\"", BAD[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_share_is_exact_and_even),
	    cmocka_unit_test(results_are_summed_up),
	    cmocka_unit_test(a_reader_sees_comparisons_whole),
	    cmocka_unit_test(the_rules_decide),
	    cmocka_unit_test(configured_trials_are_read_strictly),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
