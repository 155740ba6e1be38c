/* fields.c: see fields.h. */
#include "server/fields.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "model/manifest.h"
#include "model/pretokenize.h"
#include "server/multipart.h"
#include "server/registry_disk.h"

static const char *const FIELD_NAMES[FIELD_COUNT] = {"image", "text", "assist", "data_id", "model"};

field field_of(const char *name)
{
	int f = 0;
	while (f < FIELD_COUNT && strcmp(name, FIELD_NAMES[f]) != 0)
		f++;
	return (field)f;
}

/* Media type match: "multipart/form-data" followed by the end, a blank or ';'. */
static bool media_type_is(const char *content_type, const char *type)
{
	size_t n = strlen(type);
	return strncasecmp(content_type, type, n) == 0 && (!content_type[n] || strchr("; \t", content_type[n]));
}

body_kind body_kind_of(const char *content_type)
{
	if (media_type_is(content_type, "multipart/form-data"))
		return BODY_MULTIPART;
	if (media_type_is(content_type, "application/json"))
		return BODY_JSON;
	return BODY_NONE;
}

static reason set_data_id(request *r, const char *data, size_t len)
{
	if (len >= sizeof r->data_id)
		return request_fail(r, REASON_BAD_FIELD, "data_id: found %zu bytes, expected at most %zu", len,
				    sizeof r->data_id - 1);
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)data[i] < 0x20 || data[i] == 0x7f)
			return request_fail(r, REASON_BAD_FIELD, "data_id: found a control character");
	memcpy(r->data_id, data, len);
	r->data_id[len] = 0;
	return REASON_OK;
}

/* NAME, or NAME/VERSION. */
static reason set_model(request *r, const char *data, size_t len)
{
	char text[sizeof r->model_name], name[MODEL_NAME_SIZE];
	snprintf(text, sizeof text, "%.*s", len < sizeof text ? (int)len : 0, data);
	size_t n = strcspn(text, "/");
	snprintf(name, sizeof name, "%.*s", n < sizeof name ? (int)n : 0, text);
	if (!manifest_name_is_valid(name) || (text[n] && disk_version_number(text + n + 1) == 0))
		return request_fail(r, REASON_BAD_FIELD, "model: expected [A-Za-z0-9._-]{1,64} without a leading dot");
	memcpy(r->model_name, text, sizeof text);
	return REASON_OK;
}

static reason no_memory(request *r, const wn_error *err)
{
	if (err->code == WN_TOO_LARGE)
		return request_fail(r, REASON_BODY_BUDGET, "%s; try again shortly", err->message);
	return request_no_memory(r);
}

reason field_set_text(request *r, field f, const void *data, size_t len, const field_limits *limits)
{
	const char *name = FIELD_NAMES[f];
	size_t valid = utf8_valid_prefix(data, len);
	if (valid != len)
		return request_fail(r, REASON_INVALID_UTF8, "%s: invalid UTF-8 at byte %zu", name, valid);
	if (memchr(data, 0, len))
		return request_fail(r, REASON_BAD_FIELD, "%s: found a NUL character", name);
	if (f == FIELD_DATA_ID)
		return set_data_id(r, data, len);
	if (f == FIELD_MODEL)
		return set_model(r, data, len);
	if (len > limits->max_text)
		return request_fail(r, REASON_TEXT_TOO_LARGE, "%s: found %zu bytes, expected at most %zu", name, len,
				    limits->max_text);
	wn_error err = {0};
	if (bytes_set_string(f == FIELD_TEXT ? &r->text : &r->assist, data, len, &err) != WN_OK)
		return no_memory(r, &err);
	if (f == FIELD_TEXT)
		r->has_text = true;
	return REASON_OK;
}

reason field_set_image(request *r, const unsigned char *data, size_t len, const field_limits *limits)
{
	if (len > limits->max_image)
		return request_fail(r, REASON_IMAGE_TOO_LARGE, "image: found %zu bytes, expected at most %zu", len,
				    limits->max_image);
	if (len == 0)
		return request_fail(r, REASON_MISSING_FIELD, "image: found 0 bytes, expected a JPEG or PNG file");
	r->image = data;
	r->image_len = len;
	return REASON_OK;
}

reason fields_check(request *r)
{
	if (!r->image)
		return request_fail(r, REASON_MISSING_FIELD, "image is missing: send a JPEG or PNG file");
	if (!r->has_text)
		return request_fail(r, REASON_MISSING_FIELD,
				    "text is missing: send the ad's text, \"\" when it has none");
	return REASON_OK;
}

reason fields_parse_multipart(request *r, const field_limits *limits)
{
	char boundary[MULTIPART_BOUNDARY_SIZE];
	multipart_part parts[MULTIPART_MAX_PARTS];
	size_t count;
	wn_error err = {0};
	if (multipart_boundary(boundary, r->content_type, &err) != WN_OK ||
	    multipart_parse(parts, &count, boundary, r->body.data, r->body.len, &err) != WN_OK)
		return request_fail(r, REASON_BAD_MULTIPART, "%s", err.message);
	unsigned seen = 0;
	for (size_t i = 0; i < count; i++) {
		field f = field_of(parts[i].name);
		if (f == FIELD_COUNT)
			return request_fail(r, REASON_UNKNOWN_FIELD,
					    "part %zu: expected image, text, assist, data_id or model", i + 1);
		if (seen & 1u << f)
			return request_fail(r, REASON_DUPLICATE_FIELD, "%s is given twice", FIELD_NAMES[f]);
		seen |= 1u << f;
		reason why = f == FIELD_IMAGE ? field_set_image(r, parts[i].data, parts[i].len, limits)
					      : field_set_text(r, f, parts[i].data, parts[i].len, limits);
		if (why != REASON_OK)
			return why;
	}
	return fields_check(r);
}

reason fields_parse(request *r, const field_limits *limits)
{
	if (r->body.len == 0)
		return request_fail(r, REASON_BAD_REQUEST, "the body is empty");
	switch (body_kind_of(r->content_type)) {
	case BODY_MULTIPART:
		return fields_parse_multipart(r, limits);
	case BODY_JSON:
		return fields_parse_json(r, limits);
	case BODY_NONE:
		break;
	}
	return request_fail(r, REASON_UNSUPPORTED_MEDIA_TYPE, "expected multipart/form-data or application/json");
}
