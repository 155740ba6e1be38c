/* What was kept comes back from its JSON, to the last index, and slices the same model; what was tampered with is named. */
#include "tests/compress/small_models.h"

#include "prune/compress/keep_json.h"
#include "prune/compress/slice.h"

/* A random source, target and choice. */
typedef struct subject {
	blip2_config from, to;
	keep k;
	json_t *json;
} subject;

static void subject_open(subject *s, rng *r, unsigned variant)
{
	s->from = random_shape(r, variant);
	s->to = random_target(r, &s->from);
	random_keep(r, &s->k, &s->from, &s->to);
	s->to = s->k.to;
	assert_non_null(s->json = keep_json(&s->k));
}

static void subject_close(subject *s)
{
	keep_close(&s->k);
	json_decref(s->json);
}

static void what_was_kept_comes_back(void **state)
{
	for (unsigned v = 0; v < 8; v++) {
		rng r = rng_open(v, 77, 0, 0);
		subject s;
		keep back;
		blip2 *expected, *got;
		subject_open(&s, &r, v);
		char *text = json_dumps(s.json, JSON_COMPACT);
		json_t *read = json_loads(text, 0, NULL);
		assert_ok(keep_parse(&back, read, &s.from, &s.to, err));
		json_t *again = keep_json(&back);
		assert_true(json_equal(again, s.json));
		blip2 *m = random_model(&r, &s.from);
		assert_ok(slice_model(&expected, m, &s.k, err));
		assert_ok(slice_model(&got, m, &back, err));
		assert_int_equal(blip2_weights_count(expected), blip2_weights_count(got));
		for (size_t i = 0; i < blip2_num_params(expected); i++) {
			const param *p = blip2_param(expected, i);
			assert_memory_equal(blip2_weights(expected) + p->offset, blip2_weights(got) + p->offset, p->count * sizeof(float));
		}
		blip2_close(&m);
		blip2_close(&expected);
		blip2_close(&got);
		json_decref(again);
		json_decref(read);
		free(text);
		keep_close(&back);
		subject_close(&s);
	}
}

/* "vision.blocks.0.ffn": the object that holds the last name, and that name. */
static json_t *holder(json_t *j, const char *path, char name[64])
{
	for (;;) {
		const size_t len = strcspn(path, ".");
		snprintf(name, 64, "%.*s", (int)len, path);
		if (!path[len])
			return j;
		j = json_is_array(j) ? json_array_get(j, (size_t)atoi(name)) : json_object_get(j, name);
		assert_non_null(j);
		path += len + 1;
	}
}

/* JSON text in place of what stands at path; NULL: taken away. */
static void refuse_with(const subject *s, const char *path, const char *value, const char *words)
{
	char name[64];
	keep k;
	json_t *damaged = json_deep_copy(s->json), *at = holder(damaged, path, name);
	if (!value && json_is_object(at))
		json_object_del(at, name);
	else if (json_is_object(at))
		json_object_set_new(at, name, json_loads(value, JSON_DECODE_ANY, NULL));
	else
		json_array_set_new(at, (size_t)atoi(name), json_loads(value, JSON_DECODE_ANY, NULL));
	assert_refused(WN_INVALID, words, keep_parse(&k, damaged, &s->from, &s->to, err));
	assert_null(k.memory);
	json_decref(damaged);
}

/* Two heads of three, two of four dimensions each; two blocks of three. */
static blip2_config even(int blocks, int heads, int dim, int ffn, int hidden, int queries)
{
	blip2_config c = {.image_size = 8, .patch_size = 4, .qkv_bias = true, .num_query_tokens = queries, .cross_attention_frequency = 1,
	                  .vocab_size = 30, .max_position_embeddings = 24, .bos_token_id = 2, .eos_token_id = 2, .pad_token_id = 1,
	                  .image_token_index = -1, .initializer_range = 0.02f};
	for (int x = 0; x < NUM_COMPONENTS; x++) {
		stack_config *s = stack_at(&c, x);
		*s = (stack_config){.hidden_size = hidden, .num_hidden_layers = blocks, .layer_norm_eps = 1e-5f, .activation = ACTIVATION_RELU};
		for (int i = 0; i < blocks; i++)
			s->blocks[i] = (block_widths){.num_heads = heads, .head_dim = dim, .ffn_dim = ffn};
		for (int i = 0; x == COMPONENT_QFORMER && i < blocks; i++)
			s->blocks[i].cross_num_heads = heads, s->blocks[i].cross_head_dim = dim;
	}
	return c;
}

static void strangers_are_named(void **state)
{
	subject s = {.from = even(3, 3, 4, 6, 12, 4), .to = even(2, 2, 2, 3, 8, 2)};
	rng r = rng_open(3, 3, 3, 3);
	random_keep(&r, &s.k, &s.from, &s.to);
	assert_non_null(s.json = keep_json(&s.k));
	keep k;
	assert_ok(keep_parse(&k, s.json, &s.from, &s.to, err));
	keep_close(&k);

	assert_refused(WN_INVALID, "from", keep_parse(&k, NULL, &s.from, &s.to, err));
	assert_refused(WN_INVALID, "to: found another shape", keep_parse(&k, s.json, &s.from, &s.from, err));
	assert_refused(WN_INVALID, "from: found another shape", keep_parse(&k, s.json, &s.to, &s.to, err));
	refuse_with(&s, "from", NULL, "from");
	refuse_with(&s, "to.vision.hidden_size", "9", "to: found another shape");
	refuse_with(&s, "queries", NULL, "queries: found 0 numbers, expected 2");
	refuse_with(&s, "queries", "[0, 4]", "queries[1]: found 4, expected an integer from 1 to 3");
	refuse_with(&s, "queries", "[2, 2]", "queries[1]: found 2, expected an integer from 3 to 3");
	refuse_with(&s, "queries", "[0, 1, 2]", "queries: found 3 numbers");
	refuse_with(&s, "queries", "[0, \"1\"]", "queries[1]");
	refuse_with(&s, "queries", "[-1, 1]", "queries[0]: found -1");
	refuse_with(&s, "text.hidden", "7", "text.hidden: found 0 numbers, expected 8");
	refuse_with(&s, "vision.blocks", "[]", "vision.blocks[0].source");
	refuse_with(&s, "vision.blocks.0.source", "3", "vision.blocks[0].source: found 3, expected an integer from 0 to 2");
	refuse_with(&s, "vision.blocks.1.source", "0", "vision.blocks[1].source: found 0");
	refuse_with(&s, "qformer.blocks.1.ffn", "[0, 1]", "qformer.blocks[1].ffn: found 2 numbers, expected 3");
	refuse_with(&s, "qformer.blocks.1.ffn", "[0, 1, 6]", "qformer.blocks[1].ffn[2]: found 6");
	refuse_with(&s, "qformer.blocks.0.cross_v", NULL, "qformer.blocks[0].cross_v: found 0 numbers, expected 4");
	/* heads of 4 dimensions: 0 to 3, 4 to 7, 8 to 11 */
	static const char *const two[] = {"[0, 1, 4, 5]", "[2, 3, 6, 7]"};
	json_t *fine = holder(s.json, "text.blocks.0.self_qk", (char[64]){0});
	json_object_set_new(fine, "self_qk", json_loads(two[0], 0, NULL));
	json_object_set_new(fine, "self_v", json_loads(two[1], 0, NULL));
	assert_ok(keep_parse(&k, s.json, &s.from, &s.to, err));
	keep_close(&k);
	refuse_with(&s, "text.blocks.0.self_v", "[0, 1, 8, 9]", "text.blocks[0].self_qk, self_v: the dimensions of head 1");
	refuse_with(&s, "text.blocks.0.self_qk", "[0, 4, 5, 6]", "the dimensions of head 0");
	refuse_with(&s, "text.blocks.0.self_qk", "[0, 1, 2, 3]", "the dimensions of head 1");
	subject_close(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_kept_comes_back),
		cmocka_unit_test(strangers_are_named),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
