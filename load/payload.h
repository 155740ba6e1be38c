/* payload.h: whole HTTP requests, built once: head and body in one piece, so that sending one is a single write. */
#ifndef WINNOW_LOAD_PAYLOAD_H
#define WINNOW_LOAD_PAYLOAD_H

#include <stdint.h>

#include "load/ads.h"
#include "load/url.h"

typedef enum body_format {
	FORMAT_MULTIPART, /* what curl -F sends */
	FORMAT_JSON       /* the image in base64 */
} body_format;

typedef struct request_head {
	const url *to;
	const char *key;            /* sent as Authorization: Bearer; NULL: none */
	int deadline_ms;            /* X-Deadline-Ms; 0: none */
	const char *const *headers; /* [num_headers] "Name: value" */
	int num_headers;
} request_head;

typedef struct payload {
	char *bytes; /* owned */
	size_t len;
	char *name;  /* owned; of the ad */
	char *label; /* owned; what the answer should say; NULL: not known */
} payload;

typedef struct payloads {
	payload *items; /* owned */
	size_t count;
} payloads;

/* One request an ad, in an order shuffled by the seed: folders are often sorted by label. */
wn_code payloads_make(payloads *out, const ads *a, body_format format, const request_head *head, uint64_t seed,
		      wn_error *err);
void payloads_close(payloads *p);

/* A POST of this JSON to `path` at the head's host; *out is malloc'ed. */
wn_code payload_json_post(char **out, size_t *len, const request_head *head, const char *path, const char *json,
			  wn_error *err);

/* "Name: value" without control characters, and none of the headers that are winnow-load's own. */
wn_code header_check(const char *header, wn_error *err);
/* A key has 1 to 1024 visible ASCII characters. */
wn_code key_check(const char *key, const char *option, wn_error *err);

#endif
