/* image_internal.h: what the image files share; nothing outside model/image*.c includes it.
 *
 * bytes -> image_format -> container walk (image_jpeg_scan | image_png_scan: sizes, limits, integrity, orientation)
 *       -> libjpeg-turbo (image_turbo.c) for JPEG, where the build has it
 *          stb_image (image_decode.c, behind an allocation cap) for PNG, and for JPEG elsewhere
 *       -> image_orient -> image
 */
#ifndef WINNOW_MODEL_IMAGE_INTERNAL_H
#define WINNOW_MODEL_IMAGE_INTERNAL_H

#include "model/image.h"
#include "model/ops.h"

/* What a walk over the container learned, before anything was allocated. */
typedef struct image_header {
	int width, height;
	int exif_orientation; /* 1..8; 0 = no such tag */
	int xmp_orientation;  /* likewise; counts only without an EXIF tag */
	/* JPEG only: by how many times chroma stays coarser than the rest when libjpeg reduces the picture; 1 = not at all */
	int coarser_across, coarser_down;
	/* PNG only */
	int bit_depth, color_type, interlaced;
	const uint8_t *palette; /* into the input */
	size_t palette_len;     /* bytes, a multiple of 3 */
	size_t idat_len;        /* of all IDAT chunks */
} image_header;

/* Limits with the defaults filled in and clamped to what stb_image's int arithmetic can hold. */
image_limits image_limits_resolve(const image_limits *limits);
/* WN_INVALID for an empty side, WN_TOO_LARGE beyond the (resolved) limits. */
wn_code image_check_size(int64_t width, int64_t height, const image_limits *limits, wn_error *err);

wn_code image_jpeg_scan(image_header *out, const uint8_t *b, size_t len, const image_limits *limits, wn_error *err);
wn_code image_png_scan(image_header *out, const uint8_t *b, size_t len, const image_limits *limits, wn_error *err);

/* JPEG pixels as they are stored, not turned; b was accepted by image_jpeg_scan, which also found h. stb_image is always
 * there, for the tests and the benchmark that hold the two against each other. */
wn_code image_jpeg_stb(image *out, const image_header *h, const uint8_t *b, size_t len, wn_error *err);
#ifdef WINNOW_LIBJPEG_TURBO
/* eighths: 1, 2, ... 8; the sides come out as that many eighths of the picture's, rounded up. */
wn_code image_jpeg_turbo(image *out, const image_header *h, const uint8_t *b, size_t len, int eighths, wn_error *err);
#endif
/* The smallest scale, in eighths, that leaves the picture (as it is stored) large enough for a resize to width x height; 8
 * when there is none, or when a wanted side is below 1. */
int image_jpeg_eighths(const image_header *h, int width, int height);

/* The same picture as a minimal PNG (IHDR, 256-entry PLTE, one IDAT, IEND; check sums left zero): what stb_image is
 * shown instead of the original. *out is malloc'ed. b was accepted by image_png_scan. */
wn_code image_png_rewrite(uint8_t **out, size_t *out_len, const image_header *h, const uint8_t *b, size_t len,
			  wn_error *err);

/* Orientation in a TIFF block (an EXIF body without "Exif\0\0"): 1..8, 1 when the tag is nonsense, 0 when absent. */
int image_exif_orientation(const uint8_t *tiff, size_t len);
int image_xmp_orientation(const uint8_t *xmp, size_t len);
/* Turns the image upright as exif_transpose does; orientation 0 and 1 do nothing. */
wn_code image_orient(image *img, int orientation, wn_error *err);

/* image_resize with the kernels of one table: each gives the same bytes, and the tests compare them. */
wn_code image_resize_by(const ops_table *o, uint8_t *out, int out_width, int out_height, const image *in, wn_error *err);

static inline uint32_t image_be16(const uint8_t *p) { return (uint32_t)p[0] << 8 | p[1]; }
static inline uint32_t image_be32(const uint8_t *p) { return image_be16(p) << 16 | image_be16(p + 2); }

#endif
