/* schedule.h: the learning rate as a pure function of the step: linear warm-up, then half a cosine down to a floor.
 *
 * Source: transformers get_cosine_schedule_with_warmup, with a floor (min_lr) instead of zero. Being pure, it needs no
 * state in a checkpoint. */
#ifndef WINNOW_PRUNE_SCHEDULE_H
#define WINNOW_PRUNE_SCHEDULE_H

#include <stdint.h>

typedef struct schedule {
	double peak_lr, min_lr;
	int64_t warmup_steps; /* step warmup_steps-1 is the first at peak_lr */
	int64_t total_steps;
} schedule;

/* step counts from 0; steps at and after total_steps stay at min_lr. */
double schedule_lr(const schedule *s, int64_t step);

#endif
