/* watch.c: see watch.h. */
#include "server/watch.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "base/thread.h"

/* Entries that come, go or are finished; not every write, of which a copy in progress makes thousands. */
#define EVENTS                                                                                                         \
	(IN_CREATE | IN_DELETE | IN_MOVED_TO | IN_MOVED_FROM | IN_CLOSE_WRITE | IN_ATTRIB | IN_DELETE_SELF |           \
	 IN_MOVE_SELF | IN_ONLYDIR)

struct watch {
	int inotify_fd; /* -1: polling alone */
	int wake_fd;
};

wn_code watch_open(watch **out, bool inotify, wn_error *err)
{
	watch *w = *out = calloc(1, sizeof *w);
	if (!w)
		return wn_fail(err, WN_NOMEM, "out of memory for the registry's watch");
	w->inotify_fd = inotify ? inotify_init1(IN_NONBLOCK | IN_CLOEXEC) : -1;
	w->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (w->wake_fd >= 0)
		return WN_OK;
	int e = errno;
	watch_close(out);
	return wn_fail(err, WN_IO, "cannot make an event descriptor: %s", strerror(e));
}

void watch_close(watch **wp)
{
	watch *w = *wp;
	if (!w)
		return;
	*wp = NULL;
	if (w->inotify_fd >= 0)
		close(w->inotify_fd);
	if (w->wake_fd >= 0)
		close(w->wake_fd);
	free(w);
}

bool watch_has_inotify(const watch *w) { return w->inotify_fd >= 0; }

void watch_add(watch *w, int dir_fd)
{
	char path[40];
	snprintf(path, sizeof path, "/proc/self/fd/%d", dir_fd);
	if (w->inotify_fd >= 0)
		(void)inotify_add_watch(w->inotify_fd, path, EVENTS); /* what cannot be watched is polled */
}

bool watch_wait(watch *w, int64_t timeout_ns)
{
	bool changed = false;
	struct pollfd fds[2] = {{.fd = w->wake_fd, .events = POLLIN}, {.fd = w->inotify_fd, .events = POLLIN}};
	const struct timespec t = timespec_of_ns(timeout_ns);
	(void)ppoll(fds, 2, &t, NULL); /* a negative descriptor is passed over */
	char events[4096];
	uint64_t wakes;
	(void)!read(w->wake_fd, &wakes, sizeof wakes);
	while (w->inotify_fd >= 0 && read(w->inotify_fd, events, sizeof events) > 0)
		changed = true;
	return changed;
}

void watch_wake(watch *w)
{
	const uint64_t one = 1;
	(void)!write(w->wake_fd, &one, sizeof one);
}
