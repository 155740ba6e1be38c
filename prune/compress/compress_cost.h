/* compress_cost.h: what a request costs, as a compression's configuration means it (target.request_tokens, target.threads), by a
 * cost model (cost.h) that a stop interrupts: a planner asks it for thousands of shapes, and some take seconds to time. */
#ifndef WINNOW_PRUNE_COMPRESS_COMPRESS_COST_H
#define WINNOW_PRUNE_COMPRESS_COMPRESS_COST_H

#include "prune/compress/cost.h"
#include "prune/compress/workspace.h"

typedef struct compress_cost {
	cost_model *model;   /* what planner and run ask */
	cost_model *machine; /* what times */
	volatile sig_atomic_t *stop;
} compress_cost;

/* Threads that answer a request; 0: as many as everything else here. */
int compress_request_threads(const compress_config *c);

/* out stays where it is until it is closed. A measurement gives WN_CANCELLED when w->stop is set. */
wn_code compress_cost_open(compress_cost *out, const workspace *w, wn_error *err);
void compress_cost_close(compress_cost *c);

#endif
