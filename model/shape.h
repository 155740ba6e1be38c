/* shape.h: what is asked about the widths of a model, stack by stack: are two the same, are a stack's blocks alike, and what do
 * they look like as JSON.
 *
 * A shape is a blip2_config (hf_config.h), of which only the numbers that say what parameters there are count here. Stateless;
 * any thread. */
#ifndef WINNOW_MODEL_SHAPE_H
#define WINNOW_MODEL_SHAPE_H

#include <stdbool.h>

#include <jansson.h>

#include "base/error.h"
#include "model/hf_config.h"

typedef enum component { COMPONENT_VISION, COMPONENT_QFORMER, COMPONENT_TEXT } component;
#define NUM_COMPONENTS 3

/* The stack of a component, and what it is called in JSON and messages: "vision", "qformer", "text". */
const stack_config *shape_stack(const blip2_config *shape, component which);
stack_config *shape_stack_in(blip2_config *shape, component which); /* to be written to */
const char *shape_stack_name(component which);

bool shape_same_widths(const block_widths *a, const block_widths *b);
/* Do two models have parameters of the same names and sizes, and the same activations between them? */
bool shape_same(const blip2_config *a, const blip2_config *b);
/* What makes up a shape beside widths, blocks and queries must be the source's: WN_INVALID names the first number that is not
 * (image, patch and vocabulary sizes, positions, qkv_bias, activations, layer_norm_eps). */
wn_code shape_check_fixed(const blip2_config *found, const blip2_config *source, wn_error *err);

/* Are all blocks of a stack alike, but for where cross-attention is? *out: the widths of one that has it, if any has (of
 * unlike blocks: the first's, with the first cross-attention). */
bool shape_common_widths(block_widths *out, const stack_config *s);

/* ---- JSON ---- */

/* [{"num_heads":…,"head_dim":…,"ffn_dim":…}, …], with "cross_num_heads" and "cross_head_dim" in blocks that have
 * cross-attention: a list of winnow.json's "widths". Caller's reference, NULL on no memory. */
json_t *shape_blocks_json(const stack_config *s);
/* Such a list back into out [MAX_BLOCKS], as many as it has. Only the Q-Former may have cross-attention, and must. WN_INVALID
 * or WN_TOO_LARGE name the number: `where` is put in front of "[3].num_heads". */
wn_code shape_blocks_parse(block_widths *out, const json_t *list, component which, const char *where, wn_error *err);

/* {"vision":{"hidden_size":…,"blocks":[{"num_heads":…,"head_dim":…,"cross_num_heads":…,"cross_head_dim":…,"ffn_dim":…}]},
 * "qformer":…,"text":…,"num_query_tokens":…}: every block has every key here, 0 where it has no cross-attention. Caller's
 * reference, NULL on no memory. */
json_t *shape_json(const blip2_config *c);
/* The same back, over `base` for everything else. */
wn_code shape_parse(blip2_config *out, const json_t *j, const blip2_config *base, wn_error *err);

#endif
