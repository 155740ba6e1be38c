/* samples.h: every request of a run, one small record each.
 *
 * Kept whole rather than in a histogram: percentiles are then exact, and every question of a report (by status, by
 * second, while a model was swapped) is asked afterwards, when nothing is being timed. Blocks of fixed size: growing
 * never copies, for a copy of a hundred megabytes in the middle of a run would be a stall of our own. */
#ifndef WINNOW_LOAD_SAMPLES_H
#define WINNOW_LOAD_SAMPLES_H

#include <stddef.h>

#include "base/error.h"
#include "load/outcome.h"

#define SAMPLES_PER_BLOCK 65536
#define SAMPLES_MAX       ((size_t)20000000) /* 640 MB */

enum {
	SAMPLE_WAITED = 1,      /* no connection was free when it was due */
	SAMPLE_LABEL_RIGHT = 2, /* checked: equals the ad's label */
	SAMPLE_LABEL_WRONG = 4, /* another, or none in the answer */
};

typedef struct sample {
	int64_t scheduled_ns; /* from the start of the run */
	int64_t latency_ns;   /* from the scheduled time to the last byte of the answer, or to the failure */
	float
	    own_lag_s; /* how late the load generator itself was: scheduled to begun, less the wait for a connection */
	float send_lag_s; /* scheduled to the first byte sent; negative: none was */
	outcome outcome;
	uint16_t flags; /* SAMPLE_* */
} sample;

typedef struct samples {
	sample **blocks; /* owned, each [SAMPLES_PER_BLOCK] */
	size_t count;
} samples;

wn_code samples_add(samples *s, const sample *one, wn_error *err);
static inline const sample *samples_at(const samples *s, size_t i)
{
	return &s->blocks[i / SAMPLES_PER_BLOCK][i % SAMPLES_PER_BLOCK];
}
void samples_close(samples *s);

#endif
