/* audit.h: one audit's life between the last byte of its request and its answer.
 *
 *   HTTP thread: audit_admit (a place, or 429/503/504) -> audit_submit
 *   decode threads: parse the body -> which model -> decode -> preprocess -> prompt
 *   inference thread i: run the model on what is queued (session i of the request's model) -> decide -> answer -> done()
 *
 * Places are counted once for both queues, so that work that was let in never meets a full queue later. Before every
 * stage a request is given up when its deadline has passed, when what waits ahead and the measured service times say that
 * it will (server/forecast.h, which also says why the newest is refused), when its client hung up, or when a drain ran out
 * of time. One whose deadline passes while it waits is ended there and then, whatever the stage before it is busy with
 * (audit_expire.c). What a version on trial cannot answer goes to the decode threads once more, for the version that
 * answers otherwise. The service knows nothing of HTTP: it ends every request by calling done(). */
#ifndef WINNOW_SERVER_AUDIT_H
#define WINNOW_SERVER_AUDIT_H

#include "server/compare.h"
#include "server/config.h"
#include "server/metrics.h"
#include "server/placement.h"
#include "server/registry.h"
#include "server/request.h"
#include "server/result_cache.h"

typedef struct audit_service audit_service;

typedef struct audit_options {
	const server_config *config; /* must outlive the service, as must placement */
	const placement *placement;
	registry *registry;
	metrics *metrics;
	comparer *comparer; /* gets the answered requests of trials */
	result_cache *cache; /* may be NULL */
	/* Called in a thread of the service when r's outcome (and, for OK, answer) is set; r is not touched afterwards. */
	void (*done)(request *r);
	/* Whether r's client has hung up. */
	bool (*gone)(const request *r);
} audit_options;

/* Starts the threads. */
wn_code audit_open(audit_service **out, const audit_options *opt, wn_error *err);
/* Finishes everything that was submitted, then stops the threads; what is submitted later is answered 503. */
void audit_stop(audit_service *s);
/* audit_stop, and frees the service: no thread may use it any more. */
void audit_close(audit_service **s);

/* Takes a place in the queue and starts the deadline; r->received_ns and r->deadline_budget_ns are set. Not REASON_OK:
 * the outcome is set and there is nothing to submit. */
reason audit_admit(audit_service *s, request *r);
/* After audit_admit. Ownership of r passes to the service until done(). */
void audit_submit(audit_service *s, request *r);

/* Runs fn(arg) on inference thread `instance` between two of its runs and waits for its end: how a model is tried out by the
 * thread that will serve it, while it serves others. False, and nothing was run, once the threads are stopping. `service` is
 * an audit_service, for manager_options.run_on; one caller at a time. */
bool audit_run_on(void *service, int instance, void (*fn)(void *arg), void *arg);

/* From now on every request is answered 503, at once while it waits and else at its next stage. */
void audit_abandon(audit_service *s);

size_t audit_waiting(audit_service *s);

/* Decoding helpers that had to be replaced. */
uint64_t audit_decoder_restarts(audit_service *s);

/* How long an audit that comes now would wait for inference. */
int64_t audit_predicted_wait_ns(audit_service *s);

/* Seconds a refused client should wait: the time the queue takes to empty, at least 1. */
int audit_retry_after(audit_service *s);

#endif
