/* estimate.h: how long a stage takes at least, as measured.
 *
 * The fastest of the last eight runs, once there are four, and nothing at all after a second without a run. Two dangers
 * shape this. One slow run (a page fault, a busy neighbour) must not make the next requests look hopeless: hence the
 * fastest, not the mean. And an estimate that turns everybody away never sees a run again: hence it forgets itself, and
 * requests are tried again at least once a second. Any thread may add and read. */
#ifndef WINNOW_SERVER_ESTIMATE_H
#define WINNOW_SERVER_ESTIMATE_H

#include <stdatomic.h>
#include <stdint.h>

#define ESTIMATE_LIFETIME_NS 1000000000
#define ESTIMATE_RUNS        8
#define ESTIMATE_ENOUGH      4

typedef struct estimate {
	atomic_int_fast64_t runs_ns[ESTIMATE_RUNS]; /* 0 = none yet */
	atomic_uint next;
	atomic_int_fast64_t measured_at_ns;
} estimate;

/* 0 when unknown or outdated. */
static inline int64_t estimate_get(estimate *e, int64_t now_ns)
{
	if (now_ns - atomic_load_explicit(&e->measured_at_ns, memory_order_relaxed) > ESTIMATE_LIFETIME_NS)
		return 0;
	int64_t fastest = INT64_MAX;
	int known = 0;
	for (int i = 0; i < ESTIMATE_RUNS; i++) {
		int64_t ns = atomic_load_explicit(&e->runs_ns[i], memory_order_relaxed);
		known += ns > 0;
		if (ns > 0 && ns < fastest)
			fastest = ns;
	}
	return known >= ESTIMATE_ENOUGH ? fastest : 0;
}

/* Two threads that add at once after a pause may lose a measurement, which costs nothing. */
static inline void estimate_add(estimate *e, int64_t took_ns, int64_t now_ns)
{
	int64_t last = atomic_exchange_explicit(&e->measured_at_ns, now_ns, memory_order_relaxed);
	if (now_ns - last > ESTIMATE_LIFETIME_NS)
		for (int i = 0; i < ESTIMATE_RUNS; i++)
			atomic_store_explicit(&e->runs_ns[i], 0, memory_order_relaxed);
	unsigned slot = atomic_fetch_add_explicit(&e->next, 1, memory_order_relaxed) % ESTIMATE_RUNS;
	atomic_store_explicit(&e->runs_ns[slot], took_ns > 0 ? took_ns : 1, memory_order_relaxed);
}

#endif
