/* answer.c: see answer.h. jansson bounds the depth of its own recursion; the body is bounded by RESPONSE_KEPT. */
#include "load/answer.h"

#include <stdio.h>
#include <string.h>

#include "base/json_text.h"

bool answer_label(const char *body, size_t len, char *out, size_t size)
{
	json_t *root = json_read(body, len, 0, NULL);
	const char *label = json_string_value(json_object_get(root, "label"));
	const bool fits = label && strlen(label) < size;
	if (fits)
		memcpy(out, label, strlen(label) + 1);
	json_decref(root);
	return fits;
}

static void copy_printable(const char *text, size_t len, char *out, size_t size)
{
	size_t n = 0;
	for (; n < len && n + 1 < size; n++)
		out[n] = text[n] >= ' ' && text[n] < 0x7f ? text[n] : '?';
	out[n] = 0;
}

bool answer_model(const char *body, size_t len, char *out, size_t size)
{
	json_t *root = len ? json_read(body, len, 0, NULL) : NULL;
	const json_t *model = json_object_get(root, "model");
	const json_t *from = json_is_object(model) ? model : root;
	const char *name = json_string_value(json_object_get(from, "name"));
	const char *version = json_string_value(json_object_get(from, "version"));
	const bool fits = name && version && strlen(name) + 1 + strlen(version) < size;
	if (fits) {
		copy_printable(name, strlen(name), out, size);
		strcat(out, "/");
		copy_printable(version, strlen(version), out + strlen(out), size - strlen(out));
	}
	json_decref(root);
	return fits;
}

void answer_reason(const char *body, size_t len, char *out, size_t size)
{
	/* body may be NULL when it is empty */
	json_t *root = len && *body == '{' ? json_read(body, len, 0, NULL) : NULL;
	const char *text = json_string_value(json_object_get(root, "detail"));
	if (!text)
		text = json_string_value(json_object_get(root, "error"));
	if (text)
		copy_printable(text, strlen(text), out, size);
	else
		copy_printable(body, len, out, size);
	json_decref(root);
}
