/* bpe_write.h: the trainer's vocabulary and merges as a tokenizer.json. */
#ifndef WINNOW_MODEL_BPE_WRITE_H
#define WINNOW_MODEL_BPE_WRITE_H

#include "model/intern.h"
#include "model/tokenizer.h"

typedef struct bpe_pair {
	uint32_t left, right; /* ids: entries of the vocabulary */
} bpe_pair;

/* Replaces `path` by rename, so a reader sees the old file or the whole new one. */
wn_code bpe_write_json(const char *path, const intern *vocab, const bpe_pair *merges, size_t num_merges,
                       const bpe_trainer_options *opt, wn_error *err);

#endif
