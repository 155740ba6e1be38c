/* digest.h: SHA-256 as winnow.json and the HTTP answers spell it: "sha256:" and 64 lower-case hex digits. Stateless. */
#ifndef WINNOW_BASE_DIGEST_H
#define WINNOW_BASE_DIGEST_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

#define DIGEST_SIZE 72 /* "sha256:" + 64 + NUL */

void digest_memory(char out[DIGEST_SIZE], const void *data, size_t len);

/* Streams a regular file; errors name the path (WN_NOT_FOUND when absent). */
wn_code digest_file(char out[DIGEST_SIZE], const char *path, wn_error *err);

/* One digest over several files' contents, in the order given (the shards of one model). One path gives digest_file's. */
wn_code digest_files(char out[DIGEST_SIZE], const char *const *paths, size_t count, wn_error *err);

/* "sha256:" + 64 lower-case hex digits, nothing else. */
bool digest_is_valid(const char *s);

#endif
