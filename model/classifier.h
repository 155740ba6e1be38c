/* classifier.h: prompt + image in, label probabilities out.
 *
 * As in the paper the language model answers with the label's text: p(label) = softmax over labels of
 * log P(verbalizer tokens | image, prompt), computed exactly (arXiv 2312.05795, section 3).
 * A classifier is immutable and shared; a classifier_session is one thread's scratch. */
#ifndef WINNOW_MODEL_CLASSIFIER_H
#define WINNOW_MODEL_CLASSIFIER_H

#include "base/error.h"
#include "model/checkpoint.h"

typedef struct classifier classifier;
typedef struct classifier_session classifier_session;

/* Loads dir (checkpoint_load with opt) and requires tokenizer, image processor and winnow.json with labels. */
wn_code classifier_open(classifier **out, const char *dir, const checkpoint_options *opt, wn_error *err);
/* Takes ownership of a loaded checkpoint's content (zeroes *ckpt on success). */
wn_code classifier_from_checkpoint(classifier **out, checkpoint *ckpt, wn_error *err);
void classifier_close(classifier **c);

const checkpoint *classifier_checkpoint(const classifier *c);
int classifier_num_labels(const classifier *c);
const label_spec *classifier_label(const classifier *c, int i);

/* n samples at most per run; everything is allocated here. */
wn_code classifier_session_open(classifier_session **out, const classifier *c, int max_batch, wn_error *err);
void classifier_session_close(classifier_session **s);

/* Builds the prompt ids from UTF-8 text and assist (either may be ""; invalid UTF-8: WN_INVALID). ids must hold the
 * manifest's max_text_tokens; *count gets the number. Pure function of c: any thread may call it. */
wn_code classifier_encode_prompt(const classifier *c, const char *text, const char *assist, int32_t *ids, int *count, wn_error *err);

typedef struct classifier_input {
	const float *pixel_values; /* [3][size][size] from image_preprocess */
	const int32_t *prompt_ids; /* from classifier_encode_prompt */
	int prompt_len;
} classifier_input;

/* probs: [n][num_labels]. */
wn_code classifier_run(classifier_session *s, const classifier_input *in, int n, float *probs, wn_error *err);

typedef struct verdict {
	action suggestion;
	int label;   /* index of the most probable label */
	float score; /* its probability */
} verdict;
/* The manifest's decision rule (manifest.h) over one sample's probabilities. */
verdict classifier_decide(const classifier *c, const float *probs);

#endif
