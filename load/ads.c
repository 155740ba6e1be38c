/* ads.c: see ads.h. */
#include "load/ads.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <nettle/base64.h>

#include "base/file.h"
#include "base/json_text.h"

typedef struct reader {
	char path[PATH_MAX]; /* of the metadata */
	size_t dir_len;      /* of path: up to its last slash, included */
	size_t line;
} reader;

/* Relative, without empty, "." or ".." parts. */
static bool name_is_inside(const char *name)
{
	if (!*name || *name == '/' || strchr(name, '\\'))
		return false;
	for (const char *p = name; *p;) {
		const size_t n = strcspn(p, "/");
		if (n == 0 || (n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.'))
			return false;
		p += n;
		if (*p == '/' && !*++p)
			return false;
	}
	return true;
}

/* A copy of a string member; NULL when it is absent or null. */
static wn_code take_string(const reader *r, const json_t *row, const char *key, char **out, wn_error *err)
{
	const json_t *v = json_object_get(row, key);
	*out = NULL;
	if (!v || json_is_null(v))
		return WN_OK;
	if (!json_is_string(v))
		return wn_fail(err, WN_INVALID, "%s:%zu: \"%s\" is not a string", r->path, r->line, key);
	*out = strdup(json_string_value(v));
	return *out ? WN_OK : wn_fail(err, WN_NOMEM, "%s:%zu: no memory", r->path, r->line);
}

static wn_code decode_image(const reader *r, ad *a, const char *text, wn_error *err)
{
	const size_t len = strlen(text);
	struct base64_decode_ctx ctx;
	size_t n = BASE64_DECODE_LENGTH(len);
	base64_decode_init(&ctx);
	a->image = malloc(n + 1);
	if (!a->image)
		return wn_fail(err, WN_NOMEM, "%s:%zu: no memory", r->path, r->line);
	if (!base64_decode_update(&ctx, &n, a->image, len, text) || !base64_decode_final(&ctx) || n == 0)
		return wn_fail(err, WN_INVALID, "%s:%zu: \"image\" is not base64", r->path, r->line);
	a->image_len = n;
	return WN_OK;
}

static wn_code read_image(const reader *r, ad *a, const char *name, wn_error *err)
{
	char path[PATH_MAX], *data;
	if (!name_is_inside(name))
		return wn_fail(err, WN_INVALID, "%s:%zu: file_name \"%.100s\" is not a relative path inside the folder",
			       r->path, r->line, name);
	const int n = snprintf(path, sizeof path, "%.*s%s", (int)r->dir_len, r->path, name);
	if (n < 0 || (size_t)n >= sizeof path)
		return wn_fail(err, WN_TOO_LARGE, "%s:%zu: the path is too long", r->path, r->line);
	wn_code code = file_read(path, ADS_MAX_IMAGE, &data, &a->image_len, err);
	if (code != WN_OK)
		return wn_fail_prefix(err, "%s:%zu", r->path, r->line);
	a->image = (unsigned char *)data;
	return a->image_len ? WN_OK : wn_fail(err, WN_INVALID, "%s:%zu: %s is empty", r->path, r->line, path);
}

static wn_code take_image(const reader *r, const json_t *row, ad *a, wn_error *err)
{
	const char *name = json_string_value(json_object_get(row, "file_name"));
	const char *image = json_string_value(json_object_get(row, "image"));
	if (!name && !image)
		return wn_fail(err, WN_INVALID,
			       "%s:%zu: found neither \"file_name\" nor \"image\", expected one of them", r->path,
			       r->line);
	const char *slash = name ? strrchr(name, '/') : NULL;
	a->name = strdup(slash ? slash + 1 : name ? name : "image");
	if (!a->name)
		return wn_fail(err, WN_NOMEM, "%s:%zu: no memory", r->path, r->line);
	return name ? read_image(r, a, name, err) : decode_image(r, a, image, err);
}

static wn_code parse_line(const reader *r, const char *line, size_t len, ad *a, wn_error *err)
{
	json_error_t je;
	json_t *row = json_read(line, len, JSON_REJECT_DUPLICATES, &je);
	wn_code code = WN_OK;
	if (!json_is_object(row))
		code = wn_fail(err, row ? WN_INVALID : json_read_code(&je), "%s:%zu: expected one JSON object a line%s%s", r->path, r->line,
			       row ? "" : ": ", row ? "" : je.text);
	if (code == WN_OK)
		code = take_string(r, row, "text", &a->text, err);
	if (code == WN_OK && !a->text && !(a->text = strdup("")))
		code = wn_fail(err, WN_NOMEM, "%s:%zu: no memory", r->path, r->line);
	if (code == WN_OK)
		code = take_string(r, row, "assist", &a->assist, err);
	if (code == WN_OK)
		code = take_string(r, row, "label", &a->label, err);
	if (code == WN_OK)
		code = take_image(r, row, a, err);
	json_decref(row);
	return code;
}

static wn_code parse_all(ads *out, reader *r, const char *text, size_t len, size_t limit, wn_error *err)
{
	size_t lines = 1;
	for (size_t i = 0; i < len; i++)
		lines += text[i] == '\n';
	const size_t max = limit && limit < lines ? limit : lines;
	out->items = calloc(max, sizeof *out->items);
	if (!out->items)
		return wn_fail(err, WN_NOMEM, "%s: no memory for %zu ads", r->path, max);
	for (const char *p = text, *end = text + len; p < end && out->count < max;) {
		const char *nl = memchr(p, '\n', (size_t)(end - p));
		const size_t n = (size_t)((nl ? nl : end) - p);
		size_t blanks = 0;
		while (blanks < n && strchr(" \t\r", p[blanks]))
			blanks++;
		r->line++;
		if (blanks < n) {
			ad *a = &out->items[out->count++];
			wn_code code = parse_line(r, p, n, a, err);
			if (code != WN_OK)
				return code;
			out->labelled += a->label != NULL;
			out->bytes += a->image_len;
			if (out->bytes > ADS_MAX_BYTES)
				return wn_fail(err, WN_TOO_LARGE,
					       "%s:%zu: more than %zu bytes of images, expected fewer ads (--limit)",
					       r->path, r->line, ADS_MAX_BYTES);
		}
		p += n + (nl != NULL);
	}
	return out->count ? WN_OK : wn_fail(err, WN_INVALID, "%s: holds no ads", r->path);
}

/* A folder's metadata.jsonl, or the file itself. A folder of splits is an easy mistake: it is told which one to take.
 */
static wn_code find_metadata(reader *r, const char *path, wn_error *err)
{
	struct stat st;
	const bool is_dir = stat(path, &st) == 0 && S_ISDIR(st.st_mode);
	int n = snprintf(r->path, sizeof r->path, is_dir ? "%s/metadata.jsonl" : "%s", path);
	if (n < 0 || (size_t)n >= sizeof r->path - 20)
		return wn_fail(err, WN_TOO_LARGE, "%.100s…: the path is too long", path);
	if (is_dir && stat(r->path, &st) != 0) {
		char split[PATH_MAX + 32];
		snprintf(split, sizeof split, "%s/test/metadata.jsonl", path);
		if (stat(split, &st) == 0)
			return wn_fail(err, WN_NOT_FOUND,
				       "%s: no metadata.jsonl in it, but in its test/: expected --ads %s/test", path,
				       path);
		return wn_fail(err, WN_NOT_FOUND, "%s: no metadata.jsonl in it, expected the imagefolder layout", path);
	}
	const char *slash = strrchr(r->path, '/');
	r->dir_len = slash ? (size_t)(slash - r->path) + 1 : 0;
	return WN_OK;
}

wn_code ads_read(ads *out, const char *path, size_t limit, wn_error *err)
{
	reader r = {0};
	char *text = NULL;
	size_t len = 0;
	*out = (ads){0};
	wn_code code = find_metadata(&r, path, err);
	if (code == WN_OK)
		code = file_read(r.path, ADS_MAX_METADATA, &text, &len, err);
	if (code == WN_OK)
		code = parse_all(out, &r, text, len, limit, err);
	free(text);
	if (code != WN_OK)
		ads_close(out);
	return code;
}

void ads_close(ads *a)
{
	for (size_t i = 0; i < a->count; i++) {
		ad *x = &a->items[i];
		free(x->name);
		free(x->text);
		free(x->assist);
		free(x->label);
		free(x->image);
	}
	free(a->items);
	*a = (ads){0};
}
