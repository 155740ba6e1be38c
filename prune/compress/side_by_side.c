/* side_by_side.c: see side_by_side.h. */
#include "prune/compress/side_by_side.h"

#include <stdlib.h>

#include <omp.h>

#include "prune/bench_request.h"

static wn_code check_stop(const side_by_side_options *o, wn_error *err)
{
	return o->stop && *o->stop ? wn_fail(err, WN_CANCELLED, "stopped while student and teacher were timed") : WN_OK;
}

/* times [runs]: room for one round. */
static wn_code time_rounds(double ms[2], const blip2 *const models[2], const side_by_side_options *o, double *times, wn_error *err)
{
	const bench_request_options b = {.tokens = o->tokens, .logit_rows = 1, .runs = o->runs};
	double medians[2][SIDE_BY_SIDE_ROUNDS];
	for (int round = 0; round < SIDE_BY_SIDE_ROUNDS; round++)
		for (int i = 0; i < 2; i++) {
			wn_code rc = check_stop(o, err);
			if (!rc)
				rc = bench_request(models[i], &b, times, err);
			if (rc)
				return rc;
			medians[i][round] = bench_median(times, o->runs);
		}
	for (int i = 0; i < 2; i++)
		ms[i] = bench_median(medians[i], SIDE_BY_SIDE_ROUNDS);
	return WN_OK;
}

wn_code side_by_side_measure(model_use *first, model_use *second, const blip2 *first_model, const blip2 *second_model,
                             const side_by_side_options *o, wn_error *err)
{
	const blip2 *const models[] = {first_model, second_model};
	model_use *const out[] = {first, second};
	double ms[2] = {0};
	double *times = o->runs > 0 ? calloc((size_t)o->runs, sizeof *times) : NULL;
	if (!times)
		return o->runs > 0 ? wn_fail(err, WN_NOMEM, "no memory for %d runs", o->runs)
				   : wn_fail(err, WN_INVALID, "runs: found %d, expected at least 1", o->runs);
	const int threads = omp_get_max_threads();
	omp_set_num_threads(o->threads > 0 ? o->threads : omp_get_num_procs());
	wn_code rc = time_rounds(ms, models, o, times, err);
	for (int i = 0; i < 2 && !rc; i++) {
		out[i]->latency_ms = ms[i];
		if (!(rc = check_stop(o, err)))
			rc = request_use_measure(&out[i]->use, models[i], o->tokens, o->runs, err);
	}
	omp_set_num_threads(threads);
	free(times);
	return rc;
}
