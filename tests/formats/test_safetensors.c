/* Files of the real safetensors and transformers load with the right values; ours survive a round trip and a full disk. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <sys/resource.h>

#include "../base/temp_dir.h"
#include "model/safetensors.h"

static const char *golden_dir;

static const char *golden(const char *name)
{
	static char path[1024];
	snprintf(path, sizeof path, "%s/%s", golden_dir, name);
	return path;
}

static void expect(const safetensors *st, const char *name, dtype d, int rank, const int64_t *shape, const void *data,
                   size_t bytes)
{
	const tensor *t = safetensors_find(st, name);
	assert_non_null(t);
	assert_int_equal(t->dtype, d);
	assert_int_equal(t->rank, rank);
	for (int i = 0; i < rank; i++)
		assert_int_equal(t->shape[i], shape[i]);
	if (bytes)
		assert_memory_equal(t->data, data, bytes);
}

static void every_dtype_of_the_real_library_is_read(void **state)
{
	safetensors *st;
	wn_error err = {0};
	if (safetensors_open(&st, golden("dtypes.safetensors"), &err) != WN_OK)
		fail_msg("%s", err.message);
	assert_int_equal(safetensors_count(st), 11);
	expect(st, "f32", DTYPE_F32, 2, (int64_t[]){2, 3}, (float[]){1.0f, -2.5f, 3.25f, 0.0f, 1e-30f, 1e30f}, 24);
	expect(st, "f16", DTYPE_F16, 1, (int64_t[]){4}, (uint16_t[]){0x3c00, 0xb800, 0x7bff, 0x0001}, 8);
	expect(st, "bf16", DTYPE_BF16, 1, (int64_t[]){3}, (uint16_t[]){0x3f80, 0xbf00, 0x7f62}, 6);
	expect(st, "i64", DTYPE_I64, 1, (int64_t[]){2}, (int64_t[]){-1, (int64_t)1 << 40}, 16);
	expect(st, "i32", DTYPE_I32, 2, (int64_t[]){2, 1}, (int32_t[]){-7, 8}, 8);
	expect(st, "i8", DTYPE_I8, 1, (int64_t[]){3}, (int8_t[]){-128, 127, 0}, 3);
	expect(st, "u8", DTYPE_U8, 1, (int64_t[]){2}, (uint8_t[]){0, 255}, 2);
	expect(st, "bool", DTYPE_BOOL, 1, (int64_t[]){3}, (uint8_t[]){1, 0, 1}, 3);
	expect(st, "scalar", DTYPE_F32, 0, NULL, (float[]){42.0f}, 4);
	expect(st, "empty", DTYPE_F32, 2, (int64_t[]){3, 0}, NULL, 0);
	expect(st, "名前", DTYPE_I32, 1, (int64_t[]){1}, (int32_t[]){5}, 4);
	assert_null(safetensors_find(st, "f33"));
	assert_null(safetensors_find(st, "__metadata__"));
	assert_string_equal(safetensors_metadata(st, "format"), "pt");
	assert_string_equal(safetensors_metadata(st, "note"), "写");
	assert_null(safetensors_metadata(st, "absent"));
	const char *previous = "", *name;
	for (size_t i = 0; i < safetensors_count(st); i++) {
		const tensor *t = safetensors_at(st, i, &name);
		assert_true(strcmp(previous, name) < 0); /* name order */
		assert_ptr_equal(t, safetensors_find(st, name));
		previous = name;
	}
	assert_int_equal(safetensors_num_files(st), 1);
	safetensors_close(&st);
	assert_null(st);
	safetensors_close(&st);
}

static void shards_of_save_pretrained_hold_every_tensor(void **state)
{
	safetensors *st;
	wn_error err = {0};
	if (safetensors_open_dir(&st, golden("sharded"), &err) != WN_OK)
		fail_msg("%s", err.message);
	json_t *info = json_load_file(golden("sharded/tensors.json"), 0, NULL), *v;
	assert_non_null(info);
	assert_true(safetensors_num_files(st) > 2);
	assert_int_equal(safetensors_count(st), json_object_size(info));
	const char *name;
	json_object_foreach(info, name, v)
	{
		const tensor *t = safetensors_find(st, name);
		assert_non_null(t);
		const json_t *shape = json_object_get(v, "shape");
		assert_int_equal(t->rank, json_array_size(shape));
		for (int i = 0; i < t->rank; i++)
			assert_int_equal(t->shape[i], json_integer_value(json_array_get(shape, (size_t)i)));
		size_t n = (size_t)shape_count(t->rank, t->shape);
		float *f = malloc((n + 1) * sizeof *f);
		double sum = 0, expected = json_number_value(json_object_get(v, "sum"));
		dtype_to_f32(f, t->data, t->dtype, n);
		for (size_t i = 0; i < n; i++)
			sum += f[i];
		free(f);
		assert_true(fabs(sum - expected) <= 1e-9 * (1 + fabs(expected))); /* the order of the sum only */
	}
	json_decref(info);
	safetensors_close(&st);
}

static const safetensors_entry ENTRIES[] = {
	{"b.half", {DTYPE_BF16, 1, {3}, (uint16_t[]){0x3f80, 0x4000, 0x4040}}},
	{"a.byte", {DTYPE_I8, 2, {1, 5}, (int8_t[]){1, 2, 3, 4, 5}}},
	{"z.wide", {DTYPE_I64, 1, {2}, (int64_t[]){10, -20}}},
	{"empty", {DTYPE_F32, 2, {0, 7}, NULL}},
	{"scalar \"quoted\" \\ 名", {DTYPE_F32, 0, {0}, (float[]){2.5f}}},
};
#define NUM_ENTRIES (sizeof ENTRIES / sizeof *ENTRIES)

static void written_files_read_back(void **state)
{
	safetensors *st;
	wn_error err = {0};
	const char *path = temp_path("out.safetensors");
	if (safetensors_write(path, ENTRIES, NUM_ENTRIES, &err) != WN_OK || safetensors_open(&st, path, &err) != WN_OK)
		fail_msg("%s", err.message);
	assert_int_equal(safetensors_count(st), NUM_ENTRIES);
	for (size_t i = 0; i < NUM_ENTRIES; i++) {
		const tensor *t = &ENTRIES[i].tensor;
		size_t bytes = (size_t)shape_count(t->rank, t->shape) * dtype_size(t->dtype);
		expect(st, ENTRIES[i].name, t->dtype, t->rank, t->shape, t->data, bytes);
		/* every tensor is aligned to its element, the first to a cache line */
		assert_int_equal((uintptr_t)safetensors_find(st, ENTRIES[i].name)->data % dtype_size(t->dtype), 0);
	}
	assert_int_equal((uintptr_t)safetensors_find(st, "z.wide")->data % 64, 0);
	assert_string_equal(safetensors_metadata(st, "format"), "pt");
	/* A new file by rename leaves an open map on the old one alone. */
	assert_int_equal(safetensors_write(path, NULL, 0, &err), WN_OK);
	expect(st, "z.wide", DTYPE_I64, 1, (int64_t[]){2}, (int64_t[]){10, -20}, 16);
	safetensors_close(&st);
	assert_int_equal(safetensors_open(&st, path, &err), WN_OK);
	assert_int_equal(safetensors_count(st), 0);
	assert_null(safetensors_find(st, "z.wide"));
	safetensors_close(&st);
}

static void impossible_entries_are_not_written(void **state)
{
	static const struct {
		safetensors_entry e[2];
		const char *message;
	} bad[] = {
		{{{"x", {DTYPE_I8, 0, {0}, "a"}}, {"x", {DTYPE_I8, 0, {0}, "a"}}}, "tensor \"x\" is given twice"},
		{{{"x", {DTYPE_I8, 0, {0}, "a"}}, {"", {DTYPE_I8, 0, {0}, "a"}}}, "found a tensor named \"\""},
		{{{"x", {DTYPE_I8, 0, {0}, "a"}}, {"__metadata__", {DTYPE_I8, 0, {0}, "a"}}}, "found a tensor named \"__metadata__\""},
		{{{"x", {DTYPE_I8, 0, {0}, "a"}}, {NULL, {DTYPE_I8, 0, {0}, "a"}}}, "tensor 1 has no name"},
		{{{"x", {DTYPE_I8, 0, {0}, "a"}}, {"y", {DTYPE_I8, 1, {1}, NULL}}}, "tensor \"y\" has no data"},
		{{{"x", {DTYPE_I8, 0, {0}, "a"}}, {"y", {DTYPE_I8, 1, {-1}, "a"}}}, "tensor \"y\" has an impossible shape"},
		{{{"x", {DTYPE_I8, 0, {0}, "a"}}, {"y", {DTYPE_I8, 9, {1}, "a"}}}, "tensor \"y\" has an impossible shape"},
		{{{"x", {DTYPE_I8, 0, {0}, "a"}}, {"y\xff", {DTYPE_I8, 0, {0}, "a"}}},
	         "tensor \"y\xff\": cannot describe it (its name must be UTF-8)"},
	};
	char expected[600];
	int entries = temp_dir_entries();
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		wn_error err = {0};
		assert_int_equal(safetensors_write(temp_path("bad"), bad[i].e, 2, &err), WN_INVALID);
		snprintf(expected, sizeof expected, "%s: %s", temp_path("bad"), bad[i].message);
		assert_string_equal(err.message, expected);
		assert_int_equal(temp_dir_entries(), entries);
	}
}

static void a_full_disk_leaves_the_old_file(void **state)
{
	safetensors *st;
	wn_error err = {0};
	const char *path = temp_path("kept.safetensors");
	assert_int_equal(safetensors_write(path, ENTRIES, NUM_ENTRIES, &err), WN_OK);
	int entries = temp_dir_entries();
	safetensors_entry big = {"big", {DTYPE_F32, 1, {1 << 18}, calloc(1 << 18, 4)}};
	struct rlimit old, small;
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &old);
	small = old;
	small.rlim_cur = 65536;
	setrlimit(RLIMIT_FSIZE, &small);
	assert_int_equal(safetensors_write(path, &big, 1, &err), WN_IO);
	setrlimit(RLIMIT_FSIZE, &old);
	free(big.tensor.data);
	assert_int_equal(temp_dir_entries(), entries);
	err = (wn_error){0};
	assert_int_equal(safetensors_open(&st, path, &err), WN_OK);
	assert_int_equal(safetensors_count(st), NUM_ENTRIES);
	safetensors_close(&st);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_dtype_of_the_real_library_is_read),
		cmocka_unit_test(shards_of_save_pretrained_hold_every_tensor),
		cmocka_unit_test(written_files_read_back),
		cmocka_unit_test(impossible_entries_are_not_written),
		cmocka_unit_test(a_full_disk_leaves_the_old_file),
	};
	golden_dir = argv[argc - 1];
	return cmocka_run_group_tests(tests, temp_dir_make, temp_dir_remove);
}
