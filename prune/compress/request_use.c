/* request_use.c: see request_use.h. Clock and counters are read when the warm-up is over and when the last run is: opening a session
 * and making primitives takes more than many requests of a small model. */
#include "prune/compress/request_use.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

#include "base/energy_meter.h"
#include "prune/bench_request.h"

typedef struct counters {
	energy_meter meter;
	bool metered;
	double cpu_seconds, joules; /* of the runs */
} counters;

static double cpu_seconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void mark(void *ctx, bool begin)
{
	counters *c = ctx;
	if (begin) {
		c->metered = energy_meter_open(&c->meter, NULL);
		c->cpu_seconds = -cpu_seconds();
	} else {
		c->cpu_seconds += cpu_seconds();
		if (!c->metered || !energy_meter_read(&c->meter, &c->joules))
			c->joules = NAN;
	}
}

wn_code request_use_measure(request_use *out, const blip2 *m, int tokens, int runs, wn_error *err)
{
	counters c = {.cpu_seconds = NAN, .joules = NAN};
	const bench_request_options o = {.tokens = tokens, .logit_rows = 1, .runs = runs, .mark = mark, .ctx = &c};
	*out = (request_use){NAN, NAN, NAN};
	if (runs < 1)
		return wn_fail(err, WN_INVALID, "runs: found %d, expected at least 1", runs);
	double *times = calloc((size_t)runs, sizeof *times);
	if (!times)
		return wn_fail(err, WN_NOMEM, "no memory for %d runs", runs);
	wn_code rc = bench_request(m, &o, times, err);
	if (!rc)
		*out = (request_use){.latency_ms = bench_median(times, runs), .cpu_seconds = c.cpu_seconds / runs, .joules = c.joules / runs};
	free(times);
	return rc;
}
