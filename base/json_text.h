/* json_text.h: JSON from and to texts, which memory may leave at any byte.
 *
 * jansson (to 2.15 at least) does not look whether the buffer that collects a token could grow: when malloc says no, it reads and
 * writes past that buffer, with the bytes of whoever wrote the text, or takes a number that was cut for the whole one. Here memory
 * that is refused while it reads ends the reading. Its writer forgets in the same way that a key could not be put, and goes on behind
 * it: here the text is then none. Outside of tests nothing here calls json_load*() or json_dumps() itself. */
#ifndef WINNOW_BASE_JSON_TEXT_H
#define WINNOW_BASE_JSON_TEXT_H

#include <stddef.h>

#include <jansson.h>

#include "base/error.h"

/* json_loadb(). NULL: *e (may be NULL) says why, and json_read_code() which kind of failure it was. */
json_t *json_read(const char *text, size_t len, size_t flags, json_error_t *e);

/* The same of text without its bytes [from, to): a long string that the caller takes for itself. Positions in *e count what was read. */
json_t *json_read_without(const char *text, size_t len, size_t from, size_t to, size_t flags, json_error_t *e);

/* json_dumps(): a text that is free()'s. NULL on no memory, wherever it was missing, and for what is no JSON. */
char *json_write(const json_t *document, size_t flags);

/* Of a reading that failed: WN_NOMEM, or WN_INVALID when it is the text's fault. */
wn_code json_read_code(const json_error_t *e);

#endif
