/* cost_clock.c: see cost_clock.h. */
#include "prune/compress/cost_clock.h"

#include <math.h>
#include <stdlib.h>

#include <omp.h>

#include "prune/bench_request.h"

#define WEIGHT_SCALE    0.05f /* activations stay near 1 */
#define LEAST_MS        1e-6  /* below every clock: a part is never free */
#define MAX_ROUNDS      6
#define AGREEMENT       0.03  /* of two medians */
#define MIN_PAIRS       15
#define MAX_PAIRS       200
#define SECONDS_A_PAIR  0.03  /* of pairs, beyond MIN_PAIRS */

static wn_code random_model(blip2 **out, const blip2_config *shape, wn_error *err)
{
	uint64_t seed = 1;
	wn_code rc = blip2_create(out, shape, err);
	for (size_t i = 0; !rc && i < blip2_weights_count(*out); i++)
		blip2_weights(*out)[i] = WEIGHT_SCALE * bench_random(&seed);
	return rc;
}

static bench_request_options bench_options(const cost_request *r, int runs)
{
	return (bench_request_options){.precision = r->precision, .tokens = r->text_len, .logit_rows = r->logit_rows, .runs = runs};
}

/* The caller's number of threads comes back with the return value. */
static int threads_enter(const cost_request *r)
{
	const int before = omp_get_max_threads();
	omp_set_num_threads(r->threads > 0 ? r->threads : before);
	return before;
}

/* The median of `runs`, taken again until two agree: what else the machine does now only makes it longer, so the shorter one counts. */
static wn_code settled_median(const blip2 *m, const bench_request_options *o, double *times, double *ms, wn_error *err)
{
	double best = INFINITY;
	for (int round = 0; round < MAX_ROUNDS; round++) {
		wn_code rc = bench_request(m, o, times, err);
		if (rc)
			return rc;
		const double median = bench_median(times, o->runs), longer = fmax(median, best);
		best = fmin(median, best);
		if (longer - best <= AGREEMENT * best)
			break;
	}
	*ms = best;
	return WN_OK;
}

wn_code clock_request(const blip2_config *shape, const cost_request *r, int runs, double *ms, wn_error *err)
{
	const int threads = threads_enter(r);
	const bench_request_options o = bench_options(r, runs);
	blip2 *m = NULL;
	double *times = malloc((size_t)runs * sizeof *times);
	wn_code rc = times ? random_model(&m, shape, err) : wn_fail(err, WN_NOMEM, "out of memory for %d runs", runs);
	if (!rc)
		rc = settled_median(m, &o, times, ms, err);
	blip2_close(&m);
	free(times);
	omp_set_num_threads(threads);
	return rc;
}

/* A random model that answers. */
typedef struct timed_model {
	blip2 *model;
	bench_session *bench;
} timed_model;

static void timed_close(timed_model *t)
{
	bench_close(&t->bench);
	blip2_close(&t->model);
}

static wn_code timed_open(timed_model *t, const blip2_config *shape, const cost_request *r, wn_error *err)
{
	const bench_request_options o = bench_options(r, 0);
	wn_code rc = random_model(&t->model, shape, err);
	return rc ? rc : bench_open(&t->bench, t->model, &o, err);
}

static wn_code time_pairs(timed_model *longer, timed_model *shorter, double *ms, wn_error *err)
{
	double a[MAX_PAIRS], b[MAX_PAIRS];
	const double until = bench_now_ms() + 1e3 * SECONDS_A_PAIR;
	int n = 0;
	wn_code rc = WN_OK;
	for (; !rc && n < MAX_PAIRS && (n < MIN_PAIRS || bench_now_ms() < until); n++) {
		rc = bench_run(longer->bench, &a[n], err);
		if (!rc)
			rc = bench_run(shorter->bench, &b[n], err);
	}
	if (!rc)
		*ms = bench_median(a, n) - bench_median(b, n);
	*ms = *ms > LEAST_MS ? *ms : LEAST_MS;
	return rc;
}

wn_code clock_difference(const blip2_config *longer, const blip2_config *shorter, const cost_request *r, double *ms, wn_error *err)
{
	const int threads = threads_enter(r);
	timed_model a = {0}, b = {0};
	wn_code rc = timed_open(&a, longer, r, err);
	if (!rc)
		rc = timed_open(&b, shorter, r, err);
	if (!rc)
		rc = time_pairs(&a, &b, ms, err);
	timed_close(&a);
	timed_close(&b);
	omp_set_num_threads(threads);
	return rc;
}
