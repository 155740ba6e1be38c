/* schedule.c: see schedule.h. */
#include "load/schedule.h"

#include <math.h>

uint64_t random_next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

void schedule_start(schedule *s, arrival_kind kind, double rate, uint64_t seed)
{
	*s = (schedule){.kind = kind, .rate = rate, .random = seed};
	s->random = random_next(&s->random); /* neighbouring seeds start far apart */
}

int64_t schedule_next(schedule *s)
{
	if (s->kind == ARRIVALS_CONSTANT)
		return llround((double)s->index++ / s->rate * 1e9); /* from the index: gaps that are added up drift */
	/* (0, 1]: log never sees 0 */
	const double u = ((double)(random_next(&s->random) >> 11) + 1) * 0x1p-53;
	s->at_s -= log(u) / s->rate;
	s->index++;
	return llround(s->at_s * 1e9);
}

uint64_t schedule_count(arrival_kind kind, double rate, uint64_t seed, int64_t from_ns, int64_t until_ns)
{
	schedule s;
	uint64_t n = 0;
	schedule_start(&s, kind, rate, seed);
	for (int64_t t; (t = schedule_next(&s)) < until_ns;)
		n += t >= from_ns;
	return n;
}
