/* The JSON body of POST /v1/audit. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <nettle/base64.h>

#include "base/json_text.h"
#include "server/fields.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const field_limits LIMITS = {.max_image = 4096, .max_text = 1024, .json_depth = 4};

/* The server takes the image's base64 from the body where it can: it is what jansson reads there. */
static void check_image(const request *r, const uint8_t *data, size_t size)
{
	static char again[BASE64_ENCODE_RAW_LENGTH(4096) + 1];
	json_t *root = json_read((const char *)data, size, JSON_REJECT_DUPLICATES, NULL);
	const char *base64 = json_string_value(json_object_get(root, "image"));
	base64_encode_raw(again, r->image_len, r->image);
	again[BASE64_ENCODE_RAW_LENGTH(r->image_len)] = 0;
	if (!base64 || strcmp(base64, again) != 0)
		abort();
	json_decref(root);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static request_pool *pool;
	wn_error err = {0};
	if (!pool && request_pool_open(&pool, 0, (size_t)1 << 24, &err) != WN_OK)
		abort();
	request *r = request_pool_get(pool);
	if (!r)
		abort();
	strcpy(r->content_type, "application/json");
	if (bytes_append(&r->body, data, size, (size_t)1 << 22, &err) == WN_OK) {
		reason why = fields_parse(r, &LIMITS);
		/* Either a refusal that says why, or everything an audit needs, within the limits. */
		if (why != r->outcome || (why != REASON_OK && !*r->detail))
			abort();
		if (why == REASON_OK &&
		    (r->image_len == 0 || r->image_len > LIMITS.max_image || r->text.len > LIMITS.max_text ||
		     strlen((const char *)r->text.data) != r->text.len))
			abort();
		if (why == REASON_OK)
			check_image(r, data, size);
	}
	request_pool_put(pool, r);
	return 0;
}
