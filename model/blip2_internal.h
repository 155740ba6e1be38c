/* blip2_internal.h: the fields of a model and of a session, for blip2_params.c (shapes, names, memory), blip2.c (a session's
 * memory, the forward) and blip2_backward.c (losses and gradients). */
#ifndef WINNOW_MODEL_BLIP2_INTERNAL_H
#define WINNOW_MODEL_BLIP2_INTERNAL_H

#include "base/arena.h"
#include "model/blip2.h"
#include "model/stack.h"

struct blip2 {
	blip2_config config;
	param *params;
	size_t num_params, capacity;
	size_t weights_count; /* floats of the flat buffer */
	arena memory;         /* holds weights */
	float *weights;
	bool without_matrices; /* they are an engine's alone (weight_source_fill_small) */

	stack vision, qformer, text;
	/* Offsets of what stands outside the blocks. */
	size_t class_embedding;              /* [1][1][Dv] */
	size_t vision_position;              /* [1][1+P][Dv] */
	size_t patch_weight, patch_bias;     /* [Dv][3][patch][patch], [Dv] */
	norm_params vision_norm;             /* post_layernorm */
	size_t query_tokens;                 /* [1][Q][Dq] */
	norm_params query_norm;              /* qformer.layernorm */
	size_t projection_weight, projection_bias; /* [Dt][Dq], [Dt] */
	size_t token_embedding;              /* [V][Dt], also the LM head */
	size_t text_position;                /* [max_position_embeddings + 2][Dt] */
	norm_params text_norm;               /* final_layer_norm */
};

/* Patches of an image: (image_size / patch_size)^2. */
static inline int blip2_num_patches(const blip2_config *c)
{
	int grid = c->image_size / c->patch_size;
	return grid * grid;
}

#define LOGIT_CHUNK 256     /* rows of logits made at a time: bounds the scratch for a large vocabulary */

typedef struct norm_state {
	float *out, *mean, *rstd; /* [rows][d], [rows], [rows] */
} norm_state;

struct blip2_session {
	const blip2 *m;
	blip2_session_options opt;
	arena memory;
	int n, t, len; /* of the last forward: samples, text tokens, Q + T */
	const int32_t *kept; /* patches that the vision stack sees; NULL = all */
	int patches_seen;
	compute cx;

	float *patches;  /* [n*P][3*patch*patch] */
	float *embedded; /* [n*P][Dv]; in the backward its gradient */
	float *vision_x; /* [n*(1+P)][Dv] */
	stack_state vision;
	const float *vision_last; /* input of post_layernorm */
	norm_state vision_norm;
	norm_state query_norm; /* [Q][Dq] */
	float *query_x;        /* [n*Q][Dq] */
	stack_state qformer;
	const float *qformer_last;
	float *projected; /* [n*Q][Dt]; in the backward its gradient */
	float *text_x;    /* [n*(Q+T)][Dt] */
	stack_state text;
	const float *text_last;
	norm_state text_norm;
	int32_t *positions; /* [n][Q+T], offset included */
	float *mask;        /* [n][Q+T][Q+T] */
	bool use_mask;

	/* rows of logits */
	int32_t *rows; /* [n*T] */
	int32_t *targets;
	float *logit_in; /* [LOGIT_CHUNK][Dt] */
	float *logit_d;  /* [LOGIT_CHUNK][Dt] */
	float *logits;   /* [LOGIT_CHUNK][V] */

	/* backward */
	float *d_text, *d_norm; /* [n*(Q+T)][Dt] */
	float *d_query, *d_vision, *d_vision_norm;
	block_scratch vision_scratch, qformer_scratch, text_scratch;
};

/* Checks a batch, takes its sizes, and rounds the weights as they are now when products run in bf16. */
wn_code blip2_begin(blip2_session *s, const blip2_batch *b, wn_error *err);
/* Fills vision_norm.out from the batch's pixels, for the patches in s->kept. */
void blip2_vision_forward(blip2_session *s, const blip2_batch *b);
/* The sizes of the last forward, as the stacks take them. */
block_run blip2_qformer_run(const blip2_session *s);
block_run blip2_text_run(const blip2_session *s);
/* logits [count][V] of rows of text_norm.out; count at most what the session has room for. Leaves the gathered rows in logit_in. */
void blip2_logits_of(const blip2_session *s, const int32_t *rows, size_t count, float *out);

#endif
