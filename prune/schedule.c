/* schedule.c: see schedule.h. */
#include "prune/schedule.h"

#include <math.h>

double schedule_lr(const schedule *s, int64_t step)
{
	if (step < s->warmup_steps) /* +1: the very first step must already move the weights */
		return s->peak_lr * (double)(step + 1) / (double)s->warmup_steps;
	int64_t span = s->total_steps - s->warmup_steps;
	if (span <= 0)
		return s->peak_lr;
	if (step >= s->total_steps)
		return s->min_lr;
	double progress = (double)(step - s->warmup_steps) / (double)span;
	return s->min_lr + (s->peak_lr - s->min_lr) * 0.5 * (1.0 + cos(M_PI * progress));
}
