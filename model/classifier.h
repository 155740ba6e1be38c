/* classifier.h: prompt + image in, label probabilities out.
 *
 * As in the paper the language model answers with the label's text: p(label) = softmax over labels of
 * log P(verbalizer tokens | image, prompt), computed exactly (arXiv 2312.05795, section 3).
 * The verbalizers' tokens form a trie that is scored in one forward behind the prompt (blip2_batch.tail_len), with logits on
 * the rows that have a successor only. No verbalizer's tokens may be the beginning of another's: with that, no end token is
 * needed for the labels to be disjoint events.
 *
 * Prompts of one batch are padded on the left, to the longest one rounded up to PROMPT_BUCKET (label_trie.h); padding is masked
 * and does not change an answer.
 *
 * A classifier is immutable and shared; a classifier_session is one thread's scratch. */
#ifndef WINNOW_MODEL_CLASSIFIER_H
#define WINNOW_MODEL_CLASSIFIER_H

#include "base/error.h"
#include "model/checkpoint.h"
#include "model/engine.h"

typedef struct classifier classifier;
typedef struct classifier_session classifier_session;

typedef struct classifier_options {
	checkpoint_options load;
	const precision *precision; /* NULL: the model's own (checkpoint_precision) */
} classifier_options;

/* Loads dir, a layer at a time, and requires tokenizer, image processor and winnow.json with labels. classifier_checkpoint()'s model then
 * has no matrices. opt may be NULL. */
wn_code classifier_open(classifier **out, const char *dir, const classifier_options *opt, wn_error *err);
/* Takes ownership of a loaded checkpoint's content (zeroes *ckpt on success), in its own precision. */
wn_code classifier_from_checkpoint(classifier **out, checkpoint *ckpt, wn_error *err);
/* The same in another one. Weights that were left to ckpt's source (checkpoint_options.leave_weights) are taken a layer at a time. */
wn_code classifier_from_checkpoint_as(classifier **out, checkpoint *ckpt, precision run_in, wn_error *err);
/* The same over parts that the caller keeps, unchanged and alive, until classifier_close: a trainer's validation. It
 * answers with the weights as they are now, in f32. classifier_checkpoint() then has no digest. */
wn_code classifier_borrow(classifier **out, const blip2 *m, const tokenizer *t, const image_processor *ip,
                          const manifest *man, wn_error *err);
/* The same with an engine of one's own choice. */
wn_code classifier_borrow_as(classifier **out, const blip2 *m, const tokenizer *t, const image_processor *ip, const manifest *man,
                             const engine_options *o, wn_error *err);
void classifier_close(classifier **c);

const checkpoint *classifier_checkpoint(const classifier *c);
const engine *classifier_engine(const classifier *c);
int classifier_num_labels(const classifier *c);
const label_spec *classifier_label(const classifier *c, int i);

/* n samples at most per run; everything is allocated here. */
wn_code classifier_session_open(classifier_session **out, const classifier *c, int max_batch, wn_error *err);
void classifier_session_close(classifier_session **s);
/* Bytes of its memory, oneDNN's scratch apart. */
size_t classifier_session_bytes(const classifier_session *s);
/* OpenMP threads that each run takes: those of its opening, or as many as have something to do. */
int classifier_session_threads(const classifier_session *s);

/* oneDNN primitives made so far. */
int classifier_session_created(const classifier_session *s);

/* Runs every shape that classifier_run can meet once, so that the first real request finds pages, caches and primitives
 * ready. Call it on the thread that will run the session. */
wn_code classifier_warm(classifier_session *s, wn_error *err);
/* The same in steps of one run each, for a thread that must answer requests in between: shapes 0 to count - 1. */
int classifier_warm_count(const classifier_session *s);
wn_code classifier_warm_shape(classifier_session *s, int shape, wn_error *err);

/* Builds the prompt ids (prompt.h) from UTF-8 text and assist (either may be ""; invalid UTF-8: WN_INVALID). ids must hold the
 * manifest's max_text_tokens; *count gets the number. Pure function of c: any thread may call it. */
wn_code classifier_encode_prompt(const classifier *c, const char *text, const char *assist, int32_t *ids, int *count, wn_error *err);

typedef struct classifier_input {
	const float *pixel_values; /* [3][size][size] from image_preprocess */
	const int32_t *prompt_ids; /* from classifier_encode_prompt */
	int prompt_len;
} classifier_input;

/* probs: [n][num_labels]. */
wn_code classifier_run(classifier_session *s, const classifier_input *in, int n, float *probs, wn_error *err);

/* From now on f sees the logits [rows][vocab_size] of every run: of the prompt's last token, and of the verbalizers'. */
void classifier_observe(classifier_session *s, void (*f)(void *ctx, const float *logits, size_t rows, size_t vocab_size), void *ctx);

typedef struct verdict {
	action suggestion;
	int label;   /* index of the most probable label */
	float score; /* its probability */
} verdict;
/* The manifest's decision rule (manifest.h) over one sample's probabilities. */
verdict classifier_decide(const classifier *c, const float *probs);

#endif
