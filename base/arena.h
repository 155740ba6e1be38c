/* arena.h: one large block, handed out by bumping a pointer.
 *
 * Page faults on fresh memory cost more than arithmetic on the small models here, so every worker maps its scratch once
 * (huge pages asked for) and steady-state work never calls malloc. Not thread-safe: an arena belongs to one owner.
 */
#ifndef WINNOW_BASE_ARENA_H
#define WINNOW_BASE_ARENA_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

typedef struct arena {
	unsigned char *base;
	size_t size; /* bytes mapped */
	size_t used; /* bytes handed out */
	size_t peak; /* the most that was ever handed out */
} arena;

/* Maps `bytes` (rounded up to pages), zeroed. WN_NOMEM when the system refuses. */
wn_code arena_open(arena *a, size_t bytes, wn_error *err);
/* Unmaps and clears; safe on a zeroed arena. */
void arena_close(arena *a);

/* 64-byte aligned, not cleared; NULL when it does not fit. With a->base NULL (a dry arena) it only counts, returning a
 * non-NULL dummy that must not be touched: the same code that lays a session out first measures it. */
void *arena_alloc(arena *a, size_t bytes);

/* *out = room for rows x width floats. False when they do not fit, or their number of bytes overflows. */
bool arena_floats(arena *a, float **out, size_t rows, size_t width);

/* Everything handed out after mark() is given back by release(). */
static inline size_t arena_mark(const arena *a) { return a->used; }
static inline void arena_release(arena *a, size_t mark) { a->used = mark; }

#endif
