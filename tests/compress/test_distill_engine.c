/* test_distill_engine.c: any loss through the engine: blip2_backward_loss and blip2_view_block under the distillation loss, on a
 * small random student of a larger random teacher, with padded prompts and the labels' trie behind them.
 *
 * The gradient of every parameter is compared with central differences of the whole loss, along the gradient (which checks its
 * length, and so its every part) and along a random direction. */
#include "tests/prune/support.h"

#include "model/blip2.h"
#include "model/ops.h"
#include "prune/compress/distill_loss.h"
#include "prune/rng.h"

enum { N = 3, PROMPT = 5, TAIL = 3, R = 1 + TAIL, T = PROMPT + TAIL };
enum { V = 40, QUERIES = 3, TEACHER_QUERIES = 5, PATCHES = 9, PAD = 1 };
#define COUNT(a) (sizeof(a) / sizeof *(a))

/* Four labels: 10 11 | 10 12 13 | 20 | 10 12 14 15; the inner nodes are 10, 12 and 14. */
static label_step steps[] = {{0, 10}, {1, 11}, {0, 10}, {1, 12}, {2, 13}, {0, 20}, {0, 10}, {1, 12}, {2, 14}, {3, 15}};
static int32_t tail_ids[TAIL] = {10, 12, 14};
static int16_t tail_parent[TAIL] = {-1, 0, 1};
static const label_trie trie = {.num_labels = 4, .steps = steps, .first_step = {0, 2, 5, 6, 10}, .tail_len = TAIL,
                                .tail_ids = tail_ids, .tail_parent = tail_parent};

static const int prompt_tokens[N] = {5, 3, 4};
static const int labels[N] = {1, -1, 3};
static const distill_weights weights = {.nll = 1, .kl = 0.7, .pair = 1.5, .relation = 2, .hidden = 0.4, .temperature = 2, .margin = 1.5};

/* Where the student's blocks and dimensions stand in the teacher. */
static const int block_of[3][2] = {{0, 2}, {0, 1}, {1, 2}};
static const int vision_dim[16] = {23, 1, 2, 3, 4, 6, 7, 9, 10, 12, 13, 15, 17, 18, 20, 0};
static const int qformer_dim[12] = {0, 1, 3, 4, 5, 7, 8, 9, 11, 12, 14, 15};
static const int text_dim[20] = {0, 2, 3, 5, 6, 7, 8, 10, 11, 12, 14, 15, 16, 18, 19, 20, 22, 24, 26, 27};
static const int query_of[QUERIES] = {0, 2, 4};

/* text: the language model's activation. OPT's is ReLU; across its kinks differences converge too slowly to say much, so the
 * gradients are compared without them (ReLU's own derivative is tests/ops' business). */
static blip2 *random_model(bool teacher, activation text, uint64_t seed)
{
	blip2_config c = {.image_size = 12, .patch_size = 4, .num_query_tokens = teacher ? TEACHER_QUERIES : QUERIES,
	                  .cross_attention_frequency = 2, .vocab_size = V, .max_position_embeddings = 24, .initializer_range = 0.3f,
	                  .pad_token_id = PAD, .qkv_bias = true};
	c.vision = (stack_config){teacher ? 24 : 16, teacher ? 3 : 2, 1e-6f, ACTIVATION_GELU, {{0}}};
	c.qformer = (stack_config){teacher ? 16 : 12, 2, 1e-12f, ACTIVATION_GELU, {{0}}};
	c.text = (stack_config){teacher ? 28 : 20, teacher ? 3 : 2, 1e-5f, text, {{0}}};
	for (int i = 0; i < 3; i++) {
		c.vision.blocks[i] = (block_widths){.num_heads = 2, .head_dim = 4 + i, .ffn_dim = 24 + 4 * i};
		c.qformer.blocks[i] = (block_widths){.num_heads = 2, .head_dim = 6, .ffn_dim = 20 + i};
		c.text.blocks[i] = (block_widths){.num_heads = 2 - i % 2, .head_dim = 10, .ffn_dim = 32 - i};
	}
	c.qformer.blocks[0].cross_num_heads = 2;
	c.qformer.blocks[0].cross_head_dim = 5;
	blip2 *m;
	assert_ok(blip2_create(&m, &c, err));
	blip2_init_weights(m, seed);
	rng r = rng_open(seed, 1, 2, 3);
	for (size_t i = 0; i < blip2_num_params(m); i++) { /* biases and norms shall matter as well */
		const param *p = blip2_param(m, i);
		for (size_t e = 0; e < p->count; e++)
			blip2_weights(m)[p->offset + e] += (float)rng_uniform(&r, -0.15, 0.15);
	}
	return m;
}

static blip2_session *open_session(const blip2 *m, bool training)
{
	blip2_session_options o = blip2_session_defaults();
	blip2_session *s;
	o.max_batch = N;
	o.max_text_len = T;
	o.training = training;
	o.keep_hidden = !training;
	o.max_loss_rows = training ? N * R : 0;
	assert_ok(blip2_session_open(&s, m, &o, err));
	return s;
}

typedef struct rig {
	blip2 *student, *teacher;
	blip2_session *session, *teacher_session;
	float pixels[N * 3 * 12 * 12], teacher_logits[N * R * V];
	int32_t ids[N * T], rows[N * R];
	uint8_t mask[N * T];
	int query_rows[N * QUERIES], text_rows[N * (QUERIES + T)];
	distill_scratch *scratch;
	distill_terms terms; /* of the last backward */
	int blocks_seen;
	bool logits, hidden; /* which of the two the loss has */
} rig;

static void fill_batch(rig *g)
{
	rng r = rng_open(4, 0, 0, 0);
	for (size_t i = 0; i < COUNT(g->pixels); i++)
		g->pixels[i] = (float)rng_uniform(&r, -2, 2);
	for (int i = 0; i < N; i++) {
		for (int t = 0; t < T; t++) {
			const bool pad = t < PROMPT - prompt_tokens[i];
			g->ids[i * T + t] = t >= PROMPT ? tail_ids[t - PROMPT] : pad ? PAD : 2 + (int32_t)rng_below(&r, V - 2);
			g->mask[i * T + t] = !pad;
		}
		for (int k = 0; k < R; k++)
			g->rows[i * R + k] = i * (QUERIES + T) + QUERIES + PROMPT - 1 + k;
		for (int q = 0; q < QUERIES; q++) {
			g->query_rows[i * QUERIES + q] = i * TEACHER_QUERIES + query_of[q];
			g->text_rows[i * (QUERIES + T) + q] = i * (TEACHER_QUERIES + T) + query_of[q];
		}
		for (int t = 0; t < T; t++)
			g->text_rows[i * (QUERIES + T) + QUERIES + t] = g->mask[i * T + t] ? i * (TEACHER_QUERIES + T) + TEACHER_QUERIES + t : -1;
	}
}

static blip2_batch batch_of(const rig *g)
{
	return (blip2_batch){.n = N, .text_len = T, .pixel_values = g->pixels, .input_ids = g->ids, .attention_mask = g->mask,
	                     .tail_len = TAIL, .tail_parent = tail_parent};
}

static void rig_open(rig *g, activation text)
{
	int32_t rows[N * R];
	*g = (rig){.student = random_model(false, text, 1), .teacher = random_model(true, text, 2), .logits = true, .hidden = true};
	g->session = open_session(g->student, true);
	g->teacher_session = open_session(g->teacher, false);
	fill_batch(g);
	const blip2_batch b = batch_of(g);
	assert_ok(blip2_forward(g->teacher_session, &b, err));
	for (int i = 0; i < N * R; i++)
		rows[i] = i / R * (TEACHER_QUERIES + T) + TEACHER_QUERIES + PROMPT - 1 + i % R;
	blip2_logits(g->teacher_session, rows, N * R, g->teacher_logits);
	assert_ok(distill_scratch_open(&g->scratch, N, &trie, V, err));
}

static void rig_close(rig *g)
{
	distill_scratch_close(&g->scratch);
	blip2_session_close(&g->session);
	blip2_session_close(&g->teacher_session);
	blip2_close(&g->student);
	blip2_close(&g->teacher);
}

static void logits_gradient(void *ctx, float *logits)
{
	rig *g = ctx;
	distill_logits(g->scratch, logits, g->teacher_logits, labels, N, N, &weights, &g->terms);
}

static void hidden_gradient(void *ctx, component which, int index, float *d)
{
	rig *g = ctx;
	static const int *const dims[] = {vision_dim, qformer_dim, text_dim};
	const int width[] = {16, 12, 20}, teacher_width[] = {24, 16, 28};
	const int *const to_row[] = {NULL, g->query_rows, g->text_rows};
	/* last to first, text, then Q-Former, then vision */
	assert_int_equal(2 * (COMPONENT_TEXT - (int)which) + 1 - index, g->blocks_seen);
	g->blocks_seen++;
	const blip2_block_view view = blip2_view_block(g->session, which, index);
	const blip2_block_view teacher = blip2_view_block(g->teacher_session, which, block_of[which][index]);
	const hidden_map map = {view.rows, to_row[which], width[which], teacher_width[which], dims[which]};
	const double loss = hidden_match(d, view.output, teacher.output, &map, weights.hidden);
	assert_true(loss > 0);
	g->terms.hidden += loss;
	g->terms.total += weights.hidden * loss;
}

/* Forward and backward of the student as it is; the loss. */
static double run(rig *g, float *grads)
{
	const blip2_batch b = batch_of(g);
	const blip2_loss loss = {.rows = g->rows, .count = g->logits ? N * R : 0, .logits = g->logits ? logits_gradient : NULL,
	                         .hidden = g->hidden ? hidden_gradient : NULL, .ctx = g};
	g->terms = (distill_terms){0};
	g->blocks_seen = 0;
	assert_ok(blip2_forward(g->session, &b, err));
	assert_ok(blip2_backward_loss(g->session, &b, &loss, grads, err));
	assert_int_equal(g->blocks_seen, g->hidden ? 6 : 0);
	return g->terms.total;
}

#define STEP 5e-3

/* (loss(w + h u) - loss(w - h u)) / 2h over one parameter. */
static double slope(rig *g, float *unused, const param *p, const double *u, double h)
{
	float *w = blip2_weights(g->student) + p->offset, *old = malloc(p->count * sizeof *old);
	double at[2];
	memcpy(old, w, p->count * sizeof *w);
	for (int side = 0; side < 2; side++) {
		for (size_t e = 0; e < p->count; e++)
			w[e] = (float)(old[e] + (side ? -h : h) * u[e]);
		at[side] = run(g, unused);
	}
	memcpy(w, old, p->count * sizeof *w);
	free(old);
	return (at[0] - at[1]) / (2 * h);
}

static double norm_of(const double *x, size_t count)
{
	double sum = 0;
	for (size_t i = 0; i < count; i++)
		sum += x[i] * x[i];
	return sqrt(sum);
}

static void gradients_equal_finite_differences(void **state)
{
	rig *g = malloc(sizeof *g);
	rig_open(g, ACTIVATION_GELU);
	const size_t total = blip2_weights_count(g->student);
	float *grads = calloc(total, sizeof *grads), *unused = calloc(total, sizeof *unused);
	int checked[3] = {0};
	double worst = 0;
	rng r = rng_open(9, 9, 9, 9);
	run(g, grads);
	assert_true(g->terms.nll > 0 && g->terms.kl > 0 && g->terms.pair > 0 && g->terms.relation > 0 && g->terms.hidden > 0);
	for (size_t i = 0; i < blip2_num_params(g->student); i++) {
		const param *p = blip2_param(g->student, i);
		double *u = malloc(p->count * sizeof *u), along = 0;
		for (size_t e = 0; e < p->count; e++)
			u[e] = grads[p->offset + e];
		const double size = norm_of(u, p->count);
		for (size_t e = 0; size > 0 && e < p->count; e++)
			u[e] /= size;
		/* f32 forwards leave some 1e-6 of noise on the loss. A key's bias has no gradient at all. */
		const double slack = 2e-3 * size + 2e-4, first = slope(g, unused, p, u, STEP);
		assert_close(first, size, slack, p->name, 0);
		for (size_t e = 0; e < p->count; e++)
			u[e] = rng_uniform(&r, -1, 1);
		const double length = norm_of(u, p->count);
		for (size_t e = 0; e < p->count; e++) {
			u[e] /= length;
			along += u[e] * grads[p->offset + e];
		}
		assert_close(slope(g, unused, p, u, STEP), along, slack, p->name, 1);
		if (size > 0.05) { /* where noise is no excuse */
			checked[p->component]++;
			worst = fmax(worst, fabs(first / size - 1));
		}
		free(u);
	}
	print_message("%d, %d and %d parameters of the three stacks, slopes at most %.1e off\n", checked[0], checked[1], checked[2], worst);
	for (int k = 0; k < 3; k++)
		assert_true(checked[k] >= 15);
	free(grads);
	free(unused);
	rig_close(g);
	free(g);
}

/* max |a - b| / max |b| */
static double worst_difference(const float *a, const float *b, size_t count)
{
	double worst = 0, size = 0;
	for (size_t i = 0; i < count; i++) {
		const double d = fabs((double)a[i] - b[i]);
		if (!isfinite(d))
			return INFINITY;
		worst = fmax(worst, d);
		size = fmax(size, fabs((double)b[i]));
	}
	return size > 0 ? worst / size : worst > 0 ? INFINITY : 0;
}

/* A loss on logits alone and one on hidden states alone make up the one on both. */
static void the_two_halves_add_up(void **state)
{
	rig *g = malloc(sizeof *g);
	rig_open(g, ACTIVATION_RELU);
	const size_t total = blip2_weights_count(g->student);
	float *both = calloc(total, sizeof *both), *halves = calloc(total, sizeof *halves);
	const double loss = run(g, both);
	g->hidden = false;
	const double first = run(g, halves);
	assert_true(worst_difference(halves, both, total) > 1e-2);
	g->hidden = true;
	g->logits = false;
	const double second = run(g, halves);
	assert_true(first > 0 && second > 0);
	assert_close(first + second, loss, 1e-9, "loss", 0);
	assert_close(worst_difference(halves, both, total), 0, 1e-5, "gradients", 0);
	free(both);
	free(halves);
	rig_close(g);
	free(g);
}

/* ---- cross-entropy as one such loss, over more rows than logits are made at a time elsewhere ---- */

enum { MANY = 45, MANY_ROWS = MANY * (T - 1) };

typedef struct many {
	int32_t targets[MANY_ROWS];
} many;

static void cross_entropy(void *ctx, float *logits)
{
	const many *m = ctx;
	int32_t best;
	for (size_t i = 0; i < MANY_ROWS; i++)
		ops->cross_entropy(logits + i * V, m->targets[i], 1.0f / MANY_ROWS, V, &best);
}

static void cross_entropy_equals_blip2_backward(void **state)
{
	blip2 *m = random_model(false, ACTIVATION_RELU, 5);
	const size_t total = blip2_weights_count(m), pixels = (size_t)MANY * 3 * 12 * 12;
	blip2_session_options o = {.max_batch = MANY, .max_text_len = T, .training = true, .use_vision = true, .max_loss_rows = MANY_ROWS};
	blip2_session *s;
	assert_ok(blip2_session_open(&s, m, &o, err));
	float *image = malloc(pixels * sizeof *image), *want = calloc(total, sizeof *want), *got = calloc(total, sizeof *got), loss;
	int32_t ids[MANY * T], next[MANY * T], rows[MANY_ROWS];
	many *targets = calloc(1, sizeof *targets);
	rng r = rng_open(3, 1, 4, 1);
	for (size_t i = 0; i < pixels; i++)
		image[i] = (float)rng_uniform(&r, -2, 2);
	for (int i = 0; i < MANY * T; i++) {
		ids[i] = 2 + (int32_t)rng_below(&r, V - 2);
		next[i] = i % T ? (int32_t)rng_below(&r, V) : -100;
	}
	for (int k = 0; k < MANY_ROWS; k++) { /* the rows in any order */
		const int at = MANY_ROWS - 1 - k, i = at / (T - 1), t = 1 + at % (T - 1);
		rows[k] = i * (QUERIES + T) + QUERIES + t - 1;
		targets->targets[k] = next[i * T + t];
	}
	const blip2_batch b = {.n = MANY, .text_len = T, .pixel_values = image, .input_ids = ids, .labels = next};
	const blip2_loss l = {.rows = rows, .count = MANY_ROWS, .logits = cross_entropy, .ctx = targets};
	assert_ok(blip2_forward(s, &b, err));
	assert_ok(blip2_backward(s, &b, 1, want, &loss, NULL, NULL, err));
	assert_ok(blip2_backward_loss(s, &b, &l, got, err));
	assert_close(worst_difference(got, want, total), 0, 1e-5, "cross-entropy", 0);
	free(image);
	free(want);
	free(got);
	free(targets);
	blip2_session_close(&s);
	blip2_close(&m);
}

/* ---- what a block computed ---- */

static const float *weight(const blip2 *m, const char *block, const char *name, const char *part)
{
	char full[160];
	snprintf(full, sizeof full, "%s%s.%s", block, name, part);
	const param *p = blip2_find_param(m, full);
	if (!p)
		fail_msg("no parameter %s", full);
	return blip2_weights((blip2 *)(uintptr_t)m) + p->offset;
}

/* out [rows][to] = in [rows][from] W^T + b */
static void linear(float *out, const float *in, const blip2 *m, const char *block, const char *name, size_t rows, size_t from,
                   size_t to)
{
	const float *w = weight(m, block, name, "weight"), *b = weight(m, block, name, "bias");
	for (size_t r = 0; r < rows; r++)
		for (size_t o = 0; o < to; o++) {
			double sum = b[o];
			for (size_t k = 0; k < from; k++)
				sum += (double)in[r * from + k] * w[o * from + k];
			out[r * to + o] = (float)sum;
		}
}

static void norm(float *out, const float *in, const blip2 *m, const char *block, const char *name, size_t rows, size_t d, float eps)
{
	ops->layer_norm(out, NULL, NULL, in, weight(m, block, name, "weight"), weight(m, block, name, "bias"), rows, d, eps);
}

static void plus(float *out, const float *in, size_t count)
{
	for (size_t i = 0; i < count; i++)
		out[i] += in[i];
}

/* Columns [from, from + width) of rows that are `stride` wide. */
static void columns(float *out, const float *in, size_t rows, size_t stride, size_t from, size_t width)
{
	for (size_t r = 0; r < rows; r++)
		memcpy(out + r * width, in + r * stride + from, width * sizeof *out);
}

enum { ROOM = N * (1 + PATCHES) * 64 };
static float a[ROOM], b[ROOM], c[ROOM];

static void assert_same(const float *got, const float *want, size_t count, const char *what)
{
	assert_true(count > 0);
	assert_close(worst_difference(got, want, count), 0, 1e-5, what, 0);
}

/* Text: pre-norm; the second block, with one head. */
static void check_text_view(const blip2 *m, const blip2_block_view *v)
{
	static const char *const block = "language_model.model.decoder.layers.1.";
	static const char *const qkv[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"};
	const size_t rows = N * (QUERIES + T), d = 20, inner = 10, ffn = 31;
	assert_int_equal(v->rows, rows);
	assert_true(!v->cross_q && !v->cross_kv && !v->cross_context && v->encoder_rows == 0);
	norm(a, v->input, m, block, "self_attn_layer_norm", rows, d, 1e-5f);
	for (size_t k = 0; k < 3; k++) {
		linear(b, a, m, block, qkv[k], rows, d, inner);
		columns(c, v->self_qkv, rows, 3 * inner, k * inner, inner);
		assert_same(c, b, rows * inner, qkv[k]);
	}
	linear(b, v->self_context, m, block, "self_attn.out_proj", rows, inner, d);
	plus(b, v->input, rows * d);
	norm(a, b, m, block, "final_layer_norm", rows, d, 1e-5f);
	linear(c, a, m, block, "fc1", rows, d, ffn);
	for (size_t i = 0; i < rows * ffn; i++)
		c[i] = fmaxf(c[i], 0);
	assert_same(v->ffn, c, rows * ffn, "text ffn");
	linear(a, v->ffn, m, block, "fc2", rows, ffn, d);
	plus(b, a, rows * d);
	assert_same(v->output, b, rows * d, "text output");
}

/* Q-Former: post-norm; the block that sees the picture. */
static void check_qformer_view(const blip2 *m, const blip2_block_view *v, const float *vision)
{
	static const char *const block = "qformer.encoder.layer.0.";
	const size_t rows = N * QUERIES, encoder_rows = N * (1 + PATCHES), d = 12, dv = 16, inner = 12, cross = 10, ffn = 20;
	assert_int_equal(v->rows, rows);
	assert_int_equal(v->encoder_rows, encoder_rows);
	linear(b, v->input, m, block, "attention.attention.value", rows, d, inner);
	columns(c, v->self_qkv, rows, 3 * inner, 2 * inner, inner);
	assert_same(c, b, rows * inner, "Q-Former values");
	linear(b, v->self_context, m, block, "attention.output.dense", rows, inner, d);
	plus(b, v->input, rows * d);
	norm(a, b, m, block, "attention.output.LayerNorm", rows, d, 1e-12f);
	linear(b, a, m, block, "crossattention.attention.query", rows, d, cross);
	assert_same(v->cross_q, b, rows * cross, "cross queries");
	linear(b, vision, m, block, "crossattention.attention.key", encoder_rows, dv, cross);
	columns(c, v->cross_kv, encoder_rows, 2 * cross, 0, cross);
	assert_same(c, b, encoder_rows * cross, "cross keys");
	linear(b, vision, m, block, "crossattention.attention.value", encoder_rows, dv, cross);
	columns(c, v->cross_kv, encoder_rows, 2 * cross, cross, cross);
	assert_same(c, b, encoder_rows * cross, "cross values");
	linear(b, v->cross_context, m, block, "crossattention.output.dense", rows, cross, d);
	plus(b, a, rows * d);
	norm(a, b, m, block, "crossattention.output.LayerNorm", rows, d, 1e-12f);
	linear(b, v->ffn, m, block, "output_query.dense", rows, ffn, d);
	plus(b, a, rows * d);
	norm(a, b, m, block, "output_query.LayerNorm", rows, d, 1e-12f);
	assert_same(v->output, a, rows * d, "Q-Former output");
}

static void check_vision_view(const blip2 *m, const blip2_block_view *v, const float *vision)
{
	static const char *const block = "vision_model.encoder.layers.1.";
	const size_t rows = N * (1 + PATCHES), d = 16, inner = 10, ffn = 28;
	assert_int_equal(v->rows, rows);
	norm(a, v->input, m, block, "layer_norm1", rows, d, 1e-6f);
	linear(b, a, m, block, "self_attn.qkv", rows, d, 3 * inner);
	assert_same(v->self_qkv, b, rows * 3 * inner, "vision qkv");
	linear(b, v->self_context, m, block, "self_attn.projection", rows, inner, d);
	plus(b, v->input, rows * d);
	linear(a, v->ffn, m, block, "mlp.fc2", rows, ffn, d);
	plus(b, a, rows * d);
	assert_same(v->output, b, rows * d, "vision output");
	norm(a, v->output, m, "vision_model.", "post_layernorm", rows, d, 1e-6f);
	assert_same(vision, a, rows * d, "the last block's output is the stack's");
}

/* In a session that keeps states for looking, in one that trains, and in that after the backward. */
static void views_are_what_the_blocks_compute(void **state)
{
	rig *g = malloc(sizeof *g);
	rig_open(g, ACTIVATION_RELU);
	blip2_session *look = open_session(g->student, false);
	const blip2_batch batch = batch_of(g);
	float *grads = calloc(blip2_weights_count(g->student), sizeof *grads);
	assert_ok(blip2_forward(look, &batch, err));
	run(g, grads);
	blip2_session *const both[] = {look, g->session};
	for (int i = 0; i < 2; i++) {
		blip2_session *s = both[i];
		blip2_block_view v[3][2];
		for (int which = 0; which < 3; which++)
			for (int k = 0; k < 2; k++)
				v[which][k] = blip2_view_block(s, (component)which, k);
		for (int which = 0; which < 3; which++)
			assert_ptr_equal(v[which][1].input, v[which][0].output);
		check_vision_view(g->student, &v[0][1], blip2_vision_hidden(s));
		check_qformer_view(g->student, &v[1][0], blip2_vision_hidden(s));
		check_text_view(g->student, &v[2][1]);
		assert_true(v[1][1].cross_q == NULL && v[1][1].encoder_rows == 0);
		assert_same(blip2_qformer_hidden(s), v[1][1].output, N * QUERIES * 12, "Q-Former's last output");
	}
	blip2_session_close(&look);
	free(grads);
	rig_close(g);
	free(g);
}

/* A session that shows the queries no image has no vision blocks to look at, and asks no loss about them. */
static void count_blocks(void *ctx, component which, int index, float *d)
{
	int *seen = ctx;
	seen[which]++;
}

static void without_vision_there_are_no_vision_blocks(void **state)
{
	rig *g = malloc(sizeof *g);
	rig_open(g, ACTIVATION_RELU);
	const blip2_batch batch = batch_of(g);
	const blip2_session_options o = {.max_batch = N, .max_text_len = T, .training = true};
	blip2_session *s;
	int seen[3] = {0};
	const blip2_loss l = {.hidden = count_blocks, .ctx = seen};
	float *grads = calloc(blip2_weights_count(g->student), sizeof *grads);
	assert_ok(blip2_session_open(&s, g->student, &o, err));
	assert_ok(blip2_forward(s, &batch, err));
	assert_ok(blip2_backward_loss(s, &batch, &l, grads, err));
	assert_true(seen[COMPONENT_VISION] == 0 && seen[COMPONENT_QFORMER] == 2 && seen[COMPONENT_TEXT] == 2);
	const blip2_block_view v = blip2_view_block(s, COMPONENT_VISION, 1), q = blip2_view_block(s, COMPONENT_QFORMER, 0);
	assert_true(v.rows == 0 && !v.input && !v.output && !v.ffn && !v.self_qkv && !v.self_context);
	assert_true(q.rows == N * QUERIES && q.input && q.cross_kv);
	for (size_t i = 0; i < blip2_weights_count(g->student); i++)
		assert_true(grads[i] == 0); /* nobody added anything */
	free(grads);
	blip2_session_close(&s);
	rig_close(g);
	free(g);
}

/* ---- failing ---- */

static void losses_that_do_not_fit_are_refused(void **state)
{
	rig *g = malloc(sizeof *g);
	rig_open(g, ACTIVATION_RELU);
	const blip2_batch batch = batch_of(g);
	float *grads = calloc(blip2_weights_count(g->student), sizeof *grads);
	blip2_loss l = {.rows = g->rows, .count = N * R + 1, .logits = logits_gradient, .ctx = g};
	assert_ok(blip2_forward(g->session, &batch, err));
	assert_refused(WN_TOO_LARGE, "13 rows of logits, the session has room for 12",
	               blip2_backward_loss(g->session, &batch, &l, grads, err));
	l.count = N * R;
	g->rows[7] = N * (QUERIES + T);
	assert_refused(WN_INVALID, "rows[7] is 33, the forward had 33", blip2_backward_loss(g->session, &batch, &l, grads, err));
	g->rows[7] = -1;
	assert_refused(WN_INVALID, "rows[7] is -1", blip2_backward_loss(g->session, &batch, &l, grads, err));
	blip2_batch other = batch;
	other.n = N - 1;
	assert_refused(WN_INVALID, "the batch of the last forward", blip2_backward_loss(g->session, &other, &l, grads, err));
	assert_refused(WN_INVALID, "a training session", blip2_backward_loss(g->teacher_session, &batch, &l, grads, err));
	for (size_t i = 0; i < blip2_weights_count(g->student); i++)
		assert_true(grads[i] == 0);
	free(grads);
	rig_close(g);
	free(g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gradients_equal_finite_differences),
		cmocka_unit_test(the_two_halves_add_up),
		cmocka_unit_test(cross_entropy_equals_blip2_backward),
		cmocka_unit_test(views_are_what_the_blocks_compute),
		cmocka_unit_test(without_vision_there_are_no_vision_blocks),
		cmocka_unit_test(losses_that_do_not_fit_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
