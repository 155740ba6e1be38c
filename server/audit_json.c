/* audit_json.c: the JSON form of POST /v1/audit: {"image": base64, "text": …, "assist"?, "data_id"?, "model"?}.
 *
 * jansson does the parsing; what it leaves open is closed before it runs: nesting depth (its parser recurses), the number
 * of values (three bytes of body, "{},", become hundreds of bytes of its objects, beyond any budget), UTF-8 (so that
 * broken text is told from broken JSON), duplicate keys. The image, nearly all of the body, is not shown to it: its base64
 * (RFC 4648 section 4 with padding and nothing else) is decoded from where it was received, without the copies that jansson would
 * make of it beside every budget. */
#include <string.h>

#include <nettle/base64.h>

#include "base/json_text.h"
#include "model/pretokenize.h"
#include "server/fields.h"

#define MAX_VALUES 64 /* five fields are known; the rest is room for a helpful message about one that is not */

/* A body as seen before it is parsed; of malformed JSON it may say anything, which is refused later. */
typedef struct outline {
	int depth;       /* the deepest nesting of brackets outside strings */
	size_t values;   /* at least the number that the parser can make of it, itself included */
	size_t from, to; /* the content of the image's string, when it stands for itself; 0, 0: there is none */
} outline;

typedef struct string {
	size_t from, to; /* its content */
	bool is_plain;   /* without escapes and without what JSON forbids: its bytes are its value */
} string;

/* The string whose opening quote is at s[at]; one without an end ends with s, and is not plain. */
static string scan_string(const unsigned char *s, size_t len, size_t at)
{
	string found = {.from = at + 1, .is_plain = true};
	size_t i = at + 1;
	for (; i < len && s[i] != '"'; i++) {
		found.is_plain &= s[i] >= ' ' && s[i] != '\\';
		if (s[i] == '\\')
			i++;
	}
	found.to = i < len ? i : len;
	found.is_plain &= i < len;
	return found;
}

static bool is_image_key(const unsigned char *s, const string *key)
{
	static const char IMAGE[] = "image";
	return key->to - key->from == sizeof IMAGE - 1 && memcmp(s + key->from, IMAGE, sizeof IMAGE - 1) == 0;
}

static outline outline_of(const unsigned char *s, size_t len)
{
	enum { ELSEWHERE, BEHIND_KEY, BEHIND_COLON } place = ELSEWHERE; /* of a member of the outermost object named image */
	outline o = {.values = 1};
	int depth = 0;
	for (size_t i = 0; i < len; i++) {
		if (memchr(" \t\r\n", s[i], 4))
			continue;
		if (s[i] == '"') {
			const string found = scan_string(s, len, i);
			if (place == BEHIND_COLON && found.is_plain && o.to == 0) {
				o.from = found.from;
				o.to = found.to;
			}
			place = depth == 1 && is_image_key(s, &found) ? BEHIND_KEY : ELSEWHERE;
			i = found.to;
			continue;
		}
		place = s[i] == ':' && place == BEHIND_KEY ? BEHIND_COLON : ELSEWHERE;
		if (s[i] == '{' || s[i] == '[') {
			depth++;
			o.depth = depth > o.depth ? depth : o.depth;
			o.values++; /* the first inside */
		} else if (s[i] == '}' || s[i] == ']') {
			depth--;
		} else if (s[i] == ',') {
			o.values++;
		}
	}
	return o;
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
			   : request_no_memory(r);
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

static reason set_field(request *r, const outline *o, const char *key, json_t *value, const field_limits *limits)
{
	field f = field_of(key);
	if (f == FIELD_COUNT)
		return request_fail(r, REASON_UNKNOWN_FIELD,
				    "found \"%.40s\", expected image, text, assist, data_id or model", key);
	if (json_is_null(value) && f != FIELD_IMAGE && f != FIELD_TEXT)
		return REASON_OK; /* many clients write absent optional fields so */
	if (!json_is_string(value))
		return request_fail(r, REASON_BAD_FIELD, "%s: expected a string", key);
	if (f == FIELD_IMAGE && o->to > o->from)
		return set_base64_image(r, (const char *)r->body.data + o->from, o->to - o->from, limits);
	if (f == FIELD_IMAGE)
		return set_base64_image(r, json_string_value(value), json_string_length(value), limits);
	return field_set_text(r, f, json_string_value(value), json_string_length(value), limits);
}

/* The body as values, the image's an empty string when the outline has it. NULL: r has been failed. */
static json_t *parse(request *r, const outline *o)
{
	const char *text = (const char *)r->body.data;
	json_error_t je;
	json_t *root = json_read_without(text, r->body.len, o->from, o->to, JSON_REJECT_DUPLICATES, &je);
	if (!root && o->to > o->from && json_read_code(&je) != WN_NOMEM) /* once more, for the place in the whole body */
		root = json_read(text, r->body.len, JSON_REJECT_DUPLICATES, &je);
	if (root)
		return root;
	if (json_read_code(&je) == WN_NOMEM)
		request_no_memory(r);
	else if (json_error_code(&je) == json_error_duplicate_key)
		request_fail(r, REASON_DUPLICATE_FIELD, "line %d, column %d: a key is given twice", je.line, je.column);
	else /* je.text may quote the whole body's neighbourhood: position is enough */
		request_fail(r, REASON_BAD_JSON, "line %d, column %d: not valid JSON", je.line, je.column);
	return NULL;
}

reason fields_parse_json(request *r, const field_limits *limits)
{
	size_t valid = utf8_valid_prefix((const char *)r->body.data, r->body.len);
	if (valid != r->body.len)
		return request_fail(r, REASON_INVALID_UTF8, "the JSON body has invalid UTF-8 at byte %zu", valid);
	const outline o = outline_of(r->body.data, r->body.len);
	if (o.depth > limits->json_depth)
		return request_fail(r, REASON_BAD_JSON, "found nesting of depth %d, expected at most %d", o.depth,
				    limits->json_depth);
	if (o.values > MAX_VALUES)
		return request_fail(r, REASON_BAD_JSON, "found %zu values, expected at most %d", o.values, MAX_VALUES);
	json_t *root = parse(r, &o);
	if (!root)
		return r->outcome;
	reason why = REASON_OK;
	if (!json_is_object(root))
		why = request_fail(r, REASON_BAD_JSON,
				   "found something else than an object, expected {\"image\": …, \"text\": …}");
	const char *key;
	json_t *value;
	if (why == REASON_OK)
		json_object_foreach(root, key, value)
		{
			why = set_field(r, &o, key, value, limits);
			if (why != REASON_OK)
				break;
		}
	json_decref(root);
	return why == REASON_OK ? fields_check(r) : why;
}
