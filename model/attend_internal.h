/* attend_internal.h: how the kernels of attend.h divide their scratch. */
#ifndef WINNOW_MODEL_ATTEND_INTERNAL_H
#define WINNOW_MODEL_ATTEND_INTERNAL_H

#include "model/attend.h"

enum {
	ATTEND_ROWS = 4,  /* queries worked on together */
	ATTEND_LANES = 16 /* 32-bit values in a vector */
};

static inline size_t attend_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

typedef struct attend_space {
	size_t keys, dims;  /* up to whole vectors */
	float *scores;      /* [ATTEND_ROWS][keys] */
	float *key_scale;   /* [keys], 0 behind the last one */
	float *value_scale; /* [keys], likewise */
	int32_t *key_sum;   /* [keys]: -128 times a key's sum */
	int8_t *packed_k;   /* [keys / 16][dims / 4][16][4] */
	int8_t *packed_v;   /* [keys / 4][dims / 16][16][4] */
	uint8_t *probs;     /* [ATTEND_ROWS][keys] */
	uint8_t *q;         /* [ATTEND_ROWS][dims], 128 added */
} attend_space;

/* The parts behind each other from `base`, or with NULL only how many bytes they take. */
static inline size_t attend_lay_out(attend_space *s, char *base, size_t keys, size_t head_dim)
{
	size_t at = 0;
	*s = (attend_space){.keys = attend_up(keys, ATTEND_LANES), .dims = attend_up(head_dim, ATTEND_LANES)};
#define PART(field, count) (s->field = base ? (void *)(base + at) : NULL, at += attend_up((count) * sizeof *s->field, 64))
	PART(scores, ATTEND_ROWS * s->keys);
	PART(key_scale, s->keys);
	PART(value_scale, s->keys);
	PART(key_sum, s->keys);
	PART(packed_k, s->keys * s->dims);
	PART(packed_v, s->keys * s->dims);
	PART(probs, ATTEND_ROWS * s->keys);
	PART(q, ATTEND_ROWS * s->dims);
#undef PART
	return at;
}

static inline size_t attend_position(const attend_queries *q, size_t i) { return q->rows ? (size_t)q->rows[i] % q->len : q->first + i; }

/* Keys that the query at `position` may see. */
static inline size_t attend_valid(const attend_job *j, size_t position)
{
	return j->causal && position + 1 < j->keys ? position + 1 : j->keys;
}

#endif
