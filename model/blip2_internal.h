/* blip2_internal.h: the fields of a model, for blip2_params.c (shapes, names, memory) and blip2.c (computation). */
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

#endif
