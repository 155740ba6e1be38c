/* Decoding, orientation, resizing and preprocessing against Pillow and transformers (make_goldens.py): PNG bit for bit, and
 * JPEG, too, with libjpeg-turbo; reduced JPEGs, and those of stb_image, within what correct decoders may differ by. */
#include "image_test.h"

#include <pthread.h>

#include "model/image_internal.h"

enum { MOST = 128 };
static golden goldens[MOST];
static size_t golden_count;

static int load(void **state)
{
	(void)state;
	golden_count = read_index(goldens, MOST);
	return 0;
}

static void decode(image *img, const char *name)
{
	char path[128];
	snprintf(path, sizeof path, "goldens/%.100s", name);
	size_t len;
	uint8_t *b = read_test_file(path, &len);
	wn_error err = {0};
	if (image_decode(img, b, len, NULL, &err) != WN_OK)
		fail_msg("%s: %s", name, err.message);
	free(b);
}

static void the_set_is_complete(void **state)
{
	(void)state;
	size_t jpegs = 0;
	for (size_t i = 0; i < golden_count; i++)
		jpegs += is_jpeg_name(goldens[i].name) != 0;
	assert_int_equal(golden_count, 65);
	assert_int_equal(jpegs, 27);
}

/* Whether this build's whole pixels must be Pillow's. */
static int is_exact(const char *name)
{
#ifdef WINNOW_LIBJPEG_TURBO
	return 1;
#else
	return !is_jpeg_name(name);
#endif
}

static void pixels_equal_pillow(void **state)
{
	(void)state;
	for (size_t i = 0; i < golden_count; i++) {
		const golden *g = &goldens[i];
		image img;
		decode(&img, g->name);
		if (img.width != g->width || img.height != g->height)
			fail_msg("%s: %dx%d, expected %dx%d", g->name, img.width, img.height, g->width, g->height);
		if (is_exact(g->name) && fnv1a(img.rgb, (size_t)img.width * (size_t)img.height * 3) != g->decoded)
			fail_msg("%s: pixels differ from Pillow's", g->name);
		image_free(&img);
		assert_null(img.rgb);
	}
}

static void resizes_equal_pillow(void **state)
{
	(void)state;
	uint8_t *out = malloc(224 * 224 * 3);
	assert_non_null(out);
	for (size_t i = 0; i < golden_count; i++) {
		const golden *g = &goldens[i];
		if (!is_exact(g->name))
			continue;
		image img;
		decode(&img, g->name);
		const int sizes[] = {32, 56, 224};
		const uint64_t want[] = {g->r32, g->r56, g->r224};
		for (int k = 0; k < 3; k++) {
			size_t s = (size_t)sizes[k];
			assert_int_equal(image_resize(out, sizes[k], sizes[k], &img, NULL), WN_OK);
			if (fnv1a(out, s * s * 3) != want[k])
				fail_msg("%s at %d: pixels differ from Pillow's", g->name, sizes[k]);
		}
		image_free(&img);
	}
	free(out);
}

static void other_shapes_equal_pillow(void **state)
{
	(void)state;
	FILE *f = fopen(IMAGE_TESTS "/goldens/resize.txt", "r");
	assert_non_null(f);
	char name[64];
	int w, h, cases = 0;
	uint64_t want;
	while (fscanf(f, "%63s %d %d %lx", name, &w, &h, &want) == 4) {
		image img;
		decode(&img, name);
		size_t n = (size_t)w * (size_t)h * 3;
		uint8_t *out = malloc(n); /* exact, so that a block written past the end is seen */
		assert_non_null(out);
		assert_int_equal(image_resize(out, w, h, &img, NULL), WN_OK);
		if (fnv1a(out, n) != want)
			fail_msg("%s to %dx%d: pixels differ from Pillow's", name, w, h);
		for (const ops_table *const *t = ops_all(); *t; t++) {
			memset(out, 0, n);
			assert_int_equal(image_resize_by(*t, out, w, h, &img, NULL), WN_OK);
			if (fnv1a(out, n) != want)
				fail_msg("%s to %dx%d: the pixels of %s kernels differ", name, w, h, (*t)->name);
		}
		free(out);
		image_free(&img);
		cases++;
	}
	fclose(f);
	assert_int_equal(cases, 45);
}

static void part_of_the_outermost_pixels_is_cut_as_pillow_does(void **state)
{
	(void)state;
	FILE *f = fopen(IMAGE_TESTS "/goldens/box.txt", "r");
	assert_non_null(f);
	char name[64];
	float cut[4];
	int w, h, cases = 0;
	uint64_t want;
	while (fscanf(f, "%63s %f %f %f %f %d %d %lx", name, &cut[0], &cut[1], &cut[2], &cut[3], &w, &h, &want) == 8) {
		image img;
		decode(&img, name);
		memcpy(img.beyond, cut, sizeof cut);
		size_t n = (size_t)w * (size_t)h * 3;
		uint8_t *out = malloc(n);
		assert_non_null(out);
		assert_int_equal(image_resize(out, w, h, &img, NULL), WN_OK);
		if (fnv1a(out, n) != want)
			fail_msg("%s less %g, %g, %g, %g to %dx%d: pixels differ from Pillow's", name, cut[0], cut[1], cut[2],
				 cut[3], w, h);
		free(out);
		image_free(&img);
		cases++;
	}
	fclose(f);
	assert_int_equal(cases, 84);
}

static void pixel_values_equal_transformers(void **state)
{
	(void)state;
	image_processor p;
	assert_int_equal(image_processor_parse(&p, "{\"size\": 32}", 12, NULL), WN_OK);
	float *out = malloc(3 * 32 * 32 * sizeof *out);
	assert_non_null(out);
	for (size_t i = 0; i < golden_count; i++) {
		image img;
		decode(&img, goldens[i].name);
		assert_int_equal(image_preprocess(out, &p, &img, NULL), WN_OK);
		if (is_exact(goldens[i].name) && fnv1a(out, 3 * 32 * 32 * sizeof *out) != goldens[i].f32)
			fail_msg("%s: pixel_values differ from transformers'", goldens[i].name);
		image_free(&img);
	}
	free(out);
}

static void other_configurations_equal_transformers(void **state)
{
	(void)state;
	static const char *const configs[] = {"blip2", "other_statistics", "no_normalize"};
	static const char *const names[] = {"rgb_160x120_split_idat.png", "rgba.png"};
	for (int c = 0; c < 3; c++) {
		char path[256];
		snprintf(path, sizeof path, IMAGE_TESTS "/goldens/%s.json", configs[c]);
		image_processor p;
		wn_error err = {0};
		if (image_processor_read(&p, path, &err) != WN_OK)
			fail_msg("%s", err.message);
		for (int i = 0; i < 2; i++) {
			image img;
			decode(&img, names[i]);
			size_t n = 3 * (size_t)p.size * (size_t)p.size * sizeof(float), len;
			snprintf(path, sizeof path, "goldens/%s.%s.f32", names[i], configs[c]);
			uint8_t *want = read_test_file(path, &len);
			assert_int_equal(len, n);
			float *out = malloc(n);
			assert_non_null(out);
			assert_int_equal(image_preprocess(out, &p, &img, NULL), WN_OK);
			assert_memory_equal(out, want, n);
			free(out);
			free(want);
			image_free(&img);
		}
	}
}

typedef struct difference {
	double mean;
	int most;
} difference;

static difference compare(const uint8_t *a, const uint8_t *b, size_t n)
{
	difference d = {0, 0};
	for (size_t k = 0; k < n; k++) {
		int one = abs(a[k] - b[k]);
		d.mean += one / (double)n;
		d.most = one > d.most ? one : d.most;
	}
	return d;
}

/* Mean difference at most 1 of 255 at each size, no sample beyond 16 (a misplaced block or swapped channel would be): of
 * the whole picture, and of what image_decode_for leaves of it. */
static void jpeg_stays_near_pillow(void **state)
{
	(void)state;
	uint8_t *out = malloc(56 * 56 * 3);
	assert_non_null(out);
	difference worst[2] = {{0, 0}, {0, 0}};
	int reduced = 0;
	for (size_t i = 0; i < golden_count; i++) {
		const golden *g = &goldens[i];
		if (!is_jpeg_name(g->name))
			continue;
		char path[128];
		size_t len, bytes_len;
		snprintf(path, sizeof path, "goldens/%.100s", g->name);
		uint8_t *bytes = read_test_file(path, &bytes_len);
		snprintf(path, sizeof path, "goldens/%.100s.u8", g->name);
		uint8_t *want = read_test_file(path, &len), *w = want;
		assert_int_equal(len, (32 * 32 + 56 * 56) * 3);
		for (int s = 32; s <= 56; s += 24) {
			size_t n = (size_t)(s * s * 3);
			for (int asked = 0; asked < 2; asked++) {
				image img;
				wn_error err = {0};
				if (image_decode_for(&img, bytes, bytes_len, NULL, asked ? s : 0, asked ? s : 0, &err) != WN_OK)
					fail_msg("%s: %s", g->name, err.message);
				assert_int_equal(image_resize(out, s, s, &img, NULL), WN_OK);
				difference d = compare(out, w, n);
				if (d.mean > 1.0 || d.most > 16)
					fail_msg("%s, %dx%d, at %d: mean difference %.3f, largest %d", g->name, img.width,
						 img.height, s, d.mean, d.most);
				worst[asked].mean = d.mean > worst[asked].mean ? d.mean : worst[asked].mean;
				worst[asked].most = d.most > worst[asked].most ? d.most : worst[asked].most;
				assert_true(asked || img.width == g->width);
				reduced += img.width < g->width;
				image_free(&img);
			}
			w += n;
		}
		free(bytes);
		free(want);
	}
	for (int asked = 0; asked < 2; asked++)
		print_message("jpeg against Pillow, %s: worst mean %.3f/255, worst sample %d/255\n",
			      asked ? "reduced where possible" : "whole", worst[asked].mean, worst[asked].most);
#ifdef WINNOW_LIBJPEG_TURBO
	assert_int_equal(worst[0].most, 0);
	assert_int_equal(reduced, 10); /* each large picture at both sizes but 4:2:2 at 56; 420_quality30 at 32 */
#else
	assert_int_equal(reduced, 0);
#endif
	free(out);
}

/* The orientations are distinct pictures of different shapes: a no-op could not pass the tests above. */
static void orientations_turn_the_picture(void **state)
{
	(void)state;
	for (int o = 1; o <= 8; o++) {
		char name[16];
		snprintf(name, sizeof name, "exif%d.jpg", o);
		image img;
		decode(&img, name);
		assert_int_equal(img.width, o >= 5 ? 26 : 41);
		assert_int_equal(img.height, o >= 5 ? 41 : 26);
		image_free(&img);
	}
}

/* Decoding has no state but what is thread-local: four threads over the whole set, in different orders, see the same
 * pixels (run it under ThreadSanitizer, too). */
typedef struct job {
	size_t start, wrong;
	uint8_t *bytes[MOST];
	size_t len[MOST];
} job;

static void *decode_all(void *arg)
{
	job *j = arg;
	for (size_t k = 0; k < golden_count; k++) {
		size_t i = (k * 7 + j->start) % golden_count;
		image img;
		wn_error err = {0};
		wn_code rc = image_decode(&img, j->bytes[i], j->len[i] - (k % 5 == 4), NULL, &err);
		if (k % 5 == 4) /* one in five is cut: its reason must be its own */
			j->wrong += rc != WN_INVALID || !strstr(err.message, is_jpeg_name(goldens[i].name) ? "jpeg" : "png");
		else
			j->wrong += rc != WN_OK || img.width != goldens[i].width ||
				    (is_exact(goldens[i].name) &&
				     fnv1a(img.rgb, (size_t)img.width * (size_t)img.height * 3) != goldens[i].decoded);
		image_free(&img);
	}
	return NULL;
}

static void threads_do_not_disturb_each_other(void **state)
{
	(void)state;
	static job jobs[4];
	pthread_t threads[4];
	for (size_t i = 0; i < golden_count; i++) {
		char path[128];
		snprintf(path, sizeof path, "goldens/%.63s", goldens[i].name);
		jobs[0].bytes[i] = read_test_file(path, &jobs[0].len[i]);
	}
	for (size_t t = 0; t < 4; t++) {
		if (t)
			jobs[t] = jobs[0];
		jobs[t].start = t * 13;
	}
	for (int t = 0; t < 4; t++)
		assert_int_equal(pthread_create(&threads[t], NULL, decode_all, &jobs[t]), 0);
	for (int t = 0; t < 4; t++) {
		pthread_join(threads[t], NULL);
		assert_int_equal(jobs[t].wrong, 0);
	}
	for (size_t i = 0; i < golden_count; i++)
		free(jobs[0].bytes[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_set_is_complete),
		cmocka_unit_test(pixels_equal_pillow),
		cmocka_unit_test(resizes_equal_pillow),
		cmocka_unit_test(other_shapes_equal_pillow),
		cmocka_unit_test(part_of_the_outermost_pixels_is_cut_as_pillow_does),
		cmocka_unit_test(pixel_values_equal_transformers),
		cmocka_unit_test(other_configurations_equal_transformers),
		cmocka_unit_test(jpeg_stays_near_pillow),
		cmocka_unit_test(orientations_turn_the_picture),
		cmocka_unit_test(threads_do_not_disturb_each_other),
	};
	return cmocka_run_group_tests(tests, load, NULL);
}
