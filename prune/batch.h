/* batch.h: samples to what blip2_backward reads: token sequences with labels, and augmented, normalised pixels.
 *
 * A sequence is prompt ids, answer ids and (optionally) the end token; only the answer and the end carry labels. The
 * prompt is prompt_encode's and the audit answer prompt_encode_verbalizer's, so training sees exactly what serving will
 * score. Sequences are built once (sequence_set) and padded on the right to a multiple of 8. */
#ifndef WINNOW_PRUNE_BATCH_H
#define WINNOW_PRUNE_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "model/blip2.h"
#include "model/image.h"
#include "model/manifest.h"
#include "model/tokenizer.h"
#include "prune/augment.h"
#include "prune/dataset.h"
#include "prune/image_cache.h"

#define BATCH_TEXT_MULTIPLE 8 /* few distinct lengths, so that few shapes of every primitive exist */
#define LABEL_IGNORED (-100)

typedef struct sequence_spec {
	const tokenizer *tokenizer;
	const manifest *manifest;   /* audit: prompt template, limits, verbalizers */
	const char *caption_prompt; /* NULL: audit sequences; else captions behind this prompt */
	int max_caption_tokens;
	bool blank_text;            /* text and assist are taken as empty (image-only baseline) */
	bool prompts_only;          /* audit sequences without their answers: samples need no label */
	int32_t end_token;          /* appended to the answer; -1: none */
	int max_len;                /* tokens a sequence may have: what is left of the positions beside the queries */
} sequence_spec;

typedef struct sequence_set {
	int32_t *ids;         /* all sequences, one behind the other */
	size_t *start;        /* [count + 1] into ids */
	uint16_t *prompt_len; /* [count]; the answer starts there */
	size_t count;
	int longest;          /* tokens */
} sequence_set;

/* Encodes every sample of d. A sample that cannot be encoded, or a sequence beyond max_len, is an error that names it. */
wn_code sequence_set_build(sequence_set *out, const dataset *d, const sequence_spec *spec, wn_error *err);
void sequence_set_close(sequence_set *s);
static inline int sequence_len(const sequence_set *s, size_t i) { return (int)(s->start[i + 1] - s->start[i]); }
/* Tokens of sample i that carry a label. */
static inline int sequence_answer_len(const sequence_set *s, size_t i) { return sequence_len(s, i) - s->prompt_len[i]; }

typedef struct batch_item {
	const sequence_set *sequences;
	const image_cache *images;
	size_t index; /* sample, in both */
	rng key;      /* of its augmentation */
	bool plain;   /* never augmented */
} batch_item;

typedef struct batch_options {
	image_processor image_processor;
	augment_options augment;
	bool augment_on;   /* false: the cached square is image_preprocess'ed (exact when its side is the model's) */
	bool blank_images; /* the mean colour in place of every image (text-only baseline) */
} batch_options;

typedef struct batch {
	int max_n, max_len; /* capacity; max_len is what the session was opened with */
	int n, text_len;
	float *pixel_values;     /* [n][3][size][size] */
	int32_t *input_ids;      /* [n][text_len] */
	uint8_t *attention_mask; /* [n][text_len] */
	int32_t *labels;         /* [n][text_len] */
	int label_tokens;        /* labels that are not LABEL_IGNORED */
} batch;

/* Room for max_n samples of at most max_len tokens and size x size pixels. */
wn_code batch_open(batch *b, int max_n, int max_len, int size, wn_error *err);
void batch_close(batch *b);

/* Fills b from n items (n <= max_n), in parallel over the OpenMP threads. pad_id fills the ends. Errors: an image that
 * cannot be preprocessed (no memory). */
wn_code batch_fill(batch *b, const batch_item *items, int n, const batch_options *o, int32_t pad_id, wn_error *err);
/* The pictures of n items (their sequences are not looked at) into out [n][3][size][size], in parallel: what batch_fill does. */
wn_code batch_fill_pixels(float *out, const batch_item *items, int n, const batch_options *o, wn_error *err);
/* b as the engine's argument. */
blip2_batch batch_view(const batch *b);

/* len rounded up to BATCH_TEXT_MULTIPLE, but not beyond max_len. */
int batch_round_len(int len, int max_len);

#endif
