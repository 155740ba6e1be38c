/* multipart.h: a complete multipart/form-data body (RFC 7578) as a list of parts that point into it.
 *
 * Why not libmicrohttpd's MHD_PostProcessor: it takes the boundary to be the rest of the Content-Type header, so that
 * "boundary=x; charset=UTF-8" (what Java's HttpClient sends) fails; it needs a live connection, so it cannot be fuzzed
 * or tested alone; it follows nested multipart/mixed. The body is bounded and in memory anyway: nothing is copied here.
 *
 * Stricter than RFC 2046 where a lax reading only helps attackers: no preamble or epilogue beyond a line end, CRLF line
 * ends, no nesting, no transfer encodings. Pure functions. */
#ifndef WINNOW_SERVER_MULTIPART_H
#define WINNOW_SERVER_MULTIPART_H

#include <stddef.h>

#include "base/error.h"

#define MULTIPART_BOUNDARY_SIZE 71 /* RFC 2046: at most 70 characters */
#define MULTIPART_MAX_PARTS     8
#define MULTIPART_MAX_HEADERS   2048 /* bytes of one part's header lines */

typedef struct multipart_part {
	char name[64];             /* of the form field */
	const unsigned char *data; /* into the body */
	size_t len;
} multipart_part;

/* The boundary parameter of a "multipart/form-data; …" header, quoted or not. */
wn_code multipart_boundary(char out[MULTIPART_BOUNDARY_SIZE], const char *content_type, wn_error *err);

/* WN_INVALID says what is malformed and in which part (counted from 1); WN_TOO_LARGE: more than MULTIPART_MAX_PARTS. */
wn_code multipart_parse(multipart_part parts[MULTIPART_MAX_PARTS], size_t *count, const char *boundary,
			const unsigned char *body, size_t len, wn_error *err);

#endif
