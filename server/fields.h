/* fields.h: the body of POST /v1/audit into the fields of a request.
 *
 * Multipart and JSON carry the same five fields (image, text, assist, data_id, model) under the same rules; the setters
 * here are the only place that knows them. A function returns REASON_OK or has filled the request's outcome and detail.
 */
#ifndef WINNOW_SERVER_FIELDS_H
#define WINNOW_SERVER_FIELDS_H

#include <stdbool.h>
#include <stddef.h>

#include "server/request.h"

typedef struct field_limits {
	size_t max_image, max_text; /* bytes */
	int json_depth;
} field_limits;

typedef enum body_kind { BODY_NONE, BODY_MULTIPART, BODY_JSON } body_kind;
/* By media type, parameters ignored. */
body_kind body_kind_of(const char *content_type);

/* r->body, complete, into r's fields, by r->content_type; image and text are there when it returns REASON_OK. */
reason fields_parse(request *r, const field_limits *limits);
reason fields_parse_multipart(request *r, const field_limits *limits);
reason fields_parse_json(request *r, const field_limits *limits); /* audit_json.c */

/* Which field a name means; FIELD_COUNT when none. */
typedef enum field { FIELD_IMAGE, FIELD_TEXT, FIELD_ASSIST, FIELD_DATA_ID, FIELD_MODEL, FIELD_COUNT } field;
field field_of(const char *name);

/* Sets one field that is not the image from UTF-8 bytes. */
reason field_set_text(request *r, field f, const void *data, size_t len, const field_limits *limits);
/* The image's bytes, which must stay valid as long as the request. */
reason field_set_image(request *r, const unsigned char *data, size_t len, const field_limits *limits);
/* What must be there is there. */
reason fields_check(request *r);

#endif
