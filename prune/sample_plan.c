/* sample_plan.c: see sample_plan.h. */
#include "prune/sample_plan.h"

#include <stdlib.h>
#include <string.h>

#define STREAM_ORDER   0x6f72646572u /* keys of the two uses of a stream's seed */
#define STREAM_AUGMENT 0x617567u

wn_code sample_walk_open(sample_walk *w, size_t count, uint64_t seed, uint64_t id, wn_error *err)
{
	*w = (sample_walk){.count = count, .seed = seed, .id = id};
	if (count == 0)
		return wn_fail(err, WN_INVALID, "a split without samples");
	w->order = calloc(count, sizeof *w->order);
	return w->order ? WN_OK : wn_fail(err, WN_NOMEM, "no memory for the order of %zu samples", count);
}

void sample_walk_close(sample_walk *w)
{
	free(w->order);
	*w = (sample_walk){0};
}

uint32_t sample_walk_at(sample_walk *w, uint64_t position)
{
	const uint64_t epoch = position / w->count;
	if (!w->has_order || w->epoch != epoch) {
		rng r = rng_open(w->seed, w->id, STREAM_ORDER, epoch);
		rng_permutation(&r, w->order, w->count);
		w->epoch = epoch;
		w->has_order = true;
	}
	return w->order[position % w->count];
}

int64_t sample_share(int64_t steps, int batch_size, double share)
{
	return (int64_t)((double)steps * batch_size * share);
}

static wn_code open_stream(stream *s, uint64_t seed, uint64_t id, const sequence_set *sequences, const image_cache *images, wn_error *err)
{
	*s = (stream){.sequences = sequences, .images = images};
	return sample_walk_open(&s->walk, sequences->count, seed, id, err);
}

wn_code sample_plan_open(sample_plan *p, int batch_size, double replay_share, uint64_t seed, uint64_t id,
			 const sequence_set *main_sequences, const image_cache *main_images,
			 const sequence_set *replay_sequences, const image_cache *replay_images, wn_error *err)
{
	*p = (sample_plan){.batch_size = batch_size, .replay_share = replay_sequences ? replay_share : 0};
	wn_code rc = open_stream(&p->main, seed, id, main_sequences, main_images, err);
	if (!rc && replay_sequences)
		rc = open_stream(&p->replay, seed, id + 0x7265706c6179u, replay_sequences, replay_images, err);
	if (rc)
		sample_plan_close(p);
	return rc;
}

void sample_plan_close(sample_plan *p)
{
	sample_walk_close(&p->main.walk);
	sample_walk_close(&p->replay.walk);
	*p = (sample_plan){0};
}

static batch_item stream_at(stream *s, uint64_t position)
{
	const uint32_t index = sample_walk_at(&s->walk, position);
	return (batch_item){.sequences = s->sequences,
			    .images = s->images,
			    .index = index,
			    .key = rng_open(s->walk.seed, s->walk.id ^ STREAM_AUGMENT, position / s->walk.count, index)};
}

/* Replay samples in the first `steps` steps; what is left of a batch is the main stream's. */
static int64_t replayed(const sample_plan *p, int64_t steps)
{
	return sample_share(steps, p->batch_size, p->replay_share);
}

int sample_plan_step(sample_plan *p, int64_t step, batch_item *items)
{
	const int64_t r0 = replayed(p, step), r1 = replayed(p, step + 1);
	const int64_t m0 = step * p->batch_size - r0;
	const int from_main = p->batch_size - (int)(r1 - r0);
	int label_tokens = 0;
	for (int i = 0; i < p->batch_size; i++) {
		batch_item it = i < from_main ? stream_at(&p->main, (uint64_t)(m0 + i)) : stream_at(&p->replay, (uint64_t)(r0 + i - from_main));
		const int len = sequence_len(it.sequences, it.index);
		int at = i; /* insertion keeps equals in stream order: no dependence on a library's sort */
		while (at > 0 && sequence_len(items[at - 1].sequences, items[at - 1].index) < len) {
			items[at] = items[at - 1];
			at--;
		}
		items[at] = it;
		label_tokens += sequence_answer_len(it.sequences, it.index);
	}
	return label_tokens;
}

int64_t sample_plan_epochs(const sample_plan *p, int64_t steps)
{
	return (steps * p->batch_size - replayed(p, steps)) / (int64_t)p->main.sequences->count;
}
