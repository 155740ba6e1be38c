/* Lying safetensors files: each is one exact error; a truncated or flipped one is an error or loads, and never a crash. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../base/temp_dir.h"
#include "model/safetensors.h"

static const char *golden_dir;

/* header and `data` bytes of data as a file; the length field is true. */
static const char *file_of(const char *name, const char *header, size_t data)
{
	size_t n = strlen(header);
	unsigned char *buf = calloc(1, 8 + n + data);
	for (int i = 0; i < 8; i++)
		buf[i] = (unsigned char)((uint64_t)n >> (8 * i));
	memcpy(buf + 8, header, n);
	const char *path = temp_file(name, buf, 8 + n + data);
	free(buf);
	return path;
}

#define T(dtype, shape, from, to) "{\"dtype\":\"" dtype "\",\"shape\":[" shape "],\"data_offsets\":[" from "," to "]}"
static const struct {
	const char *header;
	size_t data;
	wn_code code;
	const char *message;
} HEADERS[] = {
	{"{\"a\":" T("F32", "2", "0", "8") "}", 7, WN_INVALID,
         "tensor \"a\": data ends at byte 8, expected at most the file's 7"},
	{"{\"a\":" T("F32", "2", "0", "8") "}", 9, WN_INVALID, "found 9 bytes of tensor data, expected the header's 8"},
	{"{}", 1, WN_INVALID, "found 1 bytes of tensor data, expected the header's 0"},
	{"{\"a\":" T("F32", "2", "0", "4") "}", 4, WN_INVALID,
         "tensor \"a\": found data_offsets [0, 4], expected 8 bytes for its F32 shape"},
	{"{\"a\":" T("F16", "2", "0", "8") "}", 8, WN_INVALID,
         "tensor \"a\": found data_offsets [0, 8], expected 4 bytes for its F16 shape"},
	{"{\"a\":" T("I8", "4", "4", "0") "}", 4, WN_INVALID,
         "tensor \"a\": found data_offsets [4, 0], expected 4 bytes for its I8 shape"},
	{"{\"a\":" T("I8", "4", "0", "4") ",\"b\":" T("I8", "4", "2", "6") "}", 6, WN_INVALID,
         "tensor \"b\": data starts at byte 2, expected 4 (it overlaps another tensor)"},
	{"{\"a\":" T("I8", "4", "0", "4") ",\"b\":" T("I8", "4", "0", "4") "}", 4, WN_INVALID,
         "data starts at byte 0, expected 4 (it overlaps another tensor)"},
	{"{\"a\":" T("I8", "4", "0", "4") ",\"b\":" T("I8", "4", "5", "9") "}", 9, WN_INVALID,
         "tensor \"b\": data starts at byte 5, expected 4 (a hole before it)"},
	{"{\"a\":" T("I8", "4", "9223372036854775803", "9223372036854775807") "}", 4, WN_INVALID,
         "tensor \"a\": data ends at byte 9223372036854775807, expected at most the file's 4"},
	{"{\"a\":" T("I8", "4", "0", "18446744073709551616") "}", 4, WN_INVALID, "header at byte"},
	{"{\"a\":" T("I8", "4", "-4", "0") "}", 4, WN_INVALID,
         "tensor \"a\": data_offsets[0]: found a negative number, expected an integer >= 0"},
	{"{\"a\":" T("I8", "4", "0", "4.0") "}", 4, WN_INVALID,
         "tensor \"a\": data_offsets[1]: found a real, expected an integer >= 0"},
	{"{\"a\":" T("I8", "-4", "0", "4") "}", 4, WN_INVALID,
         "tensor \"a\": shape[0]: found a negative number, expected an integer >= 0"},
	{"{\"a\":" T("I8", "\"4\"", "0", "4") "}", 4, WN_INVALID,
         "tensor \"a\": shape[0]: found a string, expected an integer >= 0"},
	{"{\"a\":" T("I8", "true", "0", "1") "}", 1, WN_INVALID, "tensor \"a\": shape[0]: found true, expected an integer >= 0"},
	{"{\"a\":" T("I8", "4294967296,4294967296", "0", "0") "}", 0, WN_INVALID,
         "tensor \"a\": the shape has more than 2^48 elements"},
	{"{\"a\":" T("I8", "0,9223372036854775807", "0", "0") "}", 0, WN_INVALID,
         "tensor \"a\": the shape has more than 2^48 elements"},
	{"{\"a\":" T("I8", "1,1,1,1,1,1,1,1,1", "0", "1") "}", 1, WN_UNSUPPORTED,
         "tensor \"a\": found 9 dimensions, expected at most 8"},
	{"{\"a\":" T("F64", "1", "0", "8") "}", 8, WN_UNSUPPORTED,
         "tensor \"a\": found dtype \"F64\", expected F32, F16, BF16, I64, I32, I8, U8 or BOOL"},
	{"{\"a\":" T("f32", "1", "0", "4") "}", 4, WN_INVALID,
         "tensor \"a\": found dtype \"f32\", expected F32, F16, BF16, I64, I32, I8, U8 or BOOL"},
#define SHAPE_OF_ENTRY "expected an object with dtype (string), shape (array) and data_offsets (array of 2)"
	{"{\"a\":{\"dtype\":\"I8\",\"shape\":[1]}}", 1, WN_INVALID, "tensor \"a\": found an object, " SHAPE_OF_ENTRY},
	{"{\"a\":{\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[0]}}", 1, WN_INVALID,
         "tensor \"a\": found an object, " SHAPE_OF_ENTRY},
	{"{\"a\":5}", 0, WN_INVALID, "tensor \"a\": found an integer, " SHAPE_OF_ENTRY},
	{"{\"a\":[]}", 0, WN_INVALID, "tensor \"a\": found an array, " SHAPE_OF_ENTRY},
	{"{\"a\":" T("I8", "1", "0", "1") ",\"a\":" T("I8", "1", "0", "1") "}", 1, WN_INVALID, "duplicate object key"},
	{"{\"__metadata__\":5}", 0, WN_INVALID, "__metadata__: found an integer, expected an object of strings"},
	{"{\"__metadata__\":{\"x\":1}}", 0, WN_INVALID, "__metadata__.x: found an integer, expected a string"},
	{"{\"\xff\":" T("I8", "1", "0", "1") "}", 1, WN_INVALID, "unable to decode byte 0xff"},
	{"{\"a\\u0000b\":" T("I8", "1", "0", "1") "}", 1, WN_INVALID, "NUL byte in object key"},
	{"{\"a\":" T("I8", "1", "0", "1") "} x", 1, WN_INVALID, "end of file expected"},
	{"[]", 0, WN_INVALID, "the header does not start with '{'"},
	{" {}", 0, WN_INVALID, "the header does not start with '{'"},
	{"", 0, WN_INVALID, "the header does not start with '{'"},
	{"{", 0, WN_INVALID, "header at byte"},
};

static void lying_headers_are_one_exact_error(void **state)
{
	for (size_t i = 0; i < sizeof HEADERS / sizeof *HEADERS; i++) {
		safetensors *st;
		wn_error err = {0};
		const char *path = file_of("lie.safetensors", HEADERS[i].header, HEADERS[i].data);
		wn_code rc = safetensors_open(&st, path, &err);
		if (rc != HEADERS[i].code || !strstr(err.message, HEADERS[i].message) || strncmp(err.message, path, strlen(path)))
			fail_msg("%s: code %d, \"%s\", expected \"%s\"", HEADERS[i].header, rc, err.message, HEADERS[i].message);
		assert_null(st);
	}
}

static void lying_lengths_are_refused(void **state)
{
	static const struct {
		const char *bytes;
		size_t size;
		wn_code code;
		const char *message;
	} bad[] = {
		{"", 0, WN_INVALID, "found 0 bytes, expected at least the 8 of the header length"},
		{"\2\0\0\0\0\0\0", 7, WN_INVALID, "found 7 bytes, expected at least the 8 of the header length"},
		{"\2\0\0\0\0\0\0\0", 8, WN_INVALID, "found a header length of 2, expected at most the file's remaining 0 bytes"},
		{"\3\0\0\0\0\0\0\0{}", 10, WN_INVALID, "found a header length of 3, expected at most the file's remaining 2 bytes"},
		{"\377\377\377\377\377\377\377\377{}", 10, WN_INVALID,
	         "found a header length of 18446744073709551615, expected at most the file's remaining 2 bytes"},
	};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		safetensors *st;
		wn_error err = {0};
		const char *path = temp_file("len.safetensors", bad[i].bytes, bad[i].size);
		assert_int_equal(safetensors_open(&st, path, &err), bad[i].code);
		assert_string_equal(err.message + strlen(path) + 2, bad[i].message);
	}
	/* A header of 8 MiB and one byte, in a sparse file that does hold it. */
	safetensors *st;
	wn_error err = {0};
	const char *path = temp_file("sparse.safetensors", "\x01\x00\x80\0\0\0\0\0{", 9);
	assert_int_equal(truncate(path, 200000000), 0);
	assert_int_equal(safetensors_open(&st, path, &err), WN_TOO_LARGE);
	assert_string_equal(err.message + strlen(path) + 2, "found a header length of 8388609, expected at most 8388608");
	unlink(path);
	/* Nesting bombs end in jansson's depth limit. */
	char *deep = malloc(100001);
	memset(deep, '[', 100000);
	memcpy(deep, "{\"a\":", 5);
	deep[100000] = '\0';
	err = (wn_error){0};
	assert_int_equal(safetensors_open(&st, file_of("deep.safetensors", deep, 0), &err), WN_INVALID);
	assert_non_null(strstr(err.message, "maximum parsing depth reached"));
	free(deep);
	err = (wn_error){0};
	assert_int_equal(safetensors_open(&st, temp_dir, &err), WN_INVALID);
	err = (wn_error){0};
	assert_int_equal(safetensors_open(&st, temp_path("absent"), &err), WN_NOT_FOUND);
}

/* Reads every byte the reader promises: a wrong bound is an ASan report or a SIGSEGV. */
static uint64_t touch(const safetensors *st)
{
	uint64_t sum = 0;
	for (size_t i = 0; i < safetensors_count(st); i++) {
		const char *name;
		const tensor *t = safetensors_at(st, i, &name);
		const unsigned char *p = t->data;
		size_t n = (size_t)shape_count(t->rank, t->shape) * dtype_size(t->dtype);
		for (size_t k = 0; k < n; k++)
			sum += p[k];
		sum += strlen(name);
	}
	return sum;
}

static unsigned char *load(const char *name, size_t *len)
{
	char path[1024];
	unsigned char *buf = malloc(65536);
	snprintf(path, sizeof path, "%s/%s", golden_dir, name);
	FILE *f = fopen(path, "rb");
	assert_non_null(f);
	*len = fread(buf, 1, 65536, f);
	fclose(f);
	return buf;
}

static void every_truncation_is_an_error(void **state)
{
	size_t len;
	unsigned char *buf = load("dtypes.safetensors", &len);
	for (size_t n = 0; n < len; n++) {
		safetensors *st;
		wn_error err = {0};
		if (safetensors_open(&st, temp_file("cut.safetensors", buf, n), &err) == WN_OK)
			fail_msg("%zu of %zu bytes were accepted", n, len);
		assert_non_null(strstr(err.message, "cut.safetensors: "));
	}
	free(buf);
}

static void a_flipped_bit_in_any_byte_is_an_error_or_loads(void **state)
{
	size_t len, loaded = 0;
	unsigned char *buf = load("dtypes.safetensors", &len);
	for (size_t i = 0; i < len * 2; i++) { /* two of its bits, others in the next byte */
		safetensors *st;
		wn_error err = {0};
		unsigned char bit = (unsigned char)(1u << (i / 2 + i % 2 * 4) % 8);
		buf[i / 2] ^= bit;
		if (safetensors_open(&st, temp_file("flip.safetensors", buf, len), &err) == WN_OK) {
			touch(st);
			loaded++;
			safetensors_close(&st);
		} else {
			assert_non_null(strstr(err.message, "flip.safetensors: "));
		}
		buf[i / 2] ^= bit;
	}
	assert_true(loaded > 0 && loaded < len * 2);
	free(buf);
}

/* ---- directories ---- */

static void expect_dir_error(const char *dir, wn_code code, const char *message)
{
	safetensors *st;
	wn_error err = {0};
	wn_code rc = safetensors_open_dir(&st, temp_path(dir), &err);
	if (rc != code || !strstr(err.message, message))
		fail_msg("code %d \"%s\", expected %d \"%s\"", rc, err.message, code, message);
	assert_null(st);
}

static void lying_indexes_are_one_exact_error(void **state)
{
	static const struct {
		const char *index;
		wn_code code;
		const char *message;
	} bad[] = {
		{"{\"weight_map\":{\"a\":\"../secret\"}}", WN_INVALID,
	         "weight_map.a: found \"../secret\", expected a plain file name"},
		{"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", WN_INVALID,
	         "weight_map.a: found \"/etc/passwd\", expected a plain file name"},
		{"{\"weight_map\":{\"a\":\"..\"}}", WN_INVALID, "weight_map.a: found \"..\", expected a plain file name"},
		{"{\"weight_map\":{\"a\":\"\"}}", WN_INVALID, "weight_map.a: found \"\", expected a plain file name"},
		{"{\"weight_map\":{\"a\":\"x\\ny\"}}", WN_INVALID, "weight_map.a: found \"x?y\", expected a plain file name"},
		{"{\"weight_map\":{\"a\":\"x\\u0000y\"}}", WN_INVALID, "index.json:1: \\u0000 is not allowed"},
		{"{\"weight_map\":{\"a\":7}}", WN_INVALID, "weight_map.a: found an integer, expected a file name"},
		{"{\"weight_map\":{}}", WN_INVALID, "weight_map is empty"},
		{"{\"weight_map\":[]}", WN_INVALID, "weight_map: found an array, expected an object"},
		{"{}", WN_INVALID, "weight_map: found nothing, expected an object"},
		{"{", WN_INVALID, "index.json:1: "},
		{"{\"weight_map\":{\"a\":\"s1\",\"a\":\"s2\"}}", WN_INVALID, "duplicate object key"},
		{"{\"weight_map\":{\"a\":\"absent\"}}", WN_NOT_FOUND, "/absent: cannot open: No such file or directory"},
		{"{\"weight_map\":{\"a\":\"link\"}}", WN_UNSUPPORTED, "/link: found a symbolic link, expected a regular file"},
		{"{\"weight_map\":{\"a\":\"sub\"}}", WN_INVALID, "/sub: found a directory, expected a regular file"},
		{"{\"weight_map\":{\"a\":\"s1\",\"b\":\"s1\"}}", WN_NOT_FOUND,
	         "index.json: tensor \"b\": expected in s1, found nowhere"},
		{"{\"weight_map\":{\"a\":\"s1\",\"b\":\"s2\",\"c\":\"s1\"}}", WN_INVALID,
	         "index.json: tensor \"c\": expected in s1, found s2"},
		{"{\"weight_map\":{\"a\":\"s1\",\"b\":\"s2\"}}", WN_INVALID, "/s2: tensor \"c\" is not in "},
		{"{\"weight_map\":{\"a\":\"s1\",\"b\":\"s2\",\"c\":\"s2\",\"d\":\"s3\"}}", WN_INVALID, "is also in "},
	};
	assert_int_equal(mkdir(temp_path("dir"), 0700), 0);
	file_of("dir/s1", "{\"a\":" T("I8", "1", "0", "1") "}", 1);
	file_of("dir/s2", "{\"b\":" T("I8", "1", "0", "1") ",\"c\":" T("I8", "1", "1", "2") "}", 2);
	file_of("dir/s3", "{\"d\":" T("I8", "1", "0", "1") ",\"a\":" T("I8", "1", "1", "2") "}", 2);
	file_of("secret", "{\"a\":" T("I8", "1", "0", "1") "}", 1);
	assert_int_equal(symlink("../secret", temp_path("dir/link")), 0);
	assert_int_equal(mkdir(temp_path("dir/sub"), 0700), 0);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		temp_file("dir/model.safetensors.index.json", bad[i].index, strlen(bad[i].index));
		expect_dir_error("dir", bad[i].code, bad[i].message);
	}
	const char *good = "{\"metadata\":{\"total_size\":3},\"weight_map\":{\"a\":\"s1\",\"b\":\"s2\",\"c\":\"s2\"}}";
	temp_file("dir/model.safetensors.index.json", good, strlen(good));
	safetensors *st;
	wn_error err = {0};
	assert_int_equal(safetensors_open_dir(&st, temp_path("dir"), &err), WN_OK);
	assert_int_equal(safetensors_count(st), 3);
	assert_int_equal(safetensors_num_files(st), 2);
	assert_string_equal(safetensors_file(st, 0), temp_path("dir/s1"));
	safetensors_close(&st);
}

static void directories_without_or_with_linked_weights_are_refused(void **state)
{
	assert_int_equal(mkdir(temp_path("none"), 0700), 0);
	expect_dir_error("none", WN_NOT_FOUND, "/none: found neither model.safetensors nor model.safetensors.index.json");
	expect_dir_error("nowhere", WN_NOT_FOUND, "/nowhere: cannot open the directory");
	file_of("outside", "{}", 0);
	assert_int_equal(symlink("../outside", temp_path("none/model.safetensors")), 0);
	expect_dir_error("none", WN_UNSUPPORTED, "model.safetensors: found a symbolic link, expected a regular file");
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lying_headers_are_one_exact_error),
		cmocka_unit_test(lying_lengths_are_refused),
		cmocka_unit_test(every_truncation_is_an_error),
		cmocka_unit_test(a_flipped_bit_in_any_byte_is_an_error_or_loads),
		cmocka_unit_test(lying_indexes_are_one_exact_error),
		cmocka_unit_test(directories_without_or_with_linked_weights_are_refused),
	};
	golden_dir = argv[argc - 1];
	return cmocka_run_group_tests(tests, temp_dir_make, temp_dir_remove);
}
