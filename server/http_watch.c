/* http_watch.c: ends requests that do not arrive in time, however steadily they drip (slowloris), and gives memory back that a
 * burst or a model has left.
 *
 * libmicrohttpd's timeout restarts with every byte. This thread looks at all connections five times a second and shuts
 * down those whose headers or body have taken too long in all; the library then sees the end of the stream and cleans
 * up. It never closes a descriptor, and the lock keeps a connection in the list until after it left, so no number can
 * be reused here. Where connections run out it looks more often, and has http_crowd.c make room. */
#include "server/http_internal.h"

#include <string.h>
#include <sys/socket.h>

#include "base/thread.h"
#include "server/heap.h"

#define WATCH_INTERVAL_NS   200000000
#define CROWDED_INTERVAL_NS 20000000
#define SHRINK_INTERVAL_NS  10000000000

/* look: for those who left, which costs a system call for each, under the lock. */
static void check_connection(connection *c, bool look, int64_t now)
{
	const server_config *config = c->http->opt.config;
	int seen = atomic_load(&c->phase); /* before since_ns: see connection_step */
	int64_t waited = now - atomic_load(&c->since_ns);
	switch (seen) {
	case PHASE_AWAITING:
		/* An idle kept-alive connection is the library's business; this bound is for headers that never end. */
		if (waited > config->idle_timeout_ns + config->receive_timeout_ns)
			connection_give_up(c, PHASE_AWAITING, "", waited);
		break;
	case PHASE_RECEIVING:
		if (waited > config->receive_timeout_ns)
			connection_give_up(c, PHASE_RECEIVING, "", config->receive_timeout_ns);
		else if (look && waited > WATCH_INTERVAL_NS && connection_is_left(c))
			shutdown(c->fd, SHUT_RDWR); /* an edge */
		break;
	default:
		break;
	}
}

static void give_back_memory(http *h, int64_t *next, int64_t now)
{
	if (now >= *next) {
		*next = now + SHRINK_INTERVAL_NS;
		heap_note_freed(request_pool_shrink(h->opt.pool));
	}
	heap_give_back(now);
}

static void *watch_main(void *arg)
{
	http *h = arg;
	int64_t next_look = 0, next_shrink = 0;
	pthread_mutex_lock(&h->lock);
	while (!h->stop) {
		const int64_t now = monotonic_ns();
		const bool look = now >= next_look;
		for (connection *c = h->connections; c; c = c->next)
			check_connection(c, look, now);
		if (look)
			next_look = now + WATCH_INTERVAL_NS;
		const struct timespec t = timespec_of_ns(now + (http_crowd_relieve(h, now) ? CROWDED_INTERVAL_NS : WATCH_INTERVAL_NS));
		if (!h->stop) /* which may have come while a line was logged */
			pthread_cond_timedwait(&h->wake, &h->lock, &t);
		pthread_mutex_unlock(&h->lock);
		give_back_memory(h, &next_shrink, monotonic_ns());
		pthread_mutex_lock(&h->lock);
	}
	pthread_mutex_unlock(&h->lock);
	return NULL;
}

wn_code http_watch_start(http *h, wn_error *err)
{
	const int e = thread_start(&h->watcher, "connections", watch_main, h);
	if (e != 0)
		return wn_fail(err, WN_IO, "cannot start the connection watcher: %s", strerror(e));
	h->watching = true;
	return WN_OK;
}

void http_watch_stop(http *h)
{
	if (!h->watching)
		return;
	pthread_mutex_lock(&h->lock);
	h->stop = true;
	pthread_cond_signal(&h->wake);
	pthread_mutex_unlock(&h->lock);
	pthread_join(h->watcher, NULL);
	h->watching = false;
}
