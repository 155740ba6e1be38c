/* image.h: outside bytes to RGB pixels, and RGB pixels to a model's pixel_values.
 *
 * Source of the preprocessing: transformers BlipImageProcessor (Pillow bicubic resize to a square, rescale 1/255,
 * normalise). Sizes are read from the header and checked against the limits before a pixel is decoded. */
#ifndef WINNOW_MODEL_IMAGE_H
#define WINNOW_MODEL_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

typedef struct image {
	int width, height;
	uint8_t *rgb; /* [height][width][3], malloc'ed, owned; release with image_free */
} image;

typedef struct image_limits {
	int max_side;       /* pixels; 0 = 8192 */
	int64_t max_pixels; /* width*height; 0 = 16 Mi */
} image_limits;

typedef struct image_processor {
	int size;       /* output is size x size */
	float mean[3], std[3];
	float rescale_factor; /* 1/255 */
} image_processor;

/* Name of the format the bytes claim by signature: "jpeg", "png", "gif", "webp", "bmp", "tiff", "avif", "heic", "svg",
 * "pdf", or "unknown". Only jpeg and png are decoded. */
const char *image_format(const void *bytes, size_t len);

/* Decodes JPEG or PNG, drops alpha as Pillow's convert("RGB") does, expands grey and palette, applies EXIF orientation.
 * WN_UNSUPPORTED names the format found; WN_TOO_LARGE a size beyond the limits; WN_INVALID an undecodable image. */
wn_code image_decode(image *out, const void *bytes, size_t len, const image_limits *limits, wn_error *err);
void image_free(image *img);

/* preprocessor_config.json; absent keys take BlipImageProcessor's defaults. WN_UNSUPPORTED for resample other than
 * bicubic, do_resize false, a non-square size. */
wn_code image_processor_read(image_processor *out, const char *path, wn_error *err);
wn_code image_processor_parse(image_processor *out, const char *json, size_t len, wn_error *err);

/* Antialiased bicubic, bit-compatible with Pillow's 8-bit Image.resize(BICUBIC). out: [h][w][3], caller's.
 * WN_NOMEM only. */
wn_code image_resize(uint8_t *out, int out_width, int out_height, const image *in, wn_error *err);

/* pixel_values f32 [3][size][size] into out (caller's). */
wn_code image_preprocess(float *out, const image_processor *p, const image *in, wn_error *err);

#endif
