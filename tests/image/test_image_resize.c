/* Resizing on every instruction set this CPU has: weigh_bytes and whole resizes against sums written out plainly, over
 * odd sizes. All of it is integers, so the bytes must be equal. (Pillow's own results: test_image_goldens.c.) */
#include "image_test.h"

#include "model/image_internal.h"

static uint32_t seed = 7;

static uint32_t any(uint32_t below)
{
	seed = seed * 1664525u + 1013904223u;
	return (uint32_t)((uint64_t)seed * below >> 32);
}

/* Exactly n bytes on the heap, so that a sanitizer sees the first one read or written beyond. */
static uint8_t *random_bytes(size_t n)
{
	uint8_t *b = malloc(n);
	assert_non_null(b);
	for (size_t i = 0; i < n; i++)
		b[i] = any(4) ? (uint8_t)any(256) : any(2) ? 255 : 0; /* extremes drive the sums to their limits */
	return b;
}

/* Weights whose absolute values sum to less than 2 in 22-bit fixed point, as bicubic's do; some sums leave 0..255. */
static void random_weights(int32_t *weight, size_t taps)
{
	for (size_t k = 0; k < taps; k++)
		weight[k] = (int32_t)(any(2u << 22) / (uint32_t)taps) * (any(4) ? 1 : -1);
}

static void weighed_bytes_are_the_same_everywhere(void **state)
{
	(void)state;
	long below = 0, above = 0, inside = 0;
	for (int round = 0; round < 600; round++) {
		const size_t count = round < 200 ? (size_t)round + 1 : 1 + any(400),
			     taps = 1 + any(round % 7 ? 30 : 300);
		const size_t stride = count + any(50);
		uint8_t *in = random_bytes((taps - 1) * stride + count), *out = malloc(count);
		int32_t weight[300];
		random_weights(weight, taps);
		assert_non_null(out);
		for (const ops_table *const *t = ops_all(); *t; t++) {
			memset(out, 77, count);
			(*t)->weigh_bytes(out, in, stride, weight, taps, count);
			for (size_t i = 0; i < count; i++) {
				int64_t v = 1 << 21;
				for (size_t k = 0; k < taps; k++)
					v += (int64_t)in[k * stride + i] * weight[k];
				v >>= 22;
				below += v < 0;
				above += v > 255;
				inside += v >= 0 && v <= 255;
				v = v < 0 ? 0 : v > 255 ? 255 : v;
				if (out[i] != v)
					fail_msg("%s, %zu taps, byte %zu of %zu: %d, expected %d", (*t)->name, taps, i,
						 count, out[i], (int)v);
			}
		}
		free(in);
		free(out);
	}
	assert_true(below > 1000 && above > 1000 && inside > 10000);
}

static void whole_resizes_are_the_same_everywhere(void **state)
{
	(void)state;
	for (int round = 0; round < 120; round++) {
		const int w = 1 + (int)any(round % 2 ? 400 : 40), h = 1 + (int)any(round % 3 ? 60 : 200);
		const int out_w = 1 + (int)any(150), out_h = 1 + (int)any(70);
		const size_t n = (size_t)out_w * (size_t)out_h * 3;
		image img = {.width = w, .height = h, .rgb = random_bytes((size_t)w * (size_t)h * 3)};
		for (int i = 0; i < 4 && round % 4 == 0; i++)
			img.beyond[i] = (float)any(4) / 8; /* opposite sides leave something of a single pixel */
		uint8_t *want = malloc(n), *out = malloc(n);
		assert_true(want && out);
		const ops_table *const *t = ops_all();
		assert_int_equal(image_resize(want, out_w, out_h, &img, NULL), WN_OK);
		for (; *t; t++) {
			memset(out, 77, n);
			assert_int_equal(image_resize_by(*t, out, out_w, out_h, &img, NULL), WN_OK);
			if (memcmp(out, want, n) != 0)
				fail_msg("%dx%d to %dx%d: the bytes of %s kernels differ", w, h, out_w, out_h,
					 (*t)->name);
		}
		image_free(&img);
		free(want);
		free(out);
	}
}

/* Weights sum to 1: a picture of one colour stays that colour, whatever the sizes. */
static void one_colour_stays_one_colour(void **state)
{
	(void)state;
	static const int sizes[] = {1, 2, 15, 16, 17, 47, 48, 49, 64, 65, 131};
	enum { N = sizeof sizes / sizeof *sizes };
	uint8_t *in = malloc(131 * 131 * 3), *out = malloc(131 * 131 * 3);
	assert_true(in && out);
	for (size_t i = 0; i < 131 * 131 * 3; i++)
		in[i] = (uint8_t)(i % 3 == 0 ? 255 : i % 3 == 1 ? 131 : 0);
	for (int k = 0; k < N * N * N; k++) {
		const int w = sizes[k % N], to = sizes[k / N % N], h = sizes[k / N / N];
		const image img = {.width = w, .height = h, .rgb = in};
		memset(out, 77, 131 * 131 * 3);
		assert_int_equal(image_resize(out, to, to, &img, NULL), WN_OK);
		if (memcmp(out, in, (size_t)to * (size_t)to * 3) != 0)
			fail_msg("%dx%d to %dx%d", w, h, to, to);
	}
	free(in);
	free(out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(weighed_bytes_are_the_same_everywhere),
	    cmocka_unit_test(whole_resizes_are_the_same_everywhere),
	    cmocka_unit_test(one_colour_stays_one_colour),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
