/* Scores of structures against plain loops over names, and against models whose answers can be written down by hand. */
#include "tests/compress/small_models.h"

/* ---- elements ---- */

static void taylor_by_hand(void **state)
{
	float elements[3] = {0};
	taylor_add(elements, (const float[]){2, -3, 0}, (const float[]){0.5f, 2, 7}, 3);
	taylor_add(elements, (const float[]){2, -3, 0}, (const float[]){-0.25f, 0, 1}, 3);
	assert_true(elements[0] == 1.5f && elements[1] == 6 && elements[2] == 0);
}

/* Long enough to be split among threads. */
static void taylor_of_a_long_buffer(void **state)
{
	enum { COUNT = 300001 };
	float *x = calloc(3 * COUNT, sizeof *x), *w = x + COUNT, *g = w + COUNT;
	rng r = rng_open(1, 2, 3, 4);
	for (int i = 0; i < COUNT; i++) {
		x[i] = (float)(i % 5);
		w[i] = (float)rng_uniform(&r, -1, 1);
		g[i] = (float)rng_uniform(&r, -1, 1);
	}
	taylor_add(x, w, g, COUNT);
	for (int i = 0; i < COUNT; i++)
		assert_close(x[i], i % 5 + fabs((double)w[i] * g[i]), 1e-6, "element", (size_t)i);
	free(x);
}

/* Adds one element to the structure that its coordinate on an axis of this letter means. */
static void naive_add(structure_scores *s, const named *n, char letter, int64_t at, int64_t length, double x)
{
	block_scores *b = n->block < 0 ? NULL : &s->blocks[n->stack][n->block];
	switch (letter) {
	case 'v': s->hidden[0][at] += x; break;
	case 'q': s->hidden[1][at] += x; break;
	case 't': s->hidden[2][at] += x; break;
	case 'n': s->queries[at] += x; break;
	case 'p': /* OPT's first two rows are no position; the queries stand at the next */
		if (at >= 2 && at - 2 < s->shape.num_query_tokens)
			s->queries[at - 2] += x;
		break;
	case 'f': b->ffn[at] += x; break;
	case 'a': b->self_qk[at] += x; break;
	case 'b': b->self_v[at] += x; break;
	case 'c': b->cross_qk[at] += x; break;
	case 'd': b->cross_v[at] += x; break;
	case 'Q': *(at < length / 3 * 2 ? &b->self_qk[at % (length / 3)] : &b->self_v[at % (length / 3)]) += x; break;
	default: break;
	}
}

static void naive_scores(structure_scores *s, const blip2 *m, const float *x)
{
	for (size_t i = 0; i < blip2_num_params(m); i++) {
		const param *p = blip2_param(m, i);
		const named n = find_named(p->name);
		for (size_t e = 0; e < p->count; e++) {
			int64_t at[4];
			const double v = fabs(x[p->offset + e]);
			coordinates(at, p, e);
			for (int a = 0; a < p->rank; a++)
				naive_add(s, &n, n.axes[a], at[a], p->shape[a], v);
			if (n.block >= 0)
				s->blocks[n.stack][n.block].total += v;
		}
	}
}

static void assert_scores(const structure_scores *got, const structure_scores *want, double tolerance, const char *what)
{
	char name[64];
	assert_int_equal(got->count, want->count);
	for (size_t i = 0; i < got->count; i++)
		assert_close(got->memory[i], want->memory[i], tolerance * (1 + fabs(want->memory[i])), what, i);
	for (int c = 0; c < NUM_COMPONENTS; c++)
		for (int i = 0; i < shape_stack(&got->shape, (component)c)->num_hidden_layers; i++) {
			snprintf(name, sizeof name, "%s, total of %s block", what, shape_stack_name((component)c));
			assert_close(got->blocks[c][i].total, want->blocks[c][i].total,
			             tolerance * (1 + want->blocks[c][i].total), name, (size_t)i);
		}
}

static void elements_equal_plain_loops(void **state)
{
	for (unsigned v = 0; v < 8; v++) {
		rng r = rng_open(v, 10, 0, 0);
		const blip2_config c = random_shape(&r, v);
		blip2 *m = random_model(&r, &c);
		structure_scores got, want;
		assert_ok(structure_scores_open(&got, &c, err));
		assert_ok(structure_scores_open(&want, &c, err));
		structure_scores_random(&got, 1); /* what was there before does not count */
		structure_scores_from_elements(&got, m, NULL);
		naive_scores(&want, m, blip2_weights(m));
		assert_scores(&got, &want, 1e-9, "magnitude");

		float *elements = malloc(blip2_weights_count(m) * sizeof *elements);
		for (size_t i = 0; i < blip2_weights_count(m); i++)
			elements[i] = (float)rng_double(&r); /* also in the gaps between parameters, which belong to nothing */
		structure_scores_close(&want);
		assert_ok(structure_scores_open(&want, &c, err));
		structure_scores_from_elements(&got, m, elements);
		naive_scores(&want, m, elements);
		assert_scores(&got, &want, 1e-9, "elements");
		free(elements);
		structure_scores_close(&got);
		structure_scores_close(&want);
		blip2_close(&m);
	}
}

static double sum(const double *x, int count)
{
	double s = 0;
	for (int i = 0; i < count; i++)
		s += x[i];
	return s;
}

/* Whatever has an axis is shared out completely among its structures. */
static void every_element_is_counted_once_an_axis(void **state)
{
	rng r = rng_open(3, 11, 0, 0);
	const blip2_config c = random_shape(&r, 0);
	blip2 *m = random_model(&r, &c);
	structure_scores s;
	double ffn = 0, heads = 0, cross = 0, hidden[3] = {0}, queries = 0;
	for (size_t i = 0; i < blip2_num_params(m); i++) {
		const param *p = blip2_param(m, i);
		const named n = find_named(p->name);
		for (size_t e = 0; e < p->count; e++) {
			const double v = fabs(blip2_weights(m)[p->offset + e]);
			ffn += strchr(n.axes, 'f') ? v : 0;
			heads += strpbrk(n.axes, "abQ") ? v : 0;
			cross += strpbrk(n.axes, "cd") ? v : 0;
			queries += strchr(n.axes, 'n') ? v : 0;
			if (strchr(n.axes, 'p')) /* rows 2 .. 2 + Q of [positions + 2][hidden] */
				queries += e >= 2 * (size_t)p->shape[1] && e < (2 + (size_t)c.num_query_tokens) * (size_t)p->shape[1] ? v : 0;
			for (int k = 0; k < 3; k++)
				hidden[k] += strchr(n.axes, "vqt"[k]) ? v : 0;
		}
	}
	assert_ok(structure_scores_open(&s, &c, err));
	structure_scores_from_elements(&s, m, NULL);
	for (int k = 0; k < 3; k++) {
		const stack_config *stack = shape_stack(&c, (component)k);
		assert_close(sum(s.hidden[k], stack->hidden_size), hidden[k], 1e-6, "hidden", (size_t)k);
		for (int i = 0; i < stack->num_hidden_layers; i++) {
			const block_widths *w = &stack->blocks[i];
			ffn -= sum(s.blocks[k][i].ffn, w->ffn_dim);
			for (int h = 0; h < w->num_heads; h++)
				heads -= head_score(&s, (component)k, i, false, h);
			for (int h = 0; h < w->cross_num_heads; h++)
				cross -= head_score(&s, (component)k, i, true, h);
		}
	}
	assert_close(ffn, 0, 1e-6, "neurons", 0);
	assert_close(heads, 0, 1e-6, "heads", 0);
	assert_close(cross, 0, 1e-6, "cross heads", 0);
	assert_close(sum(s.queries, c.num_query_tokens), queries, 1e-6, "queries", 0);
	structure_scores_close(&s);
	blip2_close(&m);
}

/* ---- activations ---- */

static void set(blip2 *m, const char *name, const float *values, size_t count)
{
	const param *p = blip2_find_param(m, name);
	assert_non_null(p);
	for (size_t i = 0; i < p->count; i++) /* a table gets the values in every row */
		blip2_weights(m)[p->offset + i] = values[i % count];
}

/* Norms of weight 0 and matrices of zeros leave only biases: every row of every projection is its bias. */
static void activations_by_hand(void **state)
{
	blip2_config c = {.image_size = 4, .patch_size = 4, .qkv_bias = true, .num_query_tokens = 2, .cross_attention_frequency = 1,
	                  .vocab_size = 8, .max_position_embeddings = 16, .bos_token_id = 2, .eos_token_id = 2, .pad_token_id = 1};
	for (int i = 0; i < NUM_COMPONENTS; i++) {
		*stack_at(&c, i) = (stack_config){
		        .hidden_size = 2, .num_hidden_layers = 1, .layer_norm_eps = 1e-5f, .activation = ACTIVATION_RELU};
		stack_at(&c, i)->blocks[0] = (block_widths){.num_heads = 1, .head_dim = 2, .ffn_dim = 3};
	}
	c.text.num_hidden_layers = 2;
	c.text.blocks[1] = c.text.blocks[0];
	c.qformer.blocks[0].cross_num_heads = 1;
	c.qformer.blocks[0].cross_head_dim = 2;
	blip2 *m;
	structure_scores s;
	assert_ok(blip2_create(&m, &c, err));
	assert_ok(structure_scores_open(&s, &c, err));
#define LAYER "language_model.model.decoder.layers.0."
#define CROSS "qformer.encoder.layer.0.crossattention.attention."
	set(m, "language_model.model.decoder.embed_positions.weight", (const float[]){4, -2}, 2); /* every row of the stream */
	set(m, LAYER "self_attn.q_proj.bias", (const float[]){2, -3}, 2);
	set(m, LAYER "self_attn.k_proj.bias", (const float[]){-0.5f, 1}, 2);
	set(m, LAYER "self_attn.v_proj.bias", (const float[]){-7, 0.25f}, 2);
	set(m, LAYER "fc1.bias", (const float[]){1.5f, -1, 0.5f}, 3);
	set(m, LAYER "fc2.bias", (const float[]){-1, 2}, 2); /* the stream is (3, 0) from here on */
	set(m, CROSS "query.bias", (const float[]){3, 5}, 2);
	set(m, CROSS "key.bias", (const float[]){-2, 0.5f}, 2);
	set(m, CROSS "value.bias", (const float[]){-1, 6}, 2);
	set(m, "qformer.encoder.layer.0.output_query.LayerNorm.bias", (const float[]){-1, 3}, 2); /* its output */
	rng r = rng_open(0, 0, 0, 0);
	inputs in;
	random_inputs(&r, &in, &c);
	blip2_session *run = forward(m, &in);
	for (int twice = 1; twice <= 2; twice++) {
		structure_scores_add_activations(&s, m, run);
		const block_scores *t = s.blocks[COMPONENT_TEXT], *q = s.blocks[COMPONENT_QFORMER];
		const double got[] = {
		        t->self_qk[0],  t->self_qk[1],  t->self_v[0],   t->self_v[1],         t->ffn[0],      t->ffn[1],
		        t->ffn[2],      t->total,       t[1].total,     t[1].ffn[0],          s.hidden[2][0], s.hidden[2][1],
		        q->cross_qk[0], q->cross_qk[1], q->cross_v[0],  q->cross_v[1],        s.hidden[1][0], s.hidden[1][1],
		        s.queries[0],   s.queries[1],   s.hidden[0][0], s.blocks[0][0].total, q->self_v[0]};
		const double want[] = {1, 3, 7, 0.25, 1.5, 0, 0.5, 3.0 / 6, 0, 0, 3, 0, 6, 2.5, 1, 6, 1, 3, 2, 2, 0, 0, 0};
		for (size_t i = 0; i < sizeof want / sizeof *want; i++)
			assert_close(got[i], twice * want[i], 1e-6, "activation", i);
	}
	blip2_session_close(&run);
	inputs_close(&in);
	structure_scores_close(&s);
	blip2_close(&m);
}

/* Mean over all pairs of rows of |a * b|. */
static double mean_of_pairs(const float *a, size_t rows, size_t stride, const float *b, size_t other_rows, size_t other_stride)
{
	double s = 0;
	for (size_t i = 0; i < rows; i++)
		for (size_t j = 0; j < other_rows; j++)
			s += fabs((double)a[i * stride] * b[j * other_stride]);
	return s / (double)(rows * other_rows);
}

static void naive_activations(structure_scores *s, const blip2_session *run)
{
	const float one = 1;
	for (int c = 0; c < NUM_COMPONENTS; c++) {
		const stack_config *stack = shape_stack(&s->shape, (component)c);
		const size_t hidden = (size_t)stack->hidden_size, queries = (size_t)s->shape.num_query_tokens;
		for (int i = 0; i < stack->num_hidden_layers; i++) {
			const blip2_block_view v = blip2_view_block(run, (component)c, i);
			const block_widths *w = &stack->blocks[i];
			block_scores *b = &s->blocks[c][i];
			const size_t ffn = (size_t)w->ffn_dim, self = (size_t)(w->num_heads * w->head_dim);
			const size_t cross = (size_t)(w->cross_num_heads * w->cross_head_dim);
			double changed = 0, size = 0;
			for (size_t e = 0; e < v.rows * hidden; e++) {
				changed += fabs((double)v.output[e] - v.input[e]);
				size += fabs((double)v.input[e]);
				if (c == COMPONENT_QFORMER)
					s->queries[e / hidden % queries] +=
					        fabs((double)v.output[e]) /
					        (SAMPLES * (double)hidden * stack->num_hidden_layers);
			}
			b->total += changed / size;
			for (size_t d = 0; d < hidden; d++)
				s->hidden[c][d] +=
				        mean_of_pairs(v.output + d, v.rows, hidden, &one, 1, 0) / stack->num_hidden_layers;
			for (size_t d = 0; d < ffn; d++)
				b->ffn[d] += mean_of_pairs(v.ffn + d, v.rows, ffn, &one, 1, 0);
			for (size_t d = 0; d < self; d++) {
				b->self_qk[d] += mean_of_pairs(v.self_qkv + d, v.rows, 3 * self, v.self_qkv + self + d, v.rows,
				                               3 * self);
				b->self_v[d] += mean_of_pairs(v.self_context + d, v.rows, self, &one, 1, 0);
			}
			for (size_t d = 0; d < cross; d++) {
				b->cross_qk[d] +=
				        mean_of_pairs(v.cross_q + d, v.rows, cross, v.cross_kv + d, v.encoder_rows, 2 * cross);
				b->cross_v[d] += mean_of_pairs(v.cross_context + d, v.rows, cross, &one, 1, 0);
			}
		}
	}
}

static void activations_equal_plain_loops(void **state)
{
	for (unsigned v = 0; v < 4; v++) {
		rng r = rng_open(v, 12, 0, 0);
		const blip2_config c = random_shape(&r, v);
		blip2 *m = random_model(&r, &c);
		structure_scores got, want;
		inputs in;
		random_inputs(&r, &in, &c);
		blip2_session *run = forward(m, &in);
		assert_ok(structure_scores_open(&got, &c, err));
		assert_ok(structure_scores_open(&want, &c, err));
		structure_scores_add_activations(&got, m, run);
		naive_activations(&want, run);
		assert_scores(&got, &want, 1e-9, "activation");
		blip2_session_close(&run);
		inputs_close(&in);
		structure_scores_close(&got);
		structure_scores_close(&want);
		blip2_close(&m);
	}
}

static void a_stack_that_did_not_run_has_no_scores(void **state)
{
	rng r = rng_open(0, 13, 0, 0);
	const blip2_config c = random_shape(&r, 0);
	blip2 *m = random_model(&r, &c);
	blip2_session *run;
	structure_scores s;
	inputs in;
	blip2_session_options o = {.max_batch = SAMPLES, .max_text_len = TOKENS, .keep_hidden = true, .use_vision = false};
	random_inputs(&r, &in, &c);
	assert_ok(blip2_session_open(&run, m, &o, err));
	assert_ok(blip2_forward(run, &in.batch, err));
	assert_ok(structure_scores_open(&s, &c, err));
	structure_scores_add_activations(&s, m, run);
	assert_true(sum(s.hidden[COMPONENT_VISION], c.vision.hidden_size) == 0 && s.blocks[COMPONENT_VISION][0].total == 0);
	assert_true(sum(s.hidden[COMPONENT_TEXT], c.text.hidden_size) > 0 && s.blocks[COMPONENT_QFORMER][0].total > 0);
	blip2_session_close(&run);
	inputs_close(&in);
	structure_scores_close(&s);
	blip2_close(&m);
}

/* ---- the rest ---- */

static void random_scores_repeat(void **state)
{
	rng r = rng_open(5, 14, 0, 0);
	const blip2_config c = random_shape(&r, 2);
	structure_scores a, b;
	assert_ok(structure_scores_open(&a, &c, err));
	assert_ok(structure_scores_open(&b, &c, err));
	structure_scores_random(&a, 7);
	structure_scores_random(&b, 7);
	assert_scores(&a, &b, 0, "seed 7");
	structure_scores_random(&b, 8);
	size_t same = 0;
	double mean = 0;
	for (size_t i = 0; i < a.count; i++) {
		assert_true(a.memory[i] > 0 && a.memory[i] < 1);
		same += a.memory[i] == b.memory[i];
		mean += a.memory[i] / (double)a.count;
	}
	assert_int_equal(same, 0);
	assert_close(mean, 0.5, 0.05, "mean", 0);
	assert_true(a.blocks[0][0].total > 0 && a.blocks[0][0].total < 1 && a.blocks[0][0].total != a.blocks[0][1].total);
	structure_scores_close(&a);
	structure_scores_close(&b);
}

static void json_has_every_score(void **state)
{
	rng r = rng_open(6, 15, 0, 0);
	const blip2_config c = random_shape(&r, 2);
	structure_scores s;
	assert_ok(structure_scores_open(&s, &c, err));
	structure_scores_random(&s, 1);
	json_t *j = structure_scores_json(&s);
	assert_non_null(j);
	size_t reals = 0;
	for (int k = 0; k < NUM_COMPONENTS; k++) {
		const json_t *stack = json_object_get(j, shape_stack_name((component)k)),
		             *blocks = json_object_get(stack, "blocks");
		reals += json_array_size(json_object_get(stack, "hidden"));
		assert_int_equal(json_array_size(blocks), shape_stack(&c, (component)k)->num_hidden_layers);
		for (size_t i = 0; i < json_array_size(blocks); i++) {
			const json_t *b = json_array_get(blocks, i);
			static const char *const lists[] = {"ffn", "self_qk", "self_v", "cross_qk", "cross_v"};
			for (int l = 0; l < 5; l++)
				reals += json_array_size(json_object_get(b, lists[l]));
			assert_true(num(b, "total") == s.blocks[k][i].total);
		}
	}
	assert_int_equal(reals + json_array_size(json_object_get(j, "queries")), s.count);
	const json_t *second = json_array_get(json_object_get(json_object_get(j, "qformer"), "blocks"), 0);
	assert_true(json_real_value(json_array_get(json_object_get(second, "cross_v"), 1)) ==
	            s.blocks[COMPONENT_QFORMER][0].cross_v[1]);
	assert_null(json_object_get(json_array_get(json_object_get(json_object_get(j, "qformer"), "blocks"), 1), "cross_qk"));
	json_decref(j);
	structure_scores_close(&s);
	structure_scores_close(&s);
	assert_string_equal(IMPORTANCE_NAMES[IMPORTANCE_RANDOM], "random");
	assert_null(IMPORTANCE_NAMES[IMPORTANCE_RANDOM + 1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(taylor_by_hand),
		cmocka_unit_test(taylor_of_a_long_buffer),
		cmocka_unit_test(elements_equal_plain_loops),
		cmocka_unit_test(every_element_is_counted_once_an_axis),
		cmocka_unit_test(activations_by_hand),
		cmocka_unit_test(activations_equal_plain_loops),
		cmocka_unit_test(a_stack_that_did_not_run_has_no_scores),
		cmocka_unit_test(random_scores_repeat),
		cmocka_unit_test(json_has_every_score),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
