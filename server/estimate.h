/* estimate.h: how long a stage takes, as measured.
 *
 * A moving average over about eight runs that forgets itself after a second without a measurement. Forgetting matters:
 * were one slow run to make every later request look hopeless, nothing would run and the estimate would never recover.
 * So at least one request a second is tried whatever the last measurement said. Any thread may add and read. */
#ifndef WINNOW_SERVER_ESTIMATE_H
#define WINNOW_SERVER_ESTIMATE_H

#include <stdatomic.h>
#include <stdint.h>

#define ESTIMATE_LIFETIME_NS 1000000000

typedef struct estimate {
	atomic_int_fast64_t average_ns; /* 0 = nothing measured */
	atomic_int_fast64_t measured_at_ns;
} estimate;

/* 0 when unknown or outdated. */
static inline int64_t estimate_get(estimate *e, int64_t now_ns)
{
	if (now_ns - atomic_load_explicit(&e->measured_at_ns, memory_order_relaxed) > ESTIMATE_LIFETIME_NS)
		return 0;
	return atomic_load_explicit(&e->average_ns, memory_order_relaxed);
}

/* Two threads adding at once may lose one measurement, which costs nothing. */
static inline void estimate_add(estimate *e, int64_t took_ns, int64_t now_ns)
{
	int64_t old = estimate_get(e, now_ns);
	int64_t average = old == 0 ? took_ns : old + (took_ns - old) / 8;
	atomic_store_explicit(&e->average_ns, average, memory_order_relaxed);
	atomic_store_explicit(&e->measured_at_ns, now_ns, memory_order_relaxed);
}

#endif
