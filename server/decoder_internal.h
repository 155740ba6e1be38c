/* decoder_internal.h: what a decoder and its helper say to each other. */
#ifndef WINNOW_SERVER_DECODER_INTERNAL_H
#define WINNOW_SERVER_DECODER_INTERNAL_H

#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>

#include "server/decoder.h"

enum { HELPER_SOCKET = 3, HELPER_MEMORY = 4 }; /* the helper's descriptors */

#define HELPER_EXIT(code) (100 + (int)(code)) /* it could not be confined; code is a wn_code */

/* At the start of the shared memory; then max_bytes of input, then the pixels. */
typedef struct decode_slot {
	/* ours, for each helper: the one before may have written anything here */
	uint64_t size, input_offset, pixels_offset, pixels_size;
	image_limits limits;
	/* ours, for each image */
	uint64_t len;
	int32_t width, height; /* wanted */
	/* the helper's */
	struct decode_answer {
		int32_t code; /* wn_code */
		int32_t width, height;
		float beyond[4];
		char message[480]; /* as in wn_error */
	} answer;
} decode_slot;

/* Whether this build can confine a helper (libseccomp). */
bool decode_helper_can_be_confined(void);
/* In the helper: no privileges, no descriptors but its two, no system calls but memory's from here on, and no more memory than
 * the largest image of slot->limits takes. */
wn_code decode_helper_confine(const decode_slot *slot, wn_error *err);

/* An answer that may be anything and may change while it is read: an image within the limits whose pixels are those at rgb, or
 * WN_INVALID, or the refusal that it is. */
wn_code decode_answer_read(image *out, const struct decode_answer *answer, const image_limits *limits, uint8_t *rgb, wn_error *err);

#endif
