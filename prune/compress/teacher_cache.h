/* teacher_cache.h: a file of records, one an item, that is complete or absent.
 *
 * DIR/teacher-<key>.bin: a header (magic, format, key, number of records, bytes, how many are done), then the records, each on a
 * multiple of 64 bytes. What a record holds and how long it is, is its owner's business (teacher.c); the key must say both, and the
 * owner writes them in an order that is always the same. While it is being made it is teacher-<key>.bin.writing, locked by its
 * maker; a second process meanwhile waits. Then it is synced and renamed.
 *
 * A maker that is stopped or killed leaves that file behind, without the lock, and the next one continues behind the last
 * teacher_cache_sync: the count of what is done goes to disk only after the records themselves, so it holds after a power cut too.
 * Room for everything is taken at once; so whoever makes a file removes the ones that other keys' makers left: at once when nothing
 * is done in them, a week after the last record otherwise. Belongs to one thread, except that any thread may read a complete one. */
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
	size_t done;            /* records that need not be written again, in the owner's order */
} teacher_cache;

/* Bytes that a file of such records takes; SIZE_MAX when they overflow. */
size_t teacher_cache_bytes(const size_t *sizes, size_t count);

/* Opens the complete file, or (map NULL) a temporary with room for all: then every record behind the first c->done is to be written, and
 * all committed. A file of that name that is not this cache (cut short, foreign) is told on `out` and will be replaced. WN_IO when
 * there is no room. */
wn_code teacher_cache_open(teacher_cache *c, const teacher_cache_options *o, wn_error *err);
/* Opens the complete file or nothing: WN_NOT_FOUND, or WN_INVALID when it is something else. */
wn_code teacher_cache_find(teacher_cache *c, const teacher_cache_options *o, wn_error *err);
/* len: what sizes[i] was. */
wn_code teacher_cache_write(teacher_cache *c, size_t i, const void *record, size_t len, wn_error *err);
/* The first `done` records are written: from here the next maker may continue. */
wn_code teacher_cache_sync(teacher_cache *c, size_t done, wn_error *err);
/* All are written: synced, renamed, mapped. */
wn_code teacher_cache_commit(teacher_cache *c, wn_error *err);
static inline const void *teacher_cache_at(const teacher_cache *c, size_t i) { return c->map + c->start[i]; }
/* Record i of a complete file will be read soon: the disk may begin. */
void teacher_cache_prefetch(const teacher_cache *c, size_t i);
/* Removes a temporary in which nothing is done; any other stays for the next maker. */
void teacher_cache_close(teacher_cache *c);

#endif
