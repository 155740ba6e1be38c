/* schedule.h: when requests are due: the open loop's clock, which never looks at the server.
 *
 * A pure function of kind, rate and seed: the same three give the same arrivals, and how many fall into a window is
 * known before the run. Poisson arrivals (independent users: gaps are exponential) are the default, for queues fill by
 * bursts and evenly spaced requests never show it. */
#ifndef WINNOW_LOAD_SCHEDULE_H
#define WINNOW_LOAD_SCHEDULE_H

#include <stdint.h>

typedef enum arrival_kind {
	ARRIVALS_POISSON,
	ARRIVALS_CONSTANT, /* the k-th at k / rate */
} arrival_kind;

typedef struct schedule {
	arrival_kind kind;
	double rate; /* per second, > 0 */
	uint64_t random, index;
	double at_s; /* of the last Poisson arrival */
} schedule;

void schedule_start(schedule *s, arrival_kind kind, double rate, uint64_t seed);
/* The next arrival, nanoseconds from the start of the run; never before the one before it. */
int64_t schedule_next(schedule *s);
/* How many arrivals lie in [from_ns, until_ns). */
uint64_t schedule_count(arrival_kind kind, double rate, uint64_t seed, int64_t from_ns, int64_t until_ns);

/* splitmix64 (Steele, Lea, Flood 2014); for the order of the ads too. */
uint64_t random_next(uint64_t *state);

#endif
