/* http_internal.h: what http.c (bodies and answers), http_listen.c (listeners) and http_watch.c (slow clients)
 * share. */
#ifndef WINNOW_SERVER_HTTP_INTERNAL_H
#define WINNOW_SERVER_HTTP_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include <microhttpd.h>

#include "server/http.h"
#include "server/routes.h"

/* Where a connection's current request is. The watcher and the connection's HTTP thread race for the step out of a
 * waiting phase; compare-and-swap decides, so a request is either received or timed out, never both. */
typedef enum phase {
	PHASE_AWAITING,  /* for a request line and headers */
	PHASE_RECEIVING, /* its body */
	PHASE_BUSY,      /* received: being worked on or answered */
	PHASE_TIMED_OUT, /* given up by the watcher */
} phase;

/* One address that is listened on; the admin listener is optional. */
typedef struct listener {
	http *http;
	struct MHD_Daemon *daemon;
	int port;
	bool admin;  /* serves /metrics and /v2/repository, and the other one does not */
	bool everything; /* there is no other one */
	bool reachable;  /* from outside: not a loopback address */
	bool tls;
} listener;

typedef struct connection {
	struct connection *prev, *next; /* http.connections, under its lock */
	http *http;
	const listener *listener;
	struct MHD_Connection *mhd;
	int fd;        /* open as long as this struct is in the list */
	bool loopback; /* the client's address */
	atomic_int phase;
	atomic_int_fast64_t since_ns;     /* the phase's start */
	char request_id[REQUEST_ID_SIZE]; /* of the request in PHASE_RECEIVING */
	/* The current request, HTTP thread only: */
	route route;
	bool counted;     /* in http.in_flight */
	bool submitted;   /* to the audit service: the next callback after a resume sends the answer */
	size_t discarded; /* bytes of a refused request's body thrown away */
} connection;

struct http {
	http_options opt;
	listener listeners[2]; /* main, admin */
	atomic_bool draining, finishing;
	atomic_size_t in_flight; /* audits and commands that a drain waits for */
	atomic_size_t begun;     /* requests of any kind: http_finish waits for them */
	atomic_size_t num_connections;
	pthread_mutex_t lock; /* connections, stop */
	pthread_cond_t wake;
	connection *connections;
	bool stop, watching;
	pthread_t watcher;
};

/* The library's callbacks; cls is the listener. */
void http_connection_changed(void *cls, struct MHD_Connection *mhd, void **socket_context,
			     enum MHD_ConnectionNotificationCode what);
enum MHD_Result http_handle(void *cls, struct MHD_Connection *mhd, const char *url, const char *method,
			    const char *version, const char *upload_data, size_t *upload_data_size, void **request_slot);
void http_completed(void *cls, struct MHD_Connection *mhd, void **request_slot, enum MHD_RequestTerminationCode how);

/* Starts and stops the watcher thread. */
wn_code http_watch_start(http *h, wn_error *err);
void http_watch_stop(http *h);

/* False when the connection is in another phase by now. */
bool connection_step(connection *c, phase from, phase to);

#endif
