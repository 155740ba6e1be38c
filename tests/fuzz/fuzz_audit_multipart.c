/* The multipart body of POST /v1/audit. The input's first line is the Content-Type header, the rest the body, which is
 * given in exactly its own bytes: a sanitizer sees the first one read beyond. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "server/fields.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const field_limits LIMITS = {.max_image = 4096, .max_text = 1024, .json_depth = 4};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static request_pool *pool;
	wn_error err = {0};
	if (!pool && request_pool_open(&pool, 0, (size_t)1 << 24, &err) != WN_OK)
		abort();
	const uint8_t *eol = memchr(data, '\n', size);
	size_t type_len = eol ? (size_t)(eol - data) : 0;
	request *r = request_pool_get(pool);
	if (!r || !eol || type_len >= sizeof r->content_type || memchr(data, 0, type_len)) {
		free(r);
		return 0;
	}
	memcpy(r->content_type, data, type_len);
	size_t body_len = size - type_len - 1;
	if (bytes_reserve(&r->body, body_len ? body_len : 1, &err) == WN_OK) {
		memcpy(r->body.data, eol + 1, body_len);
		r->body.len = body_len;
		reason why = fields_parse_multipart(r, &LIMITS);
		if (why != r->outcome || (why != REASON_OK && !*r->detail))
			abort();
		if (why == REASON_OK &&
		    (r->image < r->body.data || r->image + r->image_len > r->body.data + r->body.len ||
		     r->image_len == 0 || r->image_len > LIMITS.max_image ||
		     strlen((const char *)r->text.data) != r->text.len))
			abort();
	}
	request_pool_put(pool, r);
	return 0;
}
