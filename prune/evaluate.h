/* evaluate.h: a model over a split: label probabilities (through the classifier, as serving does) or caption loss.
 *
 * Label evaluation uses classifier sessions and pixels that image_preprocess makes from squares of the model's own size,
 * which are exactly what it makes of the files (image_cache.h): a validation accuracy here is the server's accuracy. */
#ifndef WINNOW_PRUNE_EVALUATE_H
#define WINNOW_PRUNE_EVALUATE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "model/blip2.h"
#include "model/classifier.h"
#include "prune/batch.h"
#include "prune/metrics.h"

typedef struct eval_data {
	const dataset *dataset;
	const image_cache *images;      /* side = the model's image size */
	const sequence_set *sequences;  /* audit: the prompt part is used; caption: whole sequences */
	const batch_options *batch;     /* augment_on false */
	size_t limit;                   /* samples; 0: all */
	int batch_size;
	int (*cancelled)(void *ctx);    /* may be NULL; nonzero stops with WN_CANCELLED */
	void *ctx;
} eval_data;

/* Probabilities of the labels for the first samples (limit), and what metrics_compute makes of them. */
wn_code evaluate_audit(const eval_data *d, const classifier *c, metrics *out, wn_error *err);

#define EVAL_HEAD_TOKENS 4

typedef struct caption_metrics {
	size_t count;          /* samples */
	double loss;           /* mean cross-entropy of answer tokens */
	double token_accuracy; /* answer tokens whose logit was the largest, given the true tokens before them */
	double exact_match;    /* samples whose first EVAL_HEAD_TOKENS answer tokens (or all, when fewer) were all so: what
	                        * greedy decoding would have written */
} caption_metrics;

/* vision_alone: of each sample's first answer token only, by the short way that blip2_vision_first trains: what there is to
 * measure before the language model has learned anything. */
wn_code evaluate_captions(const eval_data *d, const blip2 *m, int max_len, bool vision_alone, caption_metrics *out, wn_error *err);

#endif
