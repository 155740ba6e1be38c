/* blip2.h: Hugging Face Blip2ForConditionalGeneration with an OPT language model, as three stacks of one block type.
 *
 *   pixel_values [n][3][H][W] -> vision stack -> [n][1+P][Dv] -> (cross-attention) Q-Former stack over the learned
 *   queries -> [n][Q][Dq] -> language_projection -> [n][Q][Dt], in front of the embedded text [n][T][Dt]
 *   -> text stack -> logits [n][Q+T][V]
 *
 * A `blip2` is immutable while sessions use it and may be shared by threads. A `blip2_session` holds every activation of
 * one forward (and backward) in one arena: it belongs to one thread; nothing is allocated after blip2_session_open.
 *
 * Parameters live in one flat float buffer, gradients in another of the same layout: an optimiser, a gradient norm or an
 * all-reduce is one loop. `param` says which part of it a Hugging Face tensor name is. */
#ifndef WINNOW_MODEL_BLIP2_H
#define WINNOW_MODEL_BLIP2_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "model/hf_config.h"

typedef struct blip2 blip2;

typedef enum component { COMPONENT_VISION, COMPONENT_QFORMER, COMPONENT_TEXT } component;

typedef struct param {
	char name[112];   /* Hugging Face's tensor name */
	component component;
	int rank;
	int64_t shape[4];
	size_t offset;    /* floats from the start of the flat buffer */
	size_t count;     /* floats */
	bool decay;       /* AdamW decays it: a matrix, not a bias, norm, position or token */
} param;

/* A model with the given shapes; weights are zero. */
wn_code blip2_create(blip2 **out, const blip2_config *c, wn_error *err);
/* Random initial weights for training from scratch, deterministic in seed: matrices are truncated normals of standard
 * deviation 1/sqrt(fan_in), tables and tokens of config.initializer_range, norms 1/0, biases 0. Hugging Face's constant
 * 0.02 everywhere suits widths near 1000; at the widths here the image's share of the Q-Former's output would start at
 * about a hundredth and the vision stack would not learn (docs/results.md). */
void blip2_init_weights(blip2 *m, uint64_t seed);
void blip2_close(blip2 **m);

const blip2_config *blip2_get_config(const blip2 *m);
size_t blip2_num_params(const blip2 *m);                 /* tensors */
const param *blip2_param(const blip2 *m, size_t i);
const param *blip2_find_param(const blip2 *m, const char *name); /* NULL when absent */
float *blip2_weights(blip2 *m);                          /* the flat buffer, owned by m */
size_t blip2_weights_count(const blip2 *m);              /* floats in it (each parameter starts 64-byte aligned) */
size_t blip2_parameter_count(const blip2 *m);            /* parameters proper, without alignment gaps */

typedef struct blip2_batch {
	int n;                       /* samples */
	int text_len;                /* T: tokens per sample, padding included */
	const float *pixel_values;   /* [n][3][H][W] */
	const int32_t *input_ids;    /* [n][T], each in [0, vocab_size) */
	const uint8_t *attention_mask; /* [n][T], 1 = real token, 0 = padding (left or right); NULL = all ones */
	const int32_t *labels;       /* [n][T], -100 = ignored; position t is predicted from t-1 as in HF; NULL = no loss */
	/* A trie of candidate continuations behind every sample's prompt, scored in one pass: the last tail_len of the T
	 * tokens are its nodes, shared by all samples. tail_parent[k] is k's parent node (< k), or -1 for a child of the
	 * prompt. A node sees the whole prompt, its ancestors and itself, at the position its depth gives it: its logits
	 * are those of a plain forward of that one path. tail_len 0: a plain causal sequence. */
	int tail_len;
	const int16_t *tail_parent;
} blip2_batch;

typedef struct blip2_session blip2_session;

typedef struct blip2_session_options {
	int max_batch;      /* n */
	int max_text_len;   /* T */
	bool training;      /* keep what the backward needs */
	bool use_vision;    /* false: queries see no image (a text-only baseline); default true via blip2_session_defaults */
	bool bf16;          /* matrix products in bf16 with f32 sums (compute.h): faster where the CPU has bf16 instructions */
} blip2_session_options;
blip2_session_options blip2_session_defaults(void); /* {1, 64, false, true, false} */

wn_code blip2_session_open(blip2_session **out, const blip2 *m, const blip2_session_options *opt, wn_error *err);
void blip2_session_close(blip2_session **s);

/* Runs the three stacks. WN_INVALID for ids outside the vocabulary, WN_TOO_LARGE for a batch beyond the session. */
wn_code blip2_forward(blip2_session *s, const blip2_batch *b, wn_error *err);

/* Results of the last forward, owned by the session, valid until the next. */
const float *blip2_vision_hidden(const blip2_session *s);  /* [n][1+P][Dv], after post_layernorm */
const float *blip2_qformer_hidden(const blip2_session *s); /* [n][Q][Dq] */
const float *blip2_text_hidden(const blip2_session *s);    /* [n][Q+T][Dt], after final_layer_norm */
/* logits of `count` rows (row = sample*(Q+T) + position) into out [count][V]. */
void blip2_logits(const blip2_session *s, const int32_t *rows, size_t count, float *out);

/* Mean cross-entropy over the batch's labels != -100 (HF's loss); needs training = true and labels. Adds `scale` times
 * each parameter's gradient to grads (flat, blip2_weights_count floats). *loss gets the unscaled mean; *correct (may be NULL)
 * the number of label tokens whose logit was the largest, *total how many there were. */
wn_code blip2_backward(blip2_session *s, const blip2_batch *b, float scale, float *grads, float *loss, int *correct, int *total, wn_error *err);

/* Vision first: the vision stack alone learns to name the image, without Q-Former and language blocks in between. The mean
 * of its output rows goes through language_projection and final_layer_norm to the tied embedding, and the loss is the
 * cross-entropy of each sample's first label. It adds no parameters, and a vision stack that starts from random weights
 * learns much faster than behind a Q-Former that has learned nothing yet (BLIP-2 itself starts from a trained one).
 * Needs vision and Q-Former of one hidden width (else WN_UNSUPPORTED), a training session with use_vision, and labels.
 * kept[num_kept], ascending grid indices, shows the stack only those patches of every image (NULL: all): half of them cost
 * half (patch dropout; docs/results.md has what was measured). Same results and conventions as blip2_forward followed by blip2_backward. */
wn_code blip2_vision_first(blip2_session *s, const blip2_batch *b, const int32_t *kept, int num_kept, float scale, float *grads, float *loss, int *correct, int *total,
                           wn_error *err);

/* Floating-point operations (2 per multiply-add) of a forward of one sample with text_len tokens and `logit_rows` rows of
 * logits, by component; for inspect and bench. */
double blip2_flops(const blip2_config *c, component which, int text_len, int logit_rows);

#endif
