/* hf_config.h: Hugging Face's Blip2Config (config.json) as plain numbers, and per-block widths where a model differs from
 * what config.json can say (winnow.json, "widths").
 *
 * Source: transformers 5.12 Blip2Config, Blip2VisionConfig, Blip2QFormerConfig, OPTConfig; absent keys take the defaults
 * of those classes. Keys that change nothing winnow computes (dropout, generation settings, id2label …) are ignored. */
#ifndef WINNOW_MODEL_HF_CONFIG_H
#define WINNOW_MODEL_HF_CONFIG_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

#define MAX_BLOCKS 128

typedef enum activation { ACTIVATION_NONE, ACTIVATION_GELU, ACTIVATION_RELU } activation;

#define MAX_HIDDEN 65536 /* any width: hidden_size, ffn_dim, heads * head_dim */

/* One transformer block's own widths. The attention's inner width is num_heads * head_dim. */
typedef struct block_widths {
	int num_heads;
	int head_dim;
	int cross_num_heads; /* 0 when the block has no cross-attention */
	int cross_head_dim;
	int ffn_dim;
} block_widths;

typedef struct stack_config {
	int hidden_size;
	int num_hidden_layers;
	float layer_norm_eps;
	activation activation;
	block_widths blocks[MAX_BLOCKS]; /* the first num_hidden_layers are set */
} stack_config;

typedef struct blip2_config {
	stack_config vision;
	stack_config qformer;
	stack_config text;
	int image_size; /* pixels; square */
	int patch_size;
	bool qkv_bias;                /* vision attention has a qkv bias */
	int num_query_tokens;
	int cross_attention_frequency; /* Q-Former block i has cross-attention when i % frequency == 0 */
	int vocab_size;
	int max_position_embeddings; /* text; the table has 2 more rows (OPT's offset) */
	int bos_token_id, eos_token_id, pad_token_id; /* -1: null */
	/* Stock transformers (since 4.46) takes num_query_tokens of this id in input_ids as the place of the queries and cannot
	 * run a forward without it; winnow puts the queries in front itself. -1: null. */
	int image_token_index;
	float initializer_range;
	char torch_dtype[16]; /* what config.json declares ("float32", "bfloat16", …), for writing back; "" = float32 */
} blip2_config;

/* Fills *out from the text of a config.json. One error names the key, what was found and what is supported
 * (WN_UNSUPPORTED for variants winnow does not run: model_type other than blip-2, text model other than opt,
 * word_embed_proj_dim != hidden_size, do_layer_norm_before false, other activations, tie_word_embeddings false …). */
wn_code hf_config_parse(blip2_config *out, const char *json, size_t len, wn_error *err);
wn_code hf_config_read(blip2_config *out, const char *path, wn_error *err);

/* True when every stack's blocks share one width config.json can express (heads*head_dim == hidden_size, …), and some
 * cross_attention_frequency says which Q-Former blocks have cross-attention. */
bool hf_config_is_uniform(const blip2_config *c);

/* The cross_attention_frequency that gives exactly the blocks with cross_num_heads > 0 (c's own when it does, else the
 * smallest that does), or 0: dropping Q-Former blocks changes the pattern. hf_config_write writes it. */
int hf_config_cross_frequency(const blip2_config *c);

/* The config.json text (malloc'ed, caller frees) that stock transformers loads, with the keys its save_pretrained writes;
 * what winnow does not model (dropout, …) takes the classes' defaults. Widths that are not uniform are not in it: they go to
 * winnow.json, and the file then holds the nearest numbers hf_config_parse accepts. NULL on no memory. */
char *hf_config_write(const blip2_config *c);

#endif
