/* JPEGs decoded for a resize: which scale is chosen, what lies beyond the picture's edge, how near the result stays to
 * that of the whole picture, and that the two decoders agree. Built where winnow has libjpeg-turbo. */
#include "image_test.h"

#include <dirent.h>

#include "model/image_internal.h"

static void the_smallest_sufficient_scale_is_chosen(void **state)
{
	(void)state;
	static const struct {
		int width, height, across, down, want_width, want_height, eighths;
	} cases[] = {
		{1152, 864, 1, 1, 0, 0, 8},
		{1152, 864, 1, 1, 224, 0, 8},
		{1152, 864, 1, 1, -1, 10, 8},
		{1152, 864, 1, 1, 224, 224, 8}, /* 432 rows are less than twice 224 */
		{1152, 896, 1, 1, 224, 224, 4},
		{1152, 895, 1, 1, 224, 224, 8},
		{896, 1152, 1, 1, 224, 224, 4},
		{895, 1152, 1, 1, 224, 224, 8},
		{1152, 896, 1, 1, 112, 112, 2},
		{1152, 896, 1, 1, 56, 56, 1},
		{1152, 896, 1, 1, 1, 1, 1},
		{8192, 8192, 1, 1, 4096, 4096, 8},
		{65535, 65535, 1, 1, 65535, 65535, 8},
		{896, 448, 1, 1, 112, 56, 2}, /* the wanted shape need not be square */
		{896, 448, 1, 1, 56, 112, 4},
		{1792, 896, 2, 1, 112, 112, 4}, /* 4:2:2: chroma is half as fine across */
		{1791, 896, 2, 1, 112, 112, 8},
		{896, 1792, 1, 2, 112, 112, 4},
		{896, 1791, 1, 2, 112, 112, 8},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		const image_header h = {.width = cases[i].width,
					.height = cases[i].height,
					.coarser_across = cases[i].across,
					.coarser_down = cases[i].down};
		int got = image_jpeg_eighths(&h, cases[i].want_width, cases[i].want_height);
		if (got != cases[i].eighths)
			fail_msg("%dx%d for %dx%d: %d/8, expected %d/8", h.width, h.height, cases[i].want_width,
				 cases[i].want_height, got, cases[i].eighths);
	}
}

static void sampling_tells_how_coarse_chroma_stays(void **state)
{
	(void)state;
	static const struct {
		uint8_t luma, chroma;
		int across, down;
	} cases[] = {{0x11, 0x11, 1, 1}, {0x22, 0x11, 1, 1}, {0x44, 0x11, 1, 1}, {0x21, 0x11, 2, 1}, {0x12, 0x11, 1, 2},
		     {0x41, 0x11, 4, 1}, {0x42, 0x11, 2, 1}, {0x22, 0x22, 1, 1}, {0x22, 0x12, 2, 1}};
	size_t len;
	uint8_t *b = read_test_file("goldens/444.jpg", &len), *sof = b;
	while (!(sof[0] == 0xFF && sof[1] == 0xC0))
		sof++;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		image_header h;
		const image_limits limits = image_limits_resolve(NULL);
		sof[11] = cases[i].luma;
		sof[14] = sof[17] = cases[i].chroma;
		assert_int_equal(image_jpeg_scan(&h, b, len, &limits, NULL), WN_OK);
		if (h.coarser_across != cases[i].across || h.coarser_down != cases[i].down)
			fail_msg("sampling %02x and %02x: %d across, %d down", cases[i].luma, cases[i].chroma,
				 h.coarser_across, h.coarser_down);
	}
	free(b);
}

typedef struct distance {
	double mean;
	long beyond_16;
} distance;

/* Both decoded from the same bytes and resized to side x side. */
static distance whole_and_reduced(const image *whole, const image *reduced, int side)
{
	const size_t n = (size_t)side * (size_t)side * 3;
	uint8_t *a = malloc(n), *b = malloc(n);
	assert_true(a && b);
	assert_int_equal(image_resize(a, side, side, whole, NULL), WN_OK);
	assert_int_equal(image_resize(b, side, side, reduced, NULL), WN_OK);
	distance d = {0, 0};
	for (size_t i = 0; i < n; i++) {
		d.mean += abs(a[i] - b[i]) / (double)n;
		d.beyond_16 += abs(a[i] - b[i]) > 16;
	}
	free(a);
	free(b);
	return d;
}

/* 41x26 at 2/8 is 10.25 x 6.5, in 11x7 pixels: three quarters of a column and half a row lie beyond, and turn with the
 * picture. Were the wrong side cut off, the picture would come out shifted by up to a pixel. */
static void what_lies_beyond_turns_with_the_picture(void **state)
{
	(void)state;
	static const float beyond[9][4] = {
	    [1] = {0, 0, .75f, .5f}, [2] = {.75f, 0, 0, .5f}, [3] = {.75f, .5f, 0, 0}, [4] = {0, .5f, .75f, 0},
	    [5] = {0, 0, .5f, .75f}, [6] = {.5f, 0, 0, .75f}, [7] = {.5f, .75f, 0, 0}, [8] = {0, .75f, .5f, 0}};
	for (int o = 1; o <= 8; o++) {
		char name[32];
		snprintf(name, sizeof name, "goldens/exif%d.jpg", o);
		size_t len;
		uint8_t *b = read_test_file(name, &len);
		image whole, reduced;
		assert_int_equal(image_decode(&whole, b, len, NULL, NULL), WN_OK);
		assert_int_equal(image_decode_for(&reduced, b, len, NULL, 3, 3, NULL), WN_OK);
		assert_int_equal(reduced.width, o >= 5 ? 7 : 11);
		assert_int_equal(reduced.height, o >= 5 ? 11 : 7);
		for (int i = 0; i < 4; i++)
			if (reduced.beyond[i] != beyond[o][i] || whole.beyond[i] != 0)
				fail_msg("orientation %d, side %d: %g, expected %g", o, i, (double)reduced.beyond[i],
					 (double)beyond[o][i]);
		distance right = whole_and_reduced(&whole, &reduced, 3), wrong;
		for (int i = 0; i < 4; i++)
			reduced.beyond[i] = beyond[o][(i + 2) % 4]; /* the opposite sides */
		wrong = whole_and_reduced(&whole, &reduced, 3);
		if (right.mean > 2 || wrong.mean < 2 * right.mean)
			fail_msg("orientation %d: mean difference %.2f, with the wrong sides cut %.2f", o, right.mean,
				 wrong.mean);
		image_free(&whole);
		image_free(&reduced);
		free(b);
	}
}

static void png_is_never_reduced(void **state)
{
	(void)state;
	size_t len;
	uint8_t *b = read_test_file("goldens/rgb_37x91_odd.png", &len);
	image whole, asked;
	assert_int_equal(image_decode(&whole, b, len, NULL, NULL), WN_OK);
	assert_int_equal(image_decode_for(&asked, b, len, NULL, 1, 1, NULL), WN_OK);
	assert_int_equal(asked.width, 37);
	assert_memory_equal(whole.rgb, asked.rgb, 37 * 91 * 3);
	image_free(&whole);
	image_free(&asked);
	free(b);
}

/* The sample ads at the sizes of real models. Hard edges of saturated colour and strong noise make single samples
 * differ, since a whole picture's pixels are clamped to 0..255 before they are averaged. */
static void sample_ads_stay_near_the_whole_picture(void **state)
{
	(void)state;
	static const int sides[] = {56, 112, 224};
	DIR *d = opendir(SAMPLES);
	assert_non_null(d);
	int files = 0, reduced_ones = 0;
	double worst_mean = 0, worst_share = 0;
	for (struct dirent *e; (e = readdir(d));) {
		if (!is_jpeg_name(e->d_name))
			continue;
		char path[600];
		snprintf(path, sizeof path, "../samples/test/%.500s", e->d_name);
		size_t len;
		uint8_t *b = read_test_file(path, &len);
		image whole, reduced;
		assert_int_equal(image_decode(&whole, b, len, NULL, NULL), WN_OK);
		for (int i = 0; i < 3; i++) {
			const int s = sides[i];
			assert_int_equal(image_decode_for(&reduced, b, len, NULL, s, s, NULL), WN_OK);
			assert_true(reduced.width >= IMAGE_REDUCING_GAP * s || reduced.width == whole.width);
			assert_true(reduced.height >= IMAGE_REDUCING_GAP * s || reduced.height == whole.height);
			if (reduced.width < whole.width) {
				distance off = whole_and_reduced(&whole, &reduced, s);
				double share = (double)off.beyond_16 / (3.0 * s * s);
				if (off.mean > 1.0 || share > 0.001)
					fail_msg("%s at %d: mean difference %.3f, %.5f of the samples beyond 16",
						 e->d_name, s, off.mean, share);
				worst_mean = off.mean > worst_mean ? off.mean : worst_mean;
				worst_share = share > worst_share ? share : worst_share;
				reduced_ones++;
			}
			image_free(&reduced);
		}
		image_free(&whole);
		free(b);
		files++;
	}
	closedir(d);
	print_message("%d sample ads, %d reduced: worst mean %.3f/255, worst share beyond 16/255 %.5f\n", files,
		      reduced_ones, worst_mean, worst_share);
	assert_true(files >= 40 && reduced_ones > files);
}

/* Whole pictures of the two decoders: the same colours at the same places. */
static void the_decoders_agree(void **state)
{
	(void)state;
	golden g[128];
	size_t n = read_index(g, 128);
	int tried = 0;
	for (size_t i = 0; i < n; i++) {
		if (!is_jpeg_name(g[i].name))
			continue;
		char path[128];
		snprintf(path, sizeof path, "goldens/%.63s", g[i].name);
		size_t len;
		uint8_t *b = read_test_file(path, &len);
		const image_limits limits = image_limits_resolve(NULL);
		image_header h;
		image a, t;
		assert_int_equal(image_jpeg_scan(&h, b, len, &limits, NULL), WN_OK);
		assert_int_equal(image_jpeg_stb(&a, &h, b, len, NULL), WN_OK);
		assert_int_equal(image_jpeg_turbo(&t, &h, b, len, 8, NULL), WN_OK);
		assert_int_equal(a.width, t.width);
		assert_int_equal(a.height, t.height);
		double mean = 0;
		const size_t count = (size_t)a.width * (size_t)a.height * 3;
		for (size_t k = 0; k < count; k++)
			mean += abs(a.rgb[k] - t.rgb[k]) / (double)count;
		if (mean > 1.0)
			fail_msg("%s: the decoders differ by %.3f on average", g[i].name, mean);
		image_free(&a);
		image_free(&t);
		free(b);
		tried++;
	}
	assert_true(tried >= 27);
}

/* Every scale, also those never chosen: the sizes are the exact ones rounded up. */
static void every_scale_decodes(void **state)
{
	(void)state;
	static const char *const names[] = {"420_odd_97x61.jpg", "444.jpg",        "422.jpg",
					    "grey.jpg",          "cmyk_adobe.jpg", "progressive_420.jpg"};
	for (size_t f = 0; f < sizeof names / sizeof *names; f++) {
		char path[128];
		snprintf(path, sizeof path, "goldens/%.63s", names[f]);
		size_t len;
		uint8_t *b = read_test_file(path, &len);
		const image_limits limits = image_limits_resolve(NULL);
		image_header h;
		assert_int_equal(image_jpeg_scan(&h, b, len, &limits, NULL), WN_OK);
		for (int n = 1; n <= 8; n++) {
			image img;
			assert_int_equal(image_jpeg_turbo(&img, &h, b, len, n, NULL), WN_OK);
			assert_int_equal(img.width, (h.width * n + 7) / 8);
			assert_int_equal(img.height, (h.height * n + 7) / 8);
			assert_true(img.width - img.beyond[2] == (float)h.width * (float)n / 8);
			assert_true(img.height - img.beyond[3] == (float)h.height * (float)n / 8);
			image_free(&img);
		}
		free(b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(the_smallest_sufficient_scale_is_chosen),
	    cmocka_unit_test(sampling_tells_how_coarse_chroma_stays),
	    cmocka_unit_test(what_lies_beyond_turns_with_the_picture),
	    cmocka_unit_test(png_is_never_reduced),
	    cmocka_unit_test(sample_ads_stay_near_the_whole_picture),
	    cmocka_unit_test(the_decoders_agree),
	    cmocka_unit_test(every_scale_decodes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
