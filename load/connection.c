/* connection.c: see connection.h. Work is pulled, not tracked: every event connects, sends and reads as far as it goes.
 */
#include "load/connection.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_SIZE 16384

static void on_ready(loop_source *s, uint32_t events);

void connection_init(connection *c, loop *l, const endpoint *to, void (*ended)(connection *),
		     void (*closed)(connection *))
{
	memset(c, 0, offsetof(connection, answer.line)); /* the line's length is among what is cleared */
	c->source.ready = on_ready;
	c->fd = -1;
	c->loop = l;
	c->to = to;
	c->ended = ended;
	c->closed = closed;
}

void connection_drop(connection *c)
{
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	c->state = CONNECTION_CLOSED;
}

void connection_free(connection *c)
{
	connection_drop(c);
	response_free(&c->answer);
}

static outcome fail(connection *c, outcome o, const char *why)
{
	connection_drop(c);
	snprintf(c->detail, sizeof c->detail, "%.*s", (int)sizeof c->detail - 1, why);
	return c->result = o;
}

static outcome fail_errno(connection *c, int error, bool connecting)
{
	return fail(c, outcome_of_errno(error, connecting), strerror(error));
}

/* ---- connecting ---- */

/* A port of the ephemeral range that nobody listens on can be given to the very socket that connects to it; TCP then
 * connects it with itself, and it would wait for its own answer. */
static bool is_self_connected(int fd)
{
	struct sockaddr_storage here = {0}, there = {0};
	socklen_t here_len = sizeof here, there_len = sizeof there;
	return getsockname(fd, (struct sockaddr *)&here, &here_len) == 0 &&
	       getpeername(fd, (struct sockaddr *)&there, &there_len) == 0 && here_len == there_len &&
	       memcmp(&here, &there, here_len) == 0;
}

static outcome connect_new(connection *c)
{
	const struct sockaddr *a = (const struct sockaddr *)&c->to->address;
	const int one = 1;
	c->fd = socket(a->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd < 0)
		return fail_errno(c, errno, true);
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	if (connect(c->fd, a, c->to->address_len) != 0 && errno != EINPROGRESS)
		return fail_errno(c, errno, true);
	if (!loop_add(c->loop, c->fd, &c->source))
		return fail(c, OUTCOME_OUT_OF_DESCRIPTORS, strerror(errno));
	c->state = CONNECTION_CONNECTING; /* an established one has its first EPOLLOUT at once */
	return OUTCOME_NONE;
}

static outcome finish_connecting(connection *c, uint32_t events)
{
	int error = 0;
	socklen_t len = sizeof error;
	if (!(events & (EPOLLOUT | EPOLLERR | EPOLLHUP)))
		return OUTCOME_NONE;
	if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0)
		error = errno;
	if (!error && is_self_connected(c->fd))
		error = ECONNREFUSED;
	if (error)
		return fail_errno(c, error, true);
	c->state = CONNECTION_SENDING;
	return OUTCOME_NONE;
}

/* ---- the exchange ---- */

static outcome send_more(connection *c)
{
	while (c->sent < c->len) {
		const ssize_t n = send(c->fd, c->bytes + c->sent, c->len - c->sent, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? OUTCOME_NONE : outcome_of_errno(errno, false);
		if (!c->first_sent_ns)
			c->first_sent_ns = loop_now();
		c->sent += (size_t)n;
	}
	c->state = CONNECTION_READING;
	return OUTCOME_NONE;
}

/* The answer is complete: `extra` bytes behind it, or a request that is not out yet, end the connection. */
static outcome finish_answer(connection *c, bool extra)
{
	if (c->answer.keep_alive && c->state == CONNECTION_READING && !extra)
		c->state = CONNECTION_IDLE;
	else
		connection_drop(c);
	return c->result = (outcome)c->answer.status;
}

static outcome on_end_of_stream(connection *c)
{
	wn_error err = {0};
	const bool begun = c->answer.begun;
	if (response_close(&c->answer, &err) == WN_OK)
		return finish_answer(c, true);
	return fail(c, begun ? OUTCOME_ANSWER_CUT : OUTCOME_CLOSED_WITHOUT_ANSWER, err.message);
}

static outcome read_more(connection *c)
{
	char buffer[READ_SIZE];
	for (;;) {
		const ssize_t n = recv(c->fd, buffer, sizeof buffer, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? OUTCOME_NONE : fail_errno(c, errno, false);
		if (n == 0)
			return on_end_of_stream(c);
		wn_error err = {0};
		size_t used;
		if (response_read(&c->answer, buffer, (size_t)n, &used, &err) != WN_OK)
			return fail(c, OUTCOME_BAD_ANSWER, err.message);
		if (c->answer.state == RESPONSE_DONE)
			return finish_answer(c, used < (size_t)n);
	}
}

/* As far as it goes now. OUTCOME_NONE: more later. */
static outcome work(connection *c, uint32_t events)
{
	outcome broken = OUTCOME_NONE;
	if (c->state == CONNECTION_CONNECTING) {
		const outcome o = finish_connecting(c, events);
		if (o != OUTCOME_NONE || c->state == CONNECTION_CONNECTING)
			return o;
	}
	if (c->state == CONNECTION_SENDING)
		broken = send_more(c);
	/* A server may answer and close before it has read everything: what it said counts more than that it hung up.
	 */
	const outcome o = read_more(c);
	if (o == OUTCOME_NONE && broken != OUTCOME_NONE)
		return fail(c, broken, "the connection broke while the request was sent");
	return o;
}

outcome connection_begin(connection *c, const char *bytes, size_t len)
{
	c->bytes = bytes;
	c->len = len;
	c->sent = 0;
	c->first_sent_ns = 0;
	c->result = OUTCOME_NONE;
	c->detail[0] = 0;
	response_start(&c->answer);
	if (c->fd < 0)
		return connect_new(c);
	c->state = CONNECTION_SENDING;
	const outcome broken = send_more(c);
	/* On a kept connection the peer's close may be seen first by this send; there is nothing to read then. */
	return broken == OUTCOME_NONE ? OUTCOME_NONE : fail(c, broken, "a kept connection was reset");
}

/* The peer closed, or said something nobody asked for. */
static void on_idle_event(connection *c)
{
	char byte;
	const ssize_t n = recv(c->fd, &byte, 1, MSG_PEEK);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	connection_drop(c);
	if (c->closed)
		c->closed(c);
}

static void on_ready(loop_source *s, uint32_t events)
{
	connection *c = (connection *)s;
	if (c->state == CONNECTION_CLOSED)
		return;
	if (c->state == CONNECTION_IDLE)
		on_idle_event(c);
	else if (work(c, events) != OUTCOME_NONE)
		c->ended(c);
}
