/* http_crowd.c: room for one more client, whoever holds connections without asking anything.
 *
 * The library takes so many connections and no more: at its limit it stops accepting, and whoever comes then waits in the kernel's
 * backlog until somebody leaves. Clients that say nothing, or drip, may stay for tens of seconds; a liveness probe gives up
 * after one, and a healthy server is restarted. So a sixteenth of the connections is kept free: when less is, those are closed
 * that have waited longest for a request to become complete. An idle kept-alive connection may be closed at any time (RFC 9112
 * section 9.5), as one whose headers never end; a body that is on its way is worth more and counts a quarter of its time, so that
 * dripped bodies follow.
 * A request that is complete is never cut off, nor is who came, was answered or began to send a moment ago: when everybody is
 * busy new clients wait for an answer, which then closes its connection.
 *
 * The library divides its limit among the threads of its pool, and a thread whose share is taken leaves the listening socket to
 * the others. As the shares add up to the limit, one of them has room whenever the listener has.
 *
 * The HTTP threads count; the one that goes beyond the mark wakes the watcher (http_watch.c), which looks and closes, and looks again
 * soon for as long as room is scarce. */
#include "server/http_internal.h"

#include <sys/ioctl.h>

#include "server/log.h"

#define LEAST_WAIT_NS 100000000   /* to send a request after connecting, or the next one after an answer */
#define BODY_PATIENCE 4
#define AT_ONCE       64          /* closed in one look, at most */
#define TELL_NS       60000000000 /* between two lines in the log */

/* Connections beyond which there is too little room. */
static int mark(const listener *l) { return l->limit - (l->limit + 15) / 16; }

bool http_is_crowded(const listener *l) { return atomic_load(&l->open) > mark(l); }

void http_crowd_came(listener *l)
{
	if (atomic_fetch_add(&l->open, 1) != mark(l))
		return;
	pthread_mutex_lock(&l->http->lock);
	pthread_cond_signal(&l->http->wake);
	pthread_mutex_unlock(&l->http->lock);
}

void http_crowd_went(listener *l) { atomic_fetch_sub(&l->open, 1); }

typedef struct candidate {
	connection *c;
	phase phase;
	int64_t waited_ns;
	int64_t weight_ns; /* the larger, the sooner it is closed */
} candidate;

typedef struct candidates {
	candidate items[AT_ONCE]; /* largest weight first */
	int count;
} candidates;

static void insert(candidates *all, candidate one)
{
	if (all->count == AT_ONCE && one.weight_ns <= all->items[AT_ONCE - 1].weight_ns)
		return;
	int i = all->count < AT_ONCE ? all->count++ : AT_ONCE - 1;
	for (; i > 0 && all->items[i - 1].weight_ns < one.weight_ns; i--)
		all->items[i] = all->items[i - 1];
	all->items[i] = one;
}

static void consider(candidates *all, connection *c, int seen, int64_t now_ns)
{
	if (seen != PHASE_AWAITING && seen != PHASE_RECEIVING)
		return;
	const int64_t waited = now_ns - atomic_load(&c->since_ns), weight = seen == PHASE_RECEIVING ? waited / BODY_PATIENCE : waited;
	if (weight >= LEAST_WAIT_NS)
		insert(all, (candidate){.c = c, .phase = (phase)seen, .waited_ns = waited, .weight_ns = weight});
}

/* It has sent something that the HTTP thread will see in a moment: perhaps the rest of a request. */
static bool has_unread(const connection *c)
{
	int n = 0;
	return ioctl(c->fd, FIONREAD, &n) == 0 && n > 0;
}

static bool relieve(listener *l, int64_t now_ns)
{
	http *h = l->http;
	candidates found = {.count = 0};
	int wanted = -mark(l);
	if (!http_is_crowded(l))
		return false;
	for (connection *c = h->connections; c; c = c->next) {
		int seen = atomic_load(&c->phase); /* before since_ns: see connection_step */
		if (c->listener != l || seen == PHASE_TIMED_OUT) /* already on its way out */
			continue;
		wanted++;
		consider(&found, c, seen, now_ns);
	}
	for (int i = 0; i < found.count && wanted > 0; i++) {
		const candidate *f = &found.items[i];
		if (has_unread(f->c) || !connection_give_up(f->c, f->phase, "others need the connection, and ", f->waited_ns))
			continue;
		atomic_fetch_add(&l->evicted, 1);
		wanted--;
	}
	return true;
}

/* At once when it begins, then at most once a minute. */
static void tell(listener *l, int64_t now_ns)
{
	const uint64_t evicted = atomic_load(&l->evicted), news = evicted - l->evicted_told;
	if (news == 0 || (l->told_ns != 0 && now_ns - l->told_ns < TELL_NS))
		return;
	l->evicted_told = evicted;
	l->told_ns = now_ns;
	pthread_mutex_unlock(&l->http->lock); /* whoever reads the log may be slow */
	log_warning("connections run out (%s: at most %d): %llu closed that had waited longest without a complete request",
		    l->admin ? "on the admin listener" : "http.max_connections", l->limit, (unsigned long long)news);
	pthread_mutex_lock(&l->http->lock);
}

bool http_crowd_relieve(http *h, int64_t now_ns)
{
	bool crowded = false;
	for (int i = 0; i < 2; i++)
		crowded |= relieve(&h->listeners[i], now_ns);
	for (int i = 0; i < 2; i++)
		tell(&h->listeners[i], now_ns);
	return crowded;
}
