/* sample_plan.h: which samples a step trains on, as a pure function of the step's number.
 *
 * Samples come from one or two streams. A stream is an endless walk over a split: epoch after epoch, each in its own
 * seeded permutation. Of every batch a fixed share (spread evenly when it is not a whole number) is the replay stream's.
 * Walks and shares stand by themselves: distillation draws from other sets by the same rules (prune/compress/transfer.h). */
#ifndef WINNOW_PRUNE_SAMPLE_PLAN_H
#define WINNOW_PRUNE_SAMPLE_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "prune/batch.h"

typedef struct sample_walk {
	size_t count;      /* it walks over [0, count) */
	uint64_t seed, id; /* id tells the walks of a run apart */
	uint32_t *order;   /* the permutation of `epoch`, owned */
	uint64_t epoch;
	bool has_order;
} sample_walk;

/* WN_INVALID for a count of 0. */
wn_code sample_walk_open(sample_walk *w, size_t count, uint64_t seed, uint64_t id, wn_error *err);
void sample_walk_close(sample_walk *w);
/* The index at a position (from 0); position / count is its epoch. */
uint32_t sample_walk_at(sample_walk *w, uint64_t position);

/* How many samples of the first `steps` batches belong to a stream that gets `share` of every batch. */
int64_t sample_share(int64_t steps, int batch_size, double share);

typedef struct stream {
	const sequence_set *sequences; /* borrowed */
	const image_cache *images;     /* borrowed; may be NULL when images are blank */
	sample_walk walk;
} stream;

typedef struct sample_plan {
	stream main, replay; /* replay.sequences NULL: none */
	int batch_size;
	double replay_share;
} sample_plan;

wn_code sample_plan_open(sample_plan *p, int batch_size, double replay_share, uint64_t seed, uint64_t id,
			 const sequence_set *main_sequences, const image_cache *main_images,
			 const sequence_set *replay_sequences, const image_cache *replay_images, wn_error *err);
void sample_plan_close(sample_plan *p);

/* Fills items[batch_size] for step (from 0), longest sequences first, so that micro-batches cut from it need little padding;
 * returns the number of label tokens among them. */
int sample_plan_step(sample_plan *p, int64_t step, batch_item *items);
/* Passes over the main stream that are complete after `steps` steps. */
int64_t sample_plan_epochs(const sample_plan *p, int64_t steps);

#endif
