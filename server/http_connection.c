/* http_connection.c: the connections there are, in which phase each one is, and how one ends before its time. */
#include "server/http_internal.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "server/answers.h"

/* NULL, without memory: its first request is refused. */
static connection *came(const listener *l, struct MHD_Connection *mhd)
{
	http *h = l->http;
	connection *c = calloc(1, sizeof *c);
	if (!c)
		return NULL;
	c->http = h;
	c->listener = l;
	c->mhd = mhd;
	c->fd = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
	c->loopback = address_is_loopback(MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS)->client_addr);
	atomic_init(&c->phase, PHASE_AWAITING);
	atomic_init(&c->since_ns, monotonic_ns());
	pthread_mutex_lock(&h->lock);
	c->next = h->connections;
	if (c->next)
		c->next->prev = c;
	h->connections = c;
	pthread_mutex_unlock(&h->lock);
	return c;
}

static void went(connection *c)
{
	http *h = c->http;
	pthread_mutex_lock(&h->lock);
	if (c->prev)
		c->prev->next = c->next;
	else
		h->connections = c->next;
	if (c->next)
		c->next->prev = c->prev;
	pthread_mutex_unlock(&h->lock);
	free(c);
}

void http_connection_changed(void *cls, struct MHD_Connection *mhd, void **socket_context,
			     enum MHD_ConnectionNotificationCode what)
{
	listener *l = cls;
	if (what == MHD_CONNECTION_NOTIFY_STARTED) {
		*socket_context = came(l, mhd);
		http_crowd_came(l);
		return;
	}
	if (*socket_context)
		went(*socket_context);
	*socket_context = NULL;
	http_crowd_went(l);
}

bool connection_step(connection *c, phase from, phase to)
{
	int expected = from;
	/* The time goes first: the watcher must never see a new phase with the age of the one before it. A step that loses
	 * only makes a connection that is being given up look younger. */
	atomic_store(&c->since_ns, monotonic_ns());
	return atomic_compare_exchange_strong(&c->phase, &expected, to);
}

/* The library can only answer complete requests; nothing has been written for this one, so the 408 goes out directly. */
static void send_timeout(connection *c, const char *why, int64_t waited_ns)
{
	if (c->listener->tls)
		return; /* not in the clear into an encrypted stream */
	request r = {.outcome = REASON_OK};
	memcpy(r.id, c->request_id, sizeof r.id);
	request_fail(&r, REASON_RECEIVE_TIMEOUT, "%sthe body was not complete after %.1f s", why, (double)waited_ns / 1e9);
	char *body = answer_problem(&r);
	if (!body)
		return;
	char text[2048];
	int n =
	    snprintf(text, sizeof text,
		     "HTTP/1.1 408 Request Timeout\r\nContent-Type: %s\r\nContent-Length: %zu\r\nX-Request-Id: %s\r\n"
		     "Connection: close\r\n\r\n%s",
		     TYPE_PROBLEM, strlen(body), r.id, body);
	/* A client too slow to send may also be too slow to read: never wait for it. */
	if (n > 0 && n < (int)sizeof text)
		(void)!send(c->fd, text, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL);
	free(body);
}

bool connection_give_up(connection *c, phase from, const char *why, int64_t waited_ns)
{
	if (!connection_step(c, from, PHASE_TIMED_OUT))
		return false;
	if (from == PHASE_RECEIVING)
		send_timeout(c, why, waited_ns);
	shutdown(c->fd, SHUT_RDWR);
	return true;
}

bool connection_is_left(const connection *c)
{
	struct pollfd p = {.fd = c->fd, .events = POLLRDHUP};
	return poll(&p, 1, 0) > 0;
}
