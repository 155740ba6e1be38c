/* rate.h: a token bucket in one atomic number.
 *
 * The number is the time at which the bucket will be full again. A request moves it on by the time one token takes to come
 * back; when that would put it further ahead than the whole bucket is worth, there is no token left (the generic cell rate
 * algorithm). No lock, no timer, nothing to refill. Any thread may take. */
#ifndef WINNOW_SERVER_RATE_H
#define WINNOW_SERVER_RATE_H

#include <stdatomic.h>
#include <stdint.h>

typedef struct rate_limit {
	int64_t interval_ns; /* between two tokens; 0 = no limit */
	int64_t burst_ns;    /* a full bucket: so many intervals */
} rate_limit;

typedef atomic_int_fast64_t rate_bucket; /* 0 = full */

/* A bucket may take so long to fill: beyond it nobody means what they write, and far beyond it nanoseconds overflow. */
#define RATE_MAX_FILL_S 31536000

static inline int rate_is_possible(double per_second, int burst) { return per_second == 0 || burst / per_second <= RATE_MAX_FILL_S; }

/* per_second 0: no limit. burst: tokens in a full bucket, at least 1. Together they are possible. */
static inline rate_limit rate_limit_of(double per_second, int burst)
{
	if (per_second <= 0)
		return (rate_limit){0};
	int64_t interval = (int64_t)(1e9 / per_second);
	interval = interval > 0 ? interval : 1;
	return (rate_limit){.interval_ns = interval, .burst_ns = interval * burst};
}

/* 0: taken; else nanoseconds until there is a token. */
static inline int64_t rate_take(rate_bucket *b, const rate_limit *l, int64_t now_ns)
{
	if (l->interval_ns == 0)
		return 0;
	int_fast64_t full_at = atomic_load_explicit(b, memory_order_relaxed);
	for (;;) {
		int64_t next = (full_at > now_ns ? full_at : now_ns) + l->interval_ns;
		if (next - now_ns > l->burst_ns)
			return next - now_ns - l->burst_ns;
		if (atomic_compare_exchange_weak_explicit(b, &full_at, next, memory_order_relaxed, memory_order_relaxed))
			return 0;
	}
}

#endif
