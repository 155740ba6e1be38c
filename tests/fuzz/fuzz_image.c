/* fuzz_image.c: any bytes into image_decode and image_decode_for, what comes out into image_resize and image_preprocess.
 * PNG chunks carry check sums no mutation survives, so a PNG is tried once as it is and once with them put right. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "model/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void decode_and_use(const uint8_t *data, size_t size)
{
	const image_limits limits = {.max_side = 2048, .max_pixels = 1 << 19, .max_bytes = 1 << 20};
	static const image_processor processor = {
		.size = 19, .mean = {0.5f, 0.4f, 0.3f}, .std = {0.2f, 0.3f, 0.4f}, .rescale_factor = 1.0 / 255.0};
	image img;
	wn_error err = {0};
	wn_code rc = image_decode(&img, data, size, &limits, &err);
	if (rc != WN_OK) {
		if (img.rgb || !err.message[0] || err.code != rc)
			abort();
		return;
	}
	if (img.width < 1 || img.height < 1 || (int64_t)img.width * img.height > limits.max_pixels || err.code)
		abort();
	float out[3 * 19 * 19];
	if (image_preprocess(out, &processor, &img, &err) != WN_OK)
		abort();
	uint8_t small[7 * 5 * 3];
	if (image_resize(small, 7, 5, &img, &err) != WN_OK)
		abort();
	for (int i = 0; i < 3 * 19 * 19; i++)
		if (!(out[i] > -3.0f && out[i] < 5.0f)) /* uninitialised pixels would not show, uninitialised floats would */
			abort();
	image reduced;
	if (image_decode_for(&reduced, data, size, &limits, 7, 5, &err) != WN_OK) /* what is refused does not depend on the scale */
		abort();
	if (reduced.width > img.width || reduced.height > img.height ||
	    image_resize(small, 7, 5, &reduced, &err) != WN_OK)
		abort();
	image_free(&reduced);
	image_free(&img);
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

static void mend_check_sums(uint8_t *b, size_t size)
{
	for (size_t at = 8; at + 12 <= size;) {
		size_t n = (size_t)b[at] << 24 | (size_t)b[at + 1] << 16 | (size_t)b[at + 2] << 8 | b[at + 3];
		if (n > size - at - 12)
			return;
		uint32_t c = crc(b + at + 4, n + 4);
		for (int i = 0; i < 4; i++)
			b[at + 8 + n + (size_t)i] = (uint8_t)(c >> (24 - 8 * i));
		at += n + 12;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	decode_and_use(data, size);
	if (strcmp(image_format(data, size), "png") != 0)
		return 0;
	uint8_t *copy = malloc(size);
	if (!copy)
		return 0;
	memcpy(copy, data, size);
	mend_check_sums(copy, size);
	decode_and_use(copy, size);
	free(copy);
	return 0;
}
