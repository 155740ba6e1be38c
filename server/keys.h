/* keys.h: who may do what. Keys are kept and compared as SHA-256 digests, in constant time, so that neither a key's
 * bytes nor its length can be measured. A key has a name, which is what logs show. */
#ifndef WINNOW_SERVER_KEYS_H
#define WINNOW_SERVER_KEYS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

#define KEYS_MAX       16
#define KEY_MIN_LENGTH 16
#define KEY_MAX_LENGTH 256
#define KEY_NAME_SIZE  33

typedef struct key_set {
	int count;
	uint8_t digests[KEYS_MAX][32];
	char names[KEYS_MAX][KEY_NAME_SIZE]; /* [A-Za-z0-9._-]{1,32}; each once */
} key_set;

/* From the environment variable env when it is set (named "environment"), else the configured value ("configuration"), else
 * the file: a line is KEY (named "key-1", "key-2", …) or NAME KEY; '#' begins a comment line. `what` is the configuration
 * key for messages. Messages never show a key. On failure k is empty. */
wn_code key_set_load(key_set *k, const char *what, const char *value, const char *file, const char *env, wn_error *err);

/* Index of the presented key, -1 when it is none of them. */
int key_set_find(const key_set *k, const char *presented);
bool key_set_contains(const key_set *k, const char *presented);

#endif
