/* text_layout.h: what the text stack must know of a batch: where each row stands, and which rows it sees.
 *
 * The rows of a sample are its queries, then its tokens, the last tail_len of which are a trie of candidate continuations
 * (blip2_batch). Source: OPTLearnedPositionalEmbedding (positions count real tokens, from POSITION_OFFSET) and OPTDecoder's causal
 * mask. Pure functions of the batch. */
#ifndef WINNOW_MODEL_TEXT_LAYOUT_H
#define WINNOW_MODEL_TEXT_LAYOUT_H

#include "base/error.h"
#include "model/blip2.h"

/* WN_TOO_LARGE for a batch beyond max_batch samples and max_text_len tokens, WN_INVALID for a tail that is no trie and for ids
 * and labels outside the vocabulary. */
wn_code text_check(const blip2_batch *b, int max_batch, int max_text_len, int vocab_size, wn_error *err);

/* positions [n][queries + text_len], offset included; padding gets POSITION_OFFSET - 1. A tail node stands one behind its
 * parent. */
void text_positions(int32_t *positions, const blip2_batch *b, int queries);

/* Whether a causal mask alone is not enough. */
bool text_needs_mask(const blip2_batch *b);
/* mask [n][len][len], len = queries + text_len: what is added to scores, beside the causal mask: a large negative number at padding
 * and, inside the tail, at all but a node's ancestors and itself. */
void text_mask(float *mask, const blip2_batch *b, int queries);

#endif
