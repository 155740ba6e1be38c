/* What a planner searches with: what shapes give up (plan_loss.h), and which shapes there are and the steps between them (plan_moves.h). */
#include "tests/compress/random_scores.h"

#include "prune/compress/keep.h"
#include "prune/compress/plan_loss.h"
#include "prune/compress/plan_moves.h"

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

/* What goes with a block is what keep_choose drops for the same shape. */
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(losses_are_sums_of_the_lowest),
		cmocka_unit_test(last_cross_attention_stays),
		cmocka_unit_test(the_last_of_a_part_is_dear),
		cmocka_unit_test(blocks_are_lost_as_they_are_kept),
		cmocka_unit_test(ladders_go_down_and_up),
		cmocka_unit_test(blocks_are_made_loadable),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
