/* teacher_cache.h: a file of records, one an item, that is complete or absent.
 *
 * DIR/teacher-<key>.bin: a header (magic, format, key, number of records, bytes), then the records, each on a multiple of 64
 * bytes. What a record holds and how long it is, is its owner's business (teacher.c); the key must say both. While it is being
 * made it is teacher-<key>.bin.writing, locked by its maker: a kill leaves that file behind, without the lock, and the next
 * maker takes it over; a second process meanwhile waits. Then it is synced and renamed. Belongs to one thread, except
 * that any thread may read a complete one. */
#ifndef WINNOW_PRUNE_COMPRESS_TEACHER_CACHE_H
#define WINNOW_PRUNE_COMPRESS_TEACHER_CACHE_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/digest.h"
#include "base/error.h"

typedef struct teacher_cache_options {
	const char *dir;             /* made when it is not there */
	const char *key;             /* a digest ("sha256:…") */
	const size_t *sizes;         /* [count]: bytes of every record */
	size_t count;
	volatile sig_atomic_t *stop; /* ends the waiting for another process; may be NULL */
	FILE *out;                   /* notes; may be NULL */
} teacher_cache_options;

typedef struct teacher_cache {
	char *path, *temporary; /* owned */
	char key[DIGEST_SIZE];
	size_t count;
	size_t *start;          /* [count + 1]: bytes from the file's beginning; the last is its size */
	const uint8_t *map;     /* the complete file; NULL while it is being made */
	int fd_plus_1;          /* of the temporary while it is being made */
} teacher_cache;

/* Bytes that a file of such records takes; SIZE_MAX when they overflow. */
size_t teacher_cache_bytes(const size_t *sizes, size_t count);

/* Opens the complete file, or (map NULL) a temporary with room for all: then every record is to be written, and committed. A file of
 * that name that is not this cache (cut short, foreign) is told on `out` and will be replaced. WN_IO when there is no room. */
wn_code teacher_cache_open(teacher_cache *c, const teacher_cache_options *o, wn_error *err);
/* len: what sizes[i] was. */
wn_code teacher_cache_write(teacher_cache *c, size_t i, const void *record, size_t len, wn_error *err);
/* Synced, renamed, mapped. */
wn_code teacher_cache_commit(teacher_cache *c, wn_error *err);
static inline const void *teacher_cache_at(const teacher_cache *c, size_t i) { return c->map + c->start[i]; }
/* Removes a temporary that was not committed. */
void teacher_cache_close(teacher_cache *c);

#endif
