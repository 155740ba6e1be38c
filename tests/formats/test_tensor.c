/* Conversions against PyTorch's, over every F16 value, 2^20 floats spread over all bit patterns and every rounding tie. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/digest.h"
#include "model/tensor.h"

static const char *golden_dir;

static void expect_digest(const char *key, const void *data, size_t len)
{
	char path[1024], found[DIGEST_SIZE];
	snprintf(path, sizeof path, "%s/conversions.json", golden_dir);
	json_t *root = json_load_file(path, 0, NULL);
	assert_non_null(root);
	digest_memory(found, data, len);
	assert_string_equal(found, json_string_value(json_object_get(root, key)));
	json_decref(root);
}

static uint32_t bits(float f)
{
	uint32_t u;
	memcpy(&u, &f, 4);
	return u;
}

/* F32 bits of every F16 value, NaNs made one. The source is unaligned on purpose. */
static uint32_t *all_halves(void)
{
	unsigned char *raw = malloc(2 * 65536 + 1);
	float *f = malloc(65536 * sizeof *f);
	uint32_t *out = malloc(65536 * sizeof *out);
	for (uint32_t i = 0; i < 65536; i++) {
		uint16_t h = (uint16_t)i;
		memcpy(raw + 1 + 2 * i, &h, 2);
	}
	dtype_to_f32(f, raw + 1, DTYPE_F16, 65536);
	for (size_t i = 0; i < 65536; i++)
		out[i] = f[i] != f[i] ? 0x7fc00000 : bits(f[i]);
	free(raw);
	free(f);
	return out;
}

static void every_f16_value_widens_as_in_pytorch(void **state)
{
	uint32_t *wide = all_halves();
	expect_digest("f16_to_f32", wide, 65536 * sizeof *wide);
	free(wide);
}

static void narrowing_rounds_as_in_pytorch(void **state)
{
	const size_t spread = 1 << 20, n = spread + 6 * 65536;
	uint32_t *wide = all_halves(), *u = malloc(n * sizeof *u);
	float *f = malloc(n * sizeof *f);
	unsigned char *raw = malloc(2 * n + 1);
	uint16_t *h = malloc(n * sizeof *h);
	for (size_t i = 0; i < spread; i++)
		u[i] = (uint32_t)(i * 2654435761u);
	for (uint32_t i = 0; i < 65536; i++)
		for (uint32_t k = 0; k < 3; k++) {
			u[spread + 3 * i + k] = wide[i] + 0xfff + k;
			u[spread + 3 * 65536 + 3 * i + k] = (i << 16) + 0x7fff + k;
		}
	memcpy(f, u, n * sizeof *u);
	for (int d = DTYPE_F16; d <= DTYPE_BF16; d++) {
		dtype_from_f32(raw + 1, f, (dtype)d, n);
		memcpy(h, raw + 1, 2 * n);
		for (size_t i = 0; i < n; i++)
			if ((u[i] & 0x7fffffff) > 0x7f800000) { /* NaN stays NaN */
				assert_true(d == DTYPE_F16 ? (h[i] & 0x7fff) > 0x7c00 : (h[i] & 0x7fff) > 0x7f80);
				h[i] = d == DTYPE_F16 ? 0x7e00 : 0x7fc0;
			}
		expect_digest(d == DTYPE_F16 ? "f32_to_f16" : "f32_to_bf16", h, n * sizeof *h);
	}
	free(wide);
	free(u);
	free(f);
	free(raw);
	free(h);
}

static void bf16_widens_by_its_bits(void **state)
{
	static const uint16_t in[] = {0x3f80, 0xc020, 0x0001, 0x7f80, 0x8000};
	static const uint32_t out[] = {0x3f800000, 0xc0200000, 0x00010000, 0x7f800000, 0x80000000};
	float f[5];
	dtype_to_f32(f, in, DTYPE_BF16, 5);
	assert_memory_equal(f, out, sizeof f);
	dtype_to_f32(NULL, NULL, DTYPE_BF16, 0);
	dtype_from_f32(NULL, NULL, DTYPE_F16, 0);
	dtype_to_f32(NULL, NULL, DTYPE_F32, 0);
}

static void shapes_are_counted_or_refused(void **state)
{
	const int64_t big = (int64_t)1 << 24, huge = INT64_MAX;
	assert_int_equal(shape_count(0, NULL), 1);
	assert_int_equal(shape_count(2, (int64_t[]){3, 4}), 12);
	assert_int_equal(shape_count(2, (int64_t[]){3, 0}), 0);
	assert_int_equal(shape_count(2, (int64_t[]){big, big}), (int64_t)1 << 48);
	assert_int_equal(shape_count(2, (int64_t[]){big, big + 1}), -1);
	assert_int_equal(shape_count(3, (int64_t[]){big, big, 2}), -1);
	assert_int_equal(shape_count(2, (int64_t[]){huge, huge}), -1);
	assert_int_equal(shape_count(2, (int64_t[]){0, huge}), -1);
	assert_int_equal(shape_count(2, (int64_t[]){-1, 0}), -1);
	assert_int_equal(shape_count(2, (int64_t[]){-1, -1}), -1);
	assert_int_equal(shape_count(1, (int64_t[]){INT64_MIN}), -1);
}

static void names_and_sizes_are_safetensors(void **state)
{
	assert_string_equal(dtype_name(DTYPE_BF16), "BF16");
	assert_string_equal(dtype_name(DTYPE_BOOL), "BOOL");
	assert_int_equal(dtype_size(DTYPE_I64), 8);
	assert_int_equal(dtype_size(DTYPE_F16), 2);
	assert_int_equal(dtype_size(DTYPE_BOOL), 1);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_f16_value_widens_as_in_pytorch),
		cmocka_unit_test(narrowing_rounds_as_in_pytorch),
		cmocka_unit_test(bf16_widens_by_its_bits),
		cmocka_unit_test(shapes_are_counted_or_refused),
		cmocka_unit_test(names_and_sizes_are_safetensors),
	};
	golden_dir = argv[argc - 1];
	return cmocka_run_group_tests(tests, NULL, NULL);
}
