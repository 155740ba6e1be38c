/* Which shape the planner chooses, and what shapes give up. Latencies are functions of the shape: nothing here depends on how
 * fast the machine is. */
#include "tests/compress/shapes.h"

#include "prune/compress/cost.h"
#include "prune/compress/keep.h"
#include "prune/compress/plan_loss.h"
#include "prune/compress/plan_moves.h"
#include "prune/compress/planner.h"
#include "prune/rng.h"

/* ---- scores ---- */

typedef struct score_sizes {
	double ffn[NUM_COMPONENTS], attention[NUM_COMPONENTS], hidden[NUM_COMPONENTS], queries;
} score_sizes;

static const score_sizes EQUAL = {{1, 1, 1}, {1, 1, 1}, {1, 1, 1}, 1};

static double fill(double *scores, int count, double size, rng *r)
{
	double sum = 0;
	for (int i = 0; i < count; i++)
		sum += scores[i] = size * rng_double(r);
	return sum;
}

/* Random scores of these sizes; a block has the sum of its parts. */
static void scores_open(structure_scores *s, const blip2_config *c, score_sizes size, uint64_t seed)
{
	rng r = rng_open(seed, 0, 0, 0);
	assert_ok(structure_scores_open(s, c, err));
	fill(s->queries, c->num_query_tokens, size.queries, &r);
	for (int i = 0; i < NUM_COMPONENTS; i++) {
		const stack_config *stack = shape_stack(c, (component)i);
		fill(s->hidden[i], stack->hidden_size, size.hidden[i], &r);
		for (int b = 0; b < stack->num_hidden_layers; b++) {
			const block_widths *w = &stack->blocks[b];
			block_scores *k = &s->blocks[i][b];
			const int self = w->num_heads * w->head_dim, cross = w->cross_num_heads * w->cross_head_dim;
			k->total = fill(k->ffn, w->ffn_dim, size.ffn[i], &r) + fill(k->self_qk, self, size.attention[i], &r) +
			           fill(k->self_v, self, size.attention[i], &r);
			if (cross)
				k->total += fill(k->cross_qk, cross, size.attention[i], &r) + fill(k->cross_v, cross, size.attention[i], &r);
		}
	}
}

static cost_model *open_cost(int text_len, int logit_rows, int threads)
{
	cost_model *c;
	const cost_request r = {text_len, logit_rows, threads};
	assert_ok(cost_open(&c, &r, err));
	return c;
}

/* ---- what shapes give up ---- */

static int ascending(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static double lowest(const double *scores, int count, int remove)
{
	double sorted[4096], sum = 0;
	memcpy(sorted, scores, (size_t)count * sizeof *sorted);
	qsort(sorted, (size_t)count, sizeof *sorted, ascending);
	for (int i = 0; i < remove; i++)
		sum += sorted[i];
	return sum;
}

/* By plan_loss.h: what a part with these scores gives up that loses `removed` of them. */
static double given_up(const double *scores, int count, double removed)
{
	const double all = lowest(scores, count, count);
	return -all * log1p(-removed / all);
}

/* By the rule, head by head: the lowest heads go as a whole, kept ones lose their lowest dimensions. */
static double attention_loss(const structure_scores *s, component which, int block, bool cross, int heads, int head_dim)
{
	const block_widths *w = &shape_stack(&s->shape, which)->blocks[block];
	const block_scores *k = &s->blocks[which][block];
	const int all = cross ? w->cross_num_heads : w->num_heads, dim = cross ? w->cross_head_dim : w->head_dim;
	bool gone[16] = {0};
	double sum = 0;
	for (int n = all; n > heads; n--) {
		int worst = -1;
		for (int h = 0; h < all; h++)
			if (!gone[h] && (worst < 0 || head_score(s, which, block, cross, h) < head_score(s, which, block, cross, worst)))
				worst = h;
		gone[worst] = true;
		sum += head_score(s, which, block, cross, worst);
	}
	for (int h = 0; h < all && head_dim < dim; h++)
		if (!gone[h])
			sum += lowest((cross ? k->cross_qk : k->self_qk) + h * dim, dim, dim - head_dim) +
			       lowest((cross ? k->cross_v : k->self_v) + h * dim, dim, dim - head_dim);
	return sum;
}

static double shape_loss(const structure_scores *s, const plan_shape_widths *w)
{
	double sum = given_up(s->queries, s->shape.num_query_tokens, lowest(s->queries, s->shape.num_query_tokens, s->shape.num_query_tokens - w->queries));
	for (int c = 0; c < NUM_COMPONENTS; c++) {
		const stack_config *stack = shape_stack(&s->shape, (component)c);
		const plan_widths *to = &w->of[c];
		double totals[MAX_BLOCKS];
		for (int b = 0; b < stack->num_hidden_layers; b++)
			totals[b] = s->blocks[c][b].total;
		double blocks = lowest(totals, stack->num_hidden_layers, stack->num_hidden_layers - to->blocks);
		qsort(totals, (size_t)stack->num_hidden_layers, sizeof *totals, ascending);
		sum += given_up(s->hidden[c], stack->hidden_size, lowest(s->hidden[c], stack->hidden_size, stack->hidden_size - to->hidden));
		for (int b = 0; b < stack->num_hidden_layers; b++)
			if (s->blocks[c][b].total >= totals[stack->num_hidden_layers - to->blocks])
				blocks += lowest(s->blocks[c][b].ffn, stack->blocks[b].ffn_dim, stack->blocks[b].ffn_dim - to->ffn) +
				       attention_loss(s, (component)c, b, false, to->heads, to->head_dim) +
				          (stack->blocks[b].cross_num_heads ? attention_loss(s, (component)c, b, true, to->heads, to->head_dim) : 0);
		sum += given_up(totals, stack->num_hidden_layers, blocks);
	}
	return sum;
}

static void losses_are_sums_of_the_lowest(void **state)
{
	const blip2_config c = teacher();
	structure_scores s;
	plan_loss *l;
	rng r = rng_open(2, 0, 0, 0);
	scores_open(&s, &c, EQUAL, 3);
	assert_ok(plan_loss_open(&l, &s, BLOCKS_BY_IMPORTANCE, true, err));
	for (int round = 0; round < 60; round++) {
		plan_shape_widths w = {.queries = round ? 1 + (int)rng_below(&r, 16) : 16};
		for (int i = 0; i < NUM_COMPONENTS; i++) {
			const stack_config *k = shape_stack(&c, (component)i);
			w.of[i] = round ? (plan_widths){1 + (int)rng_below(&r, (uint64_t)k->num_hidden_layers),
			                                1 + (int)rng_below(&r, (uint64_t)k->hidden_size),
			                                1 + (int)rng_below(&r, (uint64_t)k->blocks[0].num_heads), 1 + (int)rng_below(&r, 64),
			                                1 + (int)rng_below(&r, (uint64_t)k->blocks[0].ffn_dim)}
			                : (plan_widths){k->num_hidden_layers, k->hidden_size, k->blocks[0].num_heads, 64, k->blocks[0].ffn_dim};
		}
		const double expected = shape_loss(&s, &w);
		assert_close(plan_loss_of(l, &w), expected, 1e-9 * (1 + expected), "loss", (size_t)round);
		assert_true(round || expected == 0);
	}
	plan_loss_close(&l);
	/* a block that is scored below its parts: they count for no more than it does */
	s.blocks[COMPONENT_TEXT][1].total /= 100;
	assert_ok(plan_loss_open(&l, &s, BLOCKS_BY_IMPORTANCE, true, err));
	plan_shape_widths half = {{{6, 192, 3, 64, 768}, {4, 192, 3, 64, 768}, {4, 256, 4, 64, 512}}, 16}, three = half;
	double inside = 0;
	for (int b = 0; b < 4; b++)
		inside += lowest(s.blocks[COMPONENT_TEXT][b].ffn, 1024, 512) / (b == 1 ? 100 : 1);
	double totals[4];
	for (int b = 0; b < 4; b++)
		totals[b] = s.blocks[COMPONENT_TEXT][b].total;
	inside = given_up(totals, 4, inside);
	assert_close(plan_loss_of(l, &half), inside, 1e-9 * inside, "inside", 0);
	three.of[COMPONENT_TEXT].blocks = 3;
	assert_true(plan_loss_of(l, &three) > plan_loss_of(l, &half));
	plan_loss_close(&l);
	structure_scores_close(&s);
}

/* The last block that sees the image stays, however little it scores. */
static void last_cross_attention_stays(void **state)
{
	blip2_config c = small_shape(); /* block 0 has it, block 1 has not */
	structure_scores s;
	plan_loss *l;
	scores_open(&s, &c, EQUAL, 4);
	s.blocks[COMPONENT_QFORMER][0].total = 1;
	s.blocks[COMPONENT_QFORMER][1].total = 50;
	assert_ok(plan_loss_open(&l, &s, BLOCKS_BY_IMPORTANCE, true, err));
	const plan_shape_widths one = {{{3, 24, 2, 12, 40}, {1, 16, 2, 8, 32}, {2, 20, 3, 5, 28}}, 3};
	assert_close(plan_loss_of(l, &one), 51 * log(51), 1e-9, "loss", 0);
	plan_loss_close(&l);
	structure_scores_close(&s);
}

/* What is nearly gone is dear: the planner takes from all parts a little rather than one part whole. */
static void the_last_of_a_part_is_dear(void **state)
{
	const blip2_config full = teacher();
	structure_scores s;
	plan_loss *l;
	scores_open(&s, &full, EQUAL, 4);
	assert_ok(plan_loss_open(&l, &s, BLOCKS_BY_IMPORTANCE, true, err));
	plan_shape_widths w = {{{6, 192, 3, 64, 768}, {2, 192, 3, 64, 768}, {4, 256, 4, 64, 1024}}, 16};
	double before = plan_loss_of(l, &w), step = 0;
	while (--w.of[COMPONENT_VISION].blocks >= 1) {
		const double loss = plan_loss_of(l, &w);
		assert_true(loss - before > step); /* equal scores: each costs more than the one before */
		step = loss - before;
		before = loss;
	}
	plan_loss_close(&l);
	structure_scores_close(&s);
}

/* Every second block of six has it, as in BLIP-2. What goes with a block is what keep_choose drops for the same shape. */
static blip2_config alternating(void)
{
	blip2_config c = teacher();
	c.qformer = stack(192, 6, 3, 64, 768, ACTIVATION_GELU);
	set_cross(&c.qformer, 2, 3, 64);
	c.cross_attention_frequency = 2;
	return c;
}

static double dropped_blocks(const structure_scores *s, const blip2_config *to, block_choice choice)
{
	keep k;
	double sum = 0;
	assert_ok(keep_choose(&k, s, to, choice, err));
	for (int c = 0; c < NUM_COMPONENTS; c++) {
		for (int i = 0; i < shape_stack(&s->shape, (component)c)->num_hidden_layers; i++)
			sum += s->blocks[c][i].total;
		for (int i = 0; i < shape_stack(to, (component)c)->num_hidden_layers; i++)
			sum -= s->blocks[c][k.blocks[c][i].source].total;
	}
	keep_close(&k);
	return sum;
}

static void blocks_are_lost_as_they_are_kept(void **state)
{
	const blip2_config c = alternating();
	for (int choice = BLOCKS_BY_IMPORTANCE; choice <= BLOCKS_FROM_END; choice++)
		for (uint64_t seed = 0; seed < 5; seed++) {
			structure_scores s;
			plan_loss *l;
			plan_limits limits = plan_limits_default(&c);
			plan_space p;
			double first = 0;
			scores_open(&s, &c, EQUAL, seed);
			assert_ok(plan_loss_open(&l, &s, (block_choice)choice, true, err));
			assert_ok(plan_space_init(&p, &c, &limits, err));
			for (plan_shape_widths w = p.start; plan_step_down(&p, COMPONENT_QFORMER, MOVE_BLOCKS, &w);) {
				blip2_config to;
				plan_space_shape(&to, &p, &w);
				assert_true(hf_config_is_uniform(&to));
				double totals[6];
				for (int i = 0; i < 6; i++)
					totals[i] = s.blocks[COMPONENT_QFORMER][i].total;
				const double want = given_up(totals, 6, dropped_blocks(&s, &to, (block_choice)choice));
				assert_close(plan_loss_of(l, &w), want, 1e-9 * want, "loss", (size_t)w.of[COMPONENT_QFORMER].blocks);
				if (first == 0)
					first = want;
			}
			/* five of six keep the pattern only without the last */
			double totals[6];
			for (int i = 0; i < 6; i++)
				totals[i] = s.blocks[COMPONENT_QFORMER][i].total;
			assert_close(first, given_up(totals, 6, totals[5]), 1e-9 * first, "first", 0);
			plan_loss_close(&l);
			structure_scores_close(&s);
		}
}

/* ---- where plans may go ---- */

/* Every ladder ends at its limit, and is climbed back rung by rung. */
static void ladders_go_down_and_up(void **state)
{
	const blip2_config full = teacher();
	for (int uniform = 0; uniform < 2; uniform++) {
		plan_limits l = plan_limits_default(&full);
		plan_space p;
		l.uniform_heads = uniform;
		assert_ok(plan_space_init(&p, &full, &l, err));
		const plan_shape_widths least = plan_smallest(&p);
		for (int c = 0; c < NUM_COMPONENTS; c++)
			for (int k = 0; k < NUM_MOVES; k++) {
				plan_shape_widths rungs[64] = {p.start}, up;
				int n = 0;
				while (rungs[n + 1] = rungs[n], plan_step_down(&p, c, (move_kind)k, &rungs[n + 1]))
					assert_in_range(++n, 1, 62);
				assert_true(n > 0 || (uniform && (k == MOVE_HEADS || k == MOVE_HEAD_DIM)) || (k == MOVE_QUERIES && c != COMPONENT_QFORMER));
				if (n > 0 && k != MOVE_HEADS && k != MOVE_HEAD_DIM)
					assert_int_equal(plan_width(&rungs[n], c, (move_kind)k), plan_width(&least, c, (move_kind)k));
				for (up = rungs[n]; n > 0; n--) {
					assert_true(plan_step_up(&p, c, (move_kind)k, &up));
					assert_memory_equal(&up, &rungs[n - 1], sizeof up);
				}
				assert_false(plan_step_up(&p, c, (move_kind)k, &up));
			}
		l.min_inner[COMPONENT_TEXT] = 72; /* 3 x 24; from 2 heads on, nothing below 2 x 48 */
		const plan_shape_widths narrow = plan_smallest(&p);
		assert_int_equal(narrow.of[COMPONENT_TEXT].heads * narrow.of[COMPONENT_TEXT].head_dim, uniform ? 96 : 72);
	}
}

/* A teacher that transformers could not load (it was pruned before): the plan starts from what it could. */
static void blocks_are_made_loadable(void **state)
{
	blip2_config full = alternating();
	plan_limits l = plan_limits_default(&full);
	plan_space p;
	blip2_config shape;
	full.qformer.blocks[0] = full.qformer.blocks[1]; /* --+-+- */
	assert_ok(plan_space_init(&p, &full, &l, err));
	assert_int_equal(p.start.of[COMPONENT_QFORMER].blocks, 4);
	plan_space_shape(&shape, &p, &p.start);
	assert_true(hf_config_is_uniform(&shape));
	assert_int_equal(hf_config_cross_frequency(&shape), 2); /* +-+- */
	plan_shape_widths w = p.start;
	while (plan_step_down(&p, COMPONENT_QFORMER, MOVE_BLOCKS, &w)) {
		plan_space_shape(&shape, &p, &w);
		assert_true(hf_config_is_uniform(&shape));
	}
	l.min_blocks[COMPONENT_QFORMER] = 5;
	assert_refused(WN_INVALID, "qformer: no number of blocks from 6 down to the limit has the cross-attention of a cross_attention_frequency",
	               plan_space_init(&p, &full, &l, err));
	l.uniform_heads = false; /* need not be loadable: as the first blocks have it */
	assert_ok(plan_space_init(&p, &full, &l, err));
	assert_int_equal(p.start.of[COMPONENT_QFORMER].blocks, 6);
	w = p.start;
	assert_true(plan_step_down(&p, COMPONENT_QFORMER, MOVE_BLOCKS, &w));
	plan_space_shape(&shape, &p, &w);
	for (int i = 0; i < 5; i++)
		assert_int_equal(shape.qformer.blocks[i].cross_num_heads > 0, i == 2 || i == 4);
}

/* ---- planning by parameters and operations ---- */

static plan_options by(target_kind kind, double target, const blip2_config *c)
{
	return (plan_options){.kind = kind, .target = target, .tolerance = 0.05, .limits = plan_limits_default(c)};
}

static void assert_within_limits(const blip2_config *shape, const blip2_config *full, const plan_limits *l)
{
	assert_in_range(shape->num_query_tokens, l->min_queries, full->num_query_tokens);
	for (int i = 0; i < NUM_COMPONENTS; i++) {
		const stack_config *s = shape_stack(shape, (component)i), *f = shape_stack(full, (component)i);
		assert_in_range(s->num_hidden_layers, l->min_blocks[i], f->num_hidden_layers);
		assert_in_range(s->hidden_size, l->min_hidden[i], f->hidden_size);
		assert_int_equal(s->hidden_size % l->multiple, 0);
		for (int b = 0; b < s->num_hidden_layers; b++) {
			const block_widths *w = &s->blocks[b];
			assert_in_range(w->ffn_dim, l->min_ffn[i], f->blocks[0].ffn_dim);
			assert_int_equal(w->ffn_dim % l->multiple, 0);
			assert_in_range(w->num_heads, 1, f->blocks[0].num_heads);
			assert_in_range(w->head_dim, 1, f->blocks[0].head_dim);
			assert_true(w->num_heads * w->head_dim >= l->min_inner[i]);
			if (l->uniform_heads)
				assert_int_equal(w->num_heads * w->head_dim, s->hidden_size);
			const bool cross = f->blocks[b].cross_num_heads > 0; /* as the first blocks have it */
			assert_int_equal(w->cross_num_heads, cross ? w->num_heads : 0);
			assert_int_equal(w->cross_head_dim, cross ? w->head_dim : 0);
		}
	}
}

static void meet_targets(const blip2_config *teacher_shape)
{
	const blip2_config full = *teacher_shape;
	structure_scores s;
	cost_model *cost = open_cost(64, 1, 0);
	for (int uniform = 0; uniform < 2; uniform++)
		for (int kind = TARGET_PARAMETERS; kind <= TARGET_FLOPS; kind++) {
			const double all = kind == TARGET_PARAMETERS ? cost_parameters(&full) : cost_flops(cost, &full);
			double before = all;
			scores_open(&s, &full, EQUAL, 5);
			for (int part = 2; part <= 16; part *= 2) {
				plan_result r, again;
				plan_options o = by((target_kind)kind, all / part, &full);
				o.limits.uniform_heads = uniform;
				assert_ok(plan_shape(&r, &full, &s, cost, &o, err));
				const double got = kind == TARGET_PARAMETERS ? r.parameters : r.flops;
				assert_true(got <= o.target && got > 0.95 * o.target && got < before);
				assert_true(r.parameters == cost_parameters(&r.shape) && r.flops == cost_flops(cost, &r.shape));
				assert_true(r.moves > 0 && r.predicted_ms == 0 && r.measured_ms == 0);
				assert_within_limits(&r.shape, &full, &o.limits);
				if (uniform)
					assert_true(hf_config_is_uniform(&r.shape));
				assert_ok(plan_shape(&again, &full, &s, cost, &o, err));
				assert_memory_equal(&r.shape, &again.shape, sizeof r.shape);
				before = got;
			}
			structure_scores_close(&s);
		}
	cost_close(&cost);
}

static void targets_are_met_within_the_limits(void **state)
{
	const blip2_config every = teacher(), second = alternating();
	meet_targets(&every);
	meet_targets(&second);
}

/* What is worth little goes, and what is worth much stays. */
static void worthless_structures_go_first(void **state)
{
	const blip2_config full = teacher();
	cost_model *cost = open_cost(64, 1, 0);
	structure_scores s;
	plan_result r;
	score_sizes size = EQUAL;
	size.ffn[COMPONENT_TEXT] = 1e-6;
	size.attention[COMPONENT_TEXT] = 1e3; /* or whole blocks would be worth little, too */
	scores_open(&s, &full, size, 6);
	plan_options o = by(TARGET_PARAMETERS, cost_parameters(&full) - 4 * 512 * (256 + 256 + 1), &full);
	assert_ok(plan_shape(&r, &full, &s, cost, &o, err));
	assert_int_equal(r.shape.text.blocks[0].ffn_dim, 512);
	r.shape.text = full.text;
	assert_true(cost_parameters(&r.shape) == cost_parameters(&full));
	structure_scores_close(&s);
	/* two blocks of vision are worthless */
	scores_open(&s, &full, EQUAL, 6);
	for (int b = 1; b < 3; b++) {
		block_scores *k = &s.blocks[COMPONENT_VISION][b];
		k->total = 0;
		memset(k->ffn, 0, 768 * sizeof *k->ffn);
		memset(k->self_qk, 0, 192 * sizeof *k->self_qk);
		memset(k->self_v, 0, 192 * sizeof *k->self_v);
	}
	o.target = cost_parameters(&full) - 2 * 443000;
	assert_ok(plan_shape(&r, &full, &s, cost, &o, err));
	assert_int_equal(r.shape.vision.num_hidden_layers, 4);
	assert_int_equal(r.moves, 2);
	o.block_choice = BLOCKS_FROM_END; /* but they are not the last, and only those may go */
	assert_ok(plan_shape(&r, &full, &s, cost, &o, err));
	assert_int_equal(r.shape.vision.num_hidden_layers, 6);
	structure_scores_close(&s);
	cost_close(&cost);
}

/* A little is to be saved: a block that is cheap for its size gives up more than a few neurons. */
static void nothing_is_given_up_beyond_the_target(void **state)
{
	const blip2_config full = teacher();
	cost_model *cost = open_cost(64, 1, 0);
	structure_scores s;
	plan_result r;
	score_sizes size = {{1e3, 1e3, 1e3}, {1e3, 1e3, 1e3}, {1e6, 1e6, 1e6}, 1e6};
	scores_open(&s, &full, size, 11);
	for (int b = 0; b < 4; b++)
		for (int i = 0; i < 1024; i++)
			s.blocks[COMPONENT_TEXT][b].ffn[i] = 0.04; /* 5.12 a step of all blocks, 65 664 parameters */
	s.blocks[COMPONENT_VISION][2].total = 10;              /* 443 000 */
	plan_options o = by(TARGET_PARAMETERS, cost_parameters(&full) - 3000, &full);
	assert_ok(plan_shape(&r, &full, &s, cost, &o, err));
	assert_int_equal(r.shape.vision.num_hidden_layers, 6);
	assert_int_equal(r.shape.text.blocks[0].ffn_dim, 992);
	o.target = cost_parameters(&full) - 400000;
	assert_ok(plan_shape(&r, &full, &s, cost, &o, err));
	assert_int_equal(r.shape.vision.num_hidden_layers, 5);
	assert_int_equal(r.shape.text.blocks[0].ffn_dim, 1024);
	structure_scores_close(&s);
	cost_close(&cost);
}

/* What the limits allow at least is reachable, less is not, and the message says so. */
static void smallest_shape_is_reachable(void **state)
{
	const blip2_config full = teacher();
	cost_model *cost = open_cost(64, 1, 0);
	structure_scores s;
	scores_open(&s, &full, EQUAL, 7);
	for (int uniform = 0; uniform < 2; uniform++) {
		plan_result r;
		wn_error e = {0};
		plan_options o = by(TARGET_PARAMETERS, 1000, &full);
		o.limits.uniform_heads = uniform;
		o.limits.min_inner[COMPONENT_TEXT] = 96; /* 2 x 48, or 3 x 32, but not 1 x 64 */
		o.limits.min_blocks[COMPONENT_TEXT] = 2;
		assert_int_equal(plan_shape(&r, &full, &s, cost, &o, &e), WN_INVALID);
		const char *number = strstr(e.message, "the smallest that the limits allow is ");
		assert_non_null(strstr(e.message, "target parameters: found 1000 parameters, out of reach"));
		assert_non_null(number);
		o.target = strtod(number + strlen("the smallest that the limits allow is "), NULL) + 0.5;
		assert_ok(plan_shape(&r, &full, &s, cost, &o, err));
		assert_within_limits(&r.shape, &full, &o.limits);
		assert_int_equal(r.shape.vision.hidden_size, 32);
		assert_int_equal(r.shape.text.num_hidden_layers, 2);
		assert_int_equal(r.shape.text.hidden_size, uniform ? 96 : 32);
		assert_int_equal(r.shape.text.blocks[0].num_heads * r.shape.text.blocks[0].head_dim, 96);
		assert_int_equal(r.shape.num_query_tokens, 2);
		o.target -= 2;
		assert_refused(WN_INVALID, "out of reach", plan_shape(&r, &full, &s, cost, &o, err));
	}
	structure_scores_close(&s);
	cost_close(&cost);
}

static void teacher_within_the_target_is_the_plan(void **state)
{
	const blip2_config full = teacher();
	cost_model *cost = open_cost(64, 1, 0);
	structure_scores s;
	plan_result r;
	scores_open(&s, &full, EQUAL, 8);
	const plan_options o = by(TARGET_PARAMETERS, cost_parameters(&full), &full);
	assert_ok(plan_shape(&r, &full, &s, cost, &o, err));
	assert_int_equal(r.moves, 0);
	assert_true(r.parameters == cost_parameters(&full));
	structure_scores_close(&s);
	cost_close(&cost);
}

/* A teacher whose heads do not make up its hidden width gets the nearest that do. */
static void heads_are_made_uniform(void **state)
{
	blip2_config full = teacher();
	cost_model *cost = open_cost(64, 1, 0);
	structure_scores s;
	plan_result r;
	full.vision = stack(192, 6, 3, 48, 768, ACTIVATION_GELU);
	scores_open(&s, &full, EQUAL, 8);
	plan_options o = by(TARGET_PARAMETERS, cost_parameters(&full), &full);
	assert_ok(plan_shape(&r, &full, &s, cost, &o, err));
	assert_int_equal(r.shape.vision.hidden_size, 144);
	assert_int_equal(r.shape.vision.blocks[0].num_heads, 3);
	assert_int_equal(r.shape.vision.blocks[0].head_dim, 48);
	assert_true(hf_config_is_uniform(&r.shape));
	o.limits.min_hidden[COMPONENT_VISION] = 160;
	assert_refused(WN_INVALID, "vision: no hidden width from 192 down to the limit is made up of its heads (3 of 48)",
	               plan_shape(&r, &full, &s, cost, &o, err));
	structure_scores_close(&s);
	cost_close(&cost);
}

static void refused_inputs_are_named(void **state)
{
	const blip2_config full = teacher();
	cost_model *cost = open_cost(64, 1, 0);
	structure_scores s;
	plan_result r;
	scores_open(&s, &full, EQUAL, 9);
	plan_options o = by(TARGET_FLOPS, 0, &full);
	assert_refused(WN_INVALID, "target flops: found 0, expected more than 0", plan_shape(&r, &full, &s, cost, &o, err));
	o = by(TARGET_LATENCY_MS, 5, &full);
	o.tolerance = 0;
	assert_refused(WN_INVALID, "tolerance of latency_ms: found 0", plan_shape(&r, &full, &s, cost, &o, err));
	o = by(TARGET_PARAMETERS, 1e6, &full);
	o.limits.multiple = 0;
	assert_refused(WN_INVALID, "multiple of widths: found 0", plan_shape(&r, &full, &s, cost, &o, err));
	o.limits.multiple = 16;
	blip2_config other = full;
	other.num_query_tokens = 15;
	assert_refused(WN_INVALID, "another shape", plan_shape(&r, &other, &s, cost, &o, err));
	s.blocks[COMPONENT_TEXT][2].self_v[7] = NAN;
	assert_refused(WN_INVALID, "found nan, expected a finite number", plan_shape(&r, &full, &s, cost, &o, err));
	structure_scores_close(&s);
	other = full;
	other.qformer.blocks[1].ffn_dim = 512;
	scores_open(&s, &other, EQUAL, 9);
	assert_refused(WN_UNSUPPORTED, "qformer: blocks of different widths", plan_shape(&r, &other, &s, cost, &o, err));
	structure_scores_close(&s);
	cost_close(&cost);
}

static void default_limits_follow_the_teacher(void **state)
{
	blip2_config c = teacher();
	plan_limits l = plan_limits_default(&c);
	assert_int_equal(l.multiple, 16);
	assert_int_equal(l.min_queries, 2);
	assert_true(l.uniform_heads);
	assert_int_equal(l.min_hidden[COMPONENT_VISION], 24);
	assert_int_equal(l.min_hidden[COMPONENT_TEXT], 32);
	assert_int_equal(l.min_ffn[COMPONENT_QFORMER], 96);
	assert_int_equal(l.min_blocks[COMPONENT_TEXT], 1);
	c.vision = stack(64, 2, 1, 12, 100, ACTIVATION_GELU);
	c.num_query_tokens = 1;
	l = plan_limits_default(&c);
	assert_int_equal(l.multiple, 8);
	assert_int_equal(l.min_queries, 1);
	assert_int_equal(l.min_hidden[COMPONENT_VISION], 16);
	assert_int_equal(l.min_inner[COMPONENT_VISION], 12);
	assert_int_equal(l.min_ffn[COMPONENT_VISION], 16);
}

/* ---- planning by latency ---- */

/* A machine of our own: predicted and measured milliseconds as functions of the shape. */
typedef struct machine {
	double (*predict)(const blip2_config *c);
	double (*measure)(const struct machine *m, const blip2_config *c);
	int measured; /* calls so far */
	double last_ms;
	int fail_at;  /* this call of measure fails; 0: none */
} machine;

static wn_code machine_latency(void *ctx, const blip2_config *shape, double *ms, wn_error *err)
{
	*ms = ((const machine *)ctx)->predict(shape);
	return WN_OK;
}

static wn_code machine_measure(void *ctx, const blip2_config *shape, int runs, double *ms, wn_error *err)
{
	machine *m = ctx;
	if (++m->measured == m->fail_at)
		return wn_fail(err, WN_NOMEM, "no room for it");
	*ms = m->last_ms = m->measure(m, shape);
	return WN_OK;
}

static wn_code plan_on(machine *m, plan_result *r, const plan_options *o, score_sizes size, wn_error *failure)
{
	const blip2_config full = teacher();
	const cost_request request = {64, 1, 0};
	const cost_functions f = {machine_latency, machine_measure, m};
	cost_model *cost;
	structure_scores s;
	scores_open(&s, &full, size, 10);
	assert_ok(cost_open_custom(&cost, &request, &f, err));
	wn_code rc = plan_shape(r, &full, &s, cost, o, failure);
	cost_close(&cost);
	structure_scores_close(&s);
	return rc;
}

static plan_options latency_target(double ms)
{
	const blip2_config full = teacher();
	return by(TARGET_LATENCY_MS, ms, &full);
}

/* 20 ms for the teacher */
static double by_work(const blip2_config *c)
{
	const blip2_config full = teacher();
	double work[2] = {0};
	for (int i = 0; i < NUM_COMPONENTS; i++) {
		work[0] += blip2_flops(c, (component)i, 64, 1);
		work[1] += blip2_flops(&full, (component)i, 64, 1);
	}
	return 20 * work[0] / work[1];
}
static double as_predicted(const machine *m, const blip2_config *c) { return by_work(c); }
static double slower(const machine *m, const blip2_config *c) { return 1.4 * by_work(c); }
static double faster(const machine *m, const blip2_config *c) { return 0.6 * by_work(c); }
static double with_overhead(const machine *m, const blip2_config *c) { return 1 + by_work(c); }

/* Good predictions need one measurement; constant errors one correction more, in either direction. */
static void predictions_are_corrected(void **state)
{
	static const struct {
		double (*measure)(const machine *m, const blip2_config *c);
		int measured;
	} cases[] = {{as_predicted, 1}, {slower, 2}, {faster, 2}};
	const blip2_config full = teacher();
	for (int i = 0; i < 3; i++) {
		machine m = {.predict = by_work, .measure = cases[i].measure};
		plan_result r;
		const plan_options o = latency_target(5);
		assert_ok(plan_on(&m, &r, &o, EQUAL, err));
		assert_close(r.measured_ms, 5, 0.25, "measured", (size_t)i);
		assert_close(r.predicted_ms, r.measured_ms, 1e-9, "predicted", (size_t)i);
		assert_true(cases[i].measure(&m, &r.shape) == r.measured_ms);
		assert_int_equal(m.measured, cases[i].measured);
		assert_within_limits(&r.shape, &full, &o.limits);
	}
	machine m = {.predict = by_work, .measure = with_overhead};
	plan_result r;
	const plan_options o = latency_target(4);
	assert_ok(plan_on(&m, &r, &o, EQUAL, err));
	assert_close(r.measured_ms, 4, 0.2, "overhead", 0);
}

static void teacher_that_is_fast_enough_is_measured_once(void **state)
{
	machine m = {.predict = by_work, .measure = faster};
	plan_result r;
	const plan_options o = latency_target(50);
	assert_ok(plan_on(&m, &r, &o, EQUAL, err));
	assert_int_equal(r.moves, 0);
	assert_int_equal(m.measured, 1);
	assert_true(r.measured_ms == 12);
}

/* The machine does not care about the text's FFN, whatever was predicted. */
static double without_text_ffn(const machine *m, const blip2_config *c)
{
	blip2_config same = *c;
	for (int i = 0; i < same.text.num_hidden_layers; i++)
		same.text.blocks[i].ffn_dim = 1024;
	return by_work(&same);
}

static void smaller_but_not_faster_is_refused(void **state)
{
	machine m = {.predict = by_work, .measure = without_text_ffn};
	plan_result r;
	plan_options o = latency_target(16);
	score_sizes size = EQUAL;
	char *said = NULL;
	size_t len;
	size.ffn[COMPONENT_TEXT] = 1e-6; /* so that it is what goes first */
	size.attention[COMPONENT_TEXT] = 1e3;
	o.out = open_memstream(&said, &len);
	assert_ok(plan_on(&m, &r, &o, size, err));
	fclose(o.out);
	assert_close(r.measured_ms, 16, 0.8, "measured", 0);
	assert_true(without_text_ffn(&m, &r.shape) == r.measured_ms);
	const char *refused = strstr(said, "smaller but not faster: no more moves of text ffn\n");
	assert_non_null(refused);
	assert_null(strstr(refused, "\ntext ffn"));
	assert_non_null(strstr(said, "text ffn 1024 -> "));
	free(said);
}

/* Nothing makes it faster: every kind of move is refused in turn, and that is the end. */
static double constant(const machine *m, const blip2_config *c) { return 12; }

static void what_never_gets_faster_is_out_of_reach(void **state)
{
	machine m = {.predict = by_work, .measure = constant};
	plan_result r;
	const plan_options o = latency_target(5);
	assert_refused(WN_INVALID, "target latency_ms: found 5 ms, out of reach: the smallest that the limits allow is",
	               plan_on(&m, &r, &o, EQUAL, err));
	assert_in_range(m.measured, 2, 30);
}

/* Always a little faster, never as much as predicted. */
static double receding(const machine *m, const blip2_config *c) { return by_work(c) * (1 + 0.3 * m->measured); }

static void three_corrections_are_enough(void **state)
{
	machine m = {.predict = by_work, .measure = receding};
	plan_result r;
	const plan_options o = latency_target(8);
	assert_refused(WN_INVALID, "target latency_ms: 3 corrections did not bring it within 5 % of 8 ms: the last candidate took",
	               plan_on(&m, &r, &o, EQUAL, err));
	assert_int_equal(m.measured, 4);
}

/* Faster than asked each time: still a plan, if not the tightest. */
static double elusive(const machine *m, const blip2_config *c) { return by_work(c) * (m->measured % 2 ? 0.8 : 0.6); }

static void faster_than_asked_will_do(void **state)
{
	machine m = {.predict = by_work, .measure = elusive};
	plan_result r;
	plan_options o = latency_target(5);
	o.tolerance = 0.01;
	assert_ok(plan_on(&m, &r, &o, EQUAL, err));
	assert_true(r.measured_ms <= 5.05);
	assert_int_equal(m.measured, 4);
}

static void far_targets_are_out_of_reach(void **state)
{
	machine m = {.predict = by_work, .measure = as_predicted};
	plan_result r;
	plan_options o = latency_target(0.01);
	assert_refused(WN_INVALID, "target latency_ms: found 0.01 ms, out of reach: the smallest that the limits allow is",
	               plan_on(&m, &r, &o, EQUAL, err));
	assert_int_equal(m.measured, 0);
	m.fail_at = 1;
	o.target = 5;
	assert_refused(WN_NOMEM, "no room for it", plan_on(&m, &r, &o, EQUAL, err));
}

/* Kernels round the FFN up to 64: one step of 32 saves nothing, two do. */
static double by_tiles(const blip2_config *c)
{
	blip2_config up = *c;
	for (int i = 0; i < NUM_COMPONENTS; i++) {
		stack_config *s = shape_stack_in(&up, (component)i);
		for (int b = 0; b < s->num_hidden_layers; b++)
			s->blocks[b].ffn_dim = (s->blocks[b].ffn_dim + 63) / 64 * 64;
	}
	return by_work(&up);
}
static double as_tiles(const machine *m, const blip2_config *c) { return by_tiles(c); }

static void steps_that_save_nothing_are_passed_over(void **state)
{
	machine m = {.predict = by_tiles, .measure = as_tiles};
	plan_result r;
	const plan_options o = latency_target(17);
	score_sizes size = EQUAL;
	for (int c = 0; c < NUM_COMPONENTS; c++) {
		size.ffn[c] = 1e-3;
		size.attention[c] = size.hidden[c] = 1e3;
	}
	size.queries = 1e6;
	assert_ok(plan_on(&m, &r, &o, size, err));
	assert_close(r.measured_ms, 17, 0.85, "measured", 0);
	assert_int_equal(r.shape.vision.hidden_size, 192);
	assert_true(r.shape.vision.blocks[0].ffn_dim < 768 && r.shape.vision.num_hidden_layers == 6);
	for (int c = 0; c < NUM_COMPONENTS; c++) /* never a width whose last step was for nothing */
		assert_int_equal(shape_stack(&r.shape, (component)c)->blocks[0].ffn_dim % 64, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(losses_are_sums_of_the_lowest),
		cmocka_unit_test(last_cross_attention_stays),
		cmocka_unit_test(the_last_of_a_part_is_dear),
		cmocka_unit_test(blocks_are_lost_as_they_are_kept),
		cmocka_unit_test(ladders_go_down_and_up),
		cmocka_unit_test(blocks_are_made_loadable),
		cmocka_unit_test(targets_are_met_within_the_limits),
		cmocka_unit_test(worthless_structures_go_first),
		cmocka_unit_test(nothing_is_given_up_beyond_the_target),
		cmocka_unit_test(smallest_shape_is_reachable),
		cmocka_unit_test(teacher_within_the_target_is_the_plan),
		cmocka_unit_test(heads_are_made_uniform),
		cmocka_unit_test(refused_inputs_are_named),
		cmocka_unit_test(default_limits_follow_the_teacher),
		cmocka_unit_test(predictions_are_corrected),
		cmocka_unit_test(teacher_that_is_fast_enough_is_measured_once),
		cmocka_unit_test(smaller_but_not_faster_is_refused),
		cmocka_unit_test(what_never_gets_faster_is_out_of_reach),
		cmocka_unit_test(three_corrections_are_enough),
		cmocka_unit_test(faster_than_asked_will_do),
		cmocka_unit_test(far_targets_are_out_of_reach),
		cmocka_unit_test(steps_that_save_nothing_are_passed_over),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
