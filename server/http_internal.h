/* http_internal.h: what http.c (requests and answers), http_connection.c, http_listen.c (listeners), http_watch.c (slow clients)
 * and http_crowd.c (too many of them) share. */
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
	int limit;       /* connections that the library takes, over all its threads */
	atomic_int open; /* connections there are */
	atomic_uint_fast64_t evicted; /* connections closed to make room */
	uint64_t evicted_told;        /* of these, in the log: watcher only, as the next */
	int64_t told_ns;
	bool admin;      /* serves /metrics and /v2/repository, and the other one does not */
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
	bool unanswered;  /* there was no memory for its answer */
	size_t discarded; /* bytes of a refused request's body thrown away */
} connection;

struct http {
	http_options opt;
	listener listeners[2]; /* main, admin */
	atomic_bool draining;            /* not ready; answers close their connections */
	atomic_bool refusing, finishing; /* work, anything */
	atomic_size_t in_flight; /* audits and commands that a drain waits for */
	atomic_size_t begun;     /* requests of any kind: http_finish waits for them */
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

/* Whether its client has sent its end, whatever else (a TLS alert) is still to be read before it. The socket is asked: the library
 * does not look at a suspended connection, and, waiting for edges, does not see an end that came together with the last bytes. */
bool connection_is_left(const connection *c);

/* Closes the connection, unless it is in another phase than `from` by now (false). A request that has begun is answered 408
 * with `why` before "the body was not complete after waited_ns". The caller holds http.lock. */
bool connection_give_up(connection *c, phase from, const char *why, int64_t waited_ns);

/* There is a connection more, or one less; in any thread. */
void http_crowd_came(listener *l);
void http_crowd_went(listener *l);

/* Where connections run out, closes those that have waited longest. In the watcher, which holds http.lock; it is let go and taken
 * again while a line is logged. True: they are still scarce, look again soon. */
bool http_crowd_relieve(http *h, int64_t now_ns);

/* Connections are scarce: who is answered should make room. */
bool http_is_crowded(const listener *l);

#endif
