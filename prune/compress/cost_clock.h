/* cost_clock.h: milliseconds of random models on this machine, by the engine that serves (prune/bench_request.h). */
#ifndef WINNOW_PRUNE_COMPRESS_COST_CLOCK_H
#define WINNOW_PRUNE_COMPRESS_COST_CLOCK_H

#include "prune/compress/cost.h"

#define CLOCK_COPIES       4  /* of a block, timed together */
#define CLOCK_OUTSIDE_RUNS 15 /* enough for what stands outside of blocks */

/* The median request of `runs` to a random model of this shape, measured until two medians agree. omp_set_num_threads is the request's while it times, the caller's
 * before and after. */
wn_code clock_request(const blip2_config *shape, const cost_request *r, int runs, double *ms, wn_error *err);

/* How much longer the median request to the one takes than to the other, at least a nanosecond: timed in turns, so that a change of clock or of
 * neighbours meets both. */
wn_code clock_difference(const blip2_config *longer, const blip2_config *shorter, const cost_request *r, double *ms, wn_error *err);

#endif
