/* label_trie.h: the labels' verbalizers as paths through one trie of tokens, scored together behind a prompt.
 *
 * Inner nodes (those with a successor) are what a forward must see behind the prompt (blip2_batch.tail_len, tail_parent); a
 * label's log-probability is the sum over its path of log-softmax values in the logit rows of the last prompt token (row 0 of
 * a sample) and of inner nodes (rows 1 + k). Leaves cost nothing: only their parents' logits count. No verbalizer's tokens may
 * be the beginning of another's. Immutable once built.
 *
 * A batch of prompts with the trie behind them is laid out here, for serving and for distillation alike: prompts padded on
 * the left, to the longest one rounded up to PROMPT_BUCKET, so that few distinct shapes exist. */
#ifndef WINNOW_MODEL_LABEL_TRIE_H
#define WINNOW_MODEL_LABEL_TRIE_H

#include <stdint.h>

#include "base/error.h"
#include "model/manifest.h"
#include "model/tokenizer.h"

#define PROMPT_BUCKET 8 /* tokens */

/* One factor of a label's probability: log P(token | the row's context). */
typedef struct label_step {
	int16_t row; /* 0: the last prompt token; 1 + k: inner node k */
	int32_t token;
} label_step;

typedef struct label_trie {
	int num_labels;
	label_step *steps; /* of label i: [first_step[i], first_step[i + 1]) */
	int first_step[MAX_LABELS + 1];
	int tail_len;         /* inner nodes; a sample has 1 + tail_len rows of logits */
	int32_t *tail_ids;    /* [tail_len] */
	int16_t *tail_parent; /* [tail_len] */
} label_trie;

/* Errors name the label (a verbalizer that cannot be encoded, one that is a prefix of another). *out zeroed on failure. */
wn_code label_trie_build(label_trie *out, const tokenizer *t, const manifest *man, wn_error *err);
void label_trie_close(label_trie *t);

/* Prompt positions of a batch whose longest prompt has `longest` tokens; `most` is the manifest's max_text_tokens. */
int label_trie_prompt_len(int longest, int most);
/* One sample: the prompt's len tokens at the right end of prompt_len positions, the inner nodes behind them. ids and mask have
 * room for prompt_len + tail_len; padding gets pad_id, or 0 where a model has none (-1): it is masked. */
void label_trie_lay_out(const label_trie *t, int32_t *ids, uint8_t *mask, const int32_t *prompt, int len, int prompt_len,
                        int32_t pad_id);
/* The logit rows of sample i of such a batch into rows [1 + tail_len], as blip2_logits counts them. */
void label_trie_rows(const label_trie *t, int32_t *rows, int i, int queries, int prompt_len);

#endif
