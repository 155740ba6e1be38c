/* Arrivals are what they claim to be, and a pure function of kind, rate and seed; the progress line's histogram is
 * within its bound. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>

#include "load/progress.h"
#include "load/schedule.h"

static void constant_arrivals_do_not_drift(void **state)
{
	schedule s;
	schedule_start(&s, ARRIVALS_CONSTANT, 3, 1);
	for (int64_t k = 0; k < 300000; k++)
		assert_true(llabs(schedule_next(&s) - k * 1000000000 / 3) <= 1);
	assert_int_equal(schedule_count(ARRIVALS_CONSTANT, 3, 1, 0, 1000000000), 3);
	assert_int_equal(schedule_count(ARRIVALS_CONSTANT, 250, 9, 1000000000, 3000000000), 500);
	assert_int_equal(schedule_count(ARRIVALS_CONSTANT, 0.1, 1, 0, 1),
			 1); /* the first is due at once: main.c's single request */
}

static void same_seed_same_times_other_seed_others(void **state)
{
	schedule a, b, c;
	int same = 0;
	schedule_start(&a, ARRIVALS_POISSON, 40, 7);
	schedule_start(&b, ARRIVALS_POISSON, 40, 7);
	schedule_start(&c, ARRIVALS_POISSON, 40, 8);
	for (int i = 0; i < 1000; i++) {
		const int64_t t = schedule_next(&a);
		assert_int_equal(t, schedule_next(&b));
		same += t == schedule_next(&c);
	}
	assert_true(same < 5);
}

/* Gaps: mean 1/rate, standard deviation 1/rate, exponential by Kolmogorov and Smirnov's measure; gaps that follow are
 * independent. The seed is fixed, so the outcome is; bounds are those of a 1 % test. */
static void poisson_gaps_are_exponential_and_independent(void **state)
{
	enum { N = 20000 };
	static double gaps[N];
	const double rate = 250;
	schedule s;
	int64_t last = 0;
	double sum = 0, squares = 0, products = 0, worst = 0;
	schedule_start(&s, ARRIVALS_POISSON, rate, 42);
	for (int i = 0; i < N; i++) {
		const int64_t t = schedule_next(&s);
		assert_true(t >= last);
		gaps[i] = (double)(t - last) / 1e9;
		last = t;
		sum += gaps[i];
		squares += gaps[i] * gaps[i];
		products += i ? (gaps[i] * rate - 1) * (gaps[i - 1] * rate - 1) : 0;
	}
	const double mean = sum / N, deviation = sqrt(squares / N - mean * mean);
	assert_true(fabs(mean * rate - 1) < 2.6 / sqrt(N));
	assert_true(fabs(deviation * rate - 1) < 4 / sqrt(N));
	assert_true(fabs(products / N) < 2.6 / sqrt(N));
	for (int i = 0; i < N; i++)
		for (int j = i; j > 0 && gaps[j - 1] > gaps[j] && i < 2000;
		     j--) { /* the first 2000 are sorted: enough for the measure */
			const double t = gaps[j];
			gaps[j] = gaps[j - 1];
			gaps[j - 1] = t;
		}
	for (int i = 0; i < 2000; i++)
		worst = fmax(worst, fabs((i + 0.5) / 2000 - (1 - exp(-gaps[i] * rate))));
	assert_true(worst < 1.63 / sqrt(2000));
}

/* How many fall into a second varies as Poisson's law says: variance equals mean (for constant arrivals it would be 0).
 */
static void poisson_counts_vary_as_much_as_their_mean(void **state)
{
	enum { SECONDS = 4000 };
	static int counts[SECONDS];
	schedule s;
	double sum = 0, squares = 0;
	schedule_start(&s, ARRIVALS_POISSON, 20, 3);
	for (int64_t t; (t = schedule_next(&s)) < (int64_t)SECONDS * 1000000000;)
		counts[t / 1000000000]++;
	for (int i = 0; i < SECONDS; i++) {
		sum += counts[i];
		squares += (double)counts[i] * counts[i];
	}
	const double mean = sum / SECONDS, variance = squares / SECONDS - mean * mean;
	assert_true(fabs(mean - 20) < 0.2);
	assert_true(fabs(variance / mean - 1) < 0.06);
	assert_int_equal(schedule_count(ARRIVALS_POISSON, 20, 3, 0, (int64_t)SECONDS * 1000000000), (uint64_t)sum);
	assert_int_equal(schedule_count(ARRIVALS_POISSON, 20, 3, 5000000000, 6000000000), counts[5]);
}

static int compare(const void *a, const void *b)
{
	const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
	return (x > y) - (x < y);
}

static void histogram_is_within_its_bound(void **state)
{
	enum { N = 5000 };
	static histogram h;
	static int64_t values[N];
	uint64_t random = 5;
	assert_int_equal(histogram_percentile(&h, 99), 0);
	for (int i = 0; i < N; i++) {
		values[i] = (int64_t)(random_next(&random) >> (1 + random_next(&random) % 62)); /* every magnitude */
		histogram_add(&h, values[i]);
	}
	qsort(values, N, sizeof *values, compare);
	static const double percentiles[] = {1, 10, 50, 90, 99, 99.9, 100};
	for (size_t i = 0; i < sizeof percentiles / sizeof *percentiles; i++) {
		const double exact = (double)values[(int)ceil(percentiles[i] / 100 * N - 1e-6) - 1];
		const double got = (double)histogram_percentile(&h, percentiles[i]);
		assert_true(got >= exact && got <= exact * (1 + 1.0 / HISTOGRAM_SUB) + 1);
	}
	assert_int_equal(h.max, values[N - 1]);
	histogram_add(&h, -1);
	histogram_add(&h, INT64_MAX);
	assert_int_equal(histogram_percentile(&h, 100), INT64_MAX);
	histogram_clear(&h);
	assert_int_equal(h.count, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(constant_arrivals_do_not_drift),
	    cmocka_unit_test(same_seed_same_times_other_seed_others),
	    cmocka_unit_test(poisson_gaps_are_exponential_and_independent),
	    cmocka_unit_test(poisson_counts_vary_as_much_as_their_mean),
	    cmocka_unit_test(histogram_is_within_its_bound),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
