/* side_by_side.h: what one request takes of two models, measured in turns: whatever else the machine does in these minutes (another
 * clock, other neighbours) meets both, so that their ratios mean something. */
#ifndef WINNOW_PRUNE_COMPRESS_SIDE_BY_SIDE_H
#define WINNOW_PRUNE_COMPRESS_SIDE_BY_SIDE_H

#include <signal.h>

#include "base/error.h"
#include "model/blip2.h"
#include "prune/compress/request_use.h"

#define SIDE_BY_SIDE_ROUNDS 3 /* of each model */

typedef struct side_by_side_options {
	int tokens;  /* of text, in a request (prune/bench_request.h) */
	int threads; /* 0: the caller's, which comes back with the return value */
	int runs;    /* requests of a round */
	volatile sig_atomic_t *stop; /* may be NULL */
} side_by_side_options;

/* Rounds of first, second, first, …; every number is the median of its model's rounds, joules NaN when a round has none. WN_CANCELLED
 * when stopped. */
wn_code side_by_side_measure(request_use *first, request_use *second, const blip2 *first_model, const blip2 *second_model,
                             const side_by_side_options *o, wn_error *err);

#endif
