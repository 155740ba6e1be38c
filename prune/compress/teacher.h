/* teacher.h: the teacher's answers and hidden states for a batch: computed, or read back from a cache on disk.
 *
 * Without augmentation an item's outputs never change, so they are computed once, before the first step, and kept, without
 * padding, in CACHE/teacher-<digest>.bin (teacher_cache.h), named by the digest of the teacher's weights and shape, the transfer set,
 * the labels' trie, what becomes of a picture and what is kept. Logits are kept in f32: cached answers are those of the batch
 * that the cache was filled from, and differ from those of another batch by rounding only; it is filled in batches of one size,
 * so that they are the same whichever run filled it. Hidden states are kept in bf16, each value
 * to 2^-8 (0.4 %) of its size: a student that matches that closely has nothing left to learn from them. A file with hidden states
 * also serves whoever wants none. A fill that is stopped or killed is continued by the next one.
 * With augmentation, or when the file would be larger than the limit, the teacher runs beside the student. Belongs to one
 * thread. */
#ifndef WINNOW_PRUNE_COMPRESS_TEACHER_H
#define WINNOW_PRUNE_COMPRESS_TEACHER_H

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>

#include "base/error.h"
#include "model/blip2.h"
#include "prune/compress/transfer.h"

#define TEACHER_FILL_BATCH 16 /* items that the cache is filled by; the last batch may be smaller */

/* What is pointed to is borrowed until teacher_close; the weights must not change meanwhile. */
typedef struct teacher_options {
	const blip2 *model;
	const char *digest;       /* of its weights */
	const transfer_set *set;
	const label_trie *trie;
	const batch_options *batch;
	int32_t pad_id;
	int micro_batch;          /* largest n of a teacher_run */
	bool hidden;              /* block outputs are wanted */
	bool bf16;                /* compute in bf16 */
	const char *cache_dir;    /* NULL: no cache */
	int64_t cache_limit;      /* bytes */
	volatile sig_atomic_t *stop; /* may be NULL */
	FILE *out;                /* progress; may be NULL */
	double log_seconds;       /* between lines of progress in a log; 0: 10 */
	double sync_seconds;      /* of filling that a kill may cost; 0: 30 */
} teacher_options;

typedef struct teacher teacher;

/* Fills the cache when there is to be one and it is not there yet. WN_CANCELLED when stopped. */
wn_code teacher_open(teacher **out, const teacher_options *o, wn_error *err);
void teacher_close(teacher **t);
bool teacher_is_cached(const teacher *t);

/* The outputs for b's items, valid until the next call. b: of the set and the trie given at open. */
wn_code teacher_run(teacher *t, const label_batch *b, wn_error *err);
/* The next batch's items: where outputs are cached, the disk fetches them while this batch is worked on. */
void teacher_prefetch(const teacher *t, const uint32_t *items, int n);
const float *teacher_logits(const teacher *t); /* [n][1 + tail_len][V] */
/* Output of a teacher's block for the whole batch, [n * rows][hidden_size], rows as the teacher's own forward of b lays them
 * out (Q + text_len in the text stack); padding rows are undefined. NULL without hidden. */
const float *teacher_hidden(const teacher *t, component which, int block);

#endif
