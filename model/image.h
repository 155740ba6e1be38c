/* image.h: outside bytes to RGB pixels, and RGB pixels to a model's pixel_values.
 *
 * Source of the preprocessing: transformers BlipImageProcessorPil (Pillow bicubic resize to a square, rescale 1/255,
 * normalise). Sizes are read from the header and checked against the limits before a pixel is decoded.
 *
 * All functions are reentrant; none keeps state between calls. Messages name no path (the bytes come from the network)
 * and are short enough to be an HTTP answer's detail. */
#ifndef WINNOW_MODEL_IMAGE_H
#define WINNOW_MODEL_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

typedef struct image {
	int width, height;
	uint8_t *rgb; /* [height][width][3], malloc'ed, owned; release with image_free */
	/* How much of the outermost pixels lies beyond the picture's edge, in pixels, 0 to below 1, at its left, top, right and
	 * bottom. Only image_decode_for gives anything but zeros: 97 columns at half size are 48.5, kept in 49. */
	float beyond[4];
} image;

typedef struct image_limits {
	int max_side;       /* pixels; 0 = 8192; beyond 65535 counts as 65535 */
	int64_t max_pixels; /* width*height; 0 = 16 Mi; beyond 128 Mi counts as 128 Mi */
	size_t max_bytes;   /* encoded length; 0 = 32 MiB; beyond 1 GiB counts as 1 GiB */
} image_limits;

typedef struct image_processor {
	int size; /* output is size x size */
	float mean[3], std[3];
	double rescale_factor; /* 1/255; a double, because the reference multiplies in double before it rounds to float */
} image_processor;

/* Name of the format the bytes claim by signature: "jpeg", "png", "gif", "webp", "bmp", "tiff", "avif", "heic", "svg",
 * "pdf", or "unknown". Only jpeg and png are decoded. */
const char *image_format(const void *bytes, size_t len);

/* Decodes JPEG or PNG to what Pillow's ImageOps.exif_transpose(Image.open(f)).convert("RGB") holds: alpha and
 * transparency dropped, grey and palette expanded, 16-bit colour cut to its high byte, 16-bit grey *clipped* to 255 (sic),
 * EXIF (or, failing it, XMP) orientation applied. PNG is exact. JPEG is, too, where winnow was built with libjpeg-turbo,
 * which Pillow stands on; stb_image, the decoder without it, differs in the last bit or two.
 * Files that end early are refused: an answer must never be about half an image. (libjpeg-turbo also tells when the
 * image data end before the picture does though the file is whole; stb_image pads such a picture with grey.)
 * WN_UNSUPPORTED names the format or variant found; WN_TOO_LARGE a size beyond the limits; WN_INVALID an undecodable
 * image. limits may be NULL (defaults) and count for the size in the header. On failure *out is zeroed. */
wn_code image_decode(image *out, const void *bytes, size_t len, const image_limits *limits, wn_error *err);

/* The same picture for someone who will resize it to width x height, upright: a JPEG may come out at a half, a quarter or an
 * eighth of its size, which saves most of the work on large ones, though never below IMAGE_REDUCING_GAP times what was
 * asked for in either direction (across, four times that for 4:2:2, whose chroma comes out coarser). Resized to width x
 * height it then differs from image_decode's pixels so resized by 0.3/255 on average for ordinary ads (tests/image asserts
 * at most 1/255, and 16/255 for all but one sample in a thousand); pictures of strong noise reach 2/255, for their whole
 * pixels are clamped before they are averaged. Everything else is image_decode's, refusals and messages included. PNG,
 * and any image where winnow was built without libjpeg-turbo, comes out whole. A width or height below 1: no reduction. */
#define IMAGE_REDUCING_GAP 2
wn_code image_decode_for(image *out, const void *bytes, size_t len, const image_limits *limits, int width, int height,
			 wn_error *err);
void image_free(image *img);

/* preprocessor_config.json (or a processor_config.json with an "image_processor" object); absent keys take
 * BlipImageProcessor's defaults. do_rescale false is rescale_factor 1, do_normalize false is mean 0 and std 1.
 * WN_UNSUPPORTED for resample other than bicubic, do_resize false, a non-square size, center crop or padding, another
 * image_processor_type. */
wn_code image_processor_read(image_processor *out, const char *path, wn_error *err);
wn_code image_processor_parse(image_processor *out, const char *json, size_t len, wn_error *err);

/* Antialiased bicubic, bit-identical to Pillow 13's 8-bit Image.resize(BICUBIC, box=the picture within its pixels).
 * out: [h][w][3], caller's. WN_INVALID for a side below 1 or beyond 65535; WN_NOMEM. */
wn_code image_resize(uint8_t *out, int out_width, int out_height, const image *in, wn_error *err);

/* pixel_values f32 [3][size][size] into out (caller's); bit-identical to the reference for equal pixels. */
wn_code image_preprocess(float *out, const image_processor *p, const image *in, wn_error *err);

#endif
