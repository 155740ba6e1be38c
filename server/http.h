/* http.h: HTTP/1.1 on libmicrohttpd: connections, bodies, answers; no audit logic.
 *
 * libmicrohttpd's threads (epoll, a fixed pool) run short callbacks only: they collect a bounded body, hand a complete
 * audit to the audit service, or a command to the model manager, and suspend its connection; whoever ends it resumes it, from
 * another thread. One more thread watches for what the library cannot see: requests that drip in too slowly, clients that left
 * amid one, and connections that run out; and gives the memory of a burst back. */
#ifndef WINNOW_SERVER_HTTP_H
#define WINNOW_SERVER_HTTP_H

#include "server/access.h"
#include "server/access_log.h"
#include "server/audit.h"
#include "server/manager.h"
#include "server/placement.h"

typedef struct http http;

typedef struct http_options {
	const server_config *config; /* everything here must outlive the server */
	const placement *placement;
	registry *registry;
	metrics *metrics;
	audit_service *audit;
	result_cache *cache; /* may be NULL */
	access_log *access_log; /* may be NULL */
	request_pool *pool;
	manager *manager;
	access_control *access;
} http_options;

/* Binds, listens and serves. */
wn_code http_open(http **out, const http_options *opt, wn_error *err);
/* Closes every connection; a request that http_finish did not wait for is cut off. Nothing may be suspended any more: stop
 * the audit service first. */
void http_close(http **h);

int http_port(const http *h);
int http_admin_port(const http *h); /* 0: no admin listener */
/* The server is not ready from now on, and its answers close their connections; it serves as before. */
void http_leave(http *h);
/* That, and new audits and commands are answered 503. */
void http_drain(http *h);
/* Audits and commands to the model manager, begun and not yet fully answered; without those that were refused as they began, since
 * http_leave. */
size_t http_in_flight(http *h);
/* No request is begun any more, on either listener; waits until those that were are fully answered, at most until the
 * given time (monotonic_ns). Returns how many are not. */
size_t http_finish(http *h, int64_t until_ns);

/* For audit_options. */
void http_request_done(request *r);
bool http_client_gone(const request *r);

#endif
