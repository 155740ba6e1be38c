/* config.json: what transformers makes of old, new and sparse files is what we make of them; refusals name the key. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <math.h>

#include "../base/temp_dir.h"
#include "model/hf_config.h"

static const char *golden_dir;

static bool same_value(const json_t *a, const json_t *b)
{
	if (json_is_number(a) && json_is_number(b)) /* ours went through float */
		return fabs(json_number_value(a) - json_number_value(b)) <= 1e-7 * fabs(json_number_value(b));
	return json_equal(a, b);
}

/* Keys that save_pretrained adds per run, and those transformers keeps from old files though nothing reads them. */
static bool ignored(const char *key)
{
	static const char *const keys[] = {"architectures", "transformers_version", "dtype", "torch_dtype", "dropout", "num_channels",
	                                   "projection_dim", "initializer_factor", "position_embedding_type", "classifier_dropout",
	                                   "activation_dropout", "prefix", "tie_word_embeddings", "encoder_hidden_size",
	                                   "id2label", "label2id", "is_encoder_decoder", NULL};
	for (int i = 0; keys[i]; i++)
		if (strcmp(keys[i], key) == 0)
			return true;
	return key[0] == '_' && strcmp(key, "_remove_final_layer_norm") != 0;
}

static void compare(const json_t *ours, const json_t *expected, const char *where)
{
	const char *key;
	json_t *v;
	json_object_foreach((json_t *)ours, key, v)
	{
		const json_t *e = json_object_get(expected, key);
		if (strcmp(key, "architectures") == 0 || strcmp(key, "torch_dtype") == 0)
			continue;
		if (json_is_object(v))
			compare(v, e, key);
		else if (!e || !same_value(v, e))
			fail_msg("%s.%s differs from transformers", where, key);
	}
	json_object_foreach((json_t *)expected, key, v)
		if (!ignored(key) && !json_object_get(ours, key))
			fail_msg("%s.%s is not written", where, key);
}

static void real_files_parse_as_transformers_reads_them(void **state)
{
	static const char *const cases[] = {"minimal", "empty_sections", "sparse", "saved", "saved_full", "old"};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		static blip2_config c, again;
		char path[1024];
		wn_error err = {0};
		snprintf(path, sizeof path, "%s/config/%s.json", golden_dir, cases[i]);
		if (hf_config_read(&c, path, &err) != WN_OK)
			fail_msg("%s", err.message);
		char *text = hf_config_write(&c);
		json_t *ours = json_loads(text, 0, NULL);
		snprintf(path, sizeof path, "%s/config/%s.expected.json", golden_dir, cases[i]);
		json_t *expected = json_load_file(path, 0, NULL);
		assert_non_null(ours);
		assert_non_null(expected);
		compare(ours, expected, cases[i]);
		const char *dtype = json_string_value(json_object_get(expected, "dtype"));
		assert_string_equal(c.torch_dtype, dtype ? dtype : "");
		assert_true(hf_config_is_uniform(&c));
		assert_int_equal(hf_config_parse(&again, text, strlen(text), &err), WN_OK);
		if (!*c.torch_dtype)
			strcpy(c.torch_dtype, "float32");
		assert_memory_equal(&again, &c, sizeof c);
		json_decref(ours);
		json_decref(expected);
		free(text);
	}
}

static void numbers_reach_the_right_fields(void **state)
{
	static blip2_config c;
	char path[1024];
	wn_error err = {0};
	snprintf(path, sizeof path, "%s/config/sparse.json", golden_dir);
	assert_int_equal(hf_config_read(&c, path, &err), WN_OK);
	assert_int_equal(c.num_query_tokens, 8);
	assert_int_equal(c.image_token_index, 7);
	assert_true(c.initializer_range == 0.05f);
	assert_string_equal(c.torch_dtype, "bfloat16");
	assert_int_equal(c.image_size, 56);
	assert_int_equal(c.patch_size, 14);
	assert_false(c.qkv_bias);
	assert_int_equal(c.vision.num_hidden_layers, 3);
	assert_int_equal(c.vision.hidden_size, 1408);
	assert_true(c.vision.layer_norm_eps == 1e-5f);
	assert_int_equal(c.vision.activation, ACTIVATION_GELU);
	assert_int_equal(c.vision.blocks[2].num_heads, 16);
	assert_int_equal(c.vision.blocks[2].head_dim, 88);
	assert_int_equal(c.vision.blocks[2].ffn_dim, 6144);
	assert_int_equal(c.vision.blocks[2].cross_num_heads, 0);
	assert_int_equal(c.vision.blocks[3].num_heads, 0);
	assert_true(c.qformer.layer_norm_eps == 1e-12f);
	assert_int_equal(c.qformer.num_hidden_layers, 7);
	for (int i = 0; i < 7; i++)
		assert_int_equal(c.qformer.blocks[i].cross_num_heads, i % 3 == 0 ? 12 : 0);
	assert_int_equal(c.qformer.blocks[6].cross_head_dim, 64);
	assert_int_equal(c.text.hidden_size, 96);
	assert_int_equal(c.text.blocks[11].head_dim, 8);
	assert_int_equal(c.text.activation, ACTIVATION_GELU);
	assert_true(c.text.layer_norm_eps == 1e-5f);
	assert_int_equal(c.vocab_size, 1000);
	assert_int_equal(c.max_position_embeddings, 2048);
	assert_int_equal(c.bos_token_id, -1);
	assert_int_equal(c.eos_token_id, 5);
	assert_int_equal(c.pad_token_id, 1);
}

#define OF(section, body) "{\"model_type\":\"blip-2\",\"" section "\":{" body "}}"
#define TOP(body) "{\"model_type\":\"blip-2\"," body "}"
static void refusals_name_the_key(void **state)
{
	static const struct {
		const char *json;
		wn_code code;
		const char *message;
	} bad[] = {
		{"{}", WN_INVALID, "model_type: found nothing, expected \"blip-2\""},
		{"[]", WN_INVALID, "config: found [], expected an object"},
		{"", WN_INVALID, "line 1 column 0: '[' or '{' expected near end of file"},
		{"{\"model_type\":\"blip-2\"", WN_INVALID, "line 1 column 22: '}' expected near end of file"},
		{"{\"model_type\":\"blip-2\",\"model_type\":\"blip-2\"}", WN_INVALID,
	         "line 1 column 35: duplicate object key near '\"model_type\"'"},
		{"{\"model_type\":\"instructblip\"}", WN_UNSUPPORTED, "model_type: found \"instructblip\", expected \"blip-2\""},
		{"{\"model_type\":7}", WN_INVALID, "model_type: found 7, expected \"blip-2\""},
		{TOP("\"num_query_tokens\":0"), WN_INVALID, "num_query_tokens: found 0, expected an integer from 1 to 4096"},
		{TOP("\"num_query_tokens\":4097"), WN_TOO_LARGE,
	         "num_query_tokens: found 4097, expected an integer from 1 to 4096"},
		{TOP("\"num_query_tokens\":null"), WN_INVALID, "num_query_tokens: found null, expected an integer from 1 to 4096"},
		{TOP("\"num_query_tokens\":32.0"), WN_INVALID, "num_query_tokens: found 32.0, expected an integer from 1 to 4096"},
		{TOP("\"num_query_tokens\":true"), WN_INVALID, "num_query_tokens: found true, expected an integer from 1 to 4096"},
		{TOP("\"initializer_range\":-1"), WN_INVALID, "initializer_range: found -1, expected a number from 0 to 10"},
		{TOP("\"torch_dtype\":5"), WN_INVALID, "torch_dtype: found 5, expected a dtype such as \"float32\""},
		{TOP("\"dtype\":\"a longer name than any\""), WN_INVALID,
	         "dtype: found \"a longer name than any\", expected a dtype such as \"float32\""},
		{TOP("\"quantization_config\":{\"load_in_8bit\":true}"), WN_UNSUPPORTED,
	         "quantization_config: found an object, expected no quantisation"},
		{TOP("\"text_config\":[]"), WN_INVALID, "text_config: found [], expected an object"},
		{OF("text_config", "\"model_type\":\"t5\""), WN_UNSUPPORTED,
	         "text_config.model_type: found \"t5\", expected \"opt\""},
		{OF("text_config", "\"word_embed_proj_dim\":512"), WN_UNSUPPORTED,
	         "text_config.word_embed_proj_dim: found 512, expected hidden_size 768"},
		{OF("text_config", "\"do_layer_norm_before\":false"), WN_UNSUPPORTED,
	         "text_config.do_layer_norm_before: found false, expected true"},
		{OF("text_config", "\"_remove_final_layer_norm\":true"), WN_UNSUPPORTED,
	         "text_config._remove_final_layer_norm: found true, expected false"},
		{OF("text_config", "\"enable_bias\":false"), WN_UNSUPPORTED, "text_config.enable_bias: found false, expected true"},
		{OF("text_config", "\"layer_norm_elementwise_affine\":false"), WN_UNSUPPORTED,
	         "text_config.layer_norm_elementwise_affine: found false, expected true"},
		{OF("text_config", "\"tie_word_embeddings\":false"), WN_UNSUPPORTED,
	         "text_config.tie_word_embeddings: found false, expected true"},
		{OF("text_config", "\"enable_bias\":1"), WN_INVALID, "text_config.enable_bias: found 1, expected true or false"},
		{OF("text_config", "\"activation_function\":\"gelu_new\""), WN_UNSUPPORTED,
	         "text_config.activation_function: found \"gelu_new\", expected \"gelu\" or \"relu\""},
		{OF("text_config", "\"num_attention_heads\":7"), WN_INVALID,
	         "text_config.num_attention_heads: found 7, expected a divisor of hidden_size 768"},
		{OF("text_config", "\"num_hidden_layers\":129"), WN_TOO_LARGE,
	         "text_config.num_hidden_layers: found 129, expected an integer from 1 to 128"},
		{OF("text_config", "\"hidden_size\":99999999999"), WN_TOO_LARGE,
	         "text_config.hidden_size: found 99999999999, expected an integer from 1 to 65536"},
		{OF("text_config", "\"hidden_size\":\"768\""), WN_INVALID,
	         "text_config.hidden_size: found \"768\", expected an integer from 1 to 65536"},
		{OF("text_config", "\"pad_token_id\":50272"), WN_INVALID,
	         "text_config.pad_token_id: found 50272, expected an id below vocab_size 50272"},
		{OF("text_config", "\"eos_token_id\":[2,3]"), WN_UNSUPPORTED,
	         "text_config.eos_token_id: found a list, expected one token id"},
		{OF("text_config", "\"bos_token_id\":\"</s>\""), WN_INVALID,
	         "text_config.bos_token_id: found \"</s>\", expected a token id from 0 to 4194304 or null"},
		{OF("vision_config", "\"hidden_act\":\"quick_gelu\""), WN_UNSUPPORTED,
	         "vision_config.hidden_act: found \"quick_gelu\", expected \"gelu\" or \"relu\""},
		{OF("vision_config", "\"hidden_act\":null"), WN_INVALID,
	         "vision_config.hidden_act: found null, expected \"gelu\" or \"relu\""},
		{OF("vision_config", "\"image_size\":[224,224]"), WN_INVALID,
	         "vision_config.image_size: found [224,224], expected an integer from 1 to 16384"},
		{OF("vision_config", "\"image_size\":225"), WN_UNSUPPORTED,
	         "vision_config.patch_size: found 14, expected a divisor of image_size 225"},
		{OF("vision_config", "\"image_size\":16384,\"patch_size\":1"), WN_TOO_LARGE,
	         "vision_config.patch_size: found 1, expected at most 65536 patches of an image of 16384"},
		{OF("vision_config", "\"num_channels\":1"), WN_UNSUPPORTED, "vision_config.num_channels: found 1, expected 3"},
		{OF("vision_config", "\"layer_norm_eps\":-1e-6"), WN_INVALID,
	         "vision_config.layer_norm_eps: found -9.9999999999999995e-7, expected a number from 0 to 1"},
		{OF("vision_config", "\"num_attention_heads\":0"), WN_INVALID,
	         "vision_config.num_attention_heads: found 0, expected an integer from 1 to 65536"},
		{OF("vision_config", "\"model_type\":\"siglip\""), WN_UNSUPPORTED,
	         "vision_config.model_type: found \"siglip\", expected \"blip_2_vision_model\""},
		{OF("qformer_config", "\"use_qformer_text_input\":true"), WN_UNSUPPORTED,
	         "qformer_config.use_qformer_text_input: found true, expected false"},
		{OF("qformer_config", "\"position_embedding_type\":\"relative_key\""), WN_UNSUPPORTED,
	         "qformer_config.position_embedding_type: found \"relative_key\", expected \"absolute\""},
		{OF("qformer_config", "\"cross_attention_frequency\":0"), WN_INVALID,
	         "qformer_config.cross_attention_frequency: found 0, expected an integer from 1 to 1048576"},
	};
	int wrong = 0;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		static blip2_config c;
		wn_error err = {0};
		wn_code rc = hf_config_parse(&c, bad[i].json, strlen(bad[i].json), &err);
		if (rc != bad[i].code || strcmp(err.message, bad[i].message) != 0) {
			print_error("%s\n  found    %d %s\n  expected %d %s\n", bad[i].json, rc, err.message, bad[i].code, bad[i].message);
			wrong++;
		}
		assert_int_equal(c.vision.hidden_size, 0); /* nothing half filled */
	}
	assert_int_equal(wrong, 0);
}

static void reading_names_the_file(void **state)
{
	static blip2_config c;
	wn_error err = {0};
	char expected[600];
	const char *path = temp_file("config.json", "{}", 2);
	assert_int_equal(hf_config_read(&c, path, &err), WN_INVALID);
	snprintf(expected, sizeof expected, "%s: model_type: found nothing, expected \"blip-2\"", path);
	assert_string_equal(err.message, expected);
	err = (wn_error){0};
	assert_int_equal(hf_config_read(&c, temp_path("absent"), &err), WN_NOT_FOUND);
}

static void every_truncation_and_flip_is_an_error_or_loads(void **state)
{
	static blip2_config c;
	char path[1024], text[8192];
	snprintf(path, sizeof path, "%s/config/saved.json", golden_dir);
	FILE *f = fopen(path, "rb");
	size_t len = fread(text, 1, sizeof text, f), loaded = 0;
	fclose(f);
	size_t end = len;
	while (text[end - 1] == '\n')
		end--;
	for (size_t n = 0; n < end; n++) {
		wn_error err = {0};
		assert_int_not_equal(hf_config_parse(&c, text, n, &err), WN_OK);
		assert_true(*err.message);
	}
	for (size_t i = 0; i < len * 2; i++) { /* two bits of every byte, others in the next */
		wn_error err = {0};
		char bit = (char)(1 << (i / 2 + i % 2 * 4) % 8);
		text[i / 2] ^= bit;
		if (hf_config_parse(&c, text, len, &err) == WN_OK)
			loaded++;
		else
			assert_true(*err.message);
		text[i / 2] ^= bit;
	}
	assert_true(loaded > 0);
}

static void pruned_shapes_are_told_from_uniform_ones(void **state)
{
	static blip2_config base, c, again;
	const char *text = "{\"model_type\":\"blip-2\",\"qformer_config\":{\"num_hidden_layers\":6}}";
	wn_error err = {0};
	assert_int_equal(hf_config_parse(&base, text, strlen(text), &err), WN_OK);
	assert_true(hf_config_is_uniform(&base));

	c = base;
	c.vision.blocks[5].ffn_dim--;
	assert_false(hf_config_is_uniform(&c));
	c = base;
	for (int i = 0; i < c.text.num_hidden_layers; i++)
		c.text.blocks[i].num_heads = 8; /* the same everywhere, but 8 * 64 is not 768 */
	assert_false(hf_config_is_uniform(&c));
	char *json = hf_config_write(&c); /* still parses; winnow.json says the rest */
	assert_int_equal(hf_config_parse(&again, json, strlen(json), &err), WN_OK);
	free(json);
	c = base;
	c.qformer.blocks[2].cross_num_heads = 6;
	assert_false(hf_config_is_uniform(&c));

	/* Block 1 of the Q-Former is dropped: cross, cross, plain, cross, plain fits no frequency. */
	c = base;
	c.qformer.num_hidden_layers = 5;
	memmove(&c.qformer.blocks[1], &c.qformer.blocks[2], 4 * sizeof c.qformer.blocks[0]);
	assert_int_equal(hf_config_cross_frequency(&c), 0);
	assert_false(hf_config_is_uniform(&c));
	/* With the other plain ones gone too, frequency 1 says it, and is what gets written. */
	c.qformer.num_hidden_layers = 2;
	assert_int_equal(hf_config_cross_frequency(&c), 1);
	assert_true(hf_config_is_uniform(&c));
	json = hf_config_write(&c);
	assert_int_equal(hf_config_parse(&again, json, strlen(json), &err), WN_OK);
	assert_int_equal(again.cross_attention_frequency, 1);
	assert_int_equal(again.qformer.blocks[1].cross_num_heads, 12);
	free(json);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(real_files_parse_as_transformers_reads_them),
		cmocka_unit_test(numbers_reach_the_right_fields),
		cmocka_unit_test(refusals_name_the_key),
		cmocka_unit_test(reading_names_the_file),
		cmocka_unit_test(every_truncation_and_flip_is_an_error_or_loads),
		cmocka_unit_test(pruned_shapes_are_told_from_uniform_ones),
	};
	golden_dir = argv[argc - 1];
	return cmocka_run_group_tests(tests, temp_dir_make, temp_dir_remove);
}
