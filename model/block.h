/* block.h: the one transformer block of all three stacks, forward and backward, f32.
 *
 * A block is three residual sublayers: self-attention, optional cross-attention, FFN. Each is, by norm placement,
 *     pre-norm  (vision, OPT):  out = x + inner(LN(x))          Blip2EncoderLayer, OPTDecoderLayer
 *     post-norm (Q-Former):     out = LN(x + inner(x))          Blip2QFormerLayer
 * and a block has its own widths, so a partly pruned model is an ordinary model.
 *
 * Parameters are offsets (in floats) into a flat buffer: the same numbers find a weight and its gradient. Query, key and
 * value matrices of one attention stand next to each other, so they are multiplied as one. */
#ifndef WINNOW_MODEL_BLOCK_H
#define WINNOW_MODEL_BLOCK_H

#include <stdbool.h>
#include <stddef.h>

#include "base/arena.h"
#include "model/compute.h"
#include "model/hf_config.h"

#define NO_PARAM ((size_t)-1)

typedef struct norm_params {
	size_t weight, bias; /* [hidden] */
} norm_params;

typedef struct attention_params {
	int num_heads, head_dim; /* inner = num_heads * head_dim */
	int kv_width;            /* cross-attention: width of the encoder's rows; 0 = self-attention */
	size_t qkv_weight;       /* self: [3*inner][hidden] (q, k, v); cross: [inner][hidden] (q) */
	size_t qkv_bias;         /* self: [3*inner]; cross: [inner]; or NO_PARAM */
	size_t kv_weight;        /* cross: [2*inner][kv_width] (k, v) */
	size_t kv_bias;          /* cross: [2*inner] */
	size_t out_weight;       /* [hidden][inner] */
	size_t out_bias;         /* [hidden] */
	norm_params norm;
} attention_params;

typedef struct block {
	int hidden;
	bool pre_norm;
	bool causal;
	float eps;
	activation activation;
	attention_params self;
	attention_params cross; /* num_heads 0: none */
	int ffn_dim;
	size_t fc1_weight, fc1_bias; /* [ffn_dim][hidden], [ffn_dim] */
	size_t fc2_weight, fc2_bias; /* [hidden][ffn_dim], [hidden] */
	norm_params ffn_norm;
} block;

/* What one residual sublayer leaves behind, rows = n * len. */
typedef struct sublayer_state {
	float *normed;      /* [rows][hidden]: pre-norm: LN(x); post-norm: the output */
	float *mean, *rstd; /* [rows] */
	float *sum;         /* [rows][hidden]: x + inner; pre-norm: the output */
} sublayer_state;

typedef struct attention_state {
	float *qkv;     /* [rows][3*inner], cross: [rows][inner] */
	float *kv;      /* cross: [n*kv_len][2*inner] */
	float *probs;   /* [n][num_heads][len][kv_len] */
	float *context; /* [rows][inner]: before the output projection */
	sublayer_state sub;
} attention_state;

typedef struct block_state {
	attention_state self, cross;
	float *pre, *act; /* [rows][ffn_dim]; the same memory when no backward follows */
	sublayer_state ffn;
} block_state;

/* The sizes of one run. */
typedef struct block_run {
	const compute *cx;
	int n, len;              /* samples, rows a sample */
	const float *mask;       /* self-attention: [n][len][len] additive, or NULL */
	const float *encoder;    /* cross-attention's rows [n*encoder_len][kv_width], or NULL */
	int encoder_len;
} block_run;

/* Lays the state for at most n samples of len rows out in `a` (dry or mapped). False when it does not fit. */
bool block_state_alloc(block_state *st, arena *a, const block *b, int n, int len, int encoder_len, bool training);

/* x: [n*len][hidden], kept by the caller until the backward. Returns the output, inside st. */
const float *block_forward(const block *b, const float *weights, block_state *st, const float *x, const block_run *run);

/* Scratch of the backward, shared by the blocks of a session. */
typedef struct block_scratch {
	float *wide;      /* [rows][max(ffn_dim, 3*inner)] */
	float *kv;        /* [n*encoder_len][2*inner] */
	float *context;   /* [rows][inner] */
	float *hidden;    /* [rows][hidden] */
	float *attention; /* attention_scratch() */
} block_scratch;
bool block_scratch_alloc(block_scratch *sc, arena *a, const block *blocks, int count, int n, int len, int encoder_len);

/* d: in, the gradient of the output [n*len][hidden]; out, that of x. Adds to grads; adds the encoder rows' gradient to
 * d_encoder [n*encoder_len][kv_width] when not NULL. */
void block_backward(const block *b, const float *weights, float *grads, const block_state *st, const float *x, float *d,
                    float *d_encoder, const block_run *run, const block_scratch *sc);

#endif
