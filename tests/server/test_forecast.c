/* Service-time estimates and the forecast of waiting; then overload, simulated: whatever the rate, the server goes on
 * answering nearly as many requests in time as it ever can. Time is an argument, so a busy machine changes nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "server/forecast.h"

#define MS ((int64_t)1000000)
#define LONG (3600000 * MS)

static void estimate_answers_three_questions_and_forgets(void **state)
{
	estimate e = {0};
	int64_t now = 5000 * MS;
	assert_int_equal(estimate_get(&e, ESTIMATE_TYPICAL, now), 0);
	for (int i = 0; i < 3; i++)
		estimate_add(&e, 80 + i, now);
	assert_int_equal(estimate_get(&e, ESTIMATE_FASTEST, now), 0); /* too few to judge by */
	estimate_add(&e, 900, now);
	assert_int_equal(estimate_get(&e, ESTIMATE_FASTEST, now), 80);
	assert_int_equal(estimate_get(&e, ESTIMATE_TYPICAL, now), 81);
	assert_int_equal(estimate_get(&e, ESTIMATE_LIKELY, now), 82); /* one slow run of four moves none */
	for (int i = 0; i < 15; i++)
		estimate_add(&e, 800, now);
	assert_int_equal(estimate_get(&e, ESTIMATE_FASTEST, now), 800); /* it stays slow: believed */
	assert_int_equal(estimate_get(&e, ESTIMATE_FASTEST, now + ESTIMATE_LIFETIME_NS), 800);
	assert_int_equal(estimate_get(&e, ESTIMATE_FASTEST, now + ESTIMATE_LIFETIME_NS + 1), 0);
	now += 2 * (int64_t)ESTIMATE_LIFETIME_NS;
	estimate_add(&e, 7000, now); /* what was known before the pause is gone */
	assert_int_equal(estimate_get(&e, ESTIMATE_FASTEST, now), 0);
	for (int i = 0; i < 4; i++) /* runs of two seconds are remembered although each comes after two */
		estimate_add(&e, 2000 * MS, now += 2000 * MS);
	assert_int_equal(estimate_get(&e, ESTIMATE_TYPICAL, now), 2000 * MS);
}

static void measure(forecast *f, int size, int64_t took, int64_t now)
{
	for (int i = 0; i < ESTIMATE_RUNS; i++) {
		forecast_run_begins(f, 0, size, now - took);
		forecast_run_ends(f, 0, now);
	}
}

static void waiting_is_what_is_ahead_over_the_instances(void **state)
{
	forecast f = {.instances = 1, .decode_threads = 1, .max_batch = 1};
	int64_t now = 1000 * MS;
	assert_int_equal(forecast_wait(&f, 50, LONG, now), 0); /* nothing is known: everybody is tried */
	measure(&f, 1, 10 * MS, now);
	assert_int_equal(forecast_wait(&f, 0, LONG, now), 0);
	assert_int_equal(forecast_wait(&f, 3, LONG, now), 30 * MS);
	assert_int_equal(forecast_wait(&f, 1000, LONG, now), 10000 * MS); /* beyond the batches counted one by one */
	forecast_run_begins(&f, 0, 1, now - 4 * MS);
	assert_int_equal(forecast_wait(&f, 0, LONG, now), 6 * MS); /* what is left of the run under way */
	assert_int_equal(forecast_wait(&f, 3, LONG, now), 36 * MS);
	assert_int_equal(forecast_wait(&f, 3, LONG, now + 50 * MS), 30 * MS); /* a run that takes longer may end any moment */
	f.instances = 2; /* the second is idle */
	assert_int_equal(forecast_wait(&f, 0, LONG, now), 0);
	assert_int_equal(forecast_wait(&f, 1, LONG, now), 6 * MS);
	assert_int_equal(forecast_wait(&f, 2, LONG, now), 10 * MS);
	assert_int_equal(forecast_wait(&f, 3, LONG, now), 16 * MS);
}

/* Those ahead take the idle instances that they find; who finds one left is answered by a run of his own, not by a full one. */
static void idle_instances_are_taken_one_by_one(void **state)
{
	forecast f = {.instances = 1, .decode_threads = 1, .max_batch = 4};
	int64_t now = 1000 * MS;
	measure(&f, 1, 10 * MS, now);
	measure(&f, 4, 24 * MS, now);
	f.instances = 4;
	forecast_run_begins(&f, 0, 1, now);
	assert_int_equal(forecast_decoded_waiting(&f, 0, LONG, now), 10 * MS);
	assert_int_equal(forecast_decoded_waiting(&f, 2, LONG, now), 10 * MS);
	assert_int_equal(forecast_decoded_waiting(&f, 3, LONG, now), 24 * MS);
}

static void batches_ahead_count_as_batches(void **state)
{
	forecast f = {.instances = 1, .decode_threads = 1, .max_batch = 4};
	int64_t now = 1000 * MS;
	measure(&f, 1, 10 * MS, now);
	assert_int_equal(forecast_run(&f, 4, ESTIMATE_TYPICAL, now), 40 * MS); /* not seen: as long as its parts */
	measure(&f, 4, 20 * MS, now);
	assert_int_equal(forecast_run(&f, 4, ESTIMATE_TYPICAL, now), 20 * MS);
	assert_int_equal(forecast_run(&f, 3, ESTIMATE_TYPICAL, now), 30 * MS);
	assert_int_equal(forecast_wait(&f, 3, LONG, now), 0); /* they share its run */
	assert_int_equal(forecast_wait(&f, 4, LONG, now), 20 * MS);
	assert_int_equal(forecast_wait(&f, 11, LONG, now), 40 * MS);
	forecast only_large = {.instances = 1, .decode_threads = 1, .max_batch = 4};
	measure(&only_large, 3, 15 * MS, now);
	assert_int_equal(forecast_run(&only_large, 1, ESTIMATE_TYPICAL, now), 15 * MS);
}

static void decoding_overlaps_with_waiting(void **state)
{
	forecast f = {.instances = 1, .decode_threads = 2, .max_batch = 1};
	int64_t now = 1000 * MS;
	measure(&f, 1, 10 * MS, now);
	for (int i = 0; i < ESTIMATE_RUNS; i++)
		forecast_decoded(&f, 4 * MS, now);
	assert_int_equal(forecast_undecoded(&f, (forecast_ahead){0}, LONG, now), 14 * MS);
	assert_int_equal(forecast_undecoded(&f, (forecast_ahead){.decode = 1, .infer = 1}, LONG, now), 20 * MS);
	assert_int_equal(forecast_undecoded(&f, (forecast_ahead){.decode = 0, .infer = 5}, LONG, now), 60 * MS);
	for (int i = 0; i < ESTIMATE_RUNS; i++)
		forecast_decoded(&f, 40 * MS, now); /* decoding is what takes long here */
	assert_int_equal(forecast_undecoded(&f, (forecast_ahead){.decode = 4, .infer = 4}, LONG, now), 130 * MS);
	assert_int_equal(forecast_decoded_waiting(&f, 2, LONG, now), 30 * MS);
}

static int64_t decode_expected(forecast *f, int64_t now) { return forecast_undecoded(f, (forecast_ahead){.decode = 1}, LONG, now) / 2; }

static void decodes_without_an_image_only_say_at_least(void **state)
{
	forecast f = {.instances = 1, .decode_threads = 1, .max_batch = 1};
	int64_t now = 1000 * MS;
	for (int i = 0; i < 100; i++)
		forecast_decode_ended(&f, true, 1 * MS, now); /* nothing is known, and refusals make nothing known */
	assert_int_equal(decode_expected(&f, now), 0);
	for (int i = 0; i < ESTIMATE_ENOUGH; i++) /* as the first images show: nothing else is among what they are judged by */
		forecast_decoded(&f, 4 * MS, now);
	assert_int_equal(decode_expected(&f, now), 4 * MS);
	for (int i = ESTIMATE_ENOUGH; i < ESTIMATE_RUNS; i++)
		forecast_decoded(&f, 4 * MS, now);
	for (int i = 0; i < 100; i++)
		forecast_decode_ended(&f, true, 1 * MS, now); /* refusals are quick: images are not */
	assert_int_equal(decode_expected(&f, now), 4 * MS);
	for (int i = 0; i < ESTIMATE_RUNS / 2; i++)
		forecast_decode_ended(&f, false, 90 * MS, now); /* cut off at their deadlines: some are not believed */
	assert_int_equal(decode_expected(&f, now), 4 * MS);
	forecast_decode_ended(&f, false, 90 * MS, now); /* most are */
	assert_int_equal(decode_expected(&f, now), 90 * MS);
	assert_int_equal(decode_expected(&f, now + ESTIMATE_LIFETIME_NS + 1), 0); /* and everybody is tried again */
	/* Nothing is known: what is stuck is learnt, but not remembered for as long as five-second decodes would be. */
	forecast stuck = {.instances = 1, .decode_threads = 1, .max_batch = 1};
	for (int i = 0; i < ESTIMATE_ENOUGH; i++)
		forecast_decode_ended(&stuck, false, 5000 * MS, now);
	assert_int_equal(decode_expected(&stuck, now), FORECAST_LONGEST_CUT_NS);
	assert_int_equal(decode_expected(&stuck, now + 4 * FORECAST_LONGEST_CUT_NS + 1), 0);
}

static void batch_is_the_largest_that_ends_in_time(void **state)
{
	forecast f = {.instances = 1, .decode_threads = 1, .max_batch = 4};
	int64_t now = 1000 * MS;
	forecast_request d[4];
	for (int i = 0; i < 4; i++)
		d[i] = (forecast_request){now + 1000 * MS, 1000 * MS};
	assert_int_equal(forecast_batch(&f, d, 4, 1, now), 4); /* nothing known */
	measure(&f, 1, 10 * MS, now);
	measure(&f, 2, 14 * MS, now);
	measure(&f, 4, 22 * MS, now);
	assert_int_equal(forecast_batch(&f, d, 4, 1, now), 4);
	assert_int_equal(forecast_batch(&f, d, 3, 1, now), 3);
	d[3].budget_ns = 43 * MS; /* whoever arrives meanwhile with as little time would be late */
	assert_int_equal(forecast_batch(&f, d, 4, 1, now), 3);
	assert_int_equal(forecast_full_batch(&f, 43 * MS, now), 3);
	d[3].budget_ns = 1000 * MS;
	d[0].deadline_ns = now + 15 * MS;
	assert_int_equal(forecast_batch(&f, d, 4, 1, now), 2);
	d[1].deadline_ns = now + 12 * MS;
	assert_int_equal(forecast_batch(&f, d, 4, 1, now), 1);
	d[0].deadline_ns = now + 9 * MS;
	assert_int_equal(forecast_batch(&f, d, 4, 1, now), 0);
	/* An idle server has nothing to lose: it tries as long as the fastest run would be in time. */
	for (int i = 0; i < 15; i++) {
		forecast_run_begins(&f, 0, 1, now - 20 * MS);
		forecast_run_ends(&f, 0, now);
	}
	d[0].deadline_ns = now + 11 * MS;
	assert_int_equal(forecast_batch(&f, d, 1, 1, now), 0);
	assert_int_equal(forecast_batch(&f, d, 1, 0, now), 1);
}

/* ---- overload, simulated ---- */

typedef struct plan {
	double rate;       /* arrivals per second */
	int64_t deadline;  /* of each */
	int64_t run, item; /* a run of n takes run + n * item, give or take a spread, sometimes much longer */
	int max_batch, instances;
	double spread, slow; /* a share of the time; probability of a run three times as long */
	int admit;           /* 0: as if there were no forecast, a queue of 256 and nothing else */
} plan;

typedef struct result {
	int arrived, good, late, refused, given_up, runs;
} result;

static uint64_t seed;
static double uniform(void)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (double)(seed >> 11) / (double)((uint64_t)1 << 53);
}

static int64_t run_time(const plan *p, int n)
{
	double t = (double)(p->run + n * p->item) * (1 + p->spread * (2 * uniform() - 1));
	return (int64_t)(uniform() < p->slow ? 3 * t : t);
}

/* Arrivals at random, decoding in no time, one first-in first-out queue before the instances. */
static result simulate(const plan *p, int64_t length)
{
	static forecast_request queue[4096], runs[SERVER_MAX_INSTANCES][SERVER_MAX_BATCH];
	forecast f = {.instances = p->instances, .decode_threads = 1, .max_batch = p->max_batch};
	int64_t busy_until[SERVER_MAX_INSTANCES] = {0};
	int busy[SERVER_MAX_INSTANCES] = {0};
	result r = {0};
	size_t depth = 0;
	int64_t now = 1000 * MS, end = now + length, arrival = now;
	seed = 42;
	while (now < end) {
		int next = -1;
		for (int i = 0; i < p->instances; i++)
			if (busy[i] && (next < 0 || busy_until[i] < busy_until[next]))
				next = i;
		if (next >= 0 && busy_until[next] <= arrival) {
			now = busy_until[next];
			forecast_run_ends(&f, next, now);
			for (int i = 0; i < busy[next]; i++)
				*(now <= runs[next][i].deadline_ns ? &r.good : &r.late) += 1;
			busy[next] = 0;
		} else {
			now = arrival;
			arrival += (int64_t)(1e9 / p->rate * 2 * uniform());
			r.arrived++;
			int64_t needed = forecast_undecoded(&f, (forecast_ahead){.infer = depth}, p->deadline, now);
			if (depth >= 256 || (p->admit && needed > p->deadline))
				r.refused++;
			else
				queue[depth++] = (forecast_request){now + p->deadline, p->deadline};
		}
		for (int i = 0; i < p->instances; i++) {
			while (!busy[i] && depth > 0) {
				int n = depth < (size_t)p->max_batch ? (int)depth : p->max_batch;
				int size = p->admit ? forecast_batch(&f, queue, n, depth > 1 || forecast_waited(&f, i, queue[0].deadline_ns - p->deadline), now) : n;
				int taken = size ? size : 1;
				if (size) {
					memcpy(runs[i], queue, (size_t)size * sizeof queue[0]);
					busy[i] = size;
					busy_until[i] = now + run_time(p, size);
					forecast_run_begins(&f, i, size, now);
					r.runs++;
				} else {
					r.given_up++;
				}
				depth -= (size_t)taken;
				memmove(queue, queue + taken, depth * sizeof queue[0]);
			}
		}
	}
	return r;
}

static void goodput_stays_near_the_maximum_under_overload(void **state)
{
	static const plan PLANS[] = {
	    {.deadline = 90 * MS, .item = 20 * MS, .max_batch = 1, .instances = 1, .spread = 0.1},
	    {.deadline = 90 * MS, .item = 20 * MS, .max_batch = 1, .instances = 1, .spread = 0.4, .slow = 0.02},
	    {.deadline = 90 * MS, .item = 60 * MS, .max_batch = 1, .instances = 1, .spread = 0.2},
	    {.deadline = 90 * MS, .item = 4 * MS, .max_batch = 1, .instances = 1, .spread = 0.3, .slow = 0.01},
	    {.deadline = 90 * MS, .run = 10 * MS, .item = 5 * MS, .max_batch = 8, .instances = 1, .spread = 0.2},
	    {.deadline = 90 * MS, .item = 20 * MS, .max_batch = 1, .instances = 4, .spread = 0.3},
	    {.deadline = 90 * MS, .run = 15 * MS, .item = 6 * MS, .max_batch = 4, .instances = 2, .spread = 0.3},
	};
	for (size_t i = 0; i < sizeof PLANS / sizeof PLANS[0]; i++) {
		plan p = PLANS[i];
		double mean = (double)(p.run / p.max_batch + p.item) * (1 + 2 * p.slow);
		double capacity = 1e9 / mean * p.instances; /* per second, every batch full */
		double seconds = 60;
		p.admit = 1;
		p.rate = 3 * capacity;
		result at3 = simulate(&p, (int64_t)(seconds * 1e9));
		p.rate = 10 * capacity;
		result at10 = simulate(&p, (int64_t)(seconds * 1e9));
		p.admit = 0;
		p.rate = 3 * capacity;
		result without = simulate(&p, (int64_t)(seconds * 1e9));
		double all = capacity * seconds;
		print_message("plan %zu: of %.0f possible %d in time at 3x, %d at 10x, %d without admission; at 3x %d late, %d given up, "
			      "%d refused\n",
			      i, all, at3.good, at10.good, without.good, at3.late, at3.given_up, at3.refused);
		assert_true(at3.good > 0.85 * all);
		assert_true(at10.good > 0.85 * all);
		assert_true(at3.late < 0.1 * at3.good); /* hardly any run was in vain */
		assert_true(without.good < 0.2 * all);  /* it is the forecast that does it */
	}
}

static void light_load_is_hardly_touched(void **state)
{
	plan p = {.deadline = 90 * MS, .item = 20 * MS, .max_batch = 1, .instances = 1, .spread = 0.3, .slow = 0.01, .admit = 1};
	p.rate = 15; /* 30 % of what it can do */
	result r = simulate(&p, 100000 * MS);
	assert_true(r.good > 0.98 * r.arrived);
}

static void long_slow_phase_locks_nobody_out(void **state)
{
	/* Twice as slow as the deadline for five seconds, then well again: nine of ten requests are answered within two. */
	forecast f = {.instances = 1, .decode_threads = 1, .max_batch = 1};
	int64_t now = 1000 * MS;
	measure(&f, 1, 180 * MS, now);
	assert_true(forecast_undecoded(&f, (forecast_ahead){0}, LONG, now) > 90 * MS);
	now += ESTIMATE_LIFETIME_NS + MS;
	assert_int_equal(forecast_undecoded(&f, (forecast_ahead){0}, LONG, now), 0); /* tried again */
	for (int i = 0; i < 4; i++) {
		forecast_run_begins(&f, 0, 1, now);
		forecast_run_ends(&f, 0, now += 20 * MS);
	}
	assert_int_equal(forecast_undecoded(&f, (forecast_ahead){0}, LONG, now), 20 * MS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(estimate_answers_three_questions_and_forgets),
	    cmocka_unit_test(waiting_is_what_is_ahead_over_the_instances),
	    cmocka_unit_test(idle_instances_are_taken_one_by_one),
	    cmocka_unit_test(batches_ahead_count_as_batches),
	    cmocka_unit_test(decoding_overlaps_with_waiting),
	    cmocka_unit_test(decodes_without_an_image_only_say_at_least),
	    cmocka_unit_test(batch_is_the_largest_that_ends_in_time),
	    cmocka_unit_test(goodput_stays_near_the_maximum_under_overload),
	    cmocka_unit_test(light_load_is_hardly_touched),
	    cmocka_unit_test(long_slow_phase_locks_nobody_out),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
