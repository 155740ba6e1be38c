/* audit_json.c: the JSON form of POST /v1/audit: {"image": base64, "text": …, "assist"?, "data_id"?, "model"?}.
 *
 * jansson does the parsing; what it leaves open is closed before it runs: nesting depth (its parser recurses), the number
 * of values (three bytes of body, "{},", become hundreds of bytes of its objects, beyond any budget), UTF-8 (so that
 * broken text is told from broken JSON), duplicate keys. base64 is RFC 4648 section 4 with padding and nothing else. */
#include <string.h>

#include <jansson.h>
#include <nettle/base64.h>

#include "model/pretokenize.h"
#include "server/fields.h"

#define MAX_VALUES 64 /* five fields are known; the rest is room for a helpful message about one that is not */

/* Deepest nesting of brackets outside strings, and at least the number of values that the parser can make of s, itself
 * included; malformed JSON may give any number, and is refused later. */
static int nesting_depth(const unsigned char *s, size_t len, size_t *values)
{
	int depth = 0, deepest = 0;
	*values = 1;
	for (size_t i = 0; i < len; i++) {
		if (s[i] == '"') {
			for (i++; i < len && s[i] != '"'; i++)
				if (s[i] == '\\')
					i++;
		} else if (s[i] == '{' || s[i] == '[') {
			depth++;
			deepest = depth > deepest ? depth : deepest;
			++*values; /* the first inside */
		} else if (s[i] == '}' || s[i] == ']') {
			depth--;
		} else if (s[i] == ',') {
			++*values;
		}
	}
	return deepest;
}

static reason set_base64_image(request *r, const char *text, size_t len, const field_limits *limits)
{
	if (len >= 5 && memcmp(text, "data:", 5) == 0)
		return request_fail(r, REASON_BAD_BASE64, "image: found a data: URL, expected the base64 alone");
	if (len % 4 != 0)
		return request_fail(r, REASON_BAD_BASE64,
				    "image: found %zu characters of base64, expected a multiple of 4", len);
	size_t padding = len == 0 ? 0 : (text[len - 1] == '=') + (text[len - 2] == '=');
	size_t expected = len / 4 * 3 - padding;
	if (expected > limits->max_image)
		return request_fail(r, REASON_IMAGE_TOO_LARGE, "image: found %zu bytes, expected at most %zu", expected,
				    limits->max_image);
	wn_error err = {0};
	if (bytes_reserve(&r->decoded, BASE64_DECODE_LENGTH(len) + 1, &err) != WN_OK)
		return err.code == WN_TOO_LARGE
			   ? request_fail(r, REASON_BODY_BUDGET, "%s; try again shortly", err.message)
			   : request_fail(r, REASON_OUT_OF_MEMORY, "there is no memory left for this request");
	struct base64_decode_ctx ctx;
	base64_decode_init(&ctx);
	size_t n = BASE64_DECODE_LENGTH(len);
	/* nettle skips white space; then fewer bytes than expected come out, which is refused like any other character.
	 */
	if (!base64_decode_update(&ctx, &n, r->decoded.data, len, text) || !base64_decode_final(&ctx) || n != expected)
		return request_fail(r, REASON_BAD_BASE64,
				    "image: expected base64 (RFC 4648, padded, without line breaks)");
	r->decoded.len = n;
	return field_set_image(r, r->decoded.data, n, limits);
}

static reason set_field(request *r, const char *key, json_t *value, const field_limits *limits)
{
	field f = field_of(key);
	if (f == FIELD_COUNT)
		return request_fail(r, REASON_UNKNOWN_FIELD,
				    "found \"%.40s\", expected image, text, assist, data_id or model", key);
	if (json_is_null(value) && f != FIELD_IMAGE && f != FIELD_TEXT)
		return REASON_OK; /* many clients write absent optional fields so */
	if (!json_is_string(value))
		return request_fail(r, REASON_BAD_FIELD, "%s: expected a string", key);
	if (f == FIELD_IMAGE)
		return set_base64_image(r, json_string_value(value), json_string_length(value), limits);
	return field_set_text(r, f, json_string_value(value), json_string_length(value), limits);
}

reason fields_parse_json(request *r, const field_limits *limits)
{
	size_t valid = utf8_valid_prefix((const char *)r->body.data, r->body.len);
	if (valid != r->body.len)
		return request_fail(r, REASON_INVALID_UTF8, "the JSON body has invalid UTF-8 at byte %zu", valid);
	size_t values;
	int depth = nesting_depth(r->body.data, r->body.len, &values);
	if (depth > limits->json_depth)
		return request_fail(r, REASON_BAD_JSON, "found nesting of depth %d, expected at most %d", depth,
				    limits->json_depth);
	if (values > MAX_VALUES)
		return request_fail(r, REASON_BAD_JSON, "found %zu values, expected at most %d", values, MAX_VALUES);
	json_error_t je;
	json_t *root = json_loadb((const char *)r->body.data, r->body.len, JSON_REJECT_DUPLICATES, &je);
	if (!root && json_error_code(&je) == json_error_duplicate_key)
		return request_fail(r, REASON_DUPLICATE_FIELD, "line %d, column %d: a key is given twice", je.line,
				    je.column);
	if (!root) /* je.text may quote the whole body's neighbourhood: position is enough */
		return request_fail(r, REASON_BAD_JSON, "line %d, column %d: not valid JSON", je.line, je.column);
	reason why = REASON_OK;
	if (!json_is_object(root))
		why = request_fail(r, REASON_BAD_JSON,
				   "found something else than an object, expected {\"image\": …, \"text\": …}");
	const char *key;
	json_t *value;
	if (why == REASON_OK)
		json_object_foreach(root, key, value)
		{
			why = set_field(r, key, value, limits);
			if (why != REASON_OK)
				break;
		}
	json_decref(root);
	return why == REASON_OK ? fields_check(r) : why;
}
