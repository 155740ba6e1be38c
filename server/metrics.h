/* metrics.h: what /metrics tells, in Prometheus' text format (version 0.0.4), base units.
 *
 * Counters are atomics that any thread adds to; reading takes no lock, so one scrape may see a request in one counter
 * and not yet in another. Decisions are kept per label and suggestion in a table of 256; a server that sees more of them (models with
 * many labels come and go) counts the rest as label "other" with suggestion "other", which no model has: the sum stays right. */
#ifndef WINNOW_SERVER_METRICS_H
#define WINNOW_SERVER_METRICS_H

#include <stdint.h>

#include "server/manager.h"
#include "server/placement.h"
#include "server/request.h"
#include "server/result_cache.h"

typedef struct metrics metrics;

/* Values that live elsewhere, read at the time of a scrape. */
typedef struct metrics_gauges {
	size_t queue_depth, queue_capacity;
	int64_t predicted_wait_ns;
	size_t in_flight; /* audits and commands, begun and not yet answered */
	size_t connections;
	uint64_t connections_evicted;
	size_t body_bytes, body_budget;
	uint64_t access_log_dropped;
	result_cache_stats cache;
	uint64_t decoder_restarts;
	const placement *placement; /* may be NULL: nothing is told of it */
	int ready;        /* 0 or 1 */
	manager *manager; /* may be NULL: nothing is told of models */
} metrics_gauges;

wn_code metrics_open(metrics **out, wn_error *err);
void metrics_close(metrics **m);

/* A finished request: counts its status and, when it is a shed, its reason; an audit's times go into the histograms. */
void metrics_count_request(metrics *m, const request *r, int is_audit);
/* A request that there was no memory to begin with: its connection is closed, which counts as 503 `out_of_memory`. */
void metrics_count_unbegun(metrics *m, int is_audit);
/* An answered audit. */
void metrics_count_decision(metrics *m, const char *label, const char *suggestion);
void metrics_count_batch(metrics *m, int size);

/* malloc'ed text, NULL on no memory. */
char *metrics_text(metrics *m, const metrics_gauges *g);

#endif
