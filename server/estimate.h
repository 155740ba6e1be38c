/* estimate.h: how long a stage takes, as measured.
 *
 * The last sixteen runs, once there are four, and nothing at all after a second without a run (for long runs, four times
 * as long as one takes). Three questions have three
 * answers. What waits ahead takes as long as runs usually do: the median, which one slow run (a page fault, a busy
 * neighbour) does not move. A run that others are waiting for is begun only when it will probably be in time: the upper
 * quartile. A run that nobody waits for costs nobody anything: it is tried when the fastest would be in time.
 *
 * An estimate that turns everybody away never sees a run again: hence it forgets itself, and requests are tried again. Any thread may add and read. */
#ifndef WINNOW_SERVER_ESTIMATE_H
#define WINNOW_SERVER_ESTIMATE_H

#include <stdatomic.h>
#include <stdint.h>

#define ESTIMATE_LIFETIME_NS 1000000000
#define ESTIMATE_RUNS        16
#define ESTIMATE_ENOUGH      4

typedef struct estimate {
	atomic_int_fast64_t runs_ns[ESTIMATE_RUNS]; /* 0 = none yet */
	atomic_uint next;
	atomic_int_fast64_t expires_at_ns;
} estimate;

typedef enum estimate_kind { ESTIMATE_FASTEST, ESTIMATE_TYPICAL, ESTIMATE_LIKELY } estimate_kind;

/* 0 when unknown or outdated. */
static inline int64_t estimate_get(estimate *e, estimate_kind kind, int64_t now_ns)
{
	if (now_ns > atomic_load_explicit(&e->expires_at_ns, memory_order_relaxed))
		return 0;
	int64_t sorted[ESTIMATE_RUNS];
	int known = 0;
	for (int i = 0; i < ESTIMATE_RUNS; i++) {
		int64_t ns = atomic_load_explicit(&e->runs_ns[i], memory_order_relaxed);
		if (ns <= 0)
			continue;
		int k = known++;
		for (; k > 0 && sorted[k - 1] > ns; k--)
			sorted[k] = sorted[k - 1];
		sorted[k] = ns;
	}
	if (known < ESTIMATE_ENOUGH)
		return 0;
	return sorted[kind == ESTIMATE_FASTEST ? 0 : kind == ESTIMATE_TYPICAL ? (known - 1) / 2 : 3 * (known - 1) / 4];
}

/* Two threads that add at once after a pause may lose a measurement, which costs nothing. */
static inline void estimate_add(estimate *e, int64_t took_ns, int64_t now_ns)
{
	int64_t lifetime = 4 * took_ns > ESTIMATE_LIFETIME_NS ? 4 * took_ns : ESTIMATE_LIFETIME_NS;
	int64_t expired = atomic_exchange_explicit(&e->expires_at_ns, now_ns + lifetime, memory_order_relaxed);
	if (now_ns > expired)
		for (int i = 0; i < ESTIMATE_RUNS; i++)
			atomic_store_explicit(&e->runs_ns[i], 0, memory_order_relaxed);
	unsigned slot = atomic_fetch_add_explicit(&e->next, 1, memory_order_relaxed) % ESTIMATE_RUNS;
	atomic_store_explicit(&e->runs_ns[slot], took_ns > 0 ? took_ns : 1, memory_order_relaxed);
}

#endif
