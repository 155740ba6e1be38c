/* image_cache.h: every image of a split, decoded once, as small RGB squares in a mapped file.
 *
 * JPEG decoding and antialiased resizing cost more than a small model's forward pass, so they are paid once: the file under
 * the run directory is reused by later epochs, by a resumed run and by other runs that point at it. Each square is
 * exactly image_resize() of the whole image: at a model's own size, image_preprocess of the square equals image_preprocess
 * of the file, which keeps evaluation equal to serving; training asks for a slightly larger side, to crop from.
 *
 * The file: a header whose key is the digest of the metadata, the images' sizes in bytes and the side; one flag a sample;
 * the squares. Written through a shared map, so what was decoded before a kill -9 stays. After a crash of the machine
 * (another boot) flags of an unfinished file are not believed: data behind them may not have reached the disk.
 * Immutable after open: threads may read it. */
#ifndef WINNOW_PRUNE_IMAGE_CACHE_H
#define WINNOW_PRUNE_IMAGE_CACHE_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "prune/dataset.h"

typedef struct image_cache {
	uint8_t *map;
	size_t map_size;
	const uint8_t *pixels; /* [count][side][side][3] */
	size_t count;
	int side;
	size_t decoded; /* how many this open had to decode */
} image_cache;

/* Called on the opening thread from time to time; nonzero return cancels (WN_CANCELLED). May be NULL. */
typedef int (*image_cache_progress)(void *ctx, size_t done, size_t total);

/* Opens or makes `path` for the split at the given side with `threads` decoders. An undecodable image is an error that
 * names it. *out zeroed on failure. */
wn_code image_cache_open(image_cache *out, const char *path, const dataset *d, int side, int threads,
			 image_cache_progress progress, void *ctx, wn_error *err);
void image_cache_close(image_cache *c);

static inline const uint8_t *image_cache_at(const image_cache *c, size_t i)
{
	return c->pixels + i * (size_t)c->side * (size_t)c->side * 3;
}

#endif
