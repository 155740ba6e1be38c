/* shapes.h: what the tests of stages, costs and plans share: shapes to start from. */
#ifndef WINNOW_TESTS_COMPRESS_SHAPES_H
#define WINNOW_TESTS_COMPRESS_SHAPES_H

#include "tests/prune/support.h"

#include "model/blip2.h"

/* All blocks alike, without cross-attention. */
static inline stack_config stack(int hidden, int blocks, int heads, int head_dim, int ffn, activation a)
{
	stack_config s = {.hidden_size = hidden, .num_hidden_layers = blocks, .layer_norm_eps = 1e-5f, .activation = a};
	for (int i = 0; i < blocks; i++)
		s.blocks[i] = (block_widths){.num_heads = heads, .head_dim = head_dim, .ffn_dim = ffn};
	return s;
}

/* In every frequency-th block. */
static inline void set_cross(stack_config *s, int frequency, int heads, int head_dim)
{
	for (int i = 0; i < s->num_hidden_layers; i += frequency) {
		s->blocks[i].cross_num_heads = heads;
		s->blocks[i].cross_head_dim = head_dim;
	}
}

/* Widths of the bundled model, four Q-Former blocks, a smaller image and vocabulary. */
static inline blip2_config teacher(void)
{
	blip2_config c = {.image_size = 56, .patch_size = 14, .qkv_bias = true, .num_query_tokens = 16, .cross_attention_frequency = 1,
	                  .vocab_size = 512, .max_position_embeddings = 160, .initializer_range = 0.02f,
	                  .vision = stack(192, 6, 3, 64, 768, ACTIVATION_GELU), .qformer = stack(192, 4, 3, 64, 768, ACTIVATION_GELU),
	                  .text = stack(256, 4, 4, 64, 1024, ACTIVATION_RELU)};
	set_cross(&c.qformer, 1, 3, 64);
	return c;
}

/* Every number another; the first of two Q-Former blocks has cross-attention. */
static inline blip2_config small_shape(void)
{
	blip2_config c = {.image_size = 8, .patch_size = 4, .num_query_tokens = 3, .cross_attention_frequency = 2, .vocab_size = 40,
	                  .max_position_embeddings = 24, .initializer_range = 0.02f,
	                  .vision = stack(24, 3, 2, 12, 40, ACTIVATION_GELU), .qformer = stack(16, 2, 2, 8, 32, ACTIVATION_GELU),
	                  .text = stack(20, 2, 3, 5, 28, ACTIVATION_RELU)};
	set_cross(&c.qformer, 2, 1, 7);
	return c;
}

/* Every second block of six has it, as in BLIP-2. */
static inline blip2_config alternating(void)
{
	blip2_config c = teacher();
	c.qformer = stack(192, 6, 3, 64, 768, ACTIVATION_GELU);
	set_cross(&c.qformer, 2, 3, 64);
	c.cross_attention_frequency = 2;
	return c;
}

#endif
