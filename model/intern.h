/* intern.h: byte strings numbered in the order they were first seen.
 *
 * One table serves the vocabulary (token content -> entry) and the trainer (word -> entry). The bytes live in one
 * growing block, so a pointer from intern_get is valid only until the next intern_add. One owner; read-only use may be
 * shared between threads. */
#ifndef WINNOW_MODEL_INTERN_H
#define WINNOW_MODEL_INTERN_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define INTERN_NONE UINT32_MAX

typedef struct intern {
	char *bytes; /* every string, each followed by a NUL */
	size_t bytes_used, bytes_cap;
	size_t *starts; /* [count + 1] offsets into bytes */
	uint32_t count, starts_cap;
	uint32_t *slots; /* [num_slots] entry or INTERN_NONE, open addressing */
	uint32_t num_slots;
} intern;

/* A zeroed intern is an empty one. Adds (or finds) s[0..len); *entry is its number. WN_NOMEM, or WN_TOO_LARGE past
 * 2^30 entries. */
wn_code intern_add(intern *t, const char *s, size_t len, uint32_t *entry, wn_error *err);
/* The entry of s[0..len), or INTERN_NONE. */
uint32_t intern_find(const intern *t, const char *s, size_t len);
static inline const char *intern_get(const intern *t, uint32_t entry) { return t->bytes + t->starts[entry]; }
static inline size_t intern_len(const intern *t, uint32_t entry)
{
	return t->starts[entry + 1] - t->starts[entry] - 1;
}
void intern_free(intern *t);

#endif
