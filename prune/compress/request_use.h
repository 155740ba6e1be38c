/* request_use.h: what one request of a model takes from the machine: processor time, and energy where it can be measured. */
#ifndef WINNOW_PRUNE_COMPRESS_REQUEST_USE_H
#define WINNOW_PRUNE_COMPRESS_REQUEST_USE_H

#include "base/error.h"
#include "model/blip2.h"

typedef struct request_use {
	double cpu_seconds; /* of all threads together */
	double joules;      /* NaN: this machine does not tell */
} request_use;

/* Of one request (prune/bench_request.h) with `tokens` text tokens, from `runs` of them. */
wn_code request_use_measure(request_use *out, const blip2 *m, int tokens, int runs, wn_error *err);

#endif
