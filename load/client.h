/* client.h: many connections, used by whoever comes first: at most max_connections of them, opened when none is free,
 * the one used last taken first (so that no more stay open than the load needs), closed after a while without use.
 *
 * The client keeps no queue: client_has_room says whether a request can go now, and whoever schedules decides what
 * waits. Requests are begun in the order they were due, so the one under way longest is the first to time out and no
 * list is searched. Belongs to the loop's thread. */
#ifndef WINNOW_LOAD_CLIENT_H
#define WINNOW_LOAD_CLIENT_H

#include "load/connection.h"

typedef struct client client;

/* One request's times, all CLOCK_MONOTONIC. */
typedef struct exchange {
	int64_t scheduled_ns;
	int64_t noticed_ns; /* when the loop came to it */
	int64_t begun_ns;   /* when a connection took it */
	size_t index;       /* the caller's: which request */
	bool waited;        /* all connections were busy when it was noticed */
} exchange;

typedef struct client_options {
	const endpoint *to; /* must outlive the client */
	int max_connections;
	int64_t timeout_ns; /* from scheduled_ns to the last byte of the answer */
	/* Called once for every request, from client_send, client_expire, client_abandon or the loop. The connection's
	 * result, detail, first_sent_ns and answer are valid during the call only; it must not send. */
	void (*done)(void *context, const exchange *e, const connection *c, int64_t now_ns);
	void *context;
} client_options;

wn_code client_open(client **out, loop *l, const client_options *o, wn_error *err);
/* Drops what is under way without a word. */
void client_close(client **c);

bool client_has_room(const client *c);
/* Needs room. `bytes` must live until the request is done. */
void client_send(client *c, const exchange *e, const char *bytes, size_t len);
/* When the next one times out; LOOP_NEVER: nothing is under way. */
int64_t client_next_timeout(const client *c);
/* Ends what has timed out; closes connections that were idle for long. */
void client_expire(client *c, int64_t now_ns);
/* Ends everything under way with this outcome (OUTCOME_UNFINISHED). */
void client_abandon(client *c, outcome o);

int client_under_way(const client *c);
uint64_t client_connections_made(const client *c);
int client_most_connections(const client *c); /* open at once */

#endif
