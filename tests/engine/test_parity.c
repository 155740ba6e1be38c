/* test_parity.c: the engine against stock transformers and PyTorch autograd (goldens of make_goldens.py), and against itself
 * where the answer must not depend on how it is asked. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "golden.h"
#include "prune/adamw.h"

static const char *const all_cases[] = {"base", "no_qkv_bias", "freq3", "sharded", "f16", "bf16_sharded", "single", "widths"};
static const char *const grad_cases[] = {"base", "no_qkv_bias", "freq3", "widths"};
#define COUNT(a) (sizeof(a) / sizeof *(a))

static blip2_session *open_session(const golden *g, int n, int text_len, bool training)
{
	wn_error err = {0};
	blip2_session *s = NULL;
	blip2_session_options opt = blip2_session_defaults();
	opt.max_batch = n;
	opt.max_text_len = text_len;
	opt.training = training;
	assert_ok(blip2_session_open(&s, g->ck.model, &opt, &err), &err);
	return s;
}

/* Logits of every position of samples [0, n) into a malloc'ed [n][Q+T][V]. */
static float *all_logits(const blip2_session *s, const blip2_config *c, int n, int text_len)
{
	const int rows = n * (c->num_query_tokens + text_len);
	int32_t *row = malloc((size_t)rows * sizeof *row);
	float *logits = malloc((size_t)rows * (size_t)c->vocab_size * sizeof *logits);
	for (int i = 0; i < rows; i++)
		row[i] = i;
	blip2_logits(s, row, (size_t)rows, logits);
	free(row);
	return logits;
}

static void compare_forward(const golden *g, const blip2_session *s, const char *name, double limit)
{
	const blip2_config *c = blip2_get_config(g->ck.model);
	const size_t n = (size_t)g->batch.n, grid = (size_t)(c->image_size / c->patch_size);
	const size_t vision = n * (grid * grid + 1) * (size_t)c->vision.hidden_size;
	const size_t qformer = n * (size_t)(c->num_query_tokens * c->qformer.hidden_size);
	const size_t logits = n * (size_t)(c->num_query_tokens + g->batch.text_len) * (size_t)c->vocab_size;
	char what[96];
	snprintf(what, sizeof what, "%s vision", name);
	const double v = worst_difference(blip2_vision_hidden(s), golden_floats(g->out, "vision_last_hidden_state", vision), vision);
	assert_at_most(v, limit, what);
	snprintf(what, sizeof what, "%s Q-Former", name);
	const double q = worst_difference(blip2_qformer_hidden(s), golden_floats(g->out, "qformer_last_hidden_state", qformer), qformer);
	assert_at_most(q, limit, what);
	snprintf(what, sizeof what, "%s logits", name);
	float *got = all_logits(s, c, g->batch.n, g->batch.text_len);
	const double l = worst_difference(got, golden_floats(g->out, "logits", logits), logits);
	assert_at_most(l, limit, what);
	print_message("%s: worst difference over worst value: vision %.1e, Q-Former %.1e, logits %.1e\n", name, v, q, l);
	free(got);
}

static void forward_equals_transformers(void **state)
{
	for (size_t i = 0; i < COUNT(all_cases); i++) {
		golden g;
		wn_error err = {0};
		golden_open(&g, all_cases[i]);
		for (int training = 0; training < 2; training++) {
			blip2_session *s = open_session(&g, g.batch.n, g.batch.text_len, training);
			assert_ok(blip2_forward(s, &g.batch, &err), &err);
			/* 16-bit weights are widened exactly, so they get the same limit. */
			compare_forward(&g, s, all_cases[i], 1e-4);
			blip2_session_close(&s);
		}
		golden_close(&g);
	}
}

static void gradients_equal_autograd(void **state)
{
	for (size_t i = 0; i < COUNT(grad_cases); i++) {
		golden g;
		wn_error err = {0};
		float loss;
		double worst = 0;
		golden_open(&g, grad_cases[i]);
		blip2_session *s = open_session(&g, g.batch.n, g.batch.text_len, true);
		float *grads = calloc(blip2_weights_count(g.ck.model), sizeof *grads);
		assert_ok(blip2_forward(s, &g.batch, &err), &err);
		assert_ok(blip2_backward(s, &g.batch, 1, grads, &loss, NULL, NULL, &err), &err);
		assert_at_most(fabs((double)loss - *golden_floats(g.grad, "loss", 1)), 1e-5, "loss");
		/* Every parameter of the file has a gradient here, and the other way round. */
		assert_int_equal(safetensors_count(g.grad), blip2_num_params(g.ck.model) + 1);
		for (size_t k = 0; k < blip2_num_params(g.ck.model); k++) {
			const param *p = blip2_param(g.ck.model, k);
			const float *want = golden_floats(g.grad, p->name, p->count);
			char what[160];
			snprintf(what, sizeof what, "%s: gradient of %s", grad_cases[i], p->name);
			double norm = 0, diff = 0;
			for (size_t e = 0; e < p->count; e++) {
				norm += (double)want[e] * want[e];
				diff += fabs((double)grads[p->offset + e] - want[e]);
			}
			/* A key's bias shifts a whole softmax row: its true gradient is 0, both sides have rounding noise. */
			if (sqrt(norm) < 1e-6)
				assert_at_most(diff, 1e-5, what);
			else {
				const double d = norm_difference(grads + p->offset, want, p->count);
				assert_at_most(d, 1e-3, what);
				worst = d > worst ? d : worst;
			}
		}
		print_message("%s: worst gradient %.1e, loss off by %.1e\n", grad_cases[i], worst,
		              fabs((double)loss - *golden_floats(g.grad, "loss", 1)));
		free(grads);
		blip2_session_close(&s);
		golden_close(&g);
	}
}

/* Central differences on the entries with the largest gradient of a handful of parameters, in all three stacks. */
static void gradients_equal_finite_differences(void **state)
{
	static const char *const names[] = {
		"vision_model.embeddings.patch_embedding.weight", "vision_model.encoder.layers.0.self_attn.qkv.weight",
		"query_tokens", "qformer.encoder.layer.0.crossattention.attention.key.weight",
		"qformer.encoder.layer.1.intermediate_query.dense.weight", "language_projection.weight",
		"language_model.model.decoder.embed_tokens.weight", "language_model.model.decoder.layers.1.fc1.weight"};
	golden g;
	wn_error err = {0};
	float loss, up, down;
	golden_open(&g, "base");
	const size_t total = blip2_weights_count(g.ck.model);
	float *grads = calloc(total, sizeof *grads), *unused = calloc(total, sizeof *unused), *w = blip2_weights(g.ck.model);
	blip2_session *s = open_session(&g, g.batch.n, g.batch.text_len, true);
	assert_ok(blip2_forward(s, &g.batch, &err), &err);
	assert_ok(blip2_backward(s, &g.batch, 1, grads, &loss, NULL, NULL, &err), &err);
	for (size_t i = 0; i < COUNT(names); i++) {
		const param *p = blip2_find_param(g.ck.model, names[i]);
		assert_non_null(p);
		size_t at = p->offset;
		for (size_t e = p->offset; e < p->offset + p->count; e++)
			if (fabsf(grads[e]) > fabsf(grads[at]))
				at = e;
		const float old = w[at], h = 1e-2f;
		w[at] = old + h;
		assert_ok(blip2_forward(s, &g.batch, &err), &err);
		assert_ok(blip2_backward(s, &g.batch, 1, unused, &up, NULL, NULL, &err), &err);
		w[at] = old - h;
		assert_ok(blip2_forward(s, &g.batch, &err), &err);
		assert_ok(blip2_backward(s, &g.batch, 1, unused, &down, NULL, NULL, &err), &err);
		w[at] = old;
		assert_at_most(fabs(((double)up - down) / (2 * h) / grads[at] - 1), 2e-2, names[i]);
	}
	free(grads);
	free(unused);
	blip2_session_close(&s);
	golden_close(&g);
}

/* A small model with one hidden width for vision and Q-Former, random weights, and a batch for it. */
static const int32_t first_ids[2 * 6] = {5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
static const int32_t first_labels[2 * 6] = {-100, -100, -100, 21, 22, -100, -100, -100, 30, 31, -100, -100};

static blip2 *vision_first_model(void)
{
	blip2_config c = {.image_size = 28, .patch_size = 14, .num_query_tokens = 3, .cross_attention_frequency = 1, .vocab_size = 40,
	                  .max_position_embeddings = 16, .initializer_range = 0.02f, .pad_token_id = 1, .qkv_bias = true};
	c.vision = (stack_config){.hidden_size = 24, .num_hidden_layers = 2, .layer_norm_eps = 1e-6f, .activation = ACTIVATION_GELU};
	c.qformer = (stack_config){.hidden_size = 24, .num_hidden_layers = 1, .layer_norm_eps = 1e-12f, .activation = ACTIVATION_GELU};
	c.text = (stack_config){.hidden_size = 32, .num_hidden_layers = 1, .layer_norm_eps = 1e-5f, .activation = ACTIVATION_RELU};
	for (int i = 0; i < 2; i++)
		c.vision.blocks[i] = (block_widths){.num_heads = 2, .head_dim = 12, .ffn_dim = 48};
	c.qformer.blocks[0] = (block_widths){.num_heads = 2, .head_dim = 12, .cross_num_heads = 2, .cross_head_dim = 12, .ffn_dim = 48};
	c.text.blocks[0] = (block_widths){.num_heads = 2, .head_dim = 16, .ffn_dim = 64};
	wn_error err = {0};
	blip2 *m = NULL;
	assert_ok(blip2_create(&m, &c, &err), &err);
	blip2_init_weights(m, 7);
	return m;
}

static void check_vision_first_gradients(const int32_t *kept, int num_kept)
{
	static const char *const names[] = {"vision_model.embeddings.patch_embedding.weight", "vision_model.embeddings.position_embedding",
		"vision_model.encoder.layers.0.self_attn.qkv.weight", "vision_model.encoder.layers.1.mlp.fc2.bias",
		"vision_model.post_layernorm.weight", "language_projection.weight", "language_projection.bias",
		"language_model.model.decoder.final_layer_norm.weight", "language_model.model.decoder.embed_tokens.weight"};
	wn_error err = {0};
	blip2 *m = vision_first_model();
	blip2_session *s = NULL;
	blip2_session_options opt = {.max_batch = 2, .max_text_len = 6, .training = true, .use_vision = true};
	assert_ok(blip2_session_open(&s, m, &opt, &err), &err);
	float pixels[2 * 3 * 28 * 28], loss, up, down;
	for (size_t i = 0; i < COUNT(pixels); i++)
		pixels[i] = sinf((float)(i * i % 977));
	const blip2_batch b = {.n = 2, .text_len = 6, .pixel_values = pixels, .input_ids = first_ids, .labels = first_labels};
	float *w = blip2_weights(m), *grads = calloc(blip2_weights_count(m), sizeof *grads), *unused = calloc(blip2_weights_count(m), sizeof *grads);
	int total = 0;
	assert_ok(blip2_vision_first(s, &b, kept, num_kept, 1, grads, &loss, NULL, &total, &err), &err);
	assert_int_equal(total, 2); /* one target a sample: its first label */
	for (size_t i = 0; i < COUNT(names); i++) {
		const param *p = blip2_find_param(m, names[i]);
		assert_non_null(p);
		size_t at = p->offset;
		for (size_t e = p->offset; e < p->offset + p->count; e++)
			if (fabsf(grads[e]) > fabsf(grads[at]))
				at = e;
		const float old = w[at], h = 5e-3f;
		w[at] = old + h;
		assert_ok(blip2_vision_first(s, &b, kept, num_kept, 1, unused, &up, NULL, NULL, &err), &err);
		w[at] = old - h;
		assert_ok(blip2_vision_first(s, &b, kept, num_kept, 1, unused, &down, NULL, NULL, &err), &err);
		w[at] = old;
		assert_at_most(fabs(((double)up - down) / (2 * h) / grads[at] - 1), 2e-2, names[i]);
	}
	/* what stands between the vision stack and the head is neither used nor moved */
	for (size_t i = 0; i < blip2_num_params(m); i++) {
		const param *p = blip2_param(m, i);
		if (p->component == COMPONENT_QFORMER && strncmp(p->name, "language_projection", 19))
			for (size_t e = p->offset; e < p->offset + p->count; e++)
				assert_true(grads[e] == 0);
	}
	free(grads);
	free(unused);
	blip2_session_close(&s);
	blip2_close(&m);
}

static void vision_first_gradients_equal_finite_differences(void **state)
{
	(void)state;
	static const int32_t some[] = {0, 3};
	check_vision_first_gradients(NULL, 0);
	check_vision_first_gradients(some, 2);
}

static void keeping_every_patch_is_keeping_none_out(void **state)
{
	(void)state;
	static const int32_t all[] = {0, 1, 2, 3}, unsorted[] = {2, 1}, beyond[] = {4};
	wn_error err = {0};
	blip2 *m = vision_first_model();
	blip2_session *s = NULL;
	blip2_session_options opt = {.max_batch = 2, .max_text_len = 6, .training = true, .use_vision = true};
	assert_ok(blip2_session_open(&s, m, &opt, &err), &err);
	float pixels[2 * 3 * 28 * 28], loss[2];
	for (size_t i = 0; i < COUNT(pixels); i++)
		pixels[i] = cosf((float)(i % 613));
	const blip2_batch b = {.n = 2, .text_len = 6, .pixel_values = pixels, .input_ids = first_ids, .labels = first_labels};
	float *grads = calloc(2 * blip2_weights_count(m), sizeof *grads), *other = grads + blip2_weights_count(m);
	assert_ok(blip2_vision_first(s, &b, NULL, 0, 1, grads, &loss[0], NULL, NULL, &err), &err);
	assert_ok(blip2_vision_first(s, &b, all, 4, 1, other, &loss[1], NULL, NULL, &err), &err);
	assert_true(loss[0] == loss[1]);
	assert_memory_equal(grads, other, blip2_weights_count(m) * sizeof *grads);
	assert_int_equal(blip2_vision_first(s, &b, unsorted, 2, 1, grads, loss, NULL, NULL, NULL), WN_INVALID);
	assert_int_equal(blip2_vision_first(s, &b, beyond, 1, 1, grads, loss, NULL, NULL, NULL), WN_INVALID);
	free(grads);
	blip2_session_close(&s);
	blip2_close(&m);
}

/* What vision first leaves in a session is not what blip2_backward needs; and a session's sizes do not wrap around. */
static void sessions_refuse_what_they_cannot_hold(void **state)
{
	(void)state;
	wn_error err = {0};
	blip2 *m = vision_first_model();
	blip2_session *s = NULL;
	blip2_session_options opt = {.max_batch = 2, .max_text_len = INT32_MAX, .training = true, .use_vision = true};
	assert_int_equal(blip2_session_open(&s, m, &opt, NULL), WN_TOO_LARGE);
	opt.max_text_len = 6;
	assert_ok(blip2_session_open(&s, m, &opt, &err), &err);
	static const float pixels[2 * 3 * 28 * 28];
	const blip2_batch b = {.n = 2, .text_len = 6, .pixel_values = pixels, .input_ids = first_ids, .labels = first_labels};
	float *grads = calloc(blip2_weights_count(m), sizeof *grads), loss;
	assert_ok(blip2_forward(s, &b, &err), &err);
	assert_ok(blip2_backward(s, &b, 1, grads, &loss, NULL, NULL, &err), &err);
	assert_ok(blip2_vision_first(s, &b, NULL, 0, 1, grads, &loss, NULL, NULL, &err), &err);
	assert_int_equal(blip2_backward(s, &b, 1, grads, &loss, NULL, NULL, NULL), WN_INVALID);
	free(grads);
	blip2_session_close(&s);
	blip2_close(&m);
}

/* Odd widths, no vision block, no cross-attention in the first Q-Former block, one text token: f32 and bf16 agree, and the
 * gradients are finite. */
static void unusual_shapes_run(void **state)
{
	(void)state;
	wn_error err = {0};
	blip2_config c = {.image_size = 9, .patch_size = 3, .num_query_tokens = 1, .cross_attention_frequency = 1, .vocab_size = 11,
	                  .max_position_embeddings = 5, .initializer_range = 0.02f, .pad_token_id = -1};
	c.vision = (stack_config){.hidden_size = 37, .layer_norm_eps = 1e-6f, .activation = ACTIVATION_GELU};
	c.qformer = (stack_config){.hidden_size = 7, .num_hidden_layers = 2, .layer_norm_eps = 1e-12f, .activation = ACTIVATION_GELU};
	c.text = (stack_config){.hidden_size = 61, .num_hidden_layers = 1, .layer_norm_eps = 1e-5f, .activation = ACTIVATION_RELU};
	c.qformer.blocks[0] = (block_widths){.num_heads = 3, .head_dim = 5, .ffn_dim = 1};
	c.qformer.blocks[1] = (block_widths){.num_heads = 1, .head_dim = 1, .cross_num_heads = 5, .cross_head_dim = 3, .ffn_dim = 129};
	c.text.blocks[0] = (block_widths){.num_heads = 1, .head_dim = 3, .ffn_dim = 2};
	blip2 *m = NULL;
	assert_ok(blip2_create(&m, &c, &err), &err);
	blip2_init_weights(m, 3);
	float pixels[3 * 9 * 9], logits[2][2 * 11];
	for (size_t i = 0; i < COUNT(pixels); i++)
		pixels[i] = sinf((float)i);
	static const int32_t ids[] = {4, 9}, labels[] = {-100, 3}, rows[] = {0, 1};
	float *grads = calloc(blip2_weights_count(m), sizeof *grads);
	for (int k = 0; k < 4; k++) { /* f32 and bf16, serving and training */
		blip2_session *s = NULL;
		blip2_session_options opt = {.max_batch = 1, .max_text_len = 2, .training = k / 2 > 0, .use_vision = true, .bf16 = k % 2 > 0};
		blip2_batch b = {.n = 1, .text_len = 1, .pixel_values = pixels, .input_ids = ids, .labels = labels};
		assert_ok(blip2_session_open(&s, m, &opt, &err), &err);
		assert_ok(blip2_forward(s, &b, &err), &err);
		blip2_logits(s, rows, 2, logits[k % 2]);
		if (k % 2)
			assert_at_most(norm_difference(logits[1], logits[0], COUNT(logits[0])), 0.05, "logits");
		if (opt.training) {
			float loss = 1;
			int total = 1;
			assert_ok(blip2_backward(s, &b, 1, grads, &loss, NULL, &total, &err), &err);
			assert_true(loss == 0 && total == 0); /* nothing predicts the first token */
			b.text_len = 2;
			assert_ok(blip2_forward(s, &b, &err), &err);
			assert_ok(blip2_backward(s, &b, 1, grads, &loss, NULL, &total, &err), &err);
			assert_true(isfinite(loss) && total == 1);
			for (size_t i = 0; i < blip2_weights_count(m); i++)
				assert_true(isfinite(grads[i]));
		}
		blip2_session_close(&s);
	}
	free(grads);
	blip2_close(&m);
}

static void vision_first_needs_equal_widths(void **state)
{
	(void)state;
	golden g;
	wn_error err = {0};
	float loss;
	golden_open(&g, "base");
	const blip2_config *c = blip2_get_config(g.ck.model);
	assert_int_not_equal(c->vision.hidden_size, c->qformer.hidden_size);
	float *grads = calloc(blip2_weights_count(g.ck.model), sizeof *grads);
	blip2_session *s = open_session(&g, g.batch.n, g.batch.text_len, true);
	assert_int_equal(blip2_vision_first(s, &g.batch, NULL, 0, 1, grads, &loss, NULL, NULL, &err), WN_UNSUPPORTED);
	assert_non_null(strstr(err.message, "one hidden width"));
	free(grads);
	blip2_session_close(&s);
	golden_close(&g);
}

/* bf16 products round their operands to 8 bits: close to f32, and not equal to it. */
static void bf16_products_stay_close_to_f32(void **state)
{
	(void)state;
	golden g;
	wn_error err = {0};
	golden_open(&g, "base");
	const size_t total = blip2_weights_count(g.ck.model);
	float *grads[2], loss[2];
	for (int i = 0; i < 2; i++) {
		blip2_session_options opt = {.max_batch = g.batch.n, .max_text_len = g.batch.text_len, .training = true, .use_vision = true,
		                             .bf16 = i == 1};
		blip2_session *s = NULL;
		grads[i] = calloc(total, sizeof *grads[i]);
		assert_ok(blip2_session_open(&s, g.ck.model, &opt, &err), &err);
		assert_ok(blip2_forward(s, &g.batch, &err), &err);
		assert_ok(blip2_backward(s, &g.batch, 1, grads[i], &loss[i], NULL, NULL, &err), &err);
		blip2_session_close(&s);
	}
	double difference = 0, norm = 0;
	for (size_t i = 0; i < total; i++) {
		difference += ((double)grads[0][i] - grads[1][i]) * ((double)grads[0][i] - grads[1][i]);
		norm += (double)grads[0][i] * grads[0][i];
	}
	assert_at_most(sqrt(difference / norm), 3e-2, "bf16 gradient");
	assert_true(difference > 0);
	assert_at_most(fabs((double)loss[0] - loss[1]) / loss[0], 1e-2, "bf16 loss");
	free(grads[0]);
	free(grads[1]);
	golden_close(&g);
}

/* scale multiplies gradients, and only them; gradients add up. */
static void backward_adds_scaled_gradients(void **state)
{
	golden g;
	wn_error err = {0};
	float loss, scaled_loss;
	int correct = -1, labelled = -1;
	golden_open(&g, "no_qkv_bias");
	const size_t count = blip2_weights_count(g.ck.model);
	float *once = calloc(count, sizeof *once), *sum = calloc(count, sizeof *sum);
	blip2_session *s = open_session(&g, g.batch.n, g.batch.text_len, true);
	assert_ok(blip2_forward(s, &g.batch, &err), &err);
	assert_ok(blip2_backward(s, &g.batch, 1, once, &loss, &correct, &labelled, &err), &err);
	int expected = 0;
	for (int i = 0; i < g.batch.n; i++)
		for (int t = 1; t < g.batch.text_len; t++)
			expected += g.labels[i * g.batch.text_len + t] != -100;
	assert_int_equal(labelled, expected);
	assert_in_range(correct, 0, expected);
	for (int i = 0; i < 2; i++) {
		assert_ok(blip2_forward(s, &g.batch, &err), &err);
		assert_ok(blip2_backward(s, &g.batch, 0.25f, sum, &scaled_loss, NULL, NULL, &err), &err);
		assert_at_most(fabs((double)loss - scaled_loss), 1e-6, "loss of a scaled backward");
	}
	for (size_t i = 0; i < count; i++)
		once[i] *= 0.5f;
	assert_at_most(norm_difference(sum, once, count), 1e-5, "2 x 0.25 x gradient");
	free(once);
	free(sum);
	blip2_session_close(&s);
	golden_close(&g);
}

/* Ten AdamW steps on one batch follow torch.optim.AdamW's losses. */
static void adamw_steps_follow_pytorch(void **state)
{
	golden g;
	wn_error err = {0};
	json_error_t je;
	golden_open(&g, "base");
	json_t *ref = json_load_file(golden_path("base", "adamw.json"), 0, &je);
	assert_non_null(ref);
	const json_t *losses = json_object_get(ref, "losses");
	assert_int_equal(json_array_size(losses), 10);
	const size_t n = blip2_num_params(g.ck.model), count = blip2_weights_count(g.ck.model);
	adamw_segment *segments = calloc(n, sizeof *segments);
	for (size_t i = 0; i < n; i++) {
		const param *p = blip2_param(g.ck.model, i);
		segments[i] = (adamw_segment){p->offset, p->count, p->decay};
	}
	const adamw_options opt = {json_number_value(json_object_get(ref, "beta1")), json_number_value(json_object_get(ref, "beta2")),
	                           json_number_value(json_object_get(ref, "eps")),
	                           json_number_value(json_object_get(ref, "weight_decay"))};
	adamw a;
	assert_ok(adamw_open(&a, &opt, count, segments, n, &err), &err);
	blip2_session *s = open_session(&g, g.batch.n, g.batch.text_len, true);
	float *grads = calloc(count, sizeof *grads), loss;
	for (size_t step = 0; step < 10; step++) {
		memset(grads, 0, count * sizeof *grads);
		assert_ok(blip2_forward(s, &g.batch, &err), &err);
		assert_ok(blip2_backward(s, &g.batch, 1, grads, &loss, NULL, NULL, &err), &err);
		adamw_step(&a, blip2_weights(g.ck.model), grads, json_number_value(json_object_get(ref, "lr")), 1);
		assert_at_most(fabs(loss - json_number_value(json_array_get(losses, step))), 1e-3, "loss of an AdamW step");
	}
	free(grads);
	free(segments);
	adamw_close(&a);
	blip2_session_close(&s);
	json_decref(ref);
	golden_close(&g);
}

/* A larger session, used for something else in between, gives the golden answer again; so does one sample at a time. */
static void answers_do_not_depend_on_the_session(void **state)
{
	golden g;
	wn_error err = {0};
	golden_open(&g, "base");
	const blip2_config *c = blip2_get_config(g.ck.model);
	const int T = g.batch.text_len, L = c->num_query_tokens + T;
	const size_t pixels = 3 * (size_t)(c->image_size * c->image_size), V = (size_t)c->vocab_size;
	blip2_session *s = open_session(&g, g.batch.n + 2, T + 5, false);
	assert_ok(blip2_forward(s, &g.batch, &err), &err);
	compare_forward(&g, s, "larger session", 1e-4);
	for (int i = 0; i < g.batch.n; i++) {
		blip2_batch one = g.batch;
		one.n = 1;
		one.pixel_values += (size_t)i * pixels;
		one.input_ids += i * T;
		one.attention_mask += i * T;
		assert_ok(blip2_forward(s, &one, &err), &err);
		float *got = all_logits(s, c, 1, T);
		const float *want = golden_floats(g.out, "logits", (size_t)(g.batch.n * L) * V) + (size_t)(i * L) * V;
		assert_at_most(worst_difference(got, want, (size_t)L * V), 1e-4, "a sample by itself");
		free(got);
	}
	assert_ok(blip2_forward(s, &g.batch, &err), &err);
	compare_forward(&g, s, "after other shapes", 1e-4);
	blip2_session_close(&s);
	golden_close(&g);
}

static void batches_that_do_not_fit_are_refused(void **state)
{
	golden g;
	golden_open(&g, "base");
	blip2_session *s = open_session(&g, g.batch.n - 1, g.batch.text_len, false);
	wn_error err = {0};
	assert_int_equal(blip2_forward(s, &g.batch, &err), WN_TOO_LARGE);
	blip2_session_close(&s);
	s = open_session(&g, g.batch.n, g.batch.text_len, false);
	for (int bad = 0; bad < 2; bad++) {
		const int32_t old = g.ids[3];
		g.ids[3] = bad ? -1 : blip2_get_config(g.ck.model)->vocab_size;
		err = (wn_error){0};
		assert_int_equal(blip2_forward(s, &g.batch, &err), WN_INVALID);
		assert_true(err.message[0]);
		g.ids[3] = old;
	}
	blip2_session_close(&s);
	golden_close(&g);
}

/* A trie behind the prompt:  -1 -> 0 -> 2 -> 4, 0 -> 3, -1 -> 1 -> 5 . Every node's logits are those of its own path. */
static void trie_scoring_equals_one_path_at_a_time(void **state)
{
	enum { NODES = 6 };
	static const int16_t parent[NODES] = {-1, -1, 0, 0, 2, 1};
	static const int32_t token[NODES] = {10, 20, 30, 31, 40, 50};
	golden g;
	wn_error err = {0};
	golden_open(&g, "base");
	const blip2_config *c = blip2_get_config(g.ck.model);
	const int n = g.batch.n, T = g.batch.text_len, Q = c->num_query_tokens;
	const size_t V = (size_t)c->vocab_size;
	int32_t ids[64];
	uint8_t mask[64];
	for (int i = 0; i < n; i++) {
		memcpy(ids + i * (T + NODES), g.ids + i * T, (size_t)T * sizeof *ids);
		memcpy(ids + i * (T + NODES) + T, token, sizeof token);
		memcpy(mask + i * (T + NODES), g.mask + i * T, (size_t)T);
		memset(mask + i * (T + NODES) + T, 1, NODES);
	}
	blip2_batch b = g.batch;
	b.labels = NULL;
	b.text_len = T + NODES;
	b.input_ids = ids;
	b.attention_mask = mask;
	b.tail_len = NODES;
	b.tail_parent = parent;
	blip2_session *s = open_session(&g, n, T + NODES, false);
	assert_ok(blip2_forward(s, &b, &err), &err);
	float *together = all_logits(s, c, n, T + NODES);
	for (int node = 0; node < NODES; node++) {
		int path[NODES], depth = 0;
		for (int k = node; k >= 0; k = parent[k])
			path[depth++] = k;
		for (int i = 0; i < n; i++) {
			memcpy(ids, g.ids + i * T, (size_t)T * sizeof *ids);
			memcpy(mask, g.mask + i * T, (size_t)T);
			memset(mask + T, 1, (size_t)depth);
			for (int d = 0; d < depth; d++)
				ids[T + d] = token[path[depth - 1 - d]];
			blip2_batch plain = {.n = 1, .text_len = T + depth, .input_ids = ids, .attention_mask = mask,
			                     .pixel_values = g.pixels + (size_t)i * 3 * (size_t)(c->image_size * c->image_size)};
			assert_ok(blip2_forward(s, &plain, &err), &err);
			float *alone = all_logits(s, c, 1, T + depth);
			/* The last prompt row as well: the tail must not change what stands before it. */
			assert_at_most(worst_difference(together + (size_t)(i * (Q + T + NODES) + Q + T + node) * V,
			                                alone + (size_t)(Q + T + depth - 1) * V, V), 1e-5, "a trie node");
			assert_at_most(worst_difference(together + (size_t)(i * (Q + T + NODES) + Q + T - 1) * V,
			                                alone + (size_t)(Q + T - 1) * V, V), 1e-5, "the prompt before a trie");
			free(alone);
		}
	}
	free(together);
	blip2_session_close(&s);
	golden_close(&g);
}

/* Text-only: without the image the answer must be the same for every image, and differ from the one with it. */
static void use_vision_false_hides_the_image(void **state)
{
	golden g;
	wn_error err = {0};
	golden_open(&g, "base");
	const blip2_config *c = blip2_get_config(g.ck.model);
	blip2_session *s = NULL;
	blip2_session_options opt = {g.batch.n, g.batch.text_len, false, false};
	assert_ok(blip2_session_open(&s, g.ck.model, &opt, &err), &err);
	assert_ok(blip2_forward(s, &g.batch, &err), &err);
	float *first = all_logits(s, c, g.batch.n, g.batch.text_len);
	for (int i = 0; i < 3 * g.batch.n * c->image_size * c->image_size; i++)
		g.pixels[i] = -g.pixels[i] + 1;
	assert_ok(blip2_forward(s, &g.batch, &err), &err);
	float *second = all_logits(s, c, g.batch.n, g.batch.text_len);
	const size_t count = (size_t)(g.batch.n * (c->num_query_tokens + g.batch.text_len)) * (size_t)c->vocab_size;
	assert_at_most(worst_difference(first, second, count), 0, "two images");
	assert_true(worst_difference(first, golden_floats(g.out, "logits", count), count) > 1e-2);
	free(first);
	free(second);
	blip2_session_close(&s);
	golden_close(&g);
}

/* Saving and loading keeps every bit of f32, and 16-bit files hold the rounded values. */
static void a_saved_checkpoint_loads_as_the_same_model(void **state)
{
	static const char *const names[] = {"base", "widths"};
	for (size_t i = 0; i < COUNT(names); i++) {
		golden g;
		wn_error err = {0};
		golden_open(&g, names[i]);
		char dir[64];
		snprintf(dir, sizeof dir, "saved-%s", names[i]); /* in the test's working directory */
		const dtype dtypes[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16, DTYPE_F32};
		for (size_t d = 0; d < COUNT(dtypes); d++) {
			checkpoint again;
			assert_ok(checkpoint_save(dir, g.ck.model, g.ck.has_manifest ? &g.ck.manifest : NULL, &g.ck.image_processor,
			                          NULL, dtypes[d], &err), &err);
			const checkpoint_options opt = {.verify_digests = g.ck.has_manifest};
			assert_ok(checkpoint_load(&again, dir, &opt, &err), &err);
			assert_int_equal(again.stored_dtype, dtypes[d]);
			assert_memory_equal(&blip2_get_config(again.model)->vision.blocks, &blip2_get_config(g.ck.model)->vision.blocks,
			                    sizeof(block_widths) * 2);
			assert_at_most(norm_difference(blip2_weights(again.model), blip2_weights(g.ck.model),
			                               blip2_weights_count(g.ck.model)),
			               dtypes[d] == DTYPE_F32 ? 0 : dtypes[d] == DTYPE_F16 ? 1e-3 : 8e-3, "saved weights");
			checkpoint_close(&again);
		}
		golden_close(&g);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(forward_equals_transformers),
		cmocka_unit_test(gradients_equal_autograd),
		cmocka_unit_test(gradients_equal_finite_differences),
		cmocka_unit_test(vision_first_gradients_equal_finite_differences),
		cmocka_unit_test(keeping_every_patch_is_keeping_none_out),
		cmocka_unit_test(vision_first_needs_equal_widths),
		cmocka_unit_test(sessions_refuse_what_they_cannot_hold),
		cmocka_unit_test(unusual_shapes_run),
		cmocka_unit_test(bf16_products_stay_close_to_f32),
		cmocka_unit_test(backward_adds_scaled_gradients),
		cmocka_unit_test(adamw_steps_follow_pytorch),
		cmocka_unit_test(answers_do_not_depend_on_the_session),
		cmocka_unit_test(batches_that_do_not_fit_are_refused),
		cmocka_unit_test(trie_scoring_equals_one_path_at_a_time),
		cmocka_unit_test(use_vision_false_hides_the_image),
		cmocka_unit_test(a_saved_checkpoint_loads_as_the_same_model),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
