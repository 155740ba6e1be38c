/* bench_request.h: the time of one request, for `winnow-prune bench` and for what a shape costs (prune/compress/cost.h).
 *
 * One request is one image, `tokens` text tokens and the logits of the last positions, batch 1, by the engine that serves, on the
 * calling thread's OpenMP team. Inputs are random, and the same every time. */
#ifndef WINNOW_PRUNE_BENCH_REQUEST_H
#define WINNOW_PRUNE_BENCH_REQUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "model/engine.h"

#define BENCH_WARM_UP_RUNS 5 /* not timed, before the others */

typedef struct bench_request_options {
	precision precision;
	int tokens;     /* of text, behind the queries */
	int logit_rows; /* the last so many positions; bench: 1 */
	int runs;       /* timed, behind the warm-up */
	weight_source *source;            /* where m's matrices come from (engine.h), or NULL */
	void (*first_answer)(void *ctx);  /* called behind the first request of all; may be NULL */
	void (*mark)(void *ctx, bool begin); /* called before the first timed run and behind the last; may be NULL */
	void *ctx;
} bench_request_options;

/* A model that answers one request again and again; borrows m. bench_open has run it warm (options' runs, mark and ctx are
 * bench_request's). Belongs to one thread; later runs take as many OpenMP threads as that one had at bench_open. */
typedef struct bench_session bench_session;
wn_code bench_open(bench_session **out, const blip2 *m, const bench_request_options *o, wn_error *err);
void bench_close(bench_session **s);
/* One request: its milliseconds. */
wn_code bench_run(bench_session *s, double *ms, wn_error *err);

/* Milliseconds of each run into times [runs]. WN_TOO_LARGE when the tokens do not fit the model, WN_INTERNAL when its
 * logits are no finite numbers. */
wn_code bench_request(const blip2 *m, const bench_request_options *o, double *times, wn_error *err);

/* Sorts times [count], count > 0, ascending and returns the median. */
double bench_median(double *times, int count);

/* Of the monotonic clock, in milliseconds. */
double bench_now_ms(void);

/* The next number in [-1, 1) of a stream whose state is not 0: inputs only have to be dense and finite. */
float bench_random(uint64_t *state);

#endif
