/* result_cache.h: answers already given, for the ad that is sent again.
 *
 * The key is the SHA-256 of everything an answer depends on: image bytes, text, assist, and the model's name, version, digest and
 * fingerprint, each with its length. The digest is of the weights alone; a version that was replaced by one with the same weights
 * and other labels, another prompt or tokenizer differs in the fingerprint of its files. Kept are the probabilities; the model's own thresholds decide anew. Bounded in bytes (the
 * least recently used goes first) and in age. One lock, held for a lookup's few instructions; hashing happens outside. */
#ifndef WINNOW_SERVER_RESULT_CACHE_H
#define WINNOW_SERVER_RESULT_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "server/request.h"

typedef struct result_cache result_cache;

/* max_bytes 0: *out is NULL, which the functions below take for a cache that is off. */
wn_code result_cache_open(result_cache **out, size_t max_bytes, int64_t max_age_ns, wn_error *err);
void result_cache_close(result_cache **c);

/* Of a request whose fields are parsed and whose model is chosen. */
void result_cache_key(uint8_t key[RESULT_KEY_SIZE], const request *r);

/* Fills probs[n] and counts a hit, or counts a miss. An entry with another number of labels is none. */
bool result_cache_get(result_cache *c, const uint8_t key[RESULT_KEY_SIZE], float *probs, int n, int64_t now_ns);
/* Without memory, or when one entry is more than all, nothing is kept. */
void result_cache_put(result_cache *c, const uint8_t key[RESULT_KEY_SIZE], const float *probs, int n, int64_t now_ns);

typedef struct result_cache_stats {
	uint64_t hits, misses, evictions; /* evictions: entries dropped for room or age */
	size_t entries, bytes, max_bytes;
} result_cache_stats;
result_cache_stats result_cache_read(result_cache *c);

#endif
