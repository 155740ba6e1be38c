/* ad_input.h: one ad of a split, from its files to what a classifier takes, as the server would. */
#ifndef WINNOW_PRUNE_AD_INPUT_H
#define WINNOW_PRUNE_AD_INPUT_H

#include "base/error.h"
#include "model/classifier.h"
#include "prune/dataset.h"
#include "prune/train_config.h"

enum { AD_READ, AD_DECODE, AD_PREPROCESS, AD_TOKENIZE, AD_STAGES };

/* What a model was trained to see, by its lineage; both when that does not say. */
modalities ad_modalities(const manifest *m);

/* Sample i: pixels [3][size][size], ids [max_text_tokens] with *count of them, and out, which points to both. What the model does not
 * see is blank. seconds [AD_STAGES] may be NULL. Errors name the image. */
wn_code ad_input_load(classifier_input *out, const classifier *c, const dataset *d, size_t i, modalities seen, float *pixels, int32_t *ids,
                      double *seconds, wn_error *err);

#endif
