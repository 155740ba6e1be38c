/* http_listen.c: the addresses that are listened on, what the library is told about them, and how it all ends.
 *
 * The main listener has the threads and the connections the configuration gives it. The admin listener, when there is one,
 * has a thread and connections of its own: probes, scrapes and commands get through however many clients the main one has.
 * Both run the same callbacks; a connection knows which one it came by. Both are bound before either is served: the library
 * cannot be stopped with a request in the audit service, so a start that can fail must have let none in. The watcher, who
 * knows both, starts in between.
 *
 * The end. A library that is being stopped drops the answers it is given, so requests must have ended before: first the
 * server says that it is about to go, and serves on (http_leave); then new ones that would need work are refused
 * (http_drain), and when that work is done none is begun any more (http_finish) and the last answers get out. A request that
 * comes in between finds its connection closed without a byte, as it does a moment later anyway; it has done nothing, so its
 * sender may ask elsewhere. */
#include "server/http_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/thread.h"
#include "server/descriptors.h"
#include "server/tls.h"

#define ADMIN_CONNECTIONS 64
#define BASE_DESCRIPTORS  64 /* logs, inotify, a model's files while it is read, the registry's directories */
/* Of an HTTP thread (epoll, events), of a decode thread (its helper's socket and memory, twice while it is replaced). */
#define THREAD_DESCRIPTORS 4

static int listen_socket(const struct sockaddr_storage *address, socklen_t len, const char *shown, int *port, wn_error *err)
{
	struct sockaddr_storage a = *address;
	int wanted = ntohs(a.ss_family == AF_INET ? ((struct sockaddr_in *)&a)->sin_port
						  : ((struct sockaddr_in6 *)&a)->sin6_port);
	int one = 1;
	int fd = socket(a.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
	    bind(fd, (struct sockaddr *)&a, len) != 0 || listen(fd, SOMAXCONN) != 0 ||
	    getsockname(fd, (struct sockaddr *)&a, &len) != 0) {
		wn_fail(err, WN_IO, "cannot listen on %s port %d: %s", shown, wanted, strerror(errno));
		if (fd >= 0)
			close(fd);
		return -1;
	}
	*port = ntohs(a.ss_family == AF_INET ? ((struct sockaddr_in *)&a)->sin_port
					     : ((struct sockaddr_in6 *)&a)->sin6_port);
	return fd;
}

/* What is listened on before it is served. */
typedef struct bound {
	int fd; /* the library's once it serves it; -1: none */
	const char *shown;
	sa_family_t family;
} bound;

static wn_code bind_listener(listener *l, bound *b, wn_error *err)
{
	const server_config *c = l->http->opt.config;
	struct sockaddr_storage a;
	socklen_t len;
	wn_code code = l->admin ? server_config_admin_address(c, &a, &len, err) : server_config_address(c, &a, &len, err);
	if (code != WN_OK)
		return code;
	l->reachable = !address_is_loopback((const struct sockaddr *)&a);
	b->shown = l->admin ? c->admin_address : c->listen_address;
	b->family = a.ss_family;
	b->fd = listen_socket(&a, len, b->shown, &l->port, err);
	return b->fd < 0 ? WN_IO : WN_OK;
}

static wn_code serve_listener(listener *l, bound *b, wn_error *err)
{
	const server_config *config = l->http->opt.config;
	int threads = l->admin ? 1 : config->http_threads < l->limit ? config->http_threads : l->limit;
	unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME |
			 (b->family == AF_INET6 ? MHD_USE_IPv6 : 0) | (l->tls ? MHD_USE_TLS : 0);
	struct MHD_OptionItem tls[3] = {{MHD_OPTION_END, 0, NULL}};
	if (l->tls) {
		tls[0] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_CERT_CALLBACK2, 0, tls_callback()};
		tls[1] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)TLS_PRIORITIES};
		tls[2] = (struct MHD_OptionItem){MHD_OPTION_END, 0, NULL};
	}
	l->daemon = MHD_start_daemon(
	    flags, 0, NULL, NULL, http_handle, l, MHD_OPTION_LISTEN_SOCKET, b->fd, MHD_OPTION_THREAD_POOL_SIZE,
	    (unsigned)(threads > 1 ? threads : 0), MHD_OPTION_CONNECTION_LIMIT, (unsigned)l->limit,
	    MHD_OPTION_PER_IP_CONNECTION_LIMIT, (unsigned)config->max_connections_per_ip,
	    MHD_OPTION_CONNECTION_MEMORY_LIMIT, config->connection_memory, MHD_OPTION_CONNECTION_TIMEOUT,
	    (unsigned)((config->idle_timeout_ns + 999999999) / 1000000000), MHD_OPTION_NOTIFY_CONNECTION,
	    http_connection_changed, l, MHD_OPTION_NOTIFY_COMPLETED, http_completed, l, MHD_OPTION_STRICT_FOR_CLIENT, 1,
	    MHD_OPTION_ARRAY, tls, MHD_OPTION_END);
	if (!l->daemon)
		return wn_fail(err, WN_IO, "cannot start the HTTP server on %s port %d", b->shown, l->port);
	b->fd = -1;
	return WN_OK;
}

/* Of the main listener: those it is given, or as many as there are descriptors for. */
static int main_connections(const server_config *c)
{
	const int threads = c->http_threads + c->decode_threads + 2; /* the admin listener's, the comparer's */
	return descriptors_make_room(c->max_connections, BASE_DESCRIPTORS + threads * THREAD_DESCRIPTORS +
							     (*c->admin_address ? ADMIN_CONNECTIONS : 0));
}

static wn_code open_listeners(http *h, wn_error *err)
{
	const server_config *c = h->opt.config;
	const bool separate = *c->admin_address, tls = *c->tls_certificate;
	const int count = separate ? 2 : 1;
	bound bounds[2] = {{.fd = -1}, {.fd = -1}};
	wn_code code = WN_OK;
	h->listeners[0] = (listener){.http = h, .limit = main_connections(c), .everything = !separate, .tls = tls};
	h->listeners[1] = (listener){.http = h, .limit = ADMIN_CONNECTIONS, .admin = true, .tls = tls && c->tls_admin};
	for (int i = 0; code == WN_OK && i < count; i++)
		code = bind_listener(&h->listeners[i], &bounds[i], err);
	if (code == WN_OK)
		code = http_watch_start(h, err);
	for (int i = count; code == WN_OK && i-- > 0;) /* the main one last: the other one has hardly a client yet */
		code = serve_listener(&h->listeners[i], &bounds[i], err);
	for (int i = 0; i < count; i++)
		if (bounds[i].fd >= 0)
			close(bounds[i].fd);
	return code;
}

wn_code http_open(http **out, const http_options *opt, wn_error *err)
{
	http *h = *out = calloc(1, sizeof *h);
	if (!h)
		return wn_fail(err, WN_NOMEM, "out of memory for the HTTP server");
	h->opt = *opt;
	pthread_mutex_init(&h->lock, NULL);
	cond_init_monotonic(&h->wake);
	const wn_code code = open_listeners(h, err);
	if (code != WN_OK)
		http_close(out);
	return code;
}

void http_leave(http *h) { atomic_store(&h->draining, true); }

void http_drain(http *h)
{
	http_leave(h);
	atomic_store(&h->refusing, true);
}

size_t http_in_flight(http *h) { return atomic_load(&h->in_flight); }

size_t http_finish(http *h, int64_t until_ns)
{
	atomic_store(&h->finishing, true);
	while (atomic_load(&h->begun) > 0 && monotonic_ns() < until_ns)
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	return atomic_load(&h->begun);
}

void http_close(http **hp)
{
	http *h = *hp;
	if (!h)
		return;
	*hp = NULL;
	http_watch_stop(h);
	for (int i = 0; i < 2; i++)
		if (h->listeners[i].daemon)
			MHD_stop_daemon(h->listeners[i].daemon);
	pthread_cond_destroy(&h->wake);
	pthread_mutex_destroy(&h->lock);
	free(h);
}

int http_port(const http *h) { return h->listeners[0].port; }

int http_admin_port(const http *h) { return h->listeners[1].port; }
