/* bench_peak.c: see bench_peak.h. */
#include "prune/bench_peak.h"

#include <stdlib.h>
#include <string.h>

#include "model/dnn.h"
#include "model/packed.h"
#include "prune/bench_request.h"

#define PEAK_SECONDS 0.4

static packed_spec spec_of(precision p, int64_t size, const void *weights)
{
	if (p == PRECISION_INT8)
		return (packed_spec){.in = size, .out = size, .src = ELEMENT_S8, .dst = ELEMENT_S32, .quantized = weights};
	return (packed_spec){.in = size, .out = size, .src = p == PRECISION_BF16 ? ELEMENT_BF16 : ELEMENT_F32, .dst = ELEMENT_F32,
			     .weight = weights};
}

static wn_code time_products(packed_linear *l, packed_runner *r, int64_t size, const void *in, void *out, double *best, wn_error *err)
{
	const double until = bench_now_ms() + 1e3 * PEAK_SECONDS, work = 2e-6 * (double)size * (double)size * (double)size;
	do {
		const double start = bench_now_ms();
		packed_run(r, l, size, in, out);
		const double rate = work / (bench_now_ms() - start);
		*best = rate > *best ? rate : *best;
	} while (bench_now_ms() < until);
	return packed_runner_check(r, err);
}

/* size^3 */
static wn_code measure(precision p, int64_t size, double *best, wn_error *err)
{
	const size_t count = (size_t)size * (size_t)size;
	float *weights = malloc(count * sizeof *weights);
	void *in = malloc(count * sizeof(float)), *out = calloc(count, sizeof(float));
	packed_linear *l = NULL;
	packed_runner *r = NULL;
	uint64_t state = 88172645463325252u;
	wn_code rc = weights && in && out ? WN_OK : wn_fail(err, WN_NOMEM, "out of memory for the peak measurement");
	if (!rc) {
		for (size_t i = 0; i < count; i++)
			weights[i] = bench_random(&state);
		memset(in, 1, count * sizeof(float)); /* bytes that are small numbers in every type */
		const packed_spec spec = spec_of(p, size, weights);
		rc = packed_open(&l, &spec, err);
	}
	if (!rc)
		rc = packed_runner_open(&r, err);
	if (!rc)
		rc = time_products(l, r, size, in, out, best, err);
	packed_runner_close(&r);
	packed_close(&l);
	free(weights);
	free(in);
	free(out);
	return rc;
}

wn_code bench_peak(precision p, double *gflops, wn_error *err)
{
	static const int64_t sizes[] = {1024, 2048};
	const precision runs = p == PRECISION_BF16 && !dnn_has_bf16() ? PRECISION_F32 : p;
	wn_code rc = WN_OK;
	*gflops = 0;
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes && !rc; i++) {
		wn_error local = {0};
		rc = measure(runs, sizes[i], gflops, &local);
		if (rc == WN_UNSUPPORTED)
			return bench_peak(PRECISION_F32, gflops, err);
		if (rc)
			wn_fail(err, rc, "%s", local.message);
	}
	return rc;
}
