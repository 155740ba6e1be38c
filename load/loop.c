/* loop.c: see loop.h. */
#include "load/loop.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define EVENTS_AT_ONCE 64

static int64_t clock_ns(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t loop_now(void) { return clock_ns(CLOCK_MONOTONIC); }

wn_code loop_open(loop *l, wn_error *err)
{
	*l = (loop){.armed_ns = LOOP_NEVER};
	const int epoll = epoll_create1(EPOLL_CLOEXEC);
	const int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	l->epoll_plus_1 = epoll + 1;
	l->timer_plus_1 = timer + 1;
	struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL}; /* NULL: the timer */
	if (epoll >= 0 && timer >= 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &e) == 0) {
		loop_account_start(l);
		return WN_OK;
	}
	wn_code code = wn_fail(err, WN_IO, "cannot make an event loop: %s", strerror(errno));
	loop_close(l);
	return code;
}

void loop_close(loop *l)
{
	if (l->epoll_plus_1)
		close(l->epoll_plus_1 - 1);
	if (l->timer_plus_1)
		close(l->timer_plus_1 - 1);
	*l = (loop){0};
}

bool loop_add(loop *l, int fd, loop_source *s)
{
	struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = s};
	s->added_in = l->batch;
	return epoll_ctl(l->epoll_plus_1 - 1, EPOLL_CTL_ADD, fd, &e) == 0;
}

static void arm(loop *l, int64_t until_ns)
{
	if (until_ns == l->armed_ns)
		return;
	struct itimerspec when = {0}; /* zero: disarmed */
	if (until_ns != LOOP_NEVER) {
		when.it_value.tv_sec = until_ns / 1000000000;
		when.it_value.tv_nsec = until_ns % 1000000000;
		if (until_ns <= 0)
			when.it_value = (struct timespec){.tv_nsec = 1};
	}
	timerfd_settime(l->timer_plus_1 - 1, TFD_TIMER_ABSTIME, &when, NULL);
	l->armed_ns = until_ns;
}

wn_code loop_wait(loop *l, int64_t until_ns, const sigset_t *during, wn_error *err)
{
	struct epoll_event events[EVENTS_AT_ONCE];
	const int64_t before = loop_now();
	const bool due = until_ns <= before;
	if (!due)
		arm(l, until_ns);
	const int n = epoll_pwait(l->epoll_plus_1 - 1, events, EVENTS_AT_ONCE, due ? 0 : -1, during);
	const int saved = errno;
	l->waited_ns += loop_now() - before;
	if (n < 0)
		return saved == EINTR ? WN_OK : wn_fail(err, WN_IO, "cannot wait for events: %s", strerror(saved));
	l->batch++;
	for (int i = 0; i < n; i++) {
		loop_source *s = events[i].data.ptr;
		if (!s) {
			uint64_t expirations;
			(void)!read(l->timer_plus_1 - 1, &expirations, sizeof expirations);
			l->armed_ns = LOOP_NEVER; /* fired: settime again, whatever the next moment is */
		} else if (s->added_in !=
			   l->batch) { /* else: for a descriptor that was closed and made anew by an event before */
			s->ready(s, events[i].events);
		}
	}
	return WN_OK;
}

void loop_account_start(loop *l)
{
	l->opened_ns = loop_now();
	l->waited_ns = 0;
	l->cpu_at_start_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

void loop_account(const loop *l, double *busy_share, double *cpu_share)
{
	const double wall = (double)(loop_now() - l->opened_ns);
	*busy_share = wall > 0 ? 1 - (double)l->waited_ns / wall : 0;
	*cpu_share = wall > 0 ? (double)(clock_ns(CLOCK_THREAD_CPUTIME_ID) - l->cpu_at_start_ns) / wall : 0;
}
