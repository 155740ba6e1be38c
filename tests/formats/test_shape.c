/* Shapes: which are the same, which stacks are alike throughout, and their JSON both ways. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "model/shape.h"

static blip2_config shape(void)
{
	blip2_config c = {.image_size = 8, .patch_size = 4, .num_query_tokens = 3, .vocab_size = 40, .max_position_embeddings = 24};
	for (int i = 0; i < NUM_COMPONENTS; i++) {
		stack_config *s = shape_stack_in(&c, (component)i);
		*s = (stack_config){.hidden_size = 16 + i, .num_hidden_layers = 3 + i, .layer_norm_eps = 1e-5f, .activation = ACTIVATION_GELU};
		for (int b = 0; b < s->num_hidden_layers; b++)
			s->blocks[b] = (block_widths){.num_heads = 2 + i, .head_dim = 5, .ffn_dim = 7};
	}
	for (int b = 1; b < 4; b += 2)
		c.qformer.blocks[b].cross_num_heads = 4, c.qformer.blocks[b].cross_head_dim = 6;
	return c;
}

static void stacks_have_their_names(void **state)
{
	blip2_config c = shape();
	assert_ptr_equal(shape_stack(&c, COMPONENT_VISION), &c.vision);
	assert_ptr_equal(shape_stack(&c, COMPONENT_QFORMER), &c.qformer);
	assert_ptr_equal(shape_stack_in(&c, COMPONENT_TEXT), &c.text);
	assert_string_equal(shape_stack_name(COMPONENT_VISION), "vision");
	assert_string_equal(shape_stack_name(COMPONENT_QFORMER), "qformer");
	assert_string_equal(shape_stack_name(COMPONENT_TEXT), "text");
}

/* One number changed is another shape; what is behind the last block is nothing. */
static void every_number_counts(void **state)
{
	const blip2_config c = shape();
	blip2_config other = c;
	other.text.blocks[other.text.num_hidden_layers].ffn_dim = 9;
	other.cross_attention_frequency = 5;
	assert_true(shape_same(&c, &other));
	int *const numbers[] = {&other.image_size, &other.patch_size, &other.num_query_tokens, &other.vocab_size,
	                        &other.max_position_embeddings, &other.vision.hidden_size, &other.qformer.num_hidden_layers,
	                        &other.text.blocks[4].num_heads, &other.text.blocks[4].head_dim, &other.text.blocks[4].ffn_dim,
	                        &other.qformer.blocks[3].cross_num_heads, &other.qformer.blocks[1].cross_head_dim};
	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
		--*numbers[i];
		assert_false(shape_same(&c, &other));
		++*numbers[i];
		assert_true(shape_same(&c, &other));
	}
	other.qkv_bias = true;
	assert_false(shape_same(&c, &other));
}

static void what_is_fixed_is_named(void **state)
{
	const blip2_config c = shape();
	blip2_config other = c;
	wn_error err = {0};
	other.qformer.hidden_size = 1; /* a width, which may change */
	assert_int_equal(shape_check_fixed(&other, &c, &err), WN_OK);
	other.text.layer_norm_eps = 1e-6f;
	assert_int_equal(shape_check_fixed(&other, &c, &err), WN_INVALID);
	assert_string_equal(err.message, "text.layer_norm_eps: found 1e-06, expected the source's 1e-05");
	other.vocab_size = 41;
	err = (wn_error){0};
	assert_int_equal(shape_check_fixed(&other, &c, &err), WN_INVALID);
	assert_string_equal(err.message, "vocab_size: found 41, expected the source's 40");
}

static void alike_but_for_where_cross_attention_is(void **state)
{
	blip2_config c = shape();
	block_widths w;
	assert_true(shape_common_widths(&w, &c.vision));
	assert_true(shape_same_widths(&w, &c.vision.blocks[2]));
	assert_true(shape_common_widths(&w, &c.qformer)); /* the first has none */
	assert_true(shape_same_widths(&w, &c.qformer.blocks[1]));
	c.qformer.blocks[3].cross_num_heads = 3;
	assert_false(shape_common_widths(&w, &c.qformer));
	c.vision.blocks[2].head_dim = 4;
	assert_false(shape_common_widths(&w, &c.vision));
}

static void shapes_survive_json(void **state)
{
	const blip2_config c = shape();
	blip2_config base = {.image_size = 99, .vocab_size = 3}, back;
	wn_error err = {0};
	json_t *j = shape_json(&c);
	assert_non_null(j);
	assert_int_equal(shape_parse(&back, j, &base, &err), WN_OK);
	assert_int_equal(back.image_size, 99);
	assert_int_equal(back.vocab_size, 3);
	assert_int_equal(back.num_query_tokens, 3);
	for (int i = 0; i < NUM_COMPONENTS; i++) {
		const stack_config *got = shape_stack(&back, (component)i), *want = shape_stack(&c, (component)i);
		assert_int_equal(got->hidden_size, want->hidden_size);
		assert_int_equal(got->num_hidden_layers, want->num_hidden_layers);
		assert_memory_equal(got->blocks, want->blocks, (size_t)want->num_hidden_layers * sizeof *want->blocks);
	}
	/* every block has every key: what else reads plan.json relies on it */
	const json_t *first = json_array_get(json_object_get(json_object_get(j, "vision"), "blocks"), 0);
	assert_int_equal(json_object_size(first), 5);
	assert_int_equal(json_integer_value(json_object_get(first, "cross_head_dim")), 0);
	assert_true(json_is_integer(json_object_get(first, "cross_num_heads")));
	json_decref(j);
	/* winnow.json's lists have them where they mean something */
	j = shape_blocks_json(&c.qformer);
	assert_int_equal(json_object_size(json_array_get(j, 0)), 3);
	assert_int_equal(json_object_size(json_array_get(j, 1)), 5);
	block_widths blocks[MAX_BLOCKS];
	assert_int_equal(shape_blocks_parse(blocks, j, COMPONENT_QFORMER, "here", &err), WN_OK);
	assert_memory_equal(blocks, c.qformer.blocks, 4 * sizeof *blocks);
	assert_int_equal(shape_blocks_parse(blocks, j, COMPONENT_TEXT, "here", &err), WN_INVALID);
	assert_string_equal(err.message, "here[1].cross_num_heads: found an unknown key, expected num_heads, head_dim, ffn_dim");
	json_decref(j);
}

/* Puts `value` (NULL: nothing) at vision.blocks[1].key and the like, and reads it. */
static void refuse(const char *stack, const char *key, json_t *value, wn_code code, const char *message)
{
	const blip2_config c = shape();
	blip2_config back;
	wn_error err = {0};
	json_t *j = shape_json(&c), *s = json_object_get(j, stack), *block = json_array_get(json_object_get(s, "blocks"), 1);
	json_t *where = !s ? j : json_object_get(s, key) ? s : block;
	if (value)
		json_object_set_new(where, key, value);
	else
		json_object_del(where, key);
	assert_int_equal(shape_parse(&back, j, &c, &err), code);
	assert_string_equal(err.message, message);
	json_decref(j);
}

static void damaged_shapes_are_refused(void **state)
{
	refuse("", "num_query_tokens", json_integer(0), WN_INVALID, "num_query_tokens: found 0, expected an integer from 1 to 65536");
	refuse("", "vision", NULL, WN_INVALID, "vision.hidden_size: found nothing, expected an integer from 1 to 65536");
	refuse("text", "hidden_size", json_integer(65537), WN_INVALID, "text.hidden_size: found 65537, expected an integer from 1 to 65536");
	refuse("text", "blocks", json_array(), WN_INVALID, "text.blocks: found 0 blocks, expected 1 to 128");
	refuse("text", "blocks", NULL, WN_INVALID, "text.blocks: found nothing, expected an array");
	refuse("vision", "ffn_dim", json_string("7"), WN_INVALID, "vision.blocks[1].ffn_dim: found \"7\", expected an integer from 1 to 65536");
	refuse("vision", "num_heads", json_integer(40000), WN_TOO_LARGE,
	       "vision.blocks[1].num_heads: found 40000 heads of 5, expected an inner width of at most 65536");
	refuse("vision", "cross_num_heads", json_integer(2), WN_INVALID, "vision.blocks[1].cross_num_heads: found 2, expected 0");
	refuse("vision", "cross_num_heads", NULL, WN_INVALID, "vision.blocks[1].cross_num_heads: found nothing, expected 0");
	refuse("qformer", "cross_num_heads", json_integer(0), WN_INVALID,
	       "qformer.blocks[1].cross_num_heads: found 0, expected an integer from 1 to 65536");
	refuse("qformer", "cross_head_dim", NULL, WN_INVALID,
	       "qformer.blocks[1].cross_head_dim: found nothing, expected an integer from 1 to 65536");
	refuse("qformer", "depth", json_integer(1), WN_INVALID,
	       "qformer.blocks[1].depth: found an unknown key, expected num_heads, head_dim, ffn_dim, cross_num_heads, cross_head_dim");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(stacks_have_their_names),
		cmocka_unit_test(every_number_counts),
		cmocka_unit_test(what_is_fixed_is_named),
		cmocka_unit_test(alike_but_for_where_cross_attention_is),
		cmocka_unit_test(shapes_survive_json),
		cmocka_unit_test(damaged_shapes_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
