/* --find-max on servers that are known: sharp, noisy, without limit, hopeless; and a load generator that is the limit
 * itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>

#include "load/schedule.h"
#include "load/search.h"

/* Meets the target up to `holds`; errs with the given probability, either way; beyond own_limit the tester fails. */
typedef struct server {
	double holds, errs, own_limit;
	uint64_t random;
	int trials;
	double rates[60];
	bool met[60];
} server;

/* How many of the last trials at this rate met, in a row. */
static int met_in_a_row(const server *s, double rate)
{
	int n = 0;
	for (int i = s->trials - 1; i >= 0; i--) {
		if (s->rates[i] != rate)
			continue;
		if (!s->met[i])
			break;
		n++;
	}
	return n;
}

static trial_result try_rate(server *s, double rate)
{
	bool met = rate <= s->holds;
	if ((double)(random_next(&s->random) >> 11) * 0x1p-53 < s->errs)
		met = !met;
	s->rates[s->trials] = rate;
	s->met[s->trials++] = met;
	return met ? TRIAL_MET : s->own_limit && rate > s->own_limit ? TRIAL_OWN_LIMIT : TRIAL_MISSED;
}

static search run(server *s, double first)
{
	search x;
	double rate;
	search_start(&x, &(search_options){.first_rate = first,
					   .min_rate = 0.5,
					   .max_rate = 1000,
					   .resolution = 0.05,
					   .confirm = 3,
					   .max_trials = 60});
	while (search_next(&x, &rate)) {
		assert_true(rate >= 0.5 && rate <= 1000);
		search_record(&x, try_rate(s, rate));
	}
	assert_int_equal(x.trials, s->trials);
	return x;
}

static void finds_what_a_server_holds_from_below_and_above(void **state)
{
	static const double firsts[] = {0.5, 1, 10, 73, 74, 500, 1000};
	for (double holds = 0.6; holds < 1000; holds *= 1.37)
		for (size_t i = 0; i < sizeof firsts / sizeof *firsts; i++) {
			server s = {.holds = holds};
			const search x = run(&s, firsts[i]);
			assert_int_equal(x.end, SEARCH_FOUND);
			assert_true(x.met <= holds && x.met * 1.05 * (1 + 1e-6) >= holds);
			assert_true(x.met_count >= 3);
			assert_true(x.trials < 40);
		}
}

static void says_when_there_is_no_answer(void **state)
{
	server hopeless = {.holds = 0.1}, endless = {.holds = 1e9};
	search x = run(&hopeless, 10);
	assert_int_equal(x.end, SEARCH_NOTHING_MET);
	assert_true(x.met == 0);
	x = run(&endless, 10);
	assert_int_equal(x.end, SEARCH_AT_MAX_RATE);
	assert_true(x.met == 1000 && x.met_count >= 3);
	assert_true(isinf(x.missed));
}

static void its_own_limit_is_not_the_servers(void **state)
{
	server s = {.holds = 200, .own_limit = 100};
	search x = run(&s, 10);
	assert_int_equal(x.end, SEARCH_OWN_LIMIT);
	assert_true(x.met <= 200 && x.met > 180);
	server none = {.holds = 0.1, .own_limit = 0.2};
	x = run(&none, 10);
	assert_int_equal(x.end, SEARCH_OWN_LIMIT);
	assert_true(x.met == 0);
}

/* One trial in ten says the contrary: the answer stays near, and is one that has been met three times in a row. */
static void noise_neither_raises_nor_ruins_the_answer(void **state)
{
	int found = 0, near = 0;
	for (uint64_t seed = 1; seed <= 300; seed++) {
		server s = {.holds = 80, .errs = 0.1, .random = seed};
		const search x = run(&s, 10);
		if (x.end != SEARCH_FOUND)
			continue;
		found++;
		assert_true(met_in_a_row(&s, x.met) >= 3);
		near += x.met > 60 && x.met <= 88;
	}
	assert_true(found >= 285);
	assert_true(near >= 255);
}

/* A single miss is looked at twice; a rate that held once and then no more goes down by one step. */
static void one_bad_moment_does_not_decide(void **state)
{
	search s;
	double rate;
	search_start(
	    &s,
	    &(search_options){
		.first_rate = 10, .min_rate = 1, .max_rate = 20, .resolution = 0.05, .confirm = 2, .max_trials = 60});
	assert_true(search_next(&s, &rate) && rate == 10);
	search_record(&s, TRIAL_MISSED);
	assert_true(search_next(&s, &rate) && rate == 10);
	search_record(&s, TRIAL_MET);
	assert_true(search_next(&s, &rate) && rate == 20);
	search_record(&s, TRIAL_MET);
	assert_true(search_next(&s, &rate) && rate == 20); /* confirming */
	search_record(&s, TRIAL_MISSED);
	assert_true(search_next(&s, &rate) && fabs(rate - 20 / 1.05) < 1e-9);
	search_record(&s, TRIAL_MET);
	assert_true(search_next(&s, &rate) && fabs(rate - 20 / 1.05) < 1e-9);
	search_record(&s, TRIAL_MET);
	assert_false(search_next(&s, &rate));
	assert_int_equal(s.end, SEARCH_FOUND);
	assert_true(fabs(s.met - 20 / 1.05) < 1e-9 && s.met_count == 2);
}

static void a_coin_runs_out_of_trials_or_ends(void **state)
{
	for (uint64_t seed = 1; seed <= 100; seed++) {
		server s = {.holds = 80, .errs = 0.5, .random = seed};
		const search x = run(&s, 10);
		assert_true(x.end != SEARCH_RUNNING);
		assert_true(x.trials <= 60);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(finds_what_a_server_holds_from_below_and_above),
	    cmocka_unit_test(says_when_there_is_no_answer),
	    cmocka_unit_test(its_own_limit_is_not_the_servers),
	    cmocka_unit_test(noise_neither_raises_nor_ruins_the_answer),
	    cmocka_unit_test(one_bad_moment_does_not_decide),
	    cmocka_unit_test(a_coin_runs_out_of_trials_or_ends),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
