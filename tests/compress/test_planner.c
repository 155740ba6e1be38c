/* Which shape the planner chooses. Latencies are functions of the shape: nothing here depends on how
 * fast the machine is. */
#include "tests/compress/random_scores.h"

#include "prune/compress/cost.h"
#include "prune/compress/keep.h"
#include "prune/compress/plan_loss.h"
#include "prune/compress/plan_moves.h"
#include "prune/compress/planner.h"
#include "prune/rng.h"

static cost_model *open_cost(int text_len, int logit_rows, int threads)
{
	cost_model *c;
	const cost_request r = {text_len, logit_rows, threads};
	assert_ok(cost_open(&c, &r, err));
	return c;
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
