/* attend_internal.h: how the kernels of attend.h divide their scratch. */
#ifndef WINNOW_MODEL_ATTEND_INTERNAL_H
#define WINNOW_MODEL_ATTEND_INTERNAL_H

#include "model/attend.h"

enum {
	ATTEND_ROWS = 4,  /* queries worked on together */
	ATTEND_LANES = 16 /* 32-bit words in a vector */
};

static inline size_t attend_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

/* A word is 32 bits: four s8, two bf16 or an f32. Keys have words of neighbouring columns, values words of neighbouring rows. */
typedef struct attend_space {
	size_t keys, dims;  /* up to whole vectors */
	float *scores;      /* [ATTEND_ROWS][keys] */
	void *probs;        /* [ATTEND_ROWS][keys] u8, bf16 or f32 */
	void *q;            /* [ATTEND_ROWS][dims] of the operands' type; of s8 with 128 added: u8 */
	uint32_t *packed_k; /* [keys / 16][words of dims][16] */
	uint32_t *packed_v; /* [words of keys][dims] */
	float *key_scale;   /* [keys], 0 behind the last one; these three of s8 only */
	float *value_scale; /* [keys], likewise */
	int32_t *key_sum;   /* [keys]: -128 times a key's sum */
} attend_space;

/* The parts behind each other from `base`, or with NULL only how many bytes they take. */
static inline size_t attend_lay_out(attend_space *s, char *base, element type, size_t keys, size_t head_dim)
{
	const size_t size = element_size(type), of_s8 = type == ELEMENT_S8;
	size_t at = 0;
	*s = (attend_space){.keys = attend_up(keys, ATTEND_LANES), .dims = attend_up(head_dim, ATTEND_LANES)};
#define PART(field, bytes) (s->field = base ? (void *)(base + at) : NULL, at += attend_up(bytes, 64))
	PART(scores, ATTEND_ROWS * s->keys * sizeof *s->scores);
	PART(probs, ATTEND_ROWS * s->keys * size);
	PART(q, ATTEND_ROWS * s->dims * size);
	PART(packed_k, s->keys * s->dims * size);
	PART(packed_v, s->keys * s->dims * size);
	PART(key_scale, of_s8 * s->keys * sizeof *s->key_scale);
	PART(value_scale, of_s8 * s->keys * sizeof *s->value_scale);
	PART(key_sum, of_s8 * s->keys * sizeof *s->key_sum);
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
