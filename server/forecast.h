/* forecast.h: when a request would be answered, were it let in now.
 *
 *   decode threads ──> inference instances, each running up to max_batch requests together
 *
 * Waiting is predicted from what is ahead and from measured service times: whole batches ahead go to whichever instance is
 * free first, a running batch counts with what is left of it, and decoding overlaps with the wait for an instance. The
 * prediction is compared with the request's deadline at admission and again before each stage.
 *
 * Who is refused under overload: the newest, whose predicted answer is too late. Dropping the oldest instead would throw
 * away the wait and the decoding already spent on it, break the promise made at its admission, and tell its client
 * nothing until its deadline was nearly over; the newest is told at once and can go elsewhere within its deadline. As
 * only those are let in that will be in time, the queue never grows longer than a deadline and first come, first served
 * stays the right order. (Earliest deadline first would let a newcomer in a hurry push an admitted one over its
 * deadline.)
 *
 * Time is always an argument: tests simulate hours of overload in milliseconds. Any thread may call anything. */
#ifndef WINNOW_SERVER_FORECAST_H
#define WINNOW_SERVER_FORECAST_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/config.h"
#include "server/estimate.h"

typedef struct forecast {
	int instances, decode_threads, max_batch; /* set by the owner, constant */
	estimate decode;                          /* of one request: body to prompt */
	estimate runs[SERVER_MAX_BATCH];          /* [n - 1]: one run of n requests */
	struct {
		atomic_int_fast64_t since_ns; /* 0 = idle */
		atomic_int size;              /* requests in the run */
		atomic_int_fast64_t ended_ns; /* the run before */
	} running[SERVER_MAX_INSTANCES];
} forecast;

/* What is ahead of a request, itself not counted. */
typedef struct forecast_ahead {
	size_t decode; /* waiting for decoding, or being decoded */
	size_t infer;  /* all of `decode`, and those waiting for inference */
} forecast_ahead;

/* Measurements. */
void forecast_decoded(forecast *f, int64_t took_ns, int64_t now_ns);
/* One that ended without a prompt after took_ns. It says that decoding takes at least so long, which is news only where less was
 * expected. Where nothing is known only what was cut off, or given up when it was decoded, says anything: what was refused may
 * not have been an image at all, and however many are refused quickly, no image is quick for that. What is longer than
 * FORECAST_LONGEST_CUT_NS counts as that: an estimate lives four times as long as what it is made of, and four stuck decodes
 * of five seconds must not turn everybody away for twenty more. */
#define FORECAST_LONGEST_CUT_NS ((int64_t)1000000000)
void forecast_decode_ended(forecast *f, bool refused, int64_t took_ns, int64_t now_ns);
void forecast_run_begins(forecast *f, int instance, int size, int64_t now_ns);
void forecast_run_ends(forecast *f, int instance, int64_t now_ns); /* counts the run */

/* Whether this instance was still busy when a request was queued. */
bool forecast_waited(forecast *f, int instance, int64_t queued_ns);

/* One run of n requests; sizes never seen are scaled from the nearest that was. 0: nothing is known. */
int64_t forecast_run(forecast *f, int n, estimate_kind kind, int64_t now_ns);
/* The largest batch worth running for requests of this deadline budget. One that arrives as a run begins waits for all of
 * it (with several instances, which take turns, for its share) and then takes part in the next: beyond half the budget full
 * batches would make each other late. */
int forecast_full_batch(forecast *f, int64_t budget_ns, int64_t now_ns);
/* Until an instance takes the request, when `ahead` requests wait for inference before it. */
int64_t forecast_wait(forecast *f, size_t ahead, int64_t budget_ns, int64_t now_ns);
/* From now to the answer of a request that is still to be decoded, or is decoded already. */
int64_t forecast_undecoded(forecast *f, forecast_ahead ahead, int64_t budget_ns, int64_t now_ns);
int64_t forecast_decoded_waiting(forecast *f, size_t ahead, int64_t budget_ns, int64_t now_ns);

typedef struct forecast_request {
	int64_t deadline_ns, budget_ns; /* when it must be answered; how long it had in all */
} forecast_request;

/* How many of the first n requests, first come first, an instance should run together: the most whose run will probably
 * end before the first deadline among them; 0: not even the first alone. A single one for which the instance was waiting
 * (contended false: nobody is behind it, and it waited for no run) is tried if the fastest run would be in time. */
int forecast_batch(forecast *f, const forecast_request *q, int n, bool contended, int64_t now_ns);

#endif
