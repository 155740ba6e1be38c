/* audit_internal.h: the audit service's state, and what its stages share:
 *
 *   audit.c         the threads and queues; a place at the beginning, giving up, the end
 *   audit_decode.c  the decode threads' stage
 *   audit_infer.c   the inference threads' stage
 *   audit_expire.c  the end of those whose deadline passes in a queue
 *
 * A request belongs to one thread at a time (request.h); what threads share here are atomics, the forecast included. */
#ifndef WINNOW_SERVER_AUDIT_INTERNAL_H
#define WINNOW_SERVER_AUDIT_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "server/audit.h"
#include "server/decoder.h"
#include "server/fields.h"
#include "server/forecast.h"
#include "server/queue.h"
#include "server/worker.h"

struct audit_service {
	audit_options opt;
	field_limits field_limits;
	size_t capacity;
	atomic_size_t waiting;   /* places taken: admitted and not yet in a run of the model */
	atomic_size_t undecoded; /* of these, not yet decoded */
	atomic_bool abandoned;
	forecast forecast;
	decoder *image_decoders[SERVER_MAX_DECODE_THREADS]; /* [i] is decode thread i's */
	queue *to_decode, *to_infer;
	worker_pool *decoders, *inferrers;
	struct audit_expiry { /* audit_expire.c */
		bool made, running, stop;
		pthread_t thread;
		pthread_mutex_t lock; /* stop; next_ns where it is lowered */
		pthread_cond_t wake;
		atomic_int_fast64_t next_ns; /* when to look; INT64_MAX = nothing is known to wait */
	} expiry;
};

/* Whether r may go on to a stage; `needed` is the predicted time from here to its answer (0 = unknown). */
bool audit_may_go_on(audit_service *s, request *r, const char *next, int64_t needed);
/* r's deadline passed during a stage ("decoding", "inference"). */
reason audit_too_late(request *r, const char *step);
void audit_give_place_back(audit_service *s);
/* r's wait in a queue ends, and so does its place. */
void audit_leave_queue(audit_service *s, request *r);
/* Gives r back, answered. */
void audit_finish(audit_service *s, request *r);
/* A request that a version on trial could not answer, for a reason of its own: from now on it is the other version's,
 * which will decode the image anew for its own inputs. The trial counts the failure, and no client pays for it. */
bool audit_fall_back(request *r);

/* How requests get into to_decode and to_infer: queue_push, and r's deadline is seen to while it waits there. */
bool audit_enqueue(audit_service *s, queue *q, request *r);
/* Of r[0..n), taken out together, puts back what fits (queue_push_front), with its places; returns how many are left, n at most
 * WORKER_MAX_ITEMS. */
size_t audit_put_back(audit_service *s, queue *q, request *const *r, size_t n);
wn_code audit_expire_start(audit_service *s, wn_error *err);
void audit_expire_stop(audit_service *s);
void audit_expire_close(audit_service *s);
/* Looks at everything that waits now. */
void audit_expire_soon(audit_service *s);

/* The stages, for worker_options; cls is the service. */
wn_code audit_decode_start(void *cls, int worker, wn_error *err);
void audit_decode_run(void *cls, int worker, void **items, size_t count);
wn_code audit_infer_start(void *cls, int worker, wn_error *err);
void audit_infer_run(void *cls, int worker, void **items, size_t count);

#endif
