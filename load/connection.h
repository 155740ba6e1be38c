/* connection.h: one kept-alive HTTP/1.1 connection: one request out, one answer in, again.
 *
 * Everything is non-blocking and driven by the loop's events. A request is bytes that somebody else built and keeps;
 * sending and reading overlap, so an answer that comes before the request is out (413, 401) is seen. Nothing is ever
 * sent twice: a kept connection that turns out to be closed is an outcome, not a reason to try again in silence, as
 * HTTP libraries do.
 *
 * The owner embeds it, zeroed with fd -1 (connection_init), and is told by `ended` when the exchange is over; it may
 * begin the next one from within that call. `ended` is never called from connection_begin: what fails at once is its
 * return value. */
#ifndef WINNOW_LOAD_CONNECTION_H
#define WINNOW_LOAD_CONNECTION_H

#include <stddef.h>
#include <stdint.h>

#include "load/loop.h"
#include "load/outcome.h"
#include "load/response.h"
#include "load/url.h"

typedef enum connection_state {
	CONNECTION_CLOSED,
	CONNECTION_CONNECTING,
	CONNECTION_SENDING,
	CONNECTION_READING, /* the request is out */
	CONNECTION_IDLE     /* open, nothing asked */
} connection_state;

typedef struct connection connection;
struct connection {
	loop_source source; /* first: the loop's events come to it */
	connection_state state;
	int fd;
	loop *loop;
	const endpoint *to;
	void (*ended)(connection *c);  /* the exchange is over: `result` says how; the state is CLOSED or IDLE */
	void (*closed)(connection *c); /* the peer closed an idle connection; may be NULL */

	const char *bytes; /* the request */
	size_t len, sent;
	int64_t first_sent_ns; /* when its first byte went to the kernel; 0: never */
	outcome result;
	char detail[160]; /* one line, when the result is no status */
	response answer;  /* valid until the next begin */
};

void connection_init(connection *c, loop *l, const endpoint *to, void (*ended)(connection *),
		     void (*closed)(connection *));
/* Closed or idle: begins an exchange, over a new connection when there is none. `bytes` must live until it has ended.
 * OUTCOME_NONE: under way. Otherwise it has failed, and `ended` is not called. */
outcome connection_begin(connection *c, const char *bytes, size_t len);
/* Gives up what is under way (`ended` is not called) and closes. */
void connection_drop(connection *c);
/* The same, and frees the answer. */
void connection_free(connection *c);

#endif
