/* cost.h: what a shape costs: parameters, operations, and milliseconds on this machine.
 *
 * Latency is predicted from measured parts: every distinct block shape is timed once on the serving kernels, with random
 * weights, and remembered; so are patch embedding, projection and logits. A prediction is the sum of the parts and costs
 * microseconds once they are known. cost_measure times a whole random model of the shape, the way `winnow-prune bench` does:
 * that is what a target is checked against. Belongs to one thread; allocates and times on it. */
#ifndef WINNOW_PRUNE_COMPRESS_COST_H
#define WINNOW_PRUNE_COMPRESS_COST_H

#include "base/error.h"
#include "model/blip2.h"

typedef struct cost_request {
	int text_len;   /* tokens behind the queries */
	int logit_rows; /* rows of logits */
	int threads;    /* 0: all */
} cost_request; /* what one request is: bench's definition */

typedef struct cost_model cost_model;

wn_code cost_open(cost_model **out, const cost_request *request, wn_error *err);
void cost_close(cost_model **c);

double cost_parameters(const blip2_config *c);                       /* parameters proper */
double cost_flops(const cost_model *c, const blip2_config *shape);   /* of one request */
wn_code cost_latency(cost_model *c, const blip2_config *shape, double *ms, wn_error *err); /* predicted median */
wn_code cost_measure(cost_model *c, const blip2_config *shape, int runs, double *ms, wn_error *err); /* measured median */

#endif
