/* test_cli.c: the subcommands as an outsider uses them, against the goldens; and how they refuse. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "base/processors.h"
#include "model/precision.h"

#include "golden.h"
#include "program.h"

static char *copy_path(const char *name, const char *file) { return strdup(golden_path(name, file)); }

/* Every tensor of `want` is in `got` with its shape, within limit. */
static void compare_files(const char *got_path, const char *want_path, double limit)
{
	safetensors *got = NULL, *want = NULL;
	wn_error err = {0};
	assert_ok(safetensors_open(&got, got_path, &err), &err);
	assert_ok(safetensors_open(&want, want_path, &err), &err);
	assert_int_equal(safetensors_count(got), safetensors_count(want));
	for (size_t i = 0; i < safetensors_count(want); i++) {
		const char *name;
		const tensor *w = safetensors_at(want, i, &name), *g = safetensors_find(got, name);
		if (!g)
			fail_msg("%s: %s is missing", got_path, name);
		assert_int_equal(g->dtype, DTYPE_F32);
		assert_int_equal(g->rank, w->rank);
		assert_memory_equal(g->shape, w->shape, (size_t)w->rank * sizeof *w->shape);
		const size_t count = (size_t)shape_count(w->rank, w->shape);
		double norm = 0;
		for (size_t k = 0; k < count; k++)
			norm += fabs((double)((const float *)w->data)[k]);
		if (norm > 1e-5) /* a key's bias has no true gradient */
			assert_at_most(norm_difference(g->data, w->data, count), limit, name);
	}
	safetensors_close(&got);
	safetensors_close(&want);
}

static void forward_and_grad_write_what_pytorch_computes(void **state)
{
	static const char *const names[] = {"base", "no_qkv_bias", "freq3", "widths", "bf16_sharded", "single"};
	outcome o;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		char *dir = copy_path(names[i], ""), *in = copy_path(names[i], "in.safetensors");
		RUN(&o, "forward", "--model", dir, "--in", in, "--out", "forward.safetensors");
		assert_string_equal(o.err, "");
		assert_int_equal(o.exit_code, 0);
		compare_files("forward.safetensors", golden_path(names[i], "out.safetensors"), 1e-4);
		if (i < 4) {
			RUN(&o, "grad", "--model", dir, "--in", in, "--out", "grad.safetensors");
			assert_string_equal(o.err, "");
			assert_int_equal(o.exit_code, 0);
			compare_files("grad.safetensors", golden_path(names[i], "grad.safetensors"), 1e-3);
		}
		free(dir);
		free(in);
	}
}

/* Rewrites base's inputs with one change, and runs both commands on them. */
static void refuse_inputs(const char *tensor_name, const tensor *changed, const char *word)
{
	safetensors *st = NULL;
	wn_error err = {0};
	outcome o;
	safetensors_entry entries[8];
	size_t n = 0;
	assert_ok(safetensors_open(&st, golden_path("base", "in.safetensors"), &err), &err);
	for (size_t i = 0; i < safetensors_count(st); i++) {
		const tensor *t = safetensors_at(st, i, &entries[n].name);
		entries[n].tensor = *t;
		if (!strcmp(entries[n].name, tensor_name)) {
			if (!changed)
				continue;
			entries[n].tensor = *changed;
		}
		n++;
	}
	assert_ok(safetensors_write("bad.safetensors", entries, n, &err), &err);
	RUN(&o, "grad", "--model", golden_path("base", ""), "--in", "bad.safetensors", "--out", "never.safetensors");
	assert_refused(&o, 1, word);
	assert_non_null(strstr(o.err, tensor_name));
	assert_int_not_equal(access("never.safetensors", F_OK), 0);
	safetensors_close(&st);
}

static void inputs_that_do_not_fit_are_named(void **state)
{
	int64_t ids[3 * 7] = {0}, big[3 * 7] = {0}, mask[3 * 7], ignored[3 * 7];
	static float px[3 * 3 * 20 * 21];
	big[8] = 61;
	for (int i = 0; i < 3 * 7; i++) {
		mask[i] = i == 4 ? 2 : 1;
		ignored[i] = -100;
	}
	refuse_inputs("pixel_values", NULL, "missing");
	refuse_inputs("input_ids", NULL, "missing");
	refuse_inputs("labels", NULL, "missing");
	refuse_inputs("pixel_values", &(tensor){DTYPE_F32, 4, {3, 3, 20, 21}, px}, "20, 21");
	refuse_inputs("pixel_values", &(tensor){DTYPE_F32, 3, {3, 20, 20}, px}, "expected");
	refuse_inputs("pixel_values", &(tensor){DTYPE_F16, 4, {3, 3, 20, 20}, px}, "F16");
	refuse_inputs("input_ids", &(tensor){DTYPE_I64, 2, {2, 7}, ids}, "[2, 7]");
	refuse_inputs("input_ids", &(tensor){DTYPE_F32, 2, {3, 7}, ids}, "F32");
	refuse_inputs("input_ids", &(tensor){DTYPE_I64, 2, {3, 7}, big}, "[1, 1] is 61");
	refuse_inputs("attention_mask", &(tensor){DTYPE_I64, 2, {3, 7}, mask}, "[0, 4] is 2");
	refuse_inputs("attention_mask", &(tensor){DTYPE_I64, 2, {3, 6}, mask}, "[3, 6]");
	refuse_inputs("labels", &(tensor){DTYPE_I64, 2, {3, 7}, big}, "or -100");
	refuse_inputs("labels", &(tensor){DTYPE_I64, 2, {3, 7}, ignored}, "-100");
}

static void usage_errors_exit_with_2(void **state)
{
	outcome o;
	static const char *const commands[] = {"inspect", "forward", "grad", "tokenize", "preprocess", "classify", "bench"};
	RUN(&o, "--help");
	assert_int_equal(o.exit_code, 0);
	for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
		outcome one;
		assert_non_null(strstr(o.out, commands[i]));
		RUN(&one, commands[i], "--help");
		assert_int_equal(one.exit_code, 0);
		assert_non_null(strstr(one.out, "--model"));
		assert_non_null(strstr(one.out, "Examples:"));
		RUN(&one, commands[i]);
		assert_refused(&one, 2, "--model");
		RUN(&one, commands[i], "--nonsense", "1");
		assert_refused(&one, 2, "--nonsense");
		RUN(&one, commands[i], "stray");
		assert_refused(&one, 2, "stray");
		RUN(&one, commands[i], "--model");
		assert_refused(&one, 2, "--model");
	}
	RUN(&o, "frobnicate");
	assert_refused(&o, 2, "frobnicate");
	RUN(&o, "bench", "--model", "x", "--runs", "0");
	assert_refused(&o, 2, "--runs");
	RUN(&o, "bench", "--model", "x", "--precision", "f64");
	assert_refused(&o, 2, "f64");
	RUN(&o, "inspect", "--model", "no/such/directory");
	assert_refused(&o, 1, "no/such/directory");
}

static void inspect_counts_what_is_in_the_file(void **state)
{
	outcome o;
	json_error_t je;
	safetensors *st = NULL;
	wn_error err = {0};
	size_t parameters = 0;
	assert_ok(safetensors_open_dir(&st, golden_path("widths", ""), &err), &err);
	for (size_t i = 0; i < safetensors_count(st); i++) {
		const char *name;
		const tensor *t = safetensors_at(st, i, &name);
		parameters += (size_t)shape_count(t->rank, t->shape);
	}
	safetensors_close(&st);
	RUN(&o, "inspect", "--json", "--model", golden_path("widths", ""));
	assert_int_equal(o.exit_code, 0);
	json_t *root = json_loads(o.out, 0, &je);
	assert_non_null(root);
	const json_t *components = json_object_get(root, "components");
	json_int_t sum = 0;
	const char *key;
	json_t *value;
	json_object_foreach((json_t *)components, key, value)
		sum += json_integer_value(json_object_get(value, "parameters"));
	assert_int_equal(json_integer_value(json_object_get(root, "parameters")), parameters);
	assert_int_equal(sum, parameters);
	assert_int_equal(json_integer_value(json_object_get(root, "bytes")), 4 * parameters);
	assert_true(json_is_false(json_object_get(root, "uniform_widths")));
	const json_t *block = json_array_get(json_object_get(json_object_get(components, "qformer"), "blocks"), 2);
	assert_int_equal(json_integer_value(json_object_get(block, "cross_head_dim")), 5);
	const json_t *runtime = json_object_get(root, "runtime"), *engine = json_object_get(runtime, "engine");
	assert_int_equal(json_integer_value(json_object_get(runtime, "threads")), processors_usable());
	for (int p = 0; PRECISION_NAMES[p]; p++) /* "int8 brg:…", "int8 weights in f32 …" */
		assert_int_equal(strncmp(json_string_value(json_object_get(engine, PRECISION_NAMES[p])), PRECISION_NAMES[p],
					 strlen(PRECISION_NAMES[p])), 0);
	json_decref(root);
	RUN(&o, "inspect", "--model", golden_path("widths", ""));
	assert_int_equal(o.exit_code, 0);
	assert_non_null(strstr(o.out, "oneDNN"));
	assert_non_null(strstr(o.out, " processors"));
}

static void bench_reports_consistent_figures(void **state)
{
	outcome o;
	json_error_t je;
	RUN(&o, "bench", "--model", golden_path("base", ""), "--tokens", "8", "--runs", "7", "--threads", "1", "--json");
	assert_int_equal(o.exit_code, 0);
	json_t *r = json_loads(o.out, 0, &je);
	assert_non_null(r);
#define FIGURE(name) json_number_value(json_object_get(r, name))
	assert_true(FIGURE("min_ms") > 0 && FIGURE("min_ms") <= FIGURE("median_ms") && FIGURE("median_ms") <= FIGURE("p99_ms"));
	assert_at_most(fabs(FIGURE("gflops") / (1e3 * FIGURE("gflop") / FIGURE("median_ms")) - 1), 1e-3, "GFLOP/s");
	assert_at_most(fabs(FIGURE("percent_of_peak") / (100 * FIGURE("gflops") / FIGURE("peak_gflops")) - 1), 1e-3, "percent");
	assert_true(FIGURE("load_ms") > 0 && FIGURE("peak_rss_bytes") > 1e6);
	json_decref(r);
	RUN(&o, "bench", "--model", golden_path("base", ""), "--tokens", "20");
	assert_refused(&o, 1, "--tokens: found 20");
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(forward_and_grad_write_what_pytorch_computes),
		cmocka_unit_test(inputs_that_do_not_fit_are_named),
		cmocka_unit_test(usage_errors_exit_with_2),
		cmocka_unit_test(inspect_counts_what_is_in_the_file),
		cmocka_unit_test(bench_reports_consistent_figures),
	};
	program_is(argc > 1 ? argv[1] : "winnow-prune");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
