/* response.h: an HTTP/1.x response, read in whatever pieces it arrives (RFC 9112).
 *
 * The bytes are a stranger's: a server under load, or whatever listens on that port. Framing is strict, for a reader
 * that guesses where an answer ends counts wrong ones: Content-Length with Transfer-Encoding, two lengths that differ,
 * another coding than chunked, folded header lines and stray control characters are errors. Lines may end in a bare LF.
 * Informational answers (1xx) are passed over. Nothing beyond the limits below is stored. Reading in one piece or byte
 * by byte gives the same result; tests/fuzz/fuzz_load_response.c holds it to that. One owner, no thread. */
#ifndef WINNOW_LOAD_RESPONSE_H
#define WINNOW_LOAD_RESPONSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define RESPONSE_MAX_LINE 8190        /* bytes of one line, without its end */
#define RESPONSE_MAX_HEAD (64 * 1024) /* bytes of all lines: status, headers, chunk sizes of no content, trailers */
#define RESPONSE_MAX_BODY ((uint64_t)64 << 20) /* bytes of a body */
#define RESPONSE_KEPT     (64 * 1024)          /* bytes of the body that are kept; the rest is counted */

typedef enum response_state {
	RESPONSE_STATUS_LINE,
	RESPONSE_HEADERS,
	RESPONSE_BODY_LENGTH, /* `left` bytes to come */
	RESPONSE_BODY_CLOSE,  /* until the peer closes */
	RESPONSE_CHUNK_SIZE,
	RESPONSE_CHUNK_DATA, /* `left` bytes to come */
	RESPONSE_CHUNK_END,  /* the line end behind a chunk */
	RESPONSE_TRAILERS,
	RESPONSE_DONE,
	RESPONSE_FAILED
} response_state;

typedef struct response {
	response_state state;
	int status;        /* 100 to 999 */
	bool keep_alive;   /* the connection may carry another request */
	bool begun;        /* a byte has come in */
	uint64_t body_len; /* so far */
	char *body;        /* the first body_kept bytes; owned, kept for the next response */
	size_t body_kept, body_room;

	/* the reader's own */
	bool minor_0, has_length, chunked, close, keep; /* HTTP/1.0; headers seen */
	uint64_t length, left;
	size_t head_len, line_len;
	char line[RESPONSE_MAX_LINE + 2];
} response;

/* For the next answer; `r` is zeroed before the first. */
void response_start(response *r);
/* Reads up to the end of the answer; *used says how many of the len bytes belong to it (state RESPONSE_DONE: the rest
 * is not its). After an error the state is RESPONSE_FAILED. */
wn_code response_read(response *r, const char *data, size_t len, size_t *used, wn_error *err);
/* The peer has closed: ends a body that runs until then; anything else unfinished is WN_INVALID. */
wn_code response_close(response *r, wn_error *err);
/* Frees the body. */
void response_free(response *r);

#endif
