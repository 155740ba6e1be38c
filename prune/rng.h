/* rng.h: random numbers as pure functions of a key (seed, epoch, sample, …).
 *
 * Training keeps no generator state: every draw comes from a stream that is opened from its coordinates, so a resumed run
 * sees the same numbers as one that was never killed, and ranks or threads can draw in any order. splitmix64 (Steele,
 * Lea, Flood: "Fast splittable pseudorandom number generators", 2014) is ample for augmentation and shuffling. */
#ifndef WINNOW_PRUNE_RNG_H
#define WINNOW_PRUNE_RNG_H

#include <stddef.h>
#include <stdint.h>

typedef struct rng {
	uint64_t state;
} rng;

static inline uint64_t rng_mix(uint64_t z)
{
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static inline uint64_t rng_next(rng *r) { return rng_mix(r->state += 0x9e3779b97f4a7c15u); }

/* A stream for four coordinates; each is mixed before the next goes in, so that neighbours do not correlate. */
static inline rng rng_open(uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
	uint64_t k = rng_mix(a + 0x9e3779b97f4a7c15u);
	k = rng_mix(k ^ (b + 0x7f4a7c159e3779b9u));
	k = rng_mix(k ^ (c + 0x1ce4e5b9bf58476du));
	k = rng_mix(k ^ (d + 0x133111eb94d049bbu));
	return (rng){k};
}

/* [0, 1) */
static inline double rng_double(rng *r) { return (double)(rng_next(r) >> 11) * 0x1p-53; }
static inline double rng_uniform(rng *r, double lo, double hi) { return lo + (hi - lo) * rng_double(r); }
/* [0, n), n > 0; unbiased enough: n is far below 2^64 */
static inline uint64_t rng_below(rng *r, uint64_t n) { return (uint64_t)(((unsigned __int128)rng_next(r) * n) >> 64); }

/* Fisher-Yates over order[0..n) = 0..n-1. */
static inline void rng_permutation(rng *r, uint32_t *order, size_t n)
{
	for (size_t i = 0; i < n; i++)
		order[i] = (uint32_t)i;
	for (size_t i = n; i > 1; i--) {
		size_t j = (size_t)rng_below(r, i);
		uint32_t t = order[i - 1];
		order[i - 1] = order[j];
		order[j] = t;
	}
}

#endif
