/* keys.h: who may do what. Keys are kept and compared as SHA-256 digests, in constant time, so that neither a key's
 * bytes nor its length can be measured. */
#ifndef WINNOW_SERVER_KEYS_H
#define WINNOW_SERVER_KEYS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

#define KEYS_MAX       16
#define KEY_MIN_LENGTH 16
#define KEY_MAX_LENGTH 256

typedef struct key_set {
	int count;
	uint8_t digests[KEYS_MAX][32];
} key_set;

/* From the environment variable env when it is set, else the configured value, else the file (one key a line, '#'
 * comments; two keys at once make a rotation). `what` is the configuration key for messages. Messages never show a key.
 */
wn_code key_set_load(key_set *k, const char *what, const char *value, const char *file, const char *env, wn_error *err);

bool key_set_contains(const key_set *k, const char *presented);

#endif
