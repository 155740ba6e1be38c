/* Choosing by score against plain definitions, and where what was chosen stands in the teacher. */
#include "tests/compress/small_models.h"

#include "prune/compress/slice.h"

enum { WIDEST = 64 };

/* ---- choosing ---- */

/* An index stays when fewer than `left` others are better: higher, or equal and before it. */
static void assert_best(const int *list, int left, const double *scores, int first, int count)
{
	int next = 0;
	for (int i = first; i < first + count; i++) {
		int better = 0;
		for (int j = first; j < first + count; j++)
			better += scores[j] > scores[i] || (scores[j] == scores[i] && j < i);
		if (better < left) {
			assert_true(next < left);
			assert_int_equal(list[next++], i);
		}
	}
	assert_int_equal(next, left);
}

static void assert_best_heads(const keep *k, const structure_scores *s, int x, int index, bool cross)
{
	const block_keep *b = &k->blocks[x][index];
	const block_widths *from = &shape_stack(&k->from, each(x))->blocks[b->source],
	                   *to = &shape_stack(&k->to, each(x))->blocks[index];
	const int heads = cross ? from->cross_num_heads : from->num_heads, dim = cross ? from->cross_head_dim : from->head_dim;
	const int heads_left = cross ? to->cross_num_heads : to->num_heads, dim_left = cross ? to->cross_head_dim : to->head_dim;
	const attention_keep *a = cross ? &b->cross : &b->self;
	const double *qk = cross ? s->blocks[x][b->source].cross_qk : s->blocks[x][b->source].self_qk;
	const double *v = cross ? s->blocks[x][b->source].cross_v : s->blocks[x][b->source].self_v;
	double scores[WIDEST];
	int kept[WIDEST];
	for (int h = 0; h < heads; h++) {
		scores[h] = 0;
		for (int d = 0; d < dim; d++)
			scores[h] += qk[h * dim + d] + v[h * dim + d];
	}
	for (int h = 0; h < heads_left; h++) {
		kept[h] = a->qk[h * dim_left] / dim;
		assert_best(a->qk + h * dim_left, dim_left, qk, kept[h] * dim, dim);
		assert_best(a->v + h * dim_left, dim_left, v, kept[h] * dim, dim);
	}
	assert_best(kept, heads_left, scores, 0, heads);
}

/* Scores of a few values only: most are equal to some other. */
static void the_best_stay(void **state)
{
	for (unsigned v = 0; v < 8; v++) {
		rng r = rng_open(v, 25, 0, 0);
		const blip2_config c = random_shape(&r, v), to = random_target(&r, &c);
		structure_scores s;
		keep k;
		assert_ok(structure_scores_open(&s, &c, err));
		for (size_t i = 0; i < s.count; i++)
			s.memory[i] = (double)rng_below(&r, 4);
		assert_ok(keep_choose(&k, &s, &to, BLOCKS_FROM_END, err));
		assert_memory_equal(&k.to, &to, sizeof to);
		for (int x = 0; x < NUM_COMPONENTS; x++) {
			const stack_config *left = shape_stack(&k.to, each(x)), *full = shape_stack(&c, each(x));
			assert_best(k.hidden[x], left->hidden_size, s.hidden[x], 0, full->hidden_size);
			for (int i = 0, source = 0; i < left->num_hidden_layers; i++, source++) {
				while (!full->blocks[source].cross_num_heads != !left->blocks[i].cross_num_heads)
					source++; /* the first that will do */
				assert_int_equal(k.blocks[x][i].source, source);
				assert_best(k.blocks[x][i].ffn, left->blocks[i].ffn_dim, s.blocks[x][source].ffn, 0,
				            full->blocks[source].ffn_dim);
				assert_best_heads(&k, &s, x, i, false);
				if (left->blocks[i].cross_num_heads)
					assert_best_heads(&k, &s, x, i, true);
			}
		}
		assert_best(k.queries, to.num_query_tokens, s.queries, 0, c.num_query_tokens);
		keep_close(&k);
		structure_scores_close(&s);
	}
}

/* A shape of one width everywhere, cross-attention in blocks 0, 2, 4. */
static blip2_config even_shape(void)
{
	blip2_config c = {.image_size = 4, .patch_size = 4, .qkv_bias = true, .num_query_tokens = 4, .cross_attention_frequency = 2,
	                  .vocab_size = 8, .max_position_embeddings = 16, .bos_token_id = 2, .eos_token_id = 2, .pad_token_id = 1};
	for (int x = 0; x < NUM_COMPONENTS; x++) {
		stack_config *s = stack_at(&c, x);
		*s = (stack_config){
		        .hidden_size = 8, .num_hidden_layers = 5, .layer_norm_eps = 1e-5f, .activation = ACTIVATION_RELU};
		for (int i = 0; i < 5; i++)
			s->blocks[i] = (block_widths){.num_heads = 2, .head_dim = 4, .ffn_dim = 6};
		for (int i = 0; x == COMPONENT_QFORMER && i < 5; i += 2)
			s->blocks[i].cross_num_heads = 2, s->blocks[i].cross_head_dim = 4;
	}
	return c;
}

static void assert_sources(const keep *k, int x, const int *want)
{
	for (int i = 0; i < shape_stack(&k->to, each(x))->num_hidden_layers; i++)
		assert_int_equal(k->blocks[x][i].source, want[i]);
}

/* As many blocks of 5 stay as `pattern` has signs, in every stack; the Q-Former's have cross-attention where it has a plus. */
static blip2_config cross_target(const char *pattern)
{
	blip2_config to = even_shape();
	for (int x = 0; x < NUM_COMPONENTS; x++)
		stack_at(&to, x)->num_hidden_layers = (int)strlen(pattern);
	for (int i = 0; pattern[i]; i++) {
		to.qformer.blocks[i].cross_num_heads = pattern[i] == '+' ? 1 : 0;
		to.qformer.blocks[i].cross_head_dim = pattern[i] == '+' ? 3 : 0;
	}
	return to;
}

static wn_code choose_blocks(keep *k, const double *totals, const char *pattern, block_choice choice, wn_error *failure)
{
	structure_scores s;
	const blip2_config c = even_shape(), to = cross_target(pattern);
	assert_ok(structure_scores_open(&s, &c, err));
	for (int x = 0; x < NUM_COMPONENTS; x++)
		for (int i = 0; i < 5; i++)
			s.blocks[x][i].total = totals[i];
	wn_code rc = keep_choose(k, &s, &to, choice, failure);
	if (!rc)
		assert_memory_equal(&k->to, &to, sizeof to);
	structure_scores_close(&s);
	return rc;
}

/* The source has cross-attention in blocks 0, 2, 4. The result has the planned shape, whatever the scores say. */
static void planned_cross_attention_is_binding(void **state)
{
	static const struct {
		double totals[5];
		const char *pattern;
		block_choice choice;
		int qformer[3], others[3];
	} cases[] = {
		{{1, 5, 3, 5, 2}, "-+", BLOCKS_BY_IMPORTANCE, {1, 2}, {1, 3}}, /* 5 + 3; without a pattern 5 + 5 */
		{{1, 5, 3, 5, 2}, "+-", BLOCKS_BY_IMPORTANCE, {2, 3}, {1, 3}},
		{{1, 5, 3, 5, 2}, "++", BLOCKS_BY_IMPORTANCE, {2, 4}, {1, 3}},
		{{4, 4, 4, 4, 4}, "+-", BLOCKS_BY_IMPORTANCE, {0, 1}, {0, 1}}, /* equal: the first */
		{{4, 4, 4, 4, 4}, "-+-", BLOCKS_BY_IMPORTANCE, {1, 2, 3}, {0, 1, 2}},
		{{1, 100, 2, 3, 0}, "+-", BLOCKS_BY_IMPORTANCE, {0, 1}, {1, 3}}, /* not 2 + 3, though block 0 is worth least but one */
		{{0, 1, 7, 1, 8}, "+-+", BLOCKS_BY_IMPORTANCE, {2, 3, 4}, {1, 2, 4}},
		{{0, 1, 7, 1, 8}, "+-", BLOCKS_FROM_END, {0, 1}, {0, 1}},
		{{0, 1, 7, 1, 8}, "++", BLOCKS_FROM_END, {0, 2}, {0, 1}},
		{{0, 1, 7, 1, 8}, "-+", BLOCKS_FROM_END, {1, 2}, {0, 1}},
	};
	keep k;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		assert_ok(choose_blocks(&k, cases[i].totals, cases[i].pattern, cases[i].choice, err));
		assert_sources(&k, COMPONENT_VISION, cases[i].others);
		assert_sources(&k, COMPONENT_QFORMER, cases[i].qformer);
		assert_sources(&k, COMPONENT_TEXT, cases[i].others);
		for (int b = 0; cases[i].pattern[b]; b++)
			assert_true(!k.blocks[COMPONENT_QFORMER][b].cross.qk == (cases[i].pattern[b] == '-'));
		keep_close(&k);
	}
	const double totals[5] = {0};
	assert_refused(WN_INVALID,
	               "target shape: qformer: cross-attention: found blocks +++-, expected what can be left of the source's +-+-+ (+: has it)",
	               choose_blocks(&k, totals, "+++-", BLOCKS_BY_IMPORTANCE, err));
	assert_refused(WN_INVALID, "target shape: qformer: found no block with cross-attention, expected one at least",
	               choose_blocks(&k, totals, "--", BLOCKS_FROM_END, err));
	assert_null(k.memory);
}

static void what_does_not_fit_is_refused(void **state)
{
	const blip2_config c = even_shape();
	structure_scores s;
	keep k;
	assert_ok(structure_scores_open(&s, &c, err));
	blip2_config to;
#define REFUSED(change, message)                                                                           \
	do {                                                                                               \
		to = c;                                                                                    \
		change;                                                                                    \
		assert_refused(WN_INVALID, message, keep_choose(&k, &s, &to, BLOCKS_BY_IMPORTANCE, err)); \
		assert_null(k.memory);                                                                     \
	} while (0)
	REFUSED(to.text.hidden_size = 9, "text.hidden_size: found 9, expected 1 to the source's 8");
	REFUSED(to.vision.hidden_size = 0, "vision.hidden_size: found 0, expected 1");
	REFUSED(to.vision.num_hidden_layers = 6, "vision.num_hidden_layers: found 6, expected 1 to the source's 5");
	REFUSED(to.qformer.num_hidden_layers = 0, "qformer.num_hidden_layers: found 0");
	REFUSED(to.num_query_tokens = 5, "num_query_tokens: found 5, expected 1 to the source's 4");
	REFUSED(to.text.blocks[3].ffn_dim = 7, "text.blocks[3].ffn_dim: found 7, expected 1 to the source's 6");
	REFUSED(to.text.blocks[2].num_heads = 3, "text.blocks[2].num_heads: found 3");
	REFUSED(to.vision.blocks[0].head_dim = 5, "vision.blocks[0].head_dim: found 5");
	REFUSED(to.vision.blocks[0].cross_num_heads = 1, "target shape: vision: cross-attention: found blocks +----");
	REFUSED(to.qformer.blocks[1].cross_num_heads = 1, "target shape: qformer: cross-attention: found blocks +++-+");
	REFUSED(to.qformer.blocks[2].cross_num_heads = 3, "qformer.blocks[2].cross_num_heads: found 3");
	REFUSED(to.qformer.blocks[2].cross_head_dim = 5, "qformer.blocks[2].cross_head_dim: found 5");
	REFUSED(to.vocab_size = 7, "vocab_size: found 7, expected the source's 8");
	REFUSED(to.image_size = 8, "image_size: found 8");
	REFUSED(to.qkv_bias = false, "qkv_bias: found 0");
	REFUSED(to.text.activation = ACTIVATION_GELU, "text.activation");
	REFUSED(to.text.layer_norm_eps = 1e-6f, "text.layer_norm_eps: found 1e-06, expected the source's 1e-05");
	REFUSED(for (int i = 0; i < 5; i++) to.qformer.blocks[i].cross_num_heads = 0, "no block with cross-attention");
	s.blocks[COMPONENT_TEXT][1].ffn[2] = NAN;
	REFUSED((void)0, "not finite");
	s.blocks[COMPONENT_TEXT][1].ffn[2] = 0;
	s.blocks[COMPONENT_QFORMER][1].total = INFINITY;
	REFUSED((void)0, "not finite");
	structure_scores_close(&s);
	blip2_config crowded = c;
	crowded.max_position_embeddings = 3;
	assert_ok(structure_scores_open(&s, &crowded, err));
	assert_refused(WN_INVALID, "source shape: num_query_tokens: found 4, expected at most max_position_embeddings 3",
	               keep_choose(&k, &s, &crowded, BLOCKS_BY_IMPORTANCE, err));
	structure_scores_close(&s);
}

/* ---- what is lost, and JSON ---- */

static void lost_shares_by_hand(void **state)
{
	const blip2_config c = even_shape();
	blip2_config to = c;
	structure_scores s;
	keep k;
	assert_ok(structure_scores_open(&s, &c, err));
	for (size_t i = 0; i < s.count; i++)
		s.memory[i] = 1;
	for (int x = 0; x < NUM_COMPONENTS; x++)
		for (int i = 0; i < 5; i++)
			s.blocks[x][i].total = i + 1;
	assert_ok(keep_choose(&k, &s, &to, BLOCKS_BY_IMPORTANCE, err));
	for (int x = 0; x < NUM_COMPONENTS; x++)
		assert_true(keep_score_lost(&k, &s, each(x)) == 0);
	keep_close(&k);
	to.vision.hidden_size = 6;                     /* 3/4 stay */
	to.text.num_hidden_layers = 2;                 /* of 1..5, 4 and 5 stay: 9/15 */
	to.text.blocks[1].ffn_dim = 6 - 2;             /* of 6 + 8 + 8 scores 20 stay */
	to.num_query_tokens = 1;                       /* 1/4 */
	assert_ok(keep_choose(&k, &s, &to, BLOCKS_BY_IMPORTANCE, err));
	assert_close(keep_score_lost(&k, &s, COMPONENT_VISION), 0.25, 1e-12, "lost", 0);
	assert_close(keep_score_lost(&k, &s, COMPONENT_QFORMER), 0.75, 1e-12, "lost", 1);
	const double text = 1 - (4 + 5 * 20.0 / 22) / 15;
	assert_close(keep_score_lost(&k, &s, COMPONENT_TEXT), text, 1e-12, "lost", 2);
	keep_close(&k);
	memset(s.memory, 0, s.count * sizeof *s.memory); /* nothing of nothing */
	for (int i = 0; i < 5; i++)
		s.blocks[COMPONENT_VISION][i].total = 0;
	assert_ok(keep_choose(&k, &s, &to, BLOCKS_BY_IMPORTANCE, err));
	assert_true(keep_score_lost(&k, &s, COMPONENT_VISION) == 0);
	keep_close(&k);
	structure_scores_close(&s);
}

static const json_t *at(const json_t *j, const char *a, const char *b, size_t i, const char *c)
{
	j = json_object_get(json_object_get(j, a), b);
	return json_object_get(json_array_get(j, i), c);
}

static void json_says_what_stays(void **state)
{
	keep k;
	assert_ok(choose_blocks(&k, (const double[]){1, 5, 3, 5, 2}, "-+", BLOCKS_BY_IMPORTANCE, err));
	json_t *j = keep_json(&k);
	assert_non_null(j);
	assert_int_equal(json_integer_value(at(j, "qformer", "blocks", 1, "source")), 2);
	assert_int_equal(json_array_size(at(j, "qformer", "blocks", 1, "cross_qk")), 3);
	assert_null(at(j, "qformer", "blocks", 0, "cross_qk"));
	assert_int_equal(json_array_size(at(j, "text", "blocks", 1, "ffn")), 6);
	assert_int_equal(json_integer_value(json_array_get(at(j, "text", "blocks", 1, "self_v"), 7)), 7);
	assert_int_equal(json_array_size(json_object_get(json_object_get(j, "vision"), "hidden")), 8);
	assert_int_equal(json_array_size(json_object_get(j, "queries")), 4);
	assert_int_equal(num(json_object_get(json_object_get(j, "to"), "vision"), "hidden_size"), 8);
	assert_int_equal(json_integer_value(at(json_object_get(j, "to"), "qformer", "blocks", 1, "cross_head_dim")), 3);
	assert_int_equal(json_integer_value(at(json_object_get(j, "from"), "qformer", "blocks", 4, "cross_head_dim")), 4);
	json_decref(j);
	keep_close(&k);
	keep_close(&k);
}

/* ---- places in the teacher ---- */

static void assert_same_map(const teacher_map *a, const teacher_map *b)
{
	assert_int_equal(a->num_queries, b->num_queries);
	assert_memory_equal(a->queries, b->queries, (size_t)a->num_queries * sizeof *a->queries);
	for (int x = 0; x < NUM_COMPONENTS; x++) {
		assert_int_equal(a->num_blocks[x], b->num_blocks[x]);
		assert_int_equal(a->hidden_size[x], b->hidden_size[x]);
		assert_memory_equal(a->blocks[x], b->blocks[x], (size_t)a->num_blocks[x] * sizeof **a->blocks);
		assert_memory_equal(a->hidden[x], b->hidden[x], (size_t)a->hidden_size[x] * sizeof **a->hidden);
	}
}

static const param *text_norm(const blip2 *m, int block)
{
	char name[96];
	snprintf(name, sizeof name, "language_model.model.decoder.layers.%d.final_layer_norm.bias", block);
	return blip2_find_param(m, name);
}

/* No two weights of the teacher are equal; two slices later the map still finds them. */
static void places_survive_two_steps(void **state)
{
	for (unsigned v = 0; v < 6; v++) {
		rng r = rng_open(v, 26, 0, 0);
		const blip2_config c = random_shape(&r, v), first = random_target(&r, &c);
		blip2 *m = random_model(&r, &c), *one, *two;
		keep k1, k2;
		teacher_map map, back;
		random_keep(&r, &k1, &c, &first);
		assert_ok(slice_model(&one, m, &k1, err));
		const blip2_config second = random_target(&r, blip2_get_config(one));
		random_keep(&r, &k2, blip2_get_config(one), &second);
		assert_ok(slice_model(&two, one, &k2, err));
		assert_ok(teacher_map_identity(&map, &c, err));
		teacher_map_apply(&map, &k1);
		teacher_map_apply(&map, &k2);
		for (int x = 0; x < NUM_COMPONENTS; x++) {
			assert_int_equal(map.num_blocks[x], shape_stack(&second, each(x))->num_hidden_layers);
			assert_int_equal(map.hidden_size[x], shape_stack(&second, each(x))->hidden_size);
			for (int i = 0; i < map.num_blocks[x]; i++)
				assert_int_equal(map.blocks[x][i], k1.blocks[x][k2.blocks[x][i].source].source);
			for (int i = 0; i < map.hidden_size[x]; i++)
				assert_int_equal(map.hidden[x][i], k1.hidden[x][k2.hidden[x][i]]);
		}
		const float *tokens = blip2_weights(two) + blip2_find_param(two, "query_tokens")->offset;
		const float *all = blip2_weights(m) + blip2_find_param(m, "query_tokens")->offset;
		for (int q = 0; q < map.num_queries; q++)
			for (int d = 0; d < map.hidden_size[1]; d++)
				assert_true(tokens[q * map.hidden_size[1] + d] ==
				            all[map.queries[q] * c.qformer.hidden_size + map.hidden[1][d]]);
		for (int i = 0; i < map.num_blocks[2]; i++) {
			const param *p = text_norm(two, i), *source = text_norm(m, map.blocks[2][i]);
			for (int d = 0; d < map.hidden_size[2]; d++)
				assert_true(blip2_weights(two)[p->offset + (size_t)d] ==
				            blip2_weights(m)[source->offset + (size_t)map.hidden[2][d]]);
		}
		json_t *j = teacher_map_json(&map);
		assert_non_null(j);
		assert_ok(teacher_map_parse(&back, j, &c, &second, err));
		assert_same_map(&back, &map);
		json_decref(j);
		teacher_map_close(&map);
		teacher_map_close(&back);
		keep_close(&k1);
		keep_close(&k2);
		blip2_close(&two);
		blip2_close(&one);
		blip2_close(&m);
	}
}

static void damaged_maps_are_refused(void **state)
{
	blip2_config c = even_shape(), small = even_shape();
	teacher_map map, back;
	json_t *j;
	assert_ok(teacher_map_identity(&map, &c, err));
	j = teacher_map_json(&map);
	assert_ok(teacher_map_parse(&back, j, &c, &c, err));
	assert_same_map(&back, &map);
	teacher_map_close(&back);
	small.vision.hidden_size = 7;
	assert_refused(WN_INVALID, "vision.hidden: found 8 numbers, expected the student's 7",
	               teacher_map_parse(&back, j, &c, &small, err));
	assert_null(back.queries);
	assert_refused(WN_INVALID, "vision.hidden[7]: found 7, expected an integer from 7 to 6",
	               teacher_map_parse(&back, j, &small, &c, err));
	json_t *blocks = json_object_get(json_object_get(j, "text"), "blocks");
	json_array_set_new(blocks, 2, json_integer(1));
	assert_refused(WN_INVALID, "text.blocks[2]: found 1, expected an integer from 2 to 4",
	               teacher_map_parse(&back, j, &c, &c, err));
	json_array_set_new(blocks, 2, json_string("2"));
	assert_refused(WN_INVALID, "text.blocks[2]", teacher_map_parse(&back, j, &c, &c, err));
	json_array_set_new(blocks, 2, json_integer(2));
	json_array_set_new(json_object_get(j, "queries"), 0, json_integer(-1));
	assert_refused(WN_INVALID, "queries[0]: found -1, expected an integer from 0 to 3",
	               teacher_map_parse(&back, j, &c, &c, err));
	json_object_del(j, "qformer");
	assert_refused(WN_INVALID, "qformer.blocks: found 0 numbers, expected the student's 5",
	               teacher_map_parse(&back, j, &c, &c, err));
	assert_refused(WN_INVALID, "vision.blocks: found 0", teacher_map_parse(&back, NULL, &c, &c, err));
	json_decref(j);
	teacher_map_close(&map);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_best_stay),
		cmocka_unit_test(planned_cross_attention_is_binding),
		cmocka_unit_test(what_does_not_fit_is_refused),
		cmocka_unit_test(lost_shares_by_hand),
		cmocka_unit_test(json_says_what_stays),
		cmocka_unit_test(places_survive_two_steps),
		cmocka_unit_test(damaged_maps_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
