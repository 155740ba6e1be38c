/* request_use.h: what one request of a model takes: time, processor time, and energy where it can be measured; all of the same
 * requests, warm ones. */
#ifndef WINNOW_PRUNE_COMPRESS_REQUEST_USE_H
#define WINNOW_PRUNE_COMPRESS_REQUEST_USE_H

#include "base/error.h"
#include "model/blip2.h"

typedef struct request_use {
	double latency_ms;  /* median */
	double cpu_seconds; /* mean; of all threads together */
	double joules;      /* mean; NaN: this machine does not tell */
} request_use;

/* Of `runs` requests (prune/bench_request.h) with `tokens` text tokens, on the calling thread's OpenMP team. */
wn_code request_use_measure(request_use *out, const blip2 *m, int tokens, int runs, wn_error *err);

#endif
