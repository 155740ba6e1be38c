/* image_decode.c: outside bytes to upright RGB pixels; the only file that contains stb_image.
 *
 * JPEG goes to libjpeg-turbo (image_turbo.c) where the build has it, at the scale that the caller's resize leaves room for;
 * stb_image decodes PNG, and JPEG without libjpeg-turbo. It sees only files the container walks (image_jpeg.c,
 * image_png.c) accepted. What remains of its known weaknesses is met here:
 *  - its inflate grows the output without end (a zlib bomb): every allocation it makes is capped to what the header's
 *    size justifies, by a thread-local limit behind STBI_MALLOC/STBI_REALLOC;
 *  - it decodes with tables it never filled: its memory comes zeroed;
 *  - its failure reasons are thread-local, and it has no other state that we change: any number of threads may decode.
 */
#include "model/image_internal.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local struct {
	size_t cap;          /* bytes a single allocation may have */
	int beyond, refused; /* an allocation passed the cap; the system had no memory */
} stb_memory;

static void *stb_malloc(size_t n)
{
	if (n > stb_memory.cap) {
		stb_memory.beyond = 1;
		return NULL;
	}
	void *p = calloc(1, n ? n : 1);
	if (!p)
		stb_memory.refused = 1;
	return p;
}

static void *stb_realloc(void *old, size_t old_n, size_t n)
{
	void *p = stb_malloc(n);
	if (!p)
		return NULL; /* like realloc: the old block stays */
	if (old)
		memcpy(p, old, old_n < n ? old_n : n);
	free(old);
	return p;
}

#define STBI_MALLOC(n)                     stb_malloc(n)
#define STBI_REALLOC_SIZED(p, old_n, n)    stb_realloc(p, old_n, n)
#define STBI_FREE(p)                       free(p)
#define STBI_ASSERT(x)                     ((void)0) /* hostile input must fail, not abort; the caps keep it in bounds */
#define STB_IMAGE_IMPLEMENTATION
#define STBI_ONLY_JPEG
#define STBI_ONLY_PNG
#define STBI_NO_STDIO
#define STBI_NO_LINEAR
#define STBI_NO_HDR
#define STBI_MAX_DIMENSIONS 65535

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#pragma GCC diagnostic ignored "-Wunused-but-set-variable"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wpointer-arith"
#pragma GCC diagnostic ignored "-Wstrict-prototypes"
#include <stb/stb_image.h>
#pragma GCC diagnostic pop

/* Runs stb_image with a cap; checks that it saw the same picture as the walk. sixteen: u16 [h][w][3], or with grey
 * u16 [h][w][1]; else u8 [h][w][3]. */
static wn_code run_stb(void **out, const char *format, const image_header *h, const uint8_t *b, size_t len, size_t cap,
		       int sixteen, int grey, wn_error *err)
{
	int w = 0, ht = 0, n = 0;
	stb_memory.cap = cap;
	stb_memory.beyond = stb_memory.refused = 0;
	stbi__g_failure_reason = NULL; /* some paths fail without a word: an older reason must not speak for them */
	void *p = sixteen ? (void *)stbi_load_16_from_memory(b, (int)len, &w, &ht, &n, grey ? 1 : 3)
			  : (void *)stbi_load_from_memory(b, (int)len, &w, &ht, &n, 3);
	const char *why = stbi_failure_reason();
	if (!p && stb_memory.refused)
		return wn_fail(err, WN_NOMEM, "out of memory decoding a %dx%d %s", h->width, h->height, format);
	if (!p && stb_memory.beyond)
		return wn_fail(err, WN_INVALID, "%s holds far more data than its %dx%d pixels need", format, h->width,
			       h->height);
	if (!p)
		return wn_fail(err, WN_INVALID, "%s cannot be decoded: %s", format, why ? why : "damaged data");
	if (w != h->width || ht != h->height) {
		free(p);
		return wn_fail(err, WN_INVALID, "%s contradicts itself: %dx%d and %dx%d pixels", format, h->width, h->height,
			       w, ht);
	}
	*out = p;
	return WN_OK;
}

wn_code image_jpeg_stb(image *out, const image_header *h, const uint8_t *b, size_t len, wn_error *err)
{
	/* The largest block is a plane of 16-bit coefficients, rounded up to whole 32x32 units; 64 KiB covers its tables. */
	size_t cap = ((size_t)h->width + 32) * ((size_t)h->height + 32) * 3 + 65536;
	void *rgb = NULL;
	wn_code rc = run_stb(&rgb, "jpeg", h, b, len, cap, 0, 0, err);
	if (rc == WN_OK)
		*out = (image){.width = h->width, .height = h->height, .rgb = rgb};
	return rc;
}

/* At an eighth, a quarter and a half libjpeg-turbo's transforms are vector code that averages squares of pixels, and it can
 * leave the chroma of 4:2:0 pictures as fine as the rest. (At the scales between, ads came out further from the whole
 * picture: 7/8 further than 4/8.) Averages a half as wide as the resize's samples, which is what a gap of 2 leaves, fade the
 * finest detail it keeps by a tenth. Chroma that stays coarser is interpolated, which fades it as much again: hence the
 * squares. */
int image_jpeg_eighths(const image_header *h, int width, int height)
{
	const int64_t need_width = (int64_t)width * IMAGE_REDUCING_GAP * 8 * h->coarser_across * h->coarser_across;
	const int64_t need_height = (int64_t)height * IMAGE_REDUCING_GAP * 8 * h->coarser_down * h->coarser_down;
	if (width < 1 || height < 1)
		return 8;
	for (int n = 1; n < 8; n *= 2)
		if ((int64_t)h->width * n >= need_width && (int64_t)h->height * n >= need_height)
			return n;
	return 8;
}

/* width, height: what the pixels will be resized to, as they are stored. */
static wn_code decode_jpeg(image *out, const image_header *h, const uint8_t *b, size_t len, int width, int height,
			   wn_error *err)
{
#ifdef WINNOW_LIBJPEG_TURBO
	return image_jpeg_turbo(out, h, b, len, image_jpeg_eighths(h, width, height), err);
#else
	return image_jpeg_stb(out, h, b, len, err);
#endif
}

/* Pillow keeps the high byte of 16-bit colour, but opens 16-bit grey as I;16, whose convert("RGB") clips at 255 instead
 * of scaling. The models were trained behind that, so it is what they must see. (stb_image could cut the colours
 * itself; it leaks the 16-bit pixels when memory runs out there.) */
static wn_code narrow16(image *out, const image_header *h, const uint16_t *wide, int grey, wn_error *err)
{
	size_t n = (size_t)h->width * (size_t)h->height;
	uint8_t *rgb = malloc(n * 3);
	if (!rgb)
		return wn_fail(err, WN_NOMEM, "out of memory for a %dx%d image", h->width, h->height);
	for (size_t i = 0; !grey && i < 3 * n; i++)
		rgb[i] = (uint8_t)(wide[i] >> 8);
	for (size_t i = 0; grey && i < n; i++)
		rgb[3 * i] = rgb[3 * i + 1] = rgb[3 * i + 2] = wide[i] > 255 ? 255 : (uint8_t)wide[i];
	*out = (image){.width = h->width, .height = h->height, .rgb = rgb};
	return WN_OK;
}

static wn_code decode_png(image *out, const image_header *h, const uint8_t *b, size_t len, wn_error *err)
{
	uint8_t *small = NULL;
	size_t small_len = 0;
	wn_code rc = image_png_rewrite(&small, &small_len, h, b, len, err);
	if (rc)
		return rc;
	/* stb_image inflates into one line's bytes times the height and doubles that when Adam7's extra filter bytes ask for
	 * it; every other buffer has at most 8 bytes a pixel. */
	size_t samples = h->color_type == 2 ? 3 : h->color_type == 4 ? 2 : h->color_type == 6 ? 4 : 1;
	size_t inflated = (((size_t)h->width * (size_t)h->bit_depth + 7) / 8 * samples + 1) * (size_t)h->height;
	size_t widest = (size_t)h->width * (size_t)h->height * (h->bit_depth == 16 ? 8 : 4);
	size_t cap = (2 * inflated > widest ? 2 * inflated : widest) + 65536;
	if (cap < small_len)
		cap = small_len; /* stb_image gathers the compressed data first */
	void *p = NULL;
	int sixteen = h->bit_depth == 16, grey = sixteen && h->color_type == 0;
	rc = run_stb(&p, "png", h, small, small_len, cap, sixteen, grey, err);
	free(small);
	if (rc)
		return rc;
	if (!sixteen) {
		*out = (image){.width = h->width, .height = h->height, .rgb = p};
		return WN_OK;
	}
	rc = narrow16(out, h, p, grey, err);
	free(p);
	return rc;
}

wn_code image_decode_for(image *out, const void *bytes, size_t len, const image_limits *limits, int width, int height,
			 wn_error *err)
{
	*out = (image){0};
	const image_limits l = image_limits_resolve(limits);
	if (len == 0)
		return wn_fail(err, WN_INVALID, "image is empty");
	const char *format = image_format(bytes, len);
	int jpeg = !strcmp(format, "jpeg");
	if (!jpeg && strcmp(format, "png") != 0)
		return !strcmp(format, "unknown")
			       ? wn_fail(err, WN_UNSUPPORTED, "image format is not recognised; JPEG and PNG are accepted")
			       : wn_fail(err, WN_UNSUPPORTED, "image is %s; JPEG and PNG are accepted", format);
	if (len > l.max_bytes)
		return wn_fail(err, WN_TOO_LARGE, "image is %zu bytes, the limit is %zu", len, l.max_bytes);
	image_header h;
	wn_code rc = jpeg ? image_jpeg_scan(&h, bytes, len, &l, err) : image_png_scan(&h, bytes, len, &l, err);
	if (rc)
		return rc;
	const int orientation = h.exif_orientation ? h.exif_orientation : h.xmp_orientation;
	const int lying = orientation >= 5; /* its width is what will be the height */
	if (jpeg)
		rc = decode_jpeg(out, &h, bytes, len, lying ? height : width, lying ? width : height, err);
	else
		rc = decode_png(out, &h, bytes, len, err);
	if (rc == WN_OK)
		rc = image_orient(out, orientation, err);
	if (rc)
		image_free(out);
	return rc;
}

wn_code image_decode(image *out, const void *bytes, size_t len, const image_limits *limits, wn_error *err)
{
	return image_decode_for(out, bytes, len, limits, 0, 0, err);
}
