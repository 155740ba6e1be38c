/* side_by_side.c: see side_by_side.h. */
#include "prune/compress/side_by_side.h"

#include <math.h>

#include <omp.h>

#include "prune/bench_request.h"

typedef request_use rounds[SIDE_BY_SIDE_ROUNDS];

static wn_code measure_rounds(rounds found[2], const blip2 *const models[2], const side_by_side_options *o, wn_error *err)
{
	for (int round = 0; round < SIDE_BY_SIDE_ROUNDS; round++)
		for (int i = 0; i < 2; i++) {
			if (o->stop && *o->stop)
				return wn_fail(err, WN_CANCELLED, "stopped while student and teacher were timed");
			wn_code rc = request_use_measure(&found[i][round], models[i], o->tokens, o->runs, err);
			if (rc)
				return rc;
		}
	return WN_OK;
}

/* NaN when one of them is: a median of the others would be of other minutes. */
static double median(double *v)
{
	for (int i = 0; i < SIDE_BY_SIDE_ROUNDS; i++)
		if (isnan(v[i]))
			return NAN;
	return bench_median(v, SIDE_BY_SIDE_ROUNDS);
}

static request_use median_use(const rounds r)
{
	double ms[SIDE_BY_SIDE_ROUNDS], seconds[SIDE_BY_SIDE_ROUNDS], joules[SIDE_BY_SIDE_ROUNDS];
	for (int i = 0; i < SIDE_BY_SIDE_ROUNDS; i++) {
		ms[i] = r[i].latency_ms;
		seconds[i] = r[i].cpu_seconds;
		joules[i] = r[i].joules;
	}
	return (request_use){.latency_ms = median(ms), .cpu_seconds = median(seconds), .joules = median(joules)};
}

wn_code side_by_side_measure(request_use *first, request_use *second, const blip2 *first_model, const blip2 *second_model,
                             const side_by_side_options *o, wn_error *err)
{
	const blip2 *const models[] = {first_model, second_model};
	rounds found[2];
	const int threads = omp_get_max_threads();
	omp_set_num_threads(o->threads > 0 ? o->threads : threads);
	wn_code rc = measure_rounds(found, models, o, err);
	omp_set_num_threads(threads);
	if (!rc) {
		*first = median_use(found[0]);
		*second = median_use(found[1]);
	}
	return rc;
}
