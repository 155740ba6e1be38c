/* transfer.h: what a student is distilled on: labelled ads, recombinations of them, and batches as the serving path sees them.
 *
 * The labelled items are the first `samples` of a split; ads behind them may take part without their labels. A recombined item
 * puts the picture of one ad beside the words of another: nobody labelled it, the teacher says what it is. Optional further
 * pictures without labels (another split) take the words of the ads as well, other words whenever a picture comes again. The set
 * is a pure function of its options: items are listed once, labelled ones first, then the ads without a label, and a step's items
 * are a pure function of the step's number, so that a run can be resumed and teacher outputs be cached.
 *
 * Augmentation is drawn anew for every step, or (views > 0) once for every item: then an ad is an item for each of its views, the
 * first as it is, and every other item has one augmented view.
 *
 * Recombination goes in rounds: in each, every picture meets the words of one other ad, every ad's words are used once, and no
 * pair comes twice before all have been used.
 *
 * A batch has the prompt padded on the left and the labels' trie behind it, exactly as model/classifier.c scores a request. */
#ifndef WINNOW_PRUNE_COMPRESS_TRANSFER_H
#define WINNOW_PRUNE_COMPRESS_TRANSFER_H

#include <stddef.h>
#include <stdint.h>

#include "base/digest.h"
#include "base/error.h"
#include "model/blip2.h"
#include "model/label_trie.h"
#include "prune/augment.h"
#include "prune/batch.h"
#include "prune/dataset.h"
#include "prune/image_cache.h"

typedef struct transfer_item {
	uint16_t source; /* 0: the ads' pictures, 1: the unlabelled ones */
	uint32_t image;  /* index there */
	uint32_t text;   /* index of an ad */
	bool plain;      /* its picture is never augmented */
	int label;       /* -1: nobody labelled it */
} transfer_item;

typedef struct transfer_options {
	const dataset *labelled;           /* its first `samples` are used */
	size_t samples;
	const dataset *ads;                /* the words of all ads: the labelled ones again and those behind them; may be `labelled` */
	const image_cache *ad_images;
	size_t unlabelled_ads;             /* behind the labelled ones: their own picture and words, no label */
	size_t recombined;                 /* further items; at most ads * (ads - 1), there are no more pairs */
	const image_cache *unlabelled_images; /* may be NULL */
	size_t unlabelled;                 /* further items: its pictures in turn, from the first again when there are more items */
	int views;                         /* of every ad; 0: augmented anew in every step */
	const augment_options *augment;    /* what views are drawn by; may be NULL without them */
	double ads_share;                  /* ads as they are, of every batch, in (0, 1]; counts as 1 when there is nothing else */
	int batch_size;
	uint64_t seed;
	const tokenizer *tokenizer;
	const manifest *manifest;
} transfer_options;

typedef struct transfer_set transfer_set;

/* Borrows what o points to. Reads every picture once, for the digest. WN_INVALID names the option that does not fit the data, or
 * the ad whose prompt cannot be encoded. */
wn_code transfer_open(transfer_set **out, const transfer_options *o, wn_error *err);
void transfer_close(transfer_set **t);
size_t transfer_count(const transfer_set *t);
size_t transfer_labelled(const transfer_set *t); /* items [0, this) have a label, the first `samples` of them as they are */
bool transfer_is_fixed(const transfer_set *t);   /* pixels of an item do not depend on the step, augmented or not */
const transfer_item *transfer_get(const transfer_set *t, size_t i);
/* Item i's prompt into *ids (the set's memory); returns its length in tokens. */
int transfer_prompt(const transfer_set *t, size_t i, const int32_t **ids);
int transfer_longest_prompt(const transfer_set *t);   /* tokens, as a batch pads it: what label_batch_open needs */
const char *transfer_digest(const transfer_set *t);   /* of items, prompts and pixels: names a cache of teacher outputs */
/* Item numbers of a step's batch, longest prompts first, into items [batch_size]. */
void transfer_step(transfer_set *t, int64_t step, uint32_t *items);

typedef struct label_batch {
	int max_n, max_len;           /* capacity; max_len is what a session is to be opened with */
	int image_size;
	int n, text_len, prompt_len;  /* text_len = prompt_len + tail_len; prompt_len: padded */
	float *pixel_values;          /* [n][3][size][size] */
	int32_t *input_ids;           /* [n][text_len] */
	uint8_t *attention_mask;      /* [n][text_len] */
	int *labels;                  /* [n], -1: none */
	uint32_t *items;              /* [n] */
	batch_item *pictures;         /* [n] */
	const label_trie *trie;
} label_batch;

/* Borrows trie. max_prompt: transfer_longest_prompt. */
wn_code label_batch_open(label_batch *b, int max_n, int max_prompt, int image_size, const label_trie *trie, wn_error *err);
void label_batch_close(label_batch *b);
/* n items by number. augment_on: key (seed, step, item), with views (seed, item), draws a picture's augmentation, however a batch is
 * cut. pad_id may be -1. */
wn_code label_batch_fill(label_batch *b, const transfer_set *t, const uint32_t *items, int n, const batch_options *o, int64_t step,
                         int32_t pad_id, wn_error *err);
blip2_batch label_batch_view(const label_batch *b);
/* The rows of logits of a model with `queries` query tokens: rows [n * (1 + tail_len)]. Returns how many. */
size_t label_batch_rows(const label_batch *b, int queries, int32_t *rows);

#endif
