/* test_served_model.c: a version is loaded for the threads that will run it; and it is reckoned to take of the memory budget what its
 * weights are stored in and run in, whatever winnow.json says or leaves out. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <omp.h>

#include "../base/temp_dir.h"
#include "../engine/tiny_classifier.h"
#include "server/served_model.h"

#define FILE_BYTES 1000000 /* what the files are said to take, so that the estimate is a round number */

static const placement two = {.instances = 1, .threads = 2};
static const placement *placed = &two;
static char plain[100], quantized[100];
static wn_error err;

static void ok(wn_code code)
{
	if (code != WN_OK)
		fail_msg("%s", err.message);
}

static int set_up(void **state)
{
	if (temp_dir_make(state) != 0)
		return -1;
	snprintf(plain, sizeof plain, "%s/plain", temp_dir);
	snprintf(quantized, sizeof quantized, "%s/quantized", temp_dir);
	ok(tiny_classifier_write(plain, &(tiny_classifier){.seed = 1}, &err));
	return 0;
}

/* plain's weights with its matrices in I8, and a winnow.json that says so or not. */
static void store_int8(const char *name, bool with_quantization)
{
	checkpoint c;
	char tokens[160];
	ok(checkpoint_load(&c, plain, NULL, &err));
	const size_t n = blip2_num_params(c.model);
	dtype *dtypes = calloc(n, sizeof *dtypes);
	for (size_t i = 0; i < n; i++)
		dtypes[i] = blip2_param(c.model, i)->decay ? DTYPE_I8 : DTYPE_F32;
	snprintf(tokens, sizeof tokens, "%s/tokenizer.json", plain);
	snprintf(c.manifest.precision, sizeof c.manifest.precision, "%s", name);
	c.manifest.quantization = with_quantization ? json_object() : NULL;
	ok(checkpoint_save_quantized(quantized, c.model, &c.manifest, &c.image_processor, tokens, dtypes, &err));
	free(dtypes);
	checkpoint_close(&c);
}

/* forced: inference.precision, 0 = the model's own. */
static wn_code load(served_model **m, const char *dir, int forced, int max_batch, uint64_t memory_left, load_step *step)
{
	const int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	const load_request q = {.dir_fd = fd, .shown = "tiny/1", .name = "tiny", .version = 1, .placement = placed, .max_batch = max_batch,
				.precision = forced, .verify_digests = true, .file_bytes = FILE_BYTES, .memory_left = memory_left};
	err = (wn_error){0};
	const wn_code code = model_load(m, &q, step, &err);
	close(fd);
	return code;
}

static void expect(const char *dir, int forced, precision run_in, uint64_t bytes)
{
	served_model *m = NULL;
	load_step step;
	ok(load(&m, dir, forced, 1, UINT64_MAX, &step));
	assert_int_equal(engine_precision(classifier_engine(m->classifier)), run_in);
	const uint64_t scratch = classifier_session_bytes(m->sessions[0]);
	assert_int_equal(m->bytes - scratch, bytes);
	model_free(m);
	/* Not one byte less will do, and neither will what the files alone take. */
	ok(load(&m, dir, forced, 1, bytes + scratch, &step));
	model_free(m);
	const uint64_t too_little[] = {bytes + scratch - 1, bytes - 1, FILE_BYTES, FILE_BYTES - 1};
	for (size_t i = 0; i < sizeof too_little / sizeof too_little[0]; i++) {
		assert_int_equal(load(&m, dir, forced, 1, too_little[i], &step), WN_TOO_LARGE);
		assert_int_equal(step, LOAD_BUDGET);
		assert_non_null(strstr(err.message, too_little[i] < FILE_BYTES ? "tiny/1: its files alone take about" : "tiny/1: takes about"));
	}
}

/* However little is missing, the need is the larger of the two numbers. */
static void the_message_shows_what_is_missing(void **state)
{
	static const struct {
		uint64_t need, left;
		const char *message;
	} CASES[] = {{(3 << 20) + 1, 3 << 20, "it takes about 3.1 MiB of memory, model.memory_budget has 3.0 MiB left"},
		     {1 << 20, (1 << 20) - 1, "it takes about 1.0 MiB of memory, model.memory_budget has 0.9 MiB left"},
		     {1, 0, "it takes about 0.1 MiB of memory, model.memory_budget has 0.0 MiB left"},
		     {UINT64_C(300) << 30, UINT64_C(7) << 30, "it takes about 307200.0 MiB of memory, model.memory_budget has 7168.0 MiB left"}};
	for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
		err = (wn_error){0};
		assert_int_equal(model_check_budget(CASES[i].need, CASES[i].left, "it takes", &err), WN_TOO_LARGE);
		assert_string_equal(err.message, CASES[i].message);
	}
	ok(model_check_budget(5, 5, "it takes", &err));
}

#define PACKED(bytes_a_weight) (FILE_BYTES * (bytes_a_weight) / 4 * 5)

static void int8_weights_are_reckoned_as_such_with_and_without_quantization(void **state)
{
	static const struct {
		const char *name;
		bool with_quantization;
	} SAID[] = {{"int8", true}, {"int8", false}, {"f32", false}};
	for (size_t i = 0; i < sizeof SAID / sizeof SAID[0]; i++) {
		store_int8(SAID[i].name, SAID[i].with_quantization);
		expect(quantized, 0, PRECISION_INT8, FILE_BYTES + PACKED(1));
		expect(quantized, 1 + PRECISION_F32, PRECISION_F32, FILE_BYTES + PACKED(4));
		expect(quantized, 1 + PRECISION_INT8, PRECISION_INT8, FILE_BYTES + PACKED(1));
	}
}

static void f32_weights_are_reckoned_by_what_they_run_in(void **state)
{
	expect(plain, 0, PRECISION_F32, FILE_BYTES + PACKED(1));
	expect(plain, 1 + PRECISION_INT8, PRECISION_INT8, FILE_BYTES + PACKED(1) / 4);
}

/* Whoever loads has one thread. (A batch of 8: one tiny sample has too few rows for two.) */
static void sessions_have_the_threads_of_those_who_will_run_them(void **state)
{
	served_model *m = NULL;
	load_step step;
	omp_set_num_threads(1);
	ok(load(&m, plain, 0, 8, UINT64_MAX, &step));
	assert_int_equal(classifier_session_threads(m->sessions[0]), 2);
	assert_int_equal(omp_get_max_threads(), 1);
	model_free(m);
}

/* A request of the tiny model takes less than a tenth of a GFLOP. */
static void small_models_get_one_thread_where_nobody_says_how_many(void **state)
{
	static const placement automatic = {.instances = 1, .threads = 2, .work_per_thread = 1e8};
	served_model *m = NULL;
	load_step step;
	placed = &automatic;
	ok(load(&m, plain, 0, 8, UINT64_MAX, &step));
	placed = &two;
	assert_int_equal(classifier_session_threads(m->sessions[0]), 1);
	model_free(m);
	assert_int_equal(placement_threads(&automatic, 0.99e8), 1);
	assert_int_equal(placement_threads(&automatic, 1e8), 2);
	assert_int_equal(placement_threads(&automatic, 1e300), 2);
	assert_int_equal(placement_threads(&two, 0), 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(int8_weights_are_reckoned_as_such_with_and_without_quantization),
	    cmocka_unit_test(f32_weights_are_reckoned_by_what_they_run_in),
	    cmocka_unit_test(the_message_shows_what_is_missing),
	    cmocka_unit_test(sessions_have_the_threads_of_those_who_will_run_them),
	    cmocka_unit_test(small_models_get_one_thread_where_nobody_says_how_many),
	};
	return cmocka_run_group_tests(tests, set_up, temp_dir_remove);
}
