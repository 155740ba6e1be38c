/* AdamW, clipping, schedule, metrics against goldens that make_goldens.py wrote with PyTorch, transformers and numpy. */
#include "tests/prune/support.h"

#include <omp.h>

#include "model/safetensors.h"
#include "prune/adamw.h"
#include "prune/metrics.h"
#include "prune/rng.h"
#include "prune/schedule.h"

enum { DECAYED = 33 * 17, PLAIN = 41, COUNT = DECAYED + PLAIN, STEPS = 10 };

static const float *floats(const safetensors *st, const char *name, size_t count)
{
	const tensor *t = safetensors_find(st, name);
	assert_non_null(t);
	assert_int_equal(t->dtype, DTYPE_F32);
	assert_int_equal(shape_count(t->rank, t->shape), count);
	return t->data;
}

/* Ten steps; the buffer has a gap between the segments, as the engine's has: it must stay as it was. */
static void adamw_equals_torch(void **state)
{
	enum { GAP = 7 };
	safetensors *st;
	assert_ok(safetensors_open(&st, GOLDEN_DIR "/adamw.safetensors", err));
	const float *initial = floats(st, "initial", COUNT), *grads = floats(st, "grads", COUNT * STEPS);
	const float *weights = floats(st, "weights", COUNT * STEPS), *norms = floats(st, "norms", STEPS);
	const float *m = floats(st, "exp_avg", COUNT), *v = floats(st, "exp_avg_sq", COUNT);
	float w[COUNT + GAP] = {0}, g[COUNT + GAP] = {0};
	memcpy(w, initial, DECAYED * sizeof *w);
	memcpy(w + DECAYED + GAP, initial + DECAYED, PLAIN * sizeof *w);
	w[DECAYED + 2] = 42;
	const adamw_segment segments[] = {{0, DECAYED, true}, {DECAYED + GAP, PLAIN, false}};
	const adamw_options o = {.beta1 = 0.9, .beta2 = 0.98, .eps = 1e-8, .weight_decay = 0.05};
	adamw a;
	assert_ok(adamw_open(&a, &o, COUNT + GAP, segments, 2, err));
	for (int s = 0; s < STEPS; s++) {
		memcpy(g, grads + s * COUNT, DECAYED * sizeof *g);
		memcpy(g + DECAYED + GAP, grads + s * COUNT + DECAYED, PLAIN * sizeof *g);
		double norm = grad_norm(g, COUNT + GAP);
		assert_close(norm / norms[s], 1, 2e-6, "norm", (size_t)s);
		adamw_step(&a, w, g, 3e-3 * (s + 1) / STEPS, grad_clip_scale(norm, 1.0));
		for (size_t i = 0; i < COUNT; i++) /* a few roundings of values near 1 */
			assert_close(w[i + (i >= DECAYED ? GAP : 0)], weights[(size_t)s * COUNT + i], 1e-6, "weight", i);
	}
	for (size_t i = 0; i < COUNT; i++) {
		size_t at = i + (i >= DECAYED ? GAP : 0);
		assert_close(a.exp_avg[at], m[i], 1e-7 + 1e-5 * fabsf(m[i]), "exp_avg", i);
		assert_close(a.exp_avg_sq[at], v[i], 1e-10 + 1e-5 * fabsf(v[i]), "exp_avg_sq", i);
	}
	assert_true(w[DECAYED + 2] == 42);
	assert_int_equal(a.step, STEPS);
	adamw_reset(&a);
	assert_int_equal(a.step, 0);
	assert_true(a.exp_avg[0] == 0 && a.exp_avg_sq[COUNT + GAP - 1] == 0);
	adamw_close(&a);
	safetensors_close(&st);
}

static void adamw_refuses_segments_outside(void **state)
{
	const adamw_options o = {.beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8};
	const adamw_segment beyond = {8, 9, true};
	adamw a;
	assert_refused(WN_INTERNAL, "beyond 16", adamw_open(&a, &o, 16, &beyond, 1, err));
}

/* The same bits from any number of threads, for the norm and for a step. */
static void threads_do_not_change_bits(void **state)
{
	enum { N = 300001 };
	float *g = malloc(N * sizeof *g), *w[2];
	double norms[2];
	rng r = rng_open(1, 2, 3, 4);
	for (size_t i = 0; i < N; i++)
		g[i] = (float)rng_uniform(&r, -1, 1);
	const adamw_options o = {.beta1 = 0.9, .beta2 = 0.98, .eps = 1e-8, .weight_decay = 0.1};
	const adamw_segment all = {0, N, true};
	const int before = omp_get_max_threads();
	for (int k = 0; k < 2; k++) {
		omp_set_num_threads(k ? 3 : 1);
		w[k] = calloc(N, sizeof **w);
		adamw a;
		assert_ok(adamw_open(&a, &o, N, &all, 1, err));
		norms[k] = grad_norm(g, N);
		for (int s = 0; s < 3; s++)
			adamw_step(&a, w[k], g, 1e-2, grad_clip_scale(norms[k], 1));
		adamw_close(&a);
	}
	omp_set_num_threads(before);
	assert_memory_equal(&norms[0], &norms[1], sizeof norms[0]);
	assert_memory_equal(w[0], w[1], N * sizeof **w);
	double plain = 0;
	for (size_t i = 0; i < N; i++)
		plain += (double)g[i] * g[i];
	assert_close(norms[0], sqrt(plain), 1e-9, "norm", 0);
	free(w[0]);
	free(w[1]);
	free(g);
}

static void schedule_equals_transformers(void **state)
{
	json_t *cases = load_golden("schedule.json"), *c, *rate;
	size_t i, k;
	json_array_foreach(cases, i, c)
	{
		schedule s = {num(c, "peak"), num(c, "floor"), (int64_t)num(c, "warmup"), (int64_t)num(c, "total")};
		json_t *rates = json_object_get(c, "rates");
		assert_int_equal(json_array_size(rates), (size_t)s.total_steps + 2);
		json_array_foreach(rates, k, rate)
			assert_close(schedule_lr(&s, (int64_t)k), json_number_value(rate), 1e-12, "rate", k);
	}
	assert_int_equal(i, 3);
	json_decref(cases);
	schedule all_warmup = {1e-3, 0, 4, 4};
	assert_close(schedule_lr(&all_warmup, 0), 2.5e-4, 1e-15, "warm-up only", 0);
	assert_close(schedule_lr(&all_warmup, 3), 1e-3, 1e-15, "warm-up only", 3);
}

static void metrics_equal_hand_counts(void **state)
{
	json_t *cases = load_golden("metrics.json"), *c, *v;
	metrics *m = calloc(1, sizeof *m);
	size_t i, k;
	json_array_foreach(cases, i, c)
	{
		float probs[4096];
		int truth[512];
		const json_t *classes = json_object_get(c, "classes");
		json_array_foreach(json_object_get(c, "probs"), k, v) probs[k] = (float)json_number_value(v);
		json_array_foreach(json_object_get(c, "truth"), k, v) truth[k] = (int)json_integer_value(v);
		metrics_compute(m, probs, truth, json_array_size(json_object_get(c, "truth")), (int)num(c, "num_classes"));
		assert_close(m->accuracy, num(c, "accuracy"), 1e-12, "accuracy", i);
		assert_close(m->macro_f1, num(c, "macro_f1"), 1e-12, "macro_f1", i);
		assert_close(m->nll, num(c, "nll"), 1e-9, "nll", i);
		assert_close(m->ece, num(c, "ece"), 1e-6, "ece", i);
		json_array_foreach(classes, k, v)
		{
			assert_close(m->classes[k].precision, num(v, "precision"), 1e-12, "precision", k);
			assert_close(m->classes[k].recall, num(v, "recall"), 1e-12, "recall", k);
			assert_close(m->classes[k].f1, num(v, "f1"), 1e-12, "f1", k);
			assert_int_equal(m->classes[k].support, (int64_t)num(v, "support"));
		}
	}
	assert_int_equal(i, 4);
	metrics_compute(m, NULL, NULL, 0, 3);
	assert_true(m->accuracy == 0 && m->count == 0);
	free(m);
	json_decref(cases);
}

static void quantiles_equal_numpy(void **state)
{
	json_t *cases = load_golden("quantile.json"), *c, *v;
	size_t i, k;
	json_array_foreach(cases, i, c)
	{
		double values[128];
		const json_t *in = json_object_get(c, "values");
		json_array_foreach(in, k, v) values[k] = json_number_value(v);
		json_array_foreach(json_object_get(c, "expected"), k, v)
			assert_close(metrics_quantile(values, json_array_size(in), json_number_value(json_array_get(v, 0))),
				     json_number_value(json_array_get(v, 1)), 1e-12, "quantile", k);
	}
	assert_int_equal(i, 5);
	json_decref(cases);
	assert_true(metrics_quantile(NULL, 0, 0.5) == 0);
}

/* A frozen segment keeps weights and moments bit for bit; thawed, it moves again. */
static void frozen_segments_do_not_move(void **state)
{
	(void)state;
	wn_error err = {0};
	const adamw_options opt = {.beta1 = 0.9, .beta2 = 0.98, .eps = 1e-8, .weight_decay = 0.1};
	const adamw_segment segments[] = {{.offset = 0, .count = 4, .decay = true}, {.offset = 16, .count = 4, .decay = true}};
	float w[32], g[32], before[4];
	adamw a = {0};
	assert_int_equal(adamw_open(&a, &opt, 32, segments, 2, &err), WN_OK);
	for (int i = 0; i < 32; i++) {
		w[i] = 1.0f + (float)i;
		g[i] = 0.5f;
	}
	adamw_step(&a, w, g, 0.1, 1);
	memcpy(before, w + 16, sizeof before);
	const float moment = a.exp_avg[16];
	adamw_freeze(&a, 1, true);
	adamw_step(&a, w, g, 0.1, 1);
	assert_memory_equal(before, w + 16, sizeof before);
	assert_true(a.exp_avg[16] == moment);
	adamw_freeze(&a, 1, false);
	adamw_step(&a, w, g, 0.1, 1);
	assert_true(w[16] < before[0]);
	adamw_close(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(frozen_segments_do_not_move),
		cmocka_unit_test(adamw_equals_torch),          cmocka_unit_test(adamw_refuses_segments_outside),
		cmocka_unit_test(threads_do_not_change_bits),  cmocka_unit_test(schedule_equals_transformers),
		cmocka_unit_test(metrics_equal_hand_counts),   cmocka_unit_test(quantiles_equal_numpy),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
