/* Bytes that are no image, half an image, or an image that lies: each with the exact code and line it must give, and
 * never a byte read out of bounds (run under ASan/UBSan) or an allocation the header does not justify. Allocation is
 * watched and failed through the linker's --wrap. */
#include "image_test.h"

/* -- watched allocation ---------------------------------------------------------------------------------------- */

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);

static struct {
	size_t largest; /* request seen */
	long fail_at;   /* the request, counted from 1, that fails; 0 = none */
	long count;
} heap;

static int heap_refuses(size_t n)
{
	heap.largest = n > heap.largest ? n : heap.largest;
	return ++heap.count == heap.fail_at;
}

void *__wrap_malloc(size_t n) { return heap_refuses(n) ? NULL : __real_malloc(n); }
void *__wrap_calloc(size_t n, size_t size) { return heap_refuses(n * size) ? NULL : __real_calloc(n, size); }

static void heap_reset(void) { memset(&heap, 0, sizeof heap); }

/* -- helpers --------------------------------------------------------------------------------------------------- */

static void expect(const void *bytes, size_t len, const image_limits *limits, wn_code code, const char *message)
{
	uint8_t *copy = malloc(len ? len : 1); /* exact, so that a sanitizer sees the first byte beyond */
	assert_non_null(copy);
	memcpy(copy, bytes, len);
	for (int side = 0; side <= 2; side += 2) { /* whole; as much as a resize to 2x2 needs */
		image img = {.width = 77};
		wn_error err = {0};
		wn_code rc = image_decode_for(&img, copy, len, limits, side, side, &err);
		assert_string_equal(err.message, message);
		assert_int_equal(rc, code);
		assert_null(img.rgb);
		assert_int_equal(img.width, 0);
	}
	free(copy);
}

static uint32_t crc(const uint8_t *p, size_t n)
{
	uint32_t c = 0xFFFFFFFFu;
	for (; n; n--, p++) {
		c ^= *p;
		for (int i = 0; i < 8; i++)
			c = c & 1 ? 0xEDB88320u ^ c >> 1 : c >> 1;
	}
	return ~c;
}

static void put32(uint8_t *p, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> (24 - 8 * i));
}

enum { IHDR = 16 }; /* where IHDR's data begins */

/* The file with IHDR bytes replaced and the check sum made right again. */
static uint8_t *png_with_header(size_t *len, int at, const void *bytes, size_t n)
{
	uint8_t *b = read_test_file("goldens/rgb_8x8.png", len);
	memcpy(b + IHDR + at, bytes, n);
	put32(b + IHDR + 13, crc(b + 12, 17));
	return b;
}

/* The segment with this marker: its data. */
static uint8_t *jpeg_segment(uint8_t *b, size_t len, int marker)
{
	for (size_t at = 2; at + 4 < len && b[at] == 0xFF; at += 2 + ((size_t)b[at + 2] << 8 | b[at + 3]))
		if (b[at + 1] == marker)
			return b + at + 4;
	fail_msg("no segment %02x", marker);
	return NULL;
}

/* -- what is no image ------------------------------------------------------------------------------------------ */

static void other_formats_are_named(void **state)
{
	(void)state;
	static const struct {
		const char *bytes;
		size_t len;
		const char *format;
	} cases[] = {
#define B(s) s, sizeof s - 1
		{B("GIF89a\1\0\1\0\0\0\0;"), "gif"},
		{B("GIF87a"), "gif"},
		{B("RIFF\x24\0\0\0WEBPVP8 "), "webp"},
		{B("BM\x3a\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\1\0\0\0\1\0\0\0"), "bmp"},
		{B("II*\0\x08\0\0\0"), "tiff"},
		{B("MM\0*\0\0\0\x08"), "tiff"},
		{B("\0\0\0\x1c" "ftypavif\0\0\0\0mif1"), "avif"},
		{B("\0\0\0\x1c" "ftypmif1\0\0\0\0avifmiaf"), "avif"},
		{B("\0\0\0\x18" "ftypheic\0\0\0\0mif1"), "heic"},
		{B("<svg xmlns='http://www.w3.org/2000/svg'/>"), "svg"},
		{B("\xEF\xBB\xBF  \n<?xml version='1.0'?><!-- a --><svg/>"), "svg"},
		{B("%PDF-1.7\n"), "pdf"},
		{B("<!DOCTYPE html><html></html>"), "unknown"},
		{B("<?xml version='1.0'?><html/>"), "unknown"},
		{B("RIFF\x24\0\0\0WAVEfmt "), "unknown"},
		{B("\0\0\0\x18" "ftypisom\0\0\0\0mp42"), "unknown"},
		{B("BM, he said"), "unknown"},
		{B("\xFF\xD8"), "unknown"},
		{B("\x89PNG\r\n\x1a"), "unknown"},
		{B("\x89PNG\n\x1a\n "), "unknown"},
		{B("\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"), "unknown"},
		{B("{\"error\": \"not found\"}"), "unknown"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char want[256];
		assert_string_equal(image_format(cases[i].bytes, cases[i].len), cases[i].format);
		if (!strcmp(cases[i].format, "unknown"))
			snprintf(want, sizeof want, "image format is not recognised; JPEG and PNG are accepted");
		else
			snprintf(want, sizeof want, "image is %.16s; JPEG and PNG are accepted", cases[i].format);
		expect(cases[i].bytes, cases[i].len, NULL, WN_UNSUPPORTED, want);
	}
	expect("", 0, NULL, WN_INVALID, "image is empty");
}

/* -- half an image --------------------------------------------------------------------------------------------- */

static void truncated_files_are_refused(void **state)
{
	(void)state;
	golden g[128];
	size_t n = read_index(g, 128), tried = 0;
	assert_true(n > 36);
	for (size_t i = 0; i < n; i++) {
		char path[128];
		snprintf(path, sizeof path, "goldens/%.63s", g[i].name);
		size_t len;
		uint8_t *b = read_test_file(path, &len);
		for (size_t k = 0; k <= 16; k++) {
			size_t cut = k == 16 ? len - 1 : len * k / 16; /* the last one lacks a single byte */
			uint8_t *part = malloc(cut ? cut : 1);
			assert_non_null(part);
			memcpy(part, b, cut);
			image img;
			wn_error err = {0};
			wn_code rc = image_decode(&img, part, cut, NULL, &err);
			const char *want = cut == 0 ? "image is empty"
					   : cut < 8 && !is_jpeg_name(g[i].name)
						   ? "image format is not recognised; JPEG and PNG are accepted"
					   : is_jpeg_name(g[i].name) ? "jpeg is cut short: "
								     : "png is cut short: ";
			if (rc != (strstr(want, "recognised") ? WN_UNSUPPORTED : WN_INVALID) ||
			    strncmp(err.message, want, strlen(want)) != 0)
				fail_msg("%s cut to %zu of %zu bytes: code %d, \"%s\"", g[i].name, cut, len, rc, err.message);
			assert_null(img.rgb);
			free(part);
			tried++;
		}
		free(b);
	}
	assert_int_equal(tried, n * 17);
}

#ifdef WINNOW_LIBJPEG_TURBO
enum { TURBO = 1 };
#else
enum { TURBO = 0 };
#endif

/* What libjpeg-turbo tells and stb_image does not: that the file's markers are whole and a part of the picture is missing. */
static void expect_of_turbo(const uint8_t *b, size_t len, const char *message)
{
	if (TURBO) {
		expect(b, len, NULL, WN_INVALID, message);
		return;
	}
	image img;
	assert_int_equal(image_decode(&img, b, len, NULL, NULL), WN_OK);
	image_free(&img);
}

/* Where the last scan's data begin. */
static size_t last_scan(const uint8_t *b, size_t len)
{
	size_t at = len - 2;
	while (at > 2 && !(b[at] == 0xFF && b[at + 1] == 0xDA))
		at--;
	return at + 2 + ((size_t)b[at + 2] << 8 | b[at + 3]);
}

static void image_data_that_end_early_are_refused(void **state)
{
	(void)state;
	static const char *const names[] = {"420_odd_97x61.jpg", "grey.jpg", "progressive_420.jpg", "large_422.jpg",
					    "cmyk_adobe.jpg"};
	for (size_t f = 0; f < sizeof names / sizeof *names; f++) {
		char path[128], message[128];
		snprintf(path, sizeof path, "goldens/%s", names[f]);
		size_t len;
		uint8_t *b = read_test_file(path, &len), *sof = jpeg_segment(b, len, f == 2 ? 0xC2 : 0xC0);
		snprintf(message, sizeof message, "jpeg is cut short: its image data end before its %dx%d pixels do",
			 sof[3] << 8 | sof[4], sof[1] << 8 | sof[2]);
		const size_t start = last_scan(b, len);
		for (int part = 1; part <= 3; part++) {
			size_t cut = start + (len - start) * (size_t)part / 4;
			uint8_t old[2] = {b[cut], b[cut + 1]};
			cut -= b[cut - 1] == 0xFF; /* not between a byte FF and its stuffing */
			memcpy(b + cut, "\xFF\xD9", 2);
			expect_of_turbo(b, cut + 2, message);
			cut += b[cut - 1] == 0xFF;
			memcpy(b + cut, old, 2);
		}
		free(b);
	}
}

static void missing_restart_parts_are_refused(void **state)
{
	(void)state;
	size_t len;
	uint8_t *b = read_test_file("goldens/420_restart.jpg", &len);
	size_t at = last_scan(b, len);
	while (!(b[at] == 0xFF && b[at + 1] == 0xD1))
		at++;
	b[at + 1] = 0xD3;
	expect_of_turbo(b, len, "jpeg cannot be decoded: a part between restart markers is missing");
	free(b);
}

/* Sixteen ones are no code. libjpeg-turbo checks that in progressive files and near the end of others; in the fast part of a
 * baseline file it takes them for zeros, as it goes on after any flipped bit that leaves valid codes behind. */
static void bad_codes_are_refused(void **state)
{
	(void)state;
	static const char *const names[] = {"grey.jpg", "progressive_grey.jpg"};
	for (size_t f = TURBO; f < 2; f++) {
		char path[128];
		snprintf(path, sizeof path, "goldens/%s", names[f]);
		size_t len;
		uint8_t *b = read_test_file(path, &len);
		memcpy(b + last_scan(b, len), "\xFF\0\xFF\0\xFF\0\xFF\0", 8);
		expect(b, len, NULL, WN_INVALID,
		       TURBO ? "jpeg cannot be decoded: bad Huffman code" : "jpeg cannot be decoded: bad huffman code");
		free(b);
	}
}

static void what_a_decoder_refuses_carries_its_words(void **state)
{
	(void)state;
	size_t len;
	uint8_t *b = read_test_file("goldens/444.jpg", &len), *sof = jpeg_segment(b, len, 0xC0);
	sof[7] = 0x31; /* three samples across, two of the next component: no whole ratio */
	sof[10] = 0x21;
	expect(b, len, NULL, TURBO ? WN_UNSUPPORTED : WN_INVALID,
	       TURBO ? "jpeg cannot be decoded: Fractional sampling not implemented yet" : "jpeg cannot be decoded: bad H");
	free(b);
	if (!TURBO) /* whether stb_image minds the table below depends on its version */
		return;
	b = read_test_file("goldens/444.jpg", &len);
	uint8_t *dht = jpeg_segment(b, len, 0xC4);
	dht[1] = dht[3] = 3; /* three codes of one bit */
	dht[2] = 0;
	expect(b, len, NULL, WN_INVALID, "jpeg cannot be decoded: Bogus Huffman table definition");
	free(b);
}

/* Stray bytes before a marker, in files from cameras by the million: no part of the picture is missing. */
static void stray_bytes_are_no_damage(void **state)
{
	(void)state;
	size_t len;
	uint8_t *b = read_test_file("goldens/420_odd_97x61.jpg", &len), *more = malloc(len + 5);
	assert_non_null(more);
	memcpy(more, b, len - 2);
	memcpy(more + len - 2, "\0\1\2\3\4\xFF\xD9", 7);
	image img, stray;
	assert_int_equal(image_decode(&img, b, len, NULL, NULL), WN_OK);
	assert_int_equal(image_decode(&stray, more, len + 5, NULL, NULL), WN_OK);
	assert_memory_equal(img.rgb, stray.rgb, 97 * 61 * 3);
	image_free(&img);
	image_free(&stray);
	free(more);
	free(b);
}

/* PNG: every byte is under a check sum, so no flipped bit may pass. JPEG has none: whatever comes, it is a picture of
 * the size the header gives, or an error with a short line. */
static void flipped_bits_are_survived(void **state)
{
	(void)state;
	static const char *const names[] = {"rgb_37x91_odd.png", "palette4_interlaced.png", "grey16.png", "exif6.png",
					    "420_odd_97x61.jpg", "progressive_420.jpg", "cmyk_adobe.jpg",
					    "420_restart.jpg",   "exif6_beats_xmp8.jpg", "progressive_grey.jpg"};
	uint32_t seed = 1;
	size_t variants = 0, decoded = 0;
	for (size_t f = 0; f < sizeof names / sizeof *names; f++) {
		char path[128];
		snprintf(path, sizeof path, "goldens/%s", names[f]);
		size_t len;
		uint8_t *b = read_test_file(path, &len);
		for (int i = 0; i < 150; i++) {
			seed = seed * 1664525u + 1013904223u;
			/* Every other variant hits the first 700 bytes, where the headers and tables are. */
			size_t at = (seed >> 8) % (i % 2 && len > 700 ? 700 : len);
			uint8_t bit = (uint8_t)(1u << (seed >> 5 & 7));
			b[at] ^= bit;
			image img;
			wn_error err = {0};
			wn_code rc = image_decode_for(&img, b, len, NULL, i % 3 * 8, i % 3 * 8, &err);
			b[at] ^= bit;
			variants++;
			if (rc == WN_OK) {
				assert_true(is_jpeg_name(names[f]));
				assert_true(img.width >= 1 && img.width <= 8192 && img.rgb != NULL);
				decoded++;
			} else {
				if (rc != WN_INVALID && rc != WN_UNSUPPORTED && rc != WN_TOO_LARGE)
					fail_msg("%s byte %zu: code %d, \"%s\"", names[f], at, rc, err.message);
				assert_in_range(strlen(err.message), 10, 160);
				assert_null(strchr(err.message, '/'));
			}
			image_free(&img);
		}
		free(b);
	}
	assert_int_equal(variants, 1500);
	assert_true(decoded > 100); /* otherwise the flips tested only one refusal */
}

static void zeroed_stretches_are_survived(void **state)
{
	(void)state;
	static const char *const names[] = {"rgb_noise.png", "420_quality30.jpg", "progressive_444.jpg"};
	for (size_t f = 0; f < 3; f++) {
		char path[128];
		snprintf(path, sizeof path, "goldens/%s", names[f]);
		size_t len;
		uint8_t *b = read_test_file(path, &len), *copy = malloc(len);
		assert_non_null(copy);
		for (size_t at = 8; at + 40 < len; at += len / 64 + 1) {
			memcpy(copy, b, len);
			memset(copy + at, 0, 40);
			image img;
			wn_error err = {0};
			wn_code rc = image_decode(&img, copy, len, NULL, &err);
			assert_true(rc == WN_OK ? is_jpeg_name(names[f]) : err.message[0] != 0);
			image_free(&img);
		}
		free(copy);
		free(b);
	}
}

/* -- an image that lies ---------------------------------------------------------------------------------------- */

static void sizes_beyond_the_limits(void **state)
{
	(void)state;
	uint8_t side[8];
	size_t len;
	put32(side, 60000);
	put32(side + 4, 60000);
	uint8_t *b = png_with_header(&len, 0, side, 8);
	expect(b, len, NULL, WN_TOO_LARGE, "image is 60000x60000 pixels, the limit is 8192 a side");
	free(b);
	put32(side, 0xFFFFFFFFu);
	b = png_with_header(&len, 0, side, 8);
	expect(b, len, NULL, WN_TOO_LARGE, "image is 4294967295x60000 pixels, the limit is 8192 a side");
	free(b);
	put32(side, 8000);
	put32(side + 4, 8000);
	b = png_with_header(&len, 0, side, 8);
	expect(b, len, NULL, WN_TOO_LARGE, "image is 8000x8000, 64000000 pixels, the limit is 16777216");
	free(b);
	put32(side, 0);
	b = png_with_header(&len, 0, side, 4);
	expect(b, len, NULL, WN_INVALID, "image header says 0x8 pixels");
	free(b);

	b = read_test_file("goldens/444.jpg", &len);
	uint8_t *sof = jpeg_segment(b, len, 0xC0);
	memcpy(sof + 1, "\xEA\x60\xEA\x60", 4);
	heap_reset();
	expect(b, len, NULL, WN_TOO_LARGE, "image is 60000x60000 pixels, the limit is 8192 a side");
	memcpy(sof + 1, "\0\0\0\x10", 4);
	expect(b, len, NULL, WN_INVALID, "image header says 16x0 pixels");
	assert_true(heap.largest <= len); /* the test's own copy */
	free(b);

	b = read_test_file("goldens/444.jpg", &len);
	expect(b, len, &(image_limits){.max_side = 119}, WN_TOO_LARGE, "image is 120x90 pixels, the limit is 119 a side");
	expect(b, len, &(image_limits){.max_pixels = 10799}, WN_TOO_LARGE,
	       "image is 120x90, 10800 pixels, the limit is 10799");
	char want[96];
	snprintf(want, sizeof want, "image is %zu bytes, the limit is %zu", len, len - 1);
	expect(b, len, &(image_limits){.max_bytes = len - 1}, WN_TOO_LARGE, want);
	image img;
	const image_limits just = {.max_side = 120, .max_pixels = 10800, .max_bytes = len};
	assert_int_equal(image_decode(&img, b, len, &just, NULL), WN_OK);
	image_free(&img);
	free(b);
}

/* Sizes within the limits that the data cannot fill: refused before the pixels are allocated. */
static void sizes_the_data_cannot_fill(void **state)
{
	(void)state;
	uint8_t side[8];
	size_t len;
	put32(side, 4096);
	put32(side + 4, 4096);
	heap_reset();
	uint8_t *b = png_with_header(&len, 0, side, 8);
	char want[128];
	size_t idat = len - 8 - 25 - 12 - 12;
	snprintf(want, sizeof want, "png has %zu bytes of image data, 4096x4096 pixels need at least %d", idat,
		 4096 * 3 * 4096 / 1040);
	expect(b, len, NULL, WN_INVALID, want);
	free(b);
	b = read_test_file("goldens/exif1.jpg", &len);
	memcpy(jpeg_segment(b, len, 0xC0) + 1, "\x10\x00\x10\x00", 4);
	image img;
	wn_error err = {0};
	assert_int_equal(image_decode(&img, b, len, NULL, &err), WN_INVALID);
	assert_non_null(strstr(err.message, "bytes of image data, 4096x4096 pixels need at least 32768"));
	free(b);
	assert_true(heap.largest < 100000);
	/* A little larger than the truth passes that test, and fails in the decoder. */
	put32(side, 9);
	b = png_with_header(&len, 0, side, 4);
	expect(b, len, NULL, WN_INVALID, "png cannot be decoded: not enough pixels");
	free(b);
}

static void a_zlib_bomb_stays_small(void **state)
{
	(void)state;
	size_t len;
	uint8_t *b = read_test_file("hostile/bomb.png", &len);
	heap_reset();
	expect(b, len, NULL, WN_INVALID, "png holds far more data than its 4x4 pixels need");
	assert_true(heap.largest < 2 * len + 200000); /* 20 MB when unpacked */
	free(b);
}

static void broken_png_headers(void **state)
{
	(void)state;
	static const struct {
		int at;
		uint8_t value;
		wn_code code;
		const char *message;
	} cases[] = {
		{8, 4, WN_INVALID, "png has color type 2 with 4 bits a sample"},
		{8, 64, WN_INVALID, "png has color type 2 with 64 bits a sample"},
		{9, 1, WN_INVALID, "png has color type 1 with 8 bits a sample"},
		{9, 7, WN_INVALID, "png has color type 7 with 8 bits a sample"},
		{9, 255, WN_INVALID, "png has color type 255 with 8 bits a sample"},
		{9, 3, WN_INVALID, "png has indexed pixels before their palette"},
		{10, 1, WN_INVALID, "png has compression 1, filter 0, interlace 0; 0, 0 and 0 or 1 exist"},
		{12, 2, WN_INVALID, "png has compression 0, filter 0, interlace 2; 0, 0 and 0 or 1 exist"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		size_t len;
		uint8_t *b = png_with_header(&len, cases[i].at, &cases[i].value, 1);
		expect(b, len, NULL, cases[i].code, cases[i].message);
		free(b);
	}
	size_t len;
	uint8_t *b = read_test_file("goldens/rgb_8x8.png", &len);
	b[IHDR + 14] ^= 1;
	expect(b, len, NULL, WN_INVALID, "png chunk IHDR at byte 8 has a wrong check sum");
	b[IHDR + 14] ^= 1;
	memcpy(b + 12, "CgBI", 4);
	put32(b + IHDR + 13, crc(b + 12, 17));
	expect(b, len, NULL, WN_INVALID, "png does not begin with a 13-byte IHDR chunk");
	memcpy(b + 12, "IHD\0", 4);
	expect(b, len, NULL, WN_INVALID, "png chunk at byte 8 has no valid name");
	memcpy(b + 12, "IHDR", 4);
	put32(b + IHDR + 13, crc(b + 12, 17));
	uint8_t *idat = b + IHDR + 13 + 4;
	uint32_t n = (uint32_t)idat[2] << 8 | idat[3];
	memcpy(idat + 4, "IDBT", 4);
	put32(idat + 8 + n, crc(idat + 4, n + 4));
	expect(b, len, NULL, WN_UNSUPPORTED, "png needs chunk IDBT, which is not part of the standard");
	memcpy(idat + 4, "IDAT", 4);
	memset(idat + 8, 0, n);
	put32(idat + 8 + n, crc(idat + 4, n + 4));
	expect(b, len, NULL, WN_INVALID, "png cannot be decoded: bad compression");
	free(b);
}

static void broken_jpeg_headers(void **state)
{
	(void)state;
	static const struct {
		int marker, at;
		uint8_t value;
		int new_marker;
		wn_code code;
		const char *message;
	} cases[] = {
		{0xC0, 0, 12, 0, WN_UNSUPPORTED, "jpeg has 12 bits a sample; only 8 are read"},
		{0xC0, 5, 2, 0, WN_UNSUPPORTED, "jpeg has 2 components; only 1, 3 and 4 are read"},
		{0xC0, 5, 1, 0, WN_INVALID, "jpeg frame header is 15 bytes long, 1 components need 9"},
		{0xC0, 7, 0x50, 0, WN_INVALID, "jpeg component 0 has sampling 0x50 and table 0"},
		{0xC0, 7, 0x10, 0, WN_INVALID, "jpeg component 0 has sampling 0x10 and table 0"},
		{0xC0, 8, 4, 0, WN_INVALID, "jpeg component 0 has sampling 0x11 and table 4"},
		{0xC0, 8, 3, 0, WN_INVALID, "jpeg uses quantisation table 3 without defining it"},
		{0xC0, 6, 9, 0, WN_INVALID, "jpeg scan names component 1, which the frame lacks"},
		{0xC0, 0, 8, 0xC9, WN_UNSUPPORTED,
		 "jpeg is arithmetic coded; only baseline and progressive Huffman are read"},
		{0xC0, 0, 8, 0xC3, WN_UNSUPPORTED,
		 "jpeg is lossless or hierarchically coded; only baseline and progressive Huffman are read"},
		{0xC0, 0, 8, 0xFE, WN_INVALID, "jpeg scan comes before the frame header"},
		{0xDA, 0, 0, 0, WN_INVALID, "jpeg scan header is malformed"},
		{0xDA, 0, 4, 0, WN_INVALID, "jpeg scan header is malformed"},
		{0xDA, 2, 0x20, 0, WN_INVALID, "jpeg uses Huffman table DC 2 without defining it"},
		{0xDA, 2, 0x03, 0, WN_INVALID, "jpeg uses Huffman table AC 3 without defining it"},
		{0xDB, 0, 0x07, 0, WN_INVALID, "jpeg quantisation table 0x07 is malformed"},
		{0xC4, 0, 0x44, 0, WN_INVALID, "jpeg Huffman table 0x44 is malformed"},
		{0xC4, 3, 0xFF, 0, WN_INVALID, "jpeg Huffman table 0x00 is malformed"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		size_t len;
		uint8_t *b = read_test_file("goldens/444.jpg", &len), *s = jpeg_segment(b, len, cases[i].marker);
		s[cases[i].at] = cases[i].value;
		if (cases[i].new_marker)
			s[-3] = (uint8_t)cases[i].new_marker;
		expect(b, len, NULL, cases[i].code, cases[i].message);
		free(b);
	}
	size_t len;
	uint8_t *b = read_test_file("goldens/444.jpg", &len);
	jpeg_segment(b, len, 0xE0)[-3] = 0xC4;
	expect(b, len, NULL, WN_INVALID, "jpeg Huffman table 0x4a is malformed");
	free(b);
	b = read_test_file("goldens/cmyk_adobe.jpg", &len);
	memcpy(jpeg_segment(b, len, 0xEE), "Adobo", 5);
	expect(b, len, NULL, WN_UNSUPPORTED,
	       "jpeg has 4 components without an Adobe CMYK or YCCK marker; convert it to RGB");
	free(b);
	expect("\xFF\xD8\xFF\xE0\0\1", 6, NULL, WN_INVALID, "jpeg segment FFE0 has length 1");
	expect("\xFF\xD8\xFF\xD9", 4, NULL, WN_INVALID, "jpeg holds no image data");
}

/* A progressive file can ask for a pass over every block with a dozen bytes. */
static void too_many_scans_are_refused(void **state)
{
	(void)state;
	size_t len;
	uint8_t *b = read_test_file("goldens/progressive_grey.jpg", &len);
	/* DC refinement scans: legal any number of times as far as the syntax goes. */
	static const uint8_t scan[] = {0xFF, 0xDA, 0, 8, 1, 1, 0, 0, 0, 0x10, 0};
	size_t n = 80, total = len - 2 + n * sizeof scan + 2;
	uint8_t *big = malloc(total);
	assert_non_null(big);
	memcpy(big, b, len - 2);
	for (size_t i = 0; i < n; i++)
		memcpy(big + len - 2 + i * sizeof scan, scan, sizeof scan);
	memcpy(big + total - 2, "\xFF\xD9", 2);
	expect(big, total, NULL, WN_TOO_LARGE, "jpeg has more than 64 scans");
	free(big);
	free(b);
}

/* -- no memory ------------------------------------------------------------------------------------------------- */

static void every_failed_allocation_is_reported(void **state)
{
	(void)state;
	static const char *const names[] = {"rgba16.png", "palette4_interlaced.png", "grey16.png",
					    "exif6.png",  "420_odd_97x61.jpg",       "progressive_420.jpg", "cmyk_adobe.jpg",
					    "exif5.jpg"};
	image_processor p;
	assert_int_equal(image_processor_parse(&p, "{\"size\": 32}", 12, NULL), WN_OK);
	for (size_t f = 0; f < sizeof names / sizeof *names; f++) {
		char path[128];
		snprintf(path, sizeof path, "goldens/%s", names[f]);
		size_t len;
		uint8_t *b = read_test_file(path, &len);
		static float out[3 * 32 * 32];
		long k = 0;
		for (wn_code rc = WN_NOMEM; rc != WN_OK;) {
			image img;
			wn_error err = {0};
			heap_reset();
			heap.fail_at = ++k;
			rc = image_decode(&img, b, len, NULL, &err);
			if (rc == WN_OK)
				rc = image_preprocess(out, &p, &img, &err);
			heap.fail_at = 0;
			image_free(&img);
			if (rc != WN_OK && (rc != WN_NOMEM || strncmp(err.message, "out of memory", 13) != 0))
				fail_msg("%s, allocation %ld: code %d, \"%s\"", names[f], k, rc, err.message);
		}
		assert_in_range(k, 8, 60);
		free(b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(other_formats_are_named),
		cmocka_unit_test(truncated_files_are_refused),
		cmocka_unit_test(image_data_that_end_early_are_refused),
		cmocka_unit_test(missing_restart_parts_are_refused),
		cmocka_unit_test(bad_codes_are_refused),
		cmocka_unit_test(what_a_decoder_refuses_carries_its_words),
		cmocka_unit_test(stray_bytes_are_no_damage),
		cmocka_unit_test(flipped_bits_are_survived),
		cmocka_unit_test(zeroed_stretches_are_survived),
		cmocka_unit_test(sizes_beyond_the_limits),
		cmocka_unit_test(sizes_the_data_cannot_fill),
		cmocka_unit_test(a_zlib_bomb_stays_small),
		cmocka_unit_test(broken_png_headers),
		cmocka_unit_test(broken_jpeg_headers),
		cmocka_unit_test(too_many_scans_are_refused),
		cmocka_unit_test(every_failed_allocation_is_reported),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
