/* headers.h: what the values of a request's headers mean. Pure; the bytes are a stranger's. X-Request-Id is request.h's,
 * Content-Type fields.h's and multipart.h's. */
#ifndef WINNOW_SERVER_HEADERS_H
#define WINNOW_SERVER_HEADERS_H

/* X-Deadline-Ms, a whole number from 1 to `most`; 0 for anything else. */
long long header_deadline_ms(const char *text, long long most);

/* The key in Authorization: Bearer KEY, within text; NULL for another scheme. */
const char *header_bearer(const char *text);

/* Content-Length in bytes; what is no number, or none that there is room for, is ULLONG_MAX: larger than every limit. */
unsigned long long header_length(const char *text);

#endif
