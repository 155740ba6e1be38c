/* dataset.c: see dataset.h. The file is read whole (a few megabytes: pixels are elsewhere), hashed, and parsed by line. */
#include "prune/dataset.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json_text.h"

typedef struct reader {
	const label_spec *labels;
	int num_labels;
	unsigned needs;
	const char *path;
	size_t line;
} reader;

/* A name that stays inside the split: relative, no "..", no empty or "." parts, no backslash (a path on other systems). */
static bool name_is_inside(const char *name)
{
	if (!*name || *name == '/' || strchr(name, '\\') || strlen(name) >= PATH_MAX / 2)
		return false;
	for (const char *p = name; *p;) {
		size_t n = strcspn(p, "/");
		if (n == 0 || (n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.'))
			return false;
		p += n;
		if (*p == '/' && !*++p)
			return false; /* ends in a slash: a directory */
	}
	return true;
}

/* Copies a string column; absent or null is "" unless required. */
static wn_code take_string(const reader *r, const json_t *row, const char *key, bool required, char **out, wn_error *err)
{
	const json_t *v = json_object_get(row, key);
	if (!v || json_is_null(v)) {
		if (required)
			return wn_fail(err, WN_INVALID, "%s:%zu: \"%s\" is missing, expected a string", r->path, r->line, key);
		v = NULL;
	} else if (!json_is_string(v)) {
		return wn_fail(err, WN_INVALID, "%s:%zu: \"%s\" is not a string", r->path, r->line, key);
	}
	*out = strdup(v ? json_string_value(v) : "");
	return *out ? WN_OK : wn_fail(err, WN_NOMEM, "%s:%zu: no memory", r->path, r->line);
}

static wn_code take_label(const reader *r, const json_t *row, int *out, wn_error *err)
{
	*out = -1;
	if (!r->labels)
		return WN_OK;
	const json_t *v = json_object_get(row, "label");
	bool required = r->needs & DATASET_NEEDS_LABEL;
	if (!v || json_is_null(v)) {
		if (required)
			return wn_fail(err, WN_INVALID, "%s:%zu: \"label\" is missing, expected a label's name", r->path, r->line);
		return WN_OK;
	}
	if (!json_is_string(v))
		return wn_fail(err, WN_INVALID, "%s:%zu: \"label\" is not a string", r->path, r->line);
	for (int i = 0; i < r->num_labels; i++)
		if (!strcmp(r->labels[i].name, json_string_value(v)))
			*out = i;
	if (*out >= 0 || !required)
		return WN_OK;
	char known[300] = "";
	for (int i = 0; i < r->num_labels; i++) {
		size_t used = strlen(known);
		snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", r->labels[i].name);
	}
	return wn_fail(err, WN_INVALID, "%s:%zu: unknown label \"%.60s\", expected one of: %s", r->path, r->line,
		       json_string_value(v), known);
}

static wn_code parse_line(const reader *r, const char *line, size_t len, sample *s, wn_error *err)
{
	json_error_t je;
	json_t *row = json_read(line, len, JSON_REJECT_DUPLICATES, &je);
	if (!row)
		return wn_fail(err, json_read_code(&je), "%s:%zu: not a JSON object: %s", r->path, r->line, je.text);
	wn_code rc = WN_OK;
	if (!json_is_object(row))
		rc = wn_fail(err, WN_INVALID, "%s:%zu: expected one JSON object a line", r->path, r->line);
	if (!rc)
		rc = take_string(r, row, "file_name", true, &s->file_name, err);
	if (!rc && !name_is_inside(s->file_name))
		rc = wn_fail(err, WN_INVALID, "%s:%zu: file_name \"%.100s\" is not a relative path inside the split", r->path,
			     r->line, s->file_name);
	if (!rc)
		rc = take_string(r, row, "text", r->needs & DATASET_NEEDS_LABEL, &s->text, err);
	if (!rc)
		rc = take_string(r, row, "assist", false, &s->assist, err);
	if (!rc)
		rc = take_string(r, row, "caption", r->needs & DATASET_NEEDS_CAPTION, &s->caption, err);
	if (!rc && (r->needs & DATASET_NEEDS_CAPTION) && !*s->caption)
		rc = wn_fail(err, WN_INVALID, "%s:%zu: \"caption\" is empty", r->path, r->line);
	if (!rc)
		rc = take_label(r, row, &s->label, err);
	json_decref(row);
	return rc;
}

static bool is_blank(const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (s[i] != ' ' && s[i] != '\t' && s[i] != '\r')
			return false;
	return true;
}

static wn_code parse_all(dataset *d, reader *r, const char *text, size_t len, size_t limit, wn_error *err)
{
	size_t lines = 1;
	for (size_t i = 0; i < len; i++)
		lines += text[i] == '\n';
	size_t max = limit && limit < lines ? limit : lines;
	if (max > DATASET_MAX_SAMPLES)
		return wn_fail(err, WN_TOO_LARGE, "%s: %zu lines, expected at most %zu", r->path, lines, DATASET_MAX_SAMPLES);
	d->samples = calloc(max, sizeof *d->samples);
	if (!d->samples)
		return wn_fail(err, WN_NOMEM, "%s: no memory for %zu samples", r->path, max);
	for (const char *p = text, *end = text + len; p < end && d->count < max;) {
		const char *nl = memchr(p, '\n', (size_t)(end - p));
		size_t n = (size_t)((nl ? nl : end) - p);
		r->line++;
		if (!is_blank(p, n)) {
			wn_code rc = parse_line(r, p, n, &d->samples[d->count++], err);
			if (rc)
				return rc;
		}
		p += n + (nl ? 1 : 0);
	}
	return d->count ? WN_OK : wn_fail(err, WN_INVALID, "%s: holds no samples", r->path);
}

wn_code dataset_read(dataset *out, const char *dir, const char *split, const label_spec *labels, int num_labels,
		     unsigned needs, size_t limit, wn_error *err)
{
	*out = (dataset){0};
	char *text = NULL, *path = NULL;
	size_t len = 0;
	wn_code rc = WN_OK;
	if (asprintf(&out->dir, "%s/%s", dir, split) < 0)
		out->dir = NULL;
	if (!out->dir || asprintf(&path, "%s/metadata.jsonl", out->dir) < 0) {
		path = NULL;
		rc = wn_fail(err, WN_NOMEM, "no memory for a path");
	}
	if (!rc)
		rc = file_read(path, DATASET_MAX_BYTES, &text, &len, err);
	if (!rc) {
		digest_memory(out->digest, text, len);
		reader r = {labels, num_labels, needs, path, 0};
		rc = parse_all(out, &r, text, len, limit, err);
	}
	free(text);
	free(path);
	if (rc)
		dataset_close(out);
	return rc;
}

void dataset_close(dataset *d)
{
	for (size_t i = 0; i < d->count; i++) {
		free(d->samples[i].file_name);
		free(d->samples[i].text);
		free(d->samples[i].assist);
		free(d->samples[i].caption);
	}
	free(d->samples);
	free(d->dir);
	*d = (dataset){0};
}

wn_code dataset_image_path(const dataset *d, size_t i, char *buf, size_t size, wn_error *err)
{
	int n = snprintf(buf, size, "%s/%s", d->dir, d->samples[i].file_name);
	if (n < 0 || (size_t)n >= size)
		return wn_fail(err, WN_TOO_LARGE, "%s: path longer than %zu bytes", d->samples[i].file_name, size);
	return WN_OK;
}
