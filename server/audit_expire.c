/* audit_expire.c: requests whose deadline passes while they wait in a queue.
 *
 * The stages look at a deadline when they take a request, and one image or run that takes long keeps them from taking any. So a thread
 * of its own takes those whose time is over out of the queues, which makes it their owner (request.h), and ends them as the
 * stage would have.
 *
 * It sleeps until the earliest deadline it knows of, for ever while nothing waits. Whoever puts a request into a queue wakes it
 * only for a deadline earlier than that: with equal deadlines once per deadline, not once per request. It looks at
 * the queues after it has forgotten what it knew, so a request is either seen by it or told to it.
 *
 * It runs from before the stages until after them: a drain keeps deadlines too. It puts nothing into a queue. */
#include "server/audit_internal.h"

#include <string.h>

#include "base/thread.h"

#define AT_ONCE 32 /* requests taken out under one locking of a queue */

typedef struct look {
	audit_service *s;
	int64_t now_ns, next_ns; /* next_ns: the earliest deadline of those that stay */
} look;

static bool is_over(void *cls, void *item)
{
	look *l = cls;
	const request *r = item;
	if (r->deadline_ns <= l->now_ns || atomic_load(&l->s->abandoned))
		return true;
	l->next_ns = r->deadline_ns < l->next_ns ? r->deadline_ns : l->next_ns;
	return false;
}

static void end(audit_service *s, request *r, const char *next)
{
	audit_leave_queue(s, r);
	if (audit_may_go_on(s, r, next, 0)) /* it may not: its time is over */
		request_fail(r, REASON_INTERNAL, "the request was taken out of a queue too early");
	audit_finish(s, r);
}

/* Returns the earliest deadline of those that go on waiting. */
static int64_t look_through(audit_service *s, queue *q, const char *next, atomic_size_t *counted)
{
	void *over[AT_ONCE];
	look l = {.s = s};
	size_t n;
	do {
		l.now_ns = monotonic_ns();
		l.next_ns = INT64_MAX;
		n = queue_take_if(q, over, AT_ONCE, is_over, &l);
		for (size_t i = 0; i < n; i++) {
			if (counted)
				atomic_fetch_sub(counted, 1);
			end(s, over[i], next);
		}
	} while (n == AT_ONCE);
	return l.next_ns;
}

/* Until it is time to look, or to stop. */
static void sleep_until_next(struct audit_expiry *e)
{
	const int64_t next = atomic_load(&e->next_ns);
	const struct timespec t = timespec_of_ns(next);
	if (next == INT64_MAX)
		pthread_cond_wait(&e->wake, &e->lock);
	else
		pthread_cond_timedwait(&e->wake, &e->lock, &t);
}

static void *expire_main(void *arg)
{
	audit_service *s = arg;
	struct audit_expiry *e = &s->expiry;
	pthread_mutex_lock(&e->lock);
	while (!e->stop) {
		if (monotonic_ns() < atomic_load(&e->next_ns)) {
			sleep_until_next(e);
			continue;
		}
		atomic_store(&e->next_ns, INT64_MAX); /* first: see above */
		pthread_mutex_unlock(&e->lock);
		const int64_t undecoded = look_through(s, s->to_decode, "decoding", &s->undecoded);
		const int64_t decoded = look_through(s, s->to_infer, "inference", NULL);
		const int64_t next = undecoded < decoded ? undecoded : decoded;
		pthread_mutex_lock(&e->lock);
		if (next < atomic_load(&e->next_ns))
			atomic_store(&e->next_ns, next);
	}
	pthread_mutex_unlock(&e->lock);
	return NULL;
}

static void look_by(struct audit_expiry *e, int64_t when_ns)
{
	if (when_ns >= atomic_load(&e->next_ns))
		return;
	pthread_mutex_lock(&e->lock);
	if (when_ns < atomic_load(&e->next_ns)) {
		atomic_store(&e->next_ns, when_ns);
		pthread_cond_signal(&e->wake);
	}
	pthread_mutex_unlock(&e->lock);
}

/* Of what was just put into a queue. A service that is abandoned meanwhile has perhaps been looked through before. */
static void see_to(audit_service *s, int64_t deadline_ns) { look_by(&s->expiry, atomic_load(&s->abandoned) ? 0 : deadline_ns); }

bool audit_enqueue(audit_service *s, queue *q, request *r)
{
	const int64_t deadline_ns = r->deadline_ns; /* in the queue r is not ours any more */
	if (!queue_push(q, r))
		return false;
	see_to(s, deadline_ns);
	return true;
}

size_t audit_put_back(audit_service *s, queue *q, request *const *r, size_t n)
{
	void *items[WORKER_MAX_ITEMS] = {0};
	int64_t earliest_ns = INT64_MAX;
	for (size_t i = 0; i < n; i++) {
		items[i] = r[i];
		earliest_ns = r[i]->deadline_ns < earliest_ns ? r[i]->deadline_ns : earliest_ns;
	}
	const size_t left = queue_push_front(q, items, n);
	if (left < n)
		see_to(s, earliest_ns);
	return left;
}

void audit_expire_soon(audit_service *s) { look_by(&s->expiry, 0); }

wn_code audit_expire_start(audit_service *s, wn_error *err)
{
	struct audit_expiry *e = &s->expiry;
	e->made = true;
	atomic_init(&e->next_ns, INT64_MAX);
	pthread_mutex_init(&e->lock, NULL);
	cond_init_monotonic(&e->wake);
	const int bad = thread_start(&e->thread, "expire", expire_main, s);
	e->running = !bad;
	return bad ? wn_fail(err, WN_IO, "cannot start the thread that watches deadlines: %s", strerror(bad)) : WN_OK;
}

void audit_expire_stop(audit_service *s)
{
	struct audit_expiry *e = &s->expiry;
	if (!e->running)
		return;
	pthread_mutex_lock(&e->lock);
	e->stop = true;
	pthread_cond_signal(&e->wake);
	pthread_mutex_unlock(&e->lock);
	pthread_join(e->thread, NULL);
	e->running = false;
}

void audit_expire_close(audit_service *s)
{
	struct audit_expiry *e = &s->expiry;
	audit_expire_stop(s);
	if (!e->made)
		return;
	pthread_cond_destroy(&e->wake);
	pthread_mutex_destroy(&e->lock);
}
