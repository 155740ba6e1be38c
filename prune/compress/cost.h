/* cost.h: what a shape costs: parameters, operations, and milliseconds on this machine.
 *
 * Latency is predicted from measured parts: every distinct block shape is timed once in a random model that the serving engine
 * runs, as the difference that some blocks of it make, and remembered; so are what stands outside the blocks: patch embedding,
 * projection, and embedding with logits. A prediction is the sum of the parts and costs microseconds once they are known.
 * cost_measure times a whole random model of the shape, the way `winnow-prune bench` does (prune/bench_request.h): that is what a
 * target is checked against. Belongs to one thread; allocates and times on it. While it times, omp_set_num_threads is the
 * request's; before and after, the caller's. */
#ifndef WINNOW_PRUNE_COMPRESS_COST_H
#define WINNOW_PRUNE_COMPRESS_COST_H

#include "base/error.h"
#include "model/blip2.h"
#include "model/engine.h"

typedef struct cost_request {
	int text_len;   /* tokens behind the queries */
	int logit_rows; /* rows of logits */
	int threads;    /* 0: the caller's */
	precision precision;
} cost_request; /* what one request is: bench's definition */

typedef struct cost_model cost_model;

/* WN_INVALID names what the request cannot be. */
wn_code cost_open(cost_model **out, const cost_request *request, wn_error *err);
void cost_close(cost_model **c);

/* Milliseconds from elsewhere than this machine's clock: another machine's table, or a test's. Neither may be NULL; ctx is
 * borrowed. The functions are called in place of cost_latency's and cost_measure's own work. */
typedef struct cost_functions {
	wn_code (*latency)(void *ctx, const blip2_config *shape, double *ms, wn_error *err);
	wn_code (*measure)(void *ctx, const blip2_config *shape, int runs, double *ms, wn_error *err);
	void *ctx;
} cost_functions;
wn_code cost_open_custom(cost_model **out, const cost_request *request, const cost_functions *functions, wn_error *err);

double cost_parameters(const blip2_config *c);                       /* parameters proper, as blip2_parameter_count has them */
double cost_flops(const cost_model *c, const blip2_config *shape);   /* of one request */
wn_code cost_latency(cost_model *c, const blip2_config *shape, double *ms, wn_error *err); /* predicted median */
wn_code cost_measure(cost_model *c, const blip2_config *shape, int runs, double *ms, wn_error *err); /* measured median */
/* How many parts were timed so far: predictions of known parts time nothing. */
size_t cost_parts(const cost_model *c);

#endif
