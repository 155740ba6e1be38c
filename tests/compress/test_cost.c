/* What shapes cost. Nothing here depends on how fast the machine is. */
#include "tests/compress/shapes.h"

#include <omp.h>

#include "prune/compress/cost.h"
#include "prune/rng.h"

static blip2_config random_shape(rng *r)
{
	blip2_config c = teacher();
	c.qkv_bias = rng_below(r, 2);
	c.num_query_tokens = 1 + (int)rng_below(r, 9);
	c.vocab_size = 8 + (int)rng_below(r, 90);
	c.patch_size = rng_below(r, 2) ? 7 : 14;
	for (int i = 0; i < NUM_COMPONENTS; i++) {
		stack_config *s = shape_stack_in(&c, (component)i);
		*s = stack(1 + (int)rng_below(r, 40), 1 + (int)rng_below(r, 4), 1, 1, 1, s->activation);
		for (int b = 0; b < s->num_hidden_layers; b++)
			s->blocks[b] = (block_widths){.num_heads = 1 + (int)rng_below(r, 4), .head_dim = 1 + (int)rng_below(r, 9),
			                              .ffn_dim = 1 + (int)rng_below(r, 50)};
	}
	set_cross(&c.qformer, 1 + (int)rng_below(r, 2), 1 + (int)rng_below(r, 3), 1 + (int)rng_below(r, 9));
	return c;
}

static cost_model *open_cost(int text_len, int logit_rows, int threads)
{
	cost_model *c;
	const cost_request r = {text_len, logit_rows, threads};
	assert_ok(cost_open(&c, &r, err));
	return c;
}

static void parameters_are_those_of_the_model(void **state)
{
	rng r = rng_open(1, 0, 0, 0);
	for (int round = 0; round < 40; round++) {
		const blip2_config c = round ? random_shape(&r) : teacher();
		blip2 *m;
		assert_ok(blip2_create(&m, &c, err));
		assert_true(cost_parameters(&c) == (double)blip2_parameter_count(m));
		blip2_close(&m);
	}
}

static void flops_are_those_of_a_request(void **state)
{
	const blip2_config c = teacher();
	cost_model *cost = open_cost(40, 3, 0);
	double sum = 0;
	for (int i = 0; i < 3; i++)
		sum += blip2_flops(&c, (component)i, 40, 3);
	assert_true(cost_flops(cost, &c) == sum);
	cost_close(&cost);
	cost_close(&cost);
}

static double predict(cost_model *cost, const blip2_config *c)
{
	double ms;
	assert_ok(cost_latency(cost, c, &ms, err));
	return ms;
}

/* Every part is timed once; a prediction is the sum over blocks. */
static void predictions_are_sums_of_remembered_parts(void **state)
{
	cost_model *cost = open_cost(6, 2, 1);
	blip2_config c = small_shape(), other;
	const int threads = omp_get_max_threads();
	const double first = predict(cost, &c);
	/* vision; Q-Former with and without cross-attention; text, its last block; three parts outside of blocks */
	assert_int_equal(cost_parts(cost), 8);
	assert_true(first > 0);
	assert_true(predict(cost, &c) == first);
	other = c;
	other.vision = stack(24, 2, 2, 12, 40, ACTIVATION_GELU);
	const double two = predict(cost, &other);
	other.vision = stack(24, 10, 2, 12, 40, ACTIVATION_GELU);
	const double ten = predict(cost, &other);
	assert_int_equal(cost_parts(cost), 8);
	assert_true(first > two);
	assert_close(ten - first, 7 * (first - two), 1e-9, "blocks", 0);
	/* one other block */
	other = c;
	other.text.blocks[1].ffn_dim = 12;
	predict(cost, &other);
	assert_int_equal(cost_parts(cost), 9);
	/* the width of the image's rows is also the Q-Former's business */
	other = c;
	other.vision.hidden_size = 16;
	predict(cost, &other);
	assert_int_equal(cost_parts(cost), 12);
	assert_int_equal(omp_get_max_threads(), threads);
	cost_close(&cost);
}

/* More parts than the table starts with: all of them are found again. */
static void table_of_parts_grows(void **state)
{
	cost_model *cost = open_cost(4, 1, 1);
	blip2_config c = small_shape();
	double ms[260];
	c.vision.num_hidden_layers = 1;
	for (int again = 0; again < 2; again++)
		for (int i = 0; i < 260; i++) {
			c.vision.blocks[0].ffn_dim = 1 + i;
			const double t = predict(cost, &c);
			assert_true(!again || t == ms[i]);
			ms[i] = t;
			assert_int_equal(cost_parts(cost), again ? 267 : 8 + i);
		}
	cost_close(&cost);
}

static void whole_models_are_measured(void **state)
{
	cost_model *cost = open_cost(6, 2, omp_get_max_threads() + 1);
	const blip2_config c = small_shape();
	const int threads = omp_get_max_threads();
	double ms = -1;
	assert_ok(cost_measure(cost, &c, 3, &ms, err));
	assert_true(ms > 0 && isfinite(ms));
	predict(cost, &c);
	assert_int_equal(omp_get_max_threads(), threads);
	cost_close(&cost);
}

static void impossible_requests_are_named(void **state)
{
	static const cost_request bad[] = {{0, 1, 0}, {1, 0, 0}, {1, 1, -1}};
	cost_model *cost;
	double ms;
	for (int i = 0; i < 3; i++) {
		assert_refused(WN_INVALID, "a request of", cost_open(&cost, &bad[i], err));
		assert_null(cost);
	}
	const blip2_config c = small_shape();
	cost = open_cost(22, 1, 1);
	assert_refused(WN_TOO_LARGE, "3 queries and 22 text tokens exceed max_position_embeddings 24", cost_latency(cost, &c, &ms, err));
	assert_refused(WN_TOO_LARGE, "exceed max_position_embeddings 24", cost_measure(cost, &c, 1, &ms, err));
	cost_close(&cost);
	cost = open_cost(5, 9, 1);
	assert_refused(WN_INVALID, "logit_rows: found 9, expected at most the 8 positions", cost_latency(cost, &c, &ms, err));
	cost_close(&cost);
	cost = open_cost(5, 1, 1);
	assert_refused(WN_INVALID, "runs: found 0", cost_measure(cost, &c, 0, &ms, err));
	cost_close(&cost);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parameters_are_those_of_the_model),
		cmocka_unit_test(flops_are_those_of_a_request),
		cmocka_unit_test(predictions_are_sums_of_remembered_parts),
		cmocka_unit_test(table_of_parts_grows),
		cmocka_unit_test(whole_models_are_measured),
		cmocka_unit_test(impossible_requests_are_named),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
