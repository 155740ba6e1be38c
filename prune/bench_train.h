/* bench_train.h: the time of one training step, for comparison with a peer on the same shape (tests/bench/train_peer.py). */
#ifndef WINNOW_PRUNE_BENCH_TRAIN_H
#define WINNOW_PRUNE_BENCH_TRAIN_H

#include <stdbool.h>

#include "base/error.h"
#include "model/blip2.h"

typedef struct bench_train_options {
	int batch, tokens, label_tokens, runs; /* label_tokens of each sample's tokens, the last ones, carry the loss */
	bool bf16;
} bench_train_options;

/* Milliseconds of each of `runs` steps into times[]: forward, cross-entropy, backward, gradient norm and clipping, AdamW over
 * m's weights (which change). Inputs are random. WN_TOO_LARGE when tokens do not fit the model. */
wn_code bench_train(blip2 *m, const bench_train_options *o, double *times, wn_error *err);

#endif
