/* request_use.c: see request_use.h. Two series of requests of different length are measured: their difference is free of what
 * opening a session and making primitives takes, which for a small model is more than many requests. */
#include "prune/compress/request_use.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

#include "base/energy_meter.h"
#include "prune/bench_request.h"

static double cpu_seconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static wn_code measure_series(request_use *out, const blip2 *m, const bench_request_options *o, double *times, wn_error *err)
{
	energy_meter meter;
	const bool metered = energy_meter_open(&meter, NULL);
	const double start = cpu_seconds();
	wn_code rc = bench_request(m, o, times, err);
	out->cpu_seconds = cpu_seconds() - start;
	if (!metered || !energy_meter_read(&meter, &out->joules))
		out->joules = NAN;
	return rc;
}

wn_code request_use_measure(request_use *out, const blip2 *m, int tokens, int runs, wn_error *err)
{
	request_use few, many;
	const bench_request_options o = {.tokens = tokens, .logit_rows = 1, .runs = runs};
	const bench_request_options more = {.tokens = tokens, .logit_rows = 1, .runs = 3 * runs};
	double *times = calloc(3 * (size_t)runs, sizeof *times);
	*out = (request_use){.joules = NAN};
	if (!times)
		return wn_fail(err, WN_NOMEM, "no memory for %d runs", 3 * runs);
	wn_code rc = measure_series(&few, m, &o, times, err);
	if (!rc)
		rc = measure_series(&many, m, &more, times, err);
	if (!rc)
		*out = (request_use){.cpu_seconds = (many.cpu_seconds - few.cpu_seconds) / (2.0 * runs),
				     .joules = (many.joules - few.joules) / (2.0 * runs)};
	free(times);
	return rc;
}
