/* What a decoding helper answers (server/decoder_internal.h): bytes that whoever has taken it over may choose, and what the server
 * does with the image they promise. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "server/decoder_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SIDE = 8 };

static const image_limits LIMITS = {.max_side = 4096, .max_pixels = 64 * 64, .max_bytes = 4096};
static const image_processor PROCESSOR = {.size = SIDE, .mean = {0.5f, 0.5f, 0.5f}, .std = {0.25f, 0.25f, 0.25f}, .rescale_factor = 1.0 / 255};

/* A refusal says one line that can be shown to a client. */
static void check_refusal(const image *img, const wn_error *err)
{
	if (err->code == WN_OK || img->rgb || img->width || img->height)
		abort();
	for (const char *p = err->message; *p; p++)
		if (*p < 0x20 || *p > 0x7e)
			abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct decode_answer answer = {0};
	float pixels[3 * SIDE * SIDE];
	const size_t room = 3 * (size_t)LIMITS.max_pixels; /* as much as the shared memory has, and nothing behind it */
	uint8_t *rgb = malloc(room);
	wn_error err = {0};
	image img;
	if (!rgb)
		abort();
	memset(rgb, 0x7f, room);
	memcpy(&answer, data, size < sizeof answer ? size : sizeof answer);
	if (decode_answer_read(&img, &answer, &LIMITS, rgb, &err) != WN_OK)
		check_refusal(&img, &err);
	else if (err.code != WN_OK || img.rgb != rgb || image_preprocess(pixels, &PROCESSOR, &img, &err) != WN_OK)
		abort();
	free(rgb);
	return 0;
}
