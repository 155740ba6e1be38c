/* intern.c: open addressing over 32-bit entries, at most half full; no deletion, so probing stays simple. */
#include "model/intern.h"

#include <stdlib.h>
#include <string.h>

#define INTERN_MAX (UINT32_C(1) << 30)

static uint64_t hash_bytes(const char *s, size_t len)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325) ^ len;
	for (size_t i = 0; i < len; i++)
		h = (h ^ (unsigned char)s[i]) * UINT64_C(0x100000001b3);
	return h ^ (h >> 29); /* FNV's low bits alone are weak */
}

/* The slot that holds s, or the free one where it belongs. The table must have a free slot. */
static uint32_t find_slot(const intern *t, const char *s, size_t len)
{
	uint32_t mask = t->num_slots - 1;
	for (uint32_t i = (uint32_t)hash_bytes(s, len) & mask;; i = (i + 1) & mask) {
		uint32_t e = t->slots[i];
		if (e == INTERN_NONE || (intern_len(t, e) == len && memcmp(intern_get(t, e), s, len) == 0))
			return i;
	}
}

static wn_code grow_slots(intern *t, wn_error *err)
{
	uint32_t n = t->num_slots ? t->num_slots * 2 : 1024;
	uint32_t *slots = malloc((size_t)n * sizeof *slots);
	if (!slots)
		return wn_fail(err, WN_NOMEM, "out of memory for a table of %u strings", n);
	memset(slots, 0xff, (size_t)n * sizeof *slots);
	free(t->slots);
	t->slots = slots;
	t->num_slots = n;
	for (uint32_t e = 0; e < t->count; e++)
		slots[find_slot(t, intern_get(t, e), intern_len(t, e))] = e;
	return WN_OK;
}

static wn_code grow_storage(intern *t, size_t len, wn_error *err)
{
	if (t->count + 2 > t->starts_cap) {
		uint32_t cap = t->starts_cap ? t->starts_cap * 2 : 512;
		size_t *starts = realloc(t->starts, (size_t)cap * sizeof *starts);
		if (!starts)
			return wn_fail(err, WN_NOMEM, "out of memory for a table of %u strings", cap);
		t->starts = starts;
		t->starts_cap = cap;
		if (t->count == 0)
			starts[0] = 0;
	}
	if (len >= t->bytes_cap - t->bytes_used) {
		size_t cap = t->bytes_cap ? t->bytes_cap : 8192;
		while (cap - t->bytes_used <= len) {
			if (cap > SIZE_MAX / 4)
				return wn_fail(err, WN_TOO_LARGE, "a table of strings passes %zu bytes", cap);
			cap *= 2;
		}
		char *bytes = realloc(t->bytes, cap);
		if (!bytes)
			return wn_fail(err, WN_NOMEM, "out of memory for %zu bytes of strings", cap);
		t->bytes = bytes;
		t->bytes_cap = cap;
	}
	return WN_OK;
}

wn_code intern_add(intern *t, const char *s, size_t len, uint32_t *entry, wn_error *err)
{
	wn_code rc;
	if (t->count >= t->num_slots / 2 && (rc = grow_slots(t, err)) != WN_OK)
		return rc;
	uint32_t slot = find_slot(t, s, len);
	if (t->slots[slot] == INTERN_NONE) {
		if (t->count >= INTERN_MAX)
			return wn_fail(err, WN_TOO_LARGE, "more than %u different strings", INTERN_MAX);
		if ((rc = grow_storage(t, len, err)) != WN_OK)
			return rc;
		memcpy(t->bytes + t->bytes_used, s, len);
		t->bytes[t->bytes_used + len] = '\0';
		t->bytes_used += len + 1;
		t->slots[slot] = t->count++;
		t->starts[t->count] = t->bytes_used;
	}
	*entry = t->slots[slot];
	return WN_OK;
}

uint32_t intern_find(const intern *t, const char *s, size_t len)
{
	return t->num_slots ? t->slots[find_slot(t, s, len)] : INTERN_NONE;
}

void intern_free(intern *t)
{
	free(t->bytes);
	free(t->starts);
	free(t->slots);
	memset(t, 0, sizeof *t);
}
