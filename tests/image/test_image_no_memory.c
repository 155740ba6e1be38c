/* libjpeg-turbo without memory: from the k-th allocation on, all fail, its own included, since this program's malloc
 * stands before the C library's. Every k must end in WN_NOMEM, with everything given back. (Our own allocations, one by
 * one: test_image_hostile.c.) Not under sanitizers, which have a malloc of their own. */
#include "image_test.h"

void *__libc_malloc(size_t n);
void __libc_free(void *p);

static struct {
	int watching;
	long fail_from; /* the request, counted from 1, from which on all fail; 0 = none */
	long count, held;
} heap;

void *malloc(size_t n)
{
	if (!heap.watching)
		return __libc_malloc(n);
	if (++heap.count >= heap.fail_from && heap.fail_from)
		return NULL;
	void *p = __libc_malloc(n);
	heap.held += p != NULL;
	return p;
}

void free(void *p)
{
	heap.held -= heap.watching && p;
	__libc_free(p);
}

static wn_code decode(image *img, const uint8_t *b, size_t len, int side, long fail_from, wn_error *err)
{
	heap.fail_from = fail_from;
	heap.count = heap.held = 0;
	heap.watching = 1;
	wn_code rc = image_decode_for(img, b, len, NULL, side, side, err);
	heap.watching = 0;
	return rc;
}

static void every_shortage_is_reported_and_nothing_leaks(void **state)
{
	(void)state;
	static const char *const names[] = {"420_quality30.jpg", "large_420_progressive.jpg", "cmyk_adobe.jpg",
					    "grey.jpg", "exif6.jpg"};
	for (size_t f = 0; f < sizeof names / sizeof *names; f++) {
		char path[128];
		snprintf(path, sizeof path, "goldens/%s", names[f]);
		size_t len;
		uint8_t *b = read_test_file(path, &len);
		for (int side = 0; side <= 8; side += 8) {
			image img;
			wn_error none = {0};
			assert_int_equal(decode(&img, b, len, side, 0, &none), WN_OK);
			const long all = heap.count;
			assert_int_equal(heap.held, 1); /* the pixels */
			assert_in_range(all, 5, 200);   /* libjpeg's own are among them */
			image_free(&img);
			for (long k = 1; k <= all; k++) {
				wn_error err = {0};
				wn_code rc = decode(&img, b, len, side, k, &err);
				if (rc != WN_NOMEM || strncmp(err.message, "out of memory", 13) != 0 || img.rgb)
					fail_msg("%s, allocation %ld of %ld: code %d, \"%s\"", names[f], k, all, rc,
						 err.message);
				assert_int_equal(heap.held, 0);
			}
		}
		free(b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(every_shortage_is_reported_and_nothing_leaks)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
