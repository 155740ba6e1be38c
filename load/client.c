/* client.c: see client.h. Every connection is in one of three lists: closed, idle (used last first), busy (due first
 * first). */
#include "load/client.h"

#include <stdio.h>
#include <stdlib.h>

/* Servers close idle connections after tens of seconds; ours go first, or a request would now and then meet the closing
 * one. */
#define IDLE_NS 5000000000

typedef struct slot slot;
struct slot {
	connection connection; /* first: events come to it */
	client *owner;
	slot *next, *previous; /* in its list */
	exchange exchange;
	int64_t idle_since_ns;
};

typedef struct list {
	slot *first, *last;
	int count;
} list;

struct client {
	client_options o;
	list closed, idle, busy;
	uint64_t made;
	int most;
	slot slots[]; /* [o.max_connections] */
};

static void list_remove(list *l, slot *s)
{
	*(s->previous ? &s->previous->next : &l->first) = s->next;
	*(s->next ? &s->next->previous : &l->last) = s->previous;
	s->next = s->previous = NULL;
	l->count--;
}

static void list_push_first(list *l, slot *s)
{
	s->next = l->first;
	*(l->first ? &l->first->previous : &l->last) = s;
	l->first = s;
	l->count++;
}

static void list_push_last(list *l, slot *s)
{
	s->previous = l->last;
	*(l->last ? &l->last->next : &l->first) = s;
	l->last = s;
	l->count++;
}

/* The exchange of a busy slot is over; it goes where its connection's state says, then the caller hears of it. */
static void finish(slot *s)
{
	client *c = s->owner;
	const int64_t now = loop_now();
	list_remove(&c->busy, s);
	s->idle_since_ns = now;
	list_push_first(s->connection.state == CONNECTION_IDLE ? &c->idle : &c->closed, s);
	c->o.done(c->o.context, &s->exchange, &s->connection, now);
}

static void on_ended(connection *ended) { finish((slot *)ended); }

static void on_closed(connection *closed)
{
	slot *s = (slot *)closed;
	list_remove(&s->owner->idle, s);
	list_push_first(&s->owner->closed, s);
}

wn_code client_open(client **out, loop *l, const client_options *o, wn_error *err)
{
	/* calloc: a connection's pages are touched when it is first used */
	client *c = calloc(1, sizeof *c + (size_t)o->max_connections * sizeof *c->slots);
	*out = c;
	if (!c)
		return wn_fail(err, WN_NOMEM, "no memory for %d connections", o->max_connections);
	c->o = *o;
	for (int i = o->max_connections - 1; i >= 0; i--) {
		slot *s = &c->slots[i];
		connection_init(&s->connection, l, o->to, on_ended, on_closed);
		s->owner = c;
		list_push_first(&c->closed, s);
	}
	return WN_OK;
}

void client_close(client **cp)
{
	client *c = *cp;
	*cp = NULL;
	if (!c)
		return;
	for (int i = 0; i < c->o.max_connections; i++)
		connection_free(&c->slots[i].connection);
	free(c);
}

bool client_has_room(const client *c) { return c->idle.first || c->closed.first; }

void client_send(client *c, const exchange *e, const char *bytes, size_t len)
{
	list *from = c->idle.first ? &c->idle : &c->closed;
	slot *s = from->first;
	list_remove(from, s);
	list_push_last(&c->busy, s);
	c->made += from == &c->closed;
	if (c->busy.count + c->idle.count > c->most)
		c->most = c->busy.count + c->idle.count;
	s->exchange = *e;
	s->exchange.begun_ns = loop_now();
	if (connection_begin(&s->connection, bytes, len) != OUTCOME_NONE)
		finish(s);
}

int64_t client_next_timeout(const client *c)
{
	return c->busy.first ? c->busy.first->exchange.scheduled_ns + c->o.timeout_ns : LOOP_NEVER;
}

static void end_first(client *c, outcome o, const char *detail)
{
	slot *s = c->busy.first;
	connection_drop(&s->connection);
	s->connection.result = o;
	snprintf(s->connection.detail, sizeof s->connection.detail, "%s", detail);
	finish(s);
}

void client_expire(client *c, int64_t now_ns)
{
	while (client_next_timeout(c) <= now_ns) {
		switch (c->busy.first->connection.state) {
		case CONNECTION_CONNECTING:
			end_first(c, OUTCOME_TIMEOUT_CONNECTING, "the connection was not accepted in time");
			break;
		case CONNECTION_SENDING:
			end_first(c, OUTCOME_TIMEOUT_SENDING, "the server did not take the request in time");
			break;
		default:
			end_first(c, OUTCOME_TIMEOUT_ANSWER, "no complete answer in time");
		}
	}
	for (slot *s; (s = c->idle.last) && s->idle_since_ns + IDLE_NS <= now_ns;) {
		connection_drop(&s->connection);
		on_closed(&s->connection);
	}
}

void client_abandon(client *c, outcome o)
{
	while (c->busy.first)
		end_first(c, o, "the run was stopped before the answer");
}

int client_under_way(const client *c) { return c->busy.count; }
uint64_t client_connections_made(const client *c) { return c->made; }
int client_most_connections(const client *c) { return c->most; }
