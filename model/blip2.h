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
#include "model/shape.h"

typedef struct blip2 blip2;

/* What one axis of a parameter runs over. Removing an index of such a space from a model means removing it from every axis
 * that runs over it: structured pruning is written over axes, never over names. FFN, self and cross are each block's own. */
typedef enum axis {
	AXIS_FIXED,          /* pixels, patches' positions, the vocabulary */
	AXIS_VISION_HIDDEN,
	AXIS_QFORMER_HIDDEN,
	AXIS_TEXT_HIDDEN,
	AXIS_QUERY,          /* query tokens */
	AXIS_POSITION,       /* the text stack's rows: POSITION_OFFSET that stand for none, the queries', then the text's, which so move
	                      * up when a query goes */
	AXIS_FFN,            /* FFN neurons */
	AXIS_SELF_QK,        /* heads * head_dim, as queries and keys count it: head h's dims are h*head_dim .. */
	AXIS_SELF_V,         /* heads * head_dim, as values and the output projection count it */
	AXIS_SELF_QKV,       /* two thirds AXIS_SELF_QK (q, then k), one third AXIS_SELF_V */
	AXIS_CROSS_QK,
	AXIS_CROSS_V,
} axis;

typedef struct param {
	char name[112];   /* Hugging Face's tensor name */
	component component;
	int block;        /* index in the component's stack; -1: outside of the blocks */
	int role;         /* numbers the parameters of one block (or all outside): the same in every block of a kind */
	int rank;
	int64_t shape[4];
	axis axes[4];
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
/* The one that starts at this offset; NULL when none does. */
const param *blip2_param_at(const blip2 *m, size_t offset);
const param *blip2_find_role(const blip2 *m, component which, int index, int role); /* NULL when absent */
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
	bool keep_hidden;   /* keep every block's state for blip2_view_block; a training session does anyway */
	int max_loss_rows;  /* training: rows of logits that a blip2_loss may read */
	bool bf16;          /* matrix products in bf16 with f32 sums (compute.h): faster where the CPU has bf16 instructions */
} blip2_session_options;
blip2_session_options blip2_session_defaults(void); /* {.max_batch = 1, .max_text_len = 64, .use_vision = true} */

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

/* What a block computed in the last forward; NULL where it has no such part, all of it (and no rows) for a vision block of a
 * session without use_vision. rows = n * (rows a sample). Valid until the next forward of a training or keep_hidden session. */
typedef struct blip2_block_view {
	size_t rows;
	const float *input, *output; /* [rows][hidden] */
	const float *ffn;            /* [rows][ffn_dim]: behind the activation */
	const float *self_qkv;       /* [rows][3*inner]: q, k, v */
	const float *self_context;   /* [rows][inner]: before the output projection */
	const float *cross_q;        /* [rows][cross inner] */
	const float *cross_kv;       /* [encoder_rows][2*cross inner]: k, v */
	const float *cross_context;  /* [rows][cross inner] */
	size_t encoder_rows;
} blip2_block_view;
blip2_block_view blip2_view_block(const blip2_session *s, component which, int index);

/* Any other loss than labels' cross-entropy: distillation. Every callback adds up to one gradient. */
typedef struct blip2_loss {
	const int32_t *rows; /* [count], distinct: rows of the last forward (sample*(Q+T) + position) whose logits are read */
	size_t count;        /* at most the session's max_loss_rows */
	/* logits [count][V]: in, logits; out, the gradient of the loss with respect to them. */
	void (*logits)(void *ctx, float *logits);
	/* May be NULL. Called for every block of the text, the Q-Former, the vision stack (with use_vision), last to first, before
	 * its backward: adds the gradient of the loss with respect to the block's output (blip2_view_block) to d [rows][hidden]. */
	void (*hidden)(void *ctx, component which, int index, float *d);
	void *ctx;
} blip2_loss;

/* Adds the gradient of l over the batch of the last forward to grads. Needs a training session. */
wn_code blip2_backward_loss(blip2_session *s, const blip2_batch *b, const blip2_loss *l, float *grads, wn_error *err);

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
/* Of all components. */
double blip2_request_flops(const blip2_config *c, int text_len, int logit_rows);

#endif
