/* decoder.h: image bytes to pixels, in this process or in a helper that may crash.
 *
 * Decoders of outside bytes are where memory errors live. With a helper an image is decoded by a process of its own, which has
 * no key, no model, no socket but the one to us, by seccomp no system call but memory's, and of memory only so much. What crashes
 * it costs one request (422) and a new helper.
 *
 * What takes it over stays for the images that follow, of whatever client: it lives until it crashes, takes too long, or is caught
 * speaking out of turn. It can see those images and what is left of earlier ones, put others in their place, and say in its
 * messages to one client what another one sent. It cannot reach anything else, hold up a decode thread longer than an image may take, or outlive us; and the helper
 * after it finds nothing in the shared memory that it has to trust.
 *
 *   decode thread                                helper (one for each decode thread)
 *   bytes -> shared memory, one byte on a socket ->  decode -> pixels in shared memory
 *   image (points into the shared memory)        <-  one byte on the socket
 *
 * The memory is one slot, not a ring: a decode thread has one image at a time. It is sealed, so that the helper cannot take
 * pages away under us; every number it answers is checked; the pixels it may still change while they are read, which only
 * changes which picture is judged. A decoder belongs to one thread: the helper dies with the one that opened it. */
#ifndef WINNOW_SERVER_DECODER_H
#define WINNOW_SERVER_DECODER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "model/image.h"
#include "server/config.h"

#define DECODE_HELPER_OPTION "--decode-helper"

typedef struct decoder decoder;

typedef struct decoder_options {
	decode_isolation isolation;
	image_limits limits; /* max_bytes: of an image file */
	int64_t timeout_ns;  /* a helper that takes longer for an image is killed */
} decoder_options;

decoder_options decoder_options_of(const server_config *c);

/* Whether images are decoded in another process, if that can be started. */
bool decoder_uses_helper(decode_isolation isolation);

/* In a process: starts the helper, this same program with DECODE_HELPER_OPTION. WN_UNSUPPORTED when it could not be confined
 * (built without libseccomp), WN_IO. DECODE_AUTO then decodes in the calling thread, and logs why when it could have been. */
wn_code decoder_open(decoder **out, const decoder_options *opt, wn_error *err);
void decoder_close(decoder **d);

/* image_decode_for, and: WN_INVALID when the helper crashed on the image or took too long (killed from outside, as for
 * lack of memory, it is replaced and the image tried once more), WN_CANCELLED when until_ns came first (INT64_MAX: it never
 * does), which ends the helper too, WN_IO when there is no helper and none can be started. In this thread until_ns changes
 * nothing: what has been begun cannot be ended. The image is valid until decoder_release; one at a time. */
wn_code decoder_decode(decoder *d, image *out, const void *file, size_t len, int width, int height, int64_t until_ns,
		       wn_error *err);
void decoder_release(decoder *d, image *img);

/* Helpers started after the first. Any thread. */
uint64_t decoder_restarts(const decoder *d);

/* What the program is when started with DECODE_HELPER_OPTION; returns its exit code. */
int decode_helper_main(void);

#endif
