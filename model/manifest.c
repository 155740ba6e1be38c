/* manifest.c: see manifest.h.
 *
 * Reading and writing share one set of checks: manifest_write parses its own text before it reaches the disk. Stateless; a
 * manifest belongs to its caller (jansson's reference counts are not shared between threads). */
#include "model/manifest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/digest.h"
#include "base/file.h"
#include "base/json_text.h"
#include "base/text.h"
#include "model/json_check.h"
#include "model/shape.h"

#define FORMAT 1
#define MAX_FILE ((size_t)4 << 20)
#define MAX_PROMPT 4096 /* bytes */
#define MAX_TEXT_TOKENS 8192
#define DEFAULT_TEXT_TOKENS 96
#define DEFAULT_THRESHOLD 0.5
#define DEFAULT_REVIEW_THRESHOLD 0.2
#define MAX_LISTED_FILES 4096

#define NAME_CHARS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-"

static const char *const ACTIONS[] = {[ACTION_PASS] = "pass", [ACTION_REVIEW] = "review", [ACTION_BLOCK] = "block"};

const char *action_name(action a)
{
	return ACTIONS[a];
}

static bool plain_name(const char *s, size_t max)
{
	size_t n = strlen(s);
	return n >= 1 && n <= max && s[strspn(s, NAME_CHARS)] == '\0';
}

bool manifest_name_is_valid(const char *name) { return plain_name(name, sizeof((manifest *)0)->name - 1) && name[0] != '.'; }

static bool has_control(const char *s)
{
	for (; *s; s++)
		if ((unsigned char)*s < 0x20 || *s == 0x7f)
			return true;
	return false;
}

static size_t occurrences(const char *s, const char *what)
{
	size_t n = 0;
	for (; (s = strstr(s, what)); s += strlen(what))
		n++;
	return n;
}

/* Braces around a word are a placeholder; anything else between braces is text. */
static wn_code check_placeholders(const char *prompt, wn_error *err)
{
	for (const char *p = prompt; (p = strchr(p, '{')); p++) {
		size_t n = strspn(p + 1, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");
		if (n == 0 || p[1 + n] != '}')
			continue;
		if (strncmp(p, "{text}", 6) != 0 && strncmp(p, "{assist}", 8) != 0)
			return wn_fail(err, WN_INVALID, "prompt: found the placeholder %.*s, expected {text} and {assist} only",
			               (int)(n < 40 ? n + 2 : 42), p);
	}
	size_t text = occurrences(prompt, "{text}"), assist = occurrences(prompt, "{assist}");
	if (text != 1)
		return wn_fail(err, WN_INVALID, "prompt: found {text} %zu times, expected once", text);
	if (assist > 1)
		return wn_fail(err, WN_INVALID, "prompt: found {assist} %zu times, expected at most once", assist);
	return WN_OK;
}

static wn_code parse_share(double *out, const json_t *label, const char *where, const char *key, double fallback,
                           wn_error *err)
{
	const json_t *v = json_object_get(label, key);
	*out = v ? json_number_value(v) : fallback;
	if (v && (!json_is_number(v) || !(*out >= 0 && *out <= 1)))
		return json_bad(err, where, key, v, "a probability from 0 to 1");
	return WN_OK;
}

static wn_code parse_label(label_spec *out, const json_t *v, int index, wn_error *err)
{
	static const char *const known[] = {"name", "verbalizer", "action", "threshold", "review_threshold", NULL};
	char where[32];
	wn_code rc;
	snprintf(where, sizeof where, "labels[%d]", index);
	if (!json_is_object(v))
		return json_bad(err, where, "", v, "an object");
	strcat(where, ".");
	if ((rc = json_check_keys(v, where, known, err)) != WN_OK)
		return rc;
	const json_t *name = json_object_get(v, "name"), *verbalizer = json_object_get(v, "verbalizer"),
	             *act = json_object_get(v, "action");
	if (!json_is_string(name) || !plain_name(json_string_value(name), sizeof out->name - 1))
		return json_bad(err, where, "name", name, "1 to 63 of A-Z a-z 0-9 _ . -");
	strcpy(out->name, json_string_value(name));
	if (!json_is_string(verbalizer) || json_string_length(verbalizer) == 0 ||
	    json_string_length(verbalizer) >= sizeof out->verbalizer || has_control(json_string_value(verbalizer)))
		return json_bad(err, where, "verbalizer", verbalizer, "a text of 1 to 127 bytes without control characters");
	strcpy(out->verbalizer, json_string_value(verbalizer));
	size_t a = 0;
	while (json_is_string(act) && a < 3 && strcmp(json_string_value(act), ACTIONS[a]) != 0)
		a++;
	if (!json_is_string(act) || a == 3)
		return json_bad(err, where, "action", act, "\"pass\", \"review\" or \"block\"");
	out->action = (action)a;
	if ((rc = parse_share(&out->threshold, v, where, "threshold", DEFAULT_THRESHOLD, err)) == WN_OK)
		rc = parse_share(&out->review_threshold, v, where, "review_threshold", DEFAULT_REVIEW_THRESHOLD, err);
	return rc;
}

static wn_code parse_labels(manifest *m, const json_t *labels, wn_error *err)
{
	if (!json_is_array(labels) || json_array_size(labels) < 2 || json_array_size(labels) > MAX_LABELS)
		return json_bad(err, "", "labels", labels, "an array of 2 to 64 labels");
	m->num_labels = (int)json_array_size(labels);
	for (int i = 0; i < m->num_labels; i++) {
		wn_code rc = parse_label(&m->labels[i], json_array_get(labels, (size_t)i), i, err);
		if (rc != WN_OK)
			return rc;
		for (int k = 0; k < i; k++) {
			bool same_name = strcmp(m->labels[k].name, m->labels[i].name) == 0;
			if (same_name || strcmp(m->labels[k].verbalizer, m->labels[i].verbalizer) == 0)
				return wn_fail(err, WN_INVALID, "labels[%d].%s: found \"%s\", expected another one than labels[%d] has", i,
				               same_name ? "name" : "verbalizer",
				               same_name ? m->labels[i].name : m->labels[i].verbalizer, k);
		}
	}
	return WN_OK;
}

/* A key of m->files becomes a path under the model directory: plain names only, none of them hidden. */
static wn_code check_files(const json_t *files, wn_error *err)
{
	const char *key;
	json_t *v;
	if (!json_is_object(files) || json_object_size(files) > MAX_LISTED_FILES)
		return json_bad(err, "", "files", files, "an object of at most 4096 digests");
	json_object_foreach((json_t *)files, key, v)
	{
		size_t n = strlen(key);
		if (n == 0 || n > 255 || key[0] == '.' || strchr(key, '/') || has_control(key) || strcmp(key, "winnow.json") == 0)
			return wn_fail(err, WN_INVALID, "files: found the name \"%.80s\", expected a plain file name", key);
		if (!json_is_string(v) || !digest_is_valid(json_string_value(v)))
			return json_bad(err, "files.", key, v, "\"sha256:\" and 64 hex digits");
	}
	return WN_OK;
}

static wn_code parse_text_fields(manifest *m, const json_t *root, wn_error *err)
{
	const json_t *v = json_object_get(root, "format");
	if (!json_is_integer(v) || json_integer_value(v) != FORMAT) {
		json_bad(err, "", "format", v, "1");
		return json_is_integer(v) ? WN_UNSUPPORTED : WN_INVALID;
	}
	v = json_object_get(root, "name");
	const char *name = json_string_value(v);
	if (!name || !manifest_name_is_valid(name))
		return json_bad(err, "", "name", v, "1 to 64 of A-Z a-z 0-9 _ . -, not starting with a dot");
	strcpy(m->name, name);
	if ((v = json_object_get(root, "prompt"))) {
		if (!json_is_string(v) || json_string_length(v) > MAX_PROMPT)
			return json_bad(err, "", "prompt", v, "a text of at most 4096 bytes");
		wn_code rc = check_placeholders(json_string_value(v), err);
		if (rc != WN_OK)
			return rc;
		if (!(m->prompt = strdup(json_string_value(v))))
			return wn_fail(err, WN_NOMEM, "out of memory");
	}
	m->max_text_tokens = DEFAULT_TEXT_TOKENS;
	if ((v = json_object_get(root, "max_text_tokens"))) {
		if (!json_is_integer(v) || json_integer_value(v) < 1 || json_integer_value(v) > MAX_TEXT_TOKENS)
			return json_bad(err, "", "max_text_tokens", v, "an integer from 1 to 8192");
		m->max_text_tokens = (int)json_integer_value(v);
	}
	v = json_object_get(root, "precision");
	const char *precision = v ? json_string_value(v) : "f32";
	if (!precision || (strcmp(precision, "f32") != 0 && strcmp(precision, "bf16") != 0 && strcmp(precision, "int8") != 0))
		return json_bad(err, "", "precision", v, "\"f32\", \"bf16\" or \"int8\"");
	strcpy(m->precision, precision);
	return WN_OK;
}

/* Sub-documents that stay JSON. */
static wn_code parse_objects(manifest *m, const json_t *root, wn_error *err)
{
	const char *stacks[NUM_COMPONENTS + 1] = {NULL};
	struct {
		const char *key;
		json_t **slot;
		bool object;
	} part[] = {{"widths", &m->widths, true},
	            {"quantization", &m->quantization, true},
	            {"self_test", &m->self_test, true},
	            {"lineage", &m->lineage, false},
	            {"files", &m->files, true}};
	for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
		json_t *v = json_object_get(root, part[i].key);
		if (v && part[i].object && !json_is_object(v))
			return json_bad(err, "", part[i].key, v, "an object");
		*part[i].slot = json_incref(v);
	}
	for (int i = 0; i < NUM_COMPONENTS; i++)
		stacks[i] = shape_stack_name((component)i);
	wn_code rc = m->files ? check_files(m->files, err) : WN_OK;
	if (rc == WN_OK && m->widths)
		rc = json_check_keys(m->widths, "widths.", stacks, err);
	return rc;
}

wn_code manifest_parse(manifest *out, const char *json, size_t len, wn_error *err)
{
	static const char *const known[] = {"format",    "name",   "prompt",       "max_text_tokens", "labels", "widths",
	                                    "precision", "lineage", "quantization", "self_test",       "files",  NULL};
	json_error_t je;
	wn_code rc;
	memset(out, 0, sizeof *out);
	json_t *root = json_read(json, len, JSON_REJECT_DUPLICATES, &je);
	if (!root)
		return wn_fail(err, json_read_code(&je),
		               "line %d column %d: %s", je.line, je.column, je.text);
	if (!json_is_object(root)) {
		rc = wn_fail(err, WN_INVALID, "found an array, expected an object");
		goto out;
	}
	if ((rc = parse_text_fields(out, root, err)) != WN_OK || (rc = json_check_keys(root, "", known, err)) != WN_OK)
		goto out;
	const json_t *labels = json_object_get(root, "labels");
	if (labels && (rc = parse_labels(out, labels, err)) != WN_OK)
		goto out;
	if (labels && !out->prompt) {
		rc = json_bad(err, "", "prompt", NULL, "a text with {text}, because there are labels");
		goto out;
	}
	rc = parse_objects(out, root, err);
out:
	json_decref(root);
	if (rc != WN_OK)
		manifest_close(out);
	return rc;
}

wn_code manifest_read(manifest *out, const char *path, wn_error *err)
{
	char *text;
	size_t len;
	memset(out, 0, sizeof *out);
	wn_code rc = file_read(path, MAX_FILE, &text, &len, err);
	if (rc != WN_OK)
		return rc;
	rc = manifest_parse(out, text, len, err);
	free(text);
	if (rc != WN_OK)
		wn_fail_prefix(err, "%s", path);
	return rc;
}

void manifest_close(manifest *m)
{
	free(m->prompt);
	json_decref(m->lineage);
	json_decref(m->quantization);
	json_decref(m->self_test);
	json_decref(m->widths);
	json_decref(m->files);
	memset(m, 0, sizeof *m);
}

/* ---- widths ---- */

wn_code manifest_apply_widths(const manifest *m, blip2_config *c, wn_error *err)
{
	blip2_config with = *c; /* nothing changes before everything was checked */
	for (int i = 0; i < NUM_COMPONENTS && m->widths; i++) {
		stack_config *s = shape_stack_in(&with, (component)i);
		const char *name = shape_stack_name((component)i);
		const json_t *list = json_object_get(m->widths, name);
		char where[32];
		if (!list)
			continue;
		if (json_is_array(list) && json_array_size(list) != (size_t)s->num_hidden_layers)
			return wn_fail(err, WN_INVALID, "widths.%s: found %zu blocks, expected config.json's num_hidden_layers %d", name,
			               json_array_size(list), s->num_hidden_layers);
		snprintf(where, sizeof where, "widths.%s", name);
		wn_code rc = shape_blocks_parse(s->blocks, list, (component)i, where, err);
		if (rc != WN_OK)
			return rc;
	}
	*c = with;
	return WN_OK;
}

wn_code manifest_set_widths(manifest *m, const blip2_config *c, wn_error *err)
{
	json_t *widths = NULL;
	if (!hf_config_is_uniform(c)) {
		int failed = !(widths = json_object());
		for (int i = 0; i < NUM_COMPONENTS && !failed; i++)
			failed = json_object_set_new(widths, shape_stack_name((component)i), shape_blocks_json(shape_stack(c, (component)i)));
		if (failed) {
			json_decref(widths);
			return wn_fail(err, WN_NOMEM, "out of memory for the widths");
		}
	}
	json_decref(m->widths);
	m->widths = widths;
	return WN_OK;
}

/* ---- digests ---- */

static int by_string(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Sorted names of the directory's regular files, malloc'ed; hidden ones and winnow.json left out. */
static wn_code list_files(char ***names, size_t *count, const char *dir, wn_error *err)
{
	wn_code rc = WN_OK;
	struct dirent *e;
	struct stat st;
	*names = NULL;
	*count = 0;
	DIR *d = opendir(dir);
	if (!d)
		return wn_fail(err, errno == ENOENT ? WN_NOT_FOUND : WN_IO, "%s: cannot open the directory: %s", dir,
		               strerror(errno));
	while (errno = 0, (e = readdir(d))) {
		if (e->d_name[0] == '.' || strcmp(e->d_name, "winnow.json") == 0)
			continue;
		if (fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode))
			continue;
		if (*count == MAX_LISTED_FILES) {
			rc = wn_fail(err, WN_TOO_LARGE, "%s: found more than %d files", dir, MAX_LISTED_FILES);
			goto out;
		}
		char **grown = realloc(*names, (*count + 1) * sizeof **names);
		if (grown)
			*names = grown;
		if (!grown || !((*names)[*count] = strdup(e->d_name))) {
			rc = wn_fail(err, WN_NOMEM, "%s: out of memory", dir);
			goto out;
		}
		++*count;
	}
	if (errno != 0)
		rc = wn_fail(err, WN_IO, "%s: cannot read the directory: %s", dir, strerror(errno));
	else if (*count > 0)
		qsort(*names, *count, sizeof **names, by_string);
out:
	closedir(d);
	return rc;
}

wn_code manifest_digest_files(manifest *m, const char *dir, wn_error *err)
{
	char **names, *path = NULL, digest[DIGEST_SIZE];
	size_t count;
	json_t *files = json_object();
	wn_code rc = list_files(&names, &count, dir, err);
	if (rc == WN_OK && !files)
		rc = wn_fail(err, WN_NOMEM, "%s: out of memory", dir);
	for (size_t i = 0; rc == WN_OK && i < count; i++) {
		free(path);
		if (asprintf(&path, "%s/%s", dir, names[i]) < 0) {
			path = NULL;
			rc = wn_fail(err, WN_NOMEM, "%s: out of memory", dir);
		} else if ((rc = digest_file(digest, path, err)) == WN_OK &&
		           json_object_set_new(files, names[i], json_string(digest)) != 0) {
			rc = wn_fail(err, WN_INVALID, "%s: the name is not UTF-8", path);
		}
	}
	if (rc == WN_OK) {
		json_decref(m->files);
		m->files = json_incref(files);
	}
	json_decref(files);
	free(path);
	for (size_t i = 0; i < count; i++)
		free(names[i]);
	free(names);
	return rc;
}

static wn_code verify_one(const char *path, const char *expected, wn_error *err)
{
	char found[DIGEST_SIZE];
	struct stat st;
	if (lstat(path, &st) != 0)
		return wn_fail(err, errno == ENOENT ? WN_INVALID : WN_IO, "%s: %s, expected %s", path,
		               errno == ENOENT ? "found no such file" : strerror(errno), expected);
	if (!S_ISREG(st.st_mode))
		return wn_fail(err, WN_INVALID, "%s: found a %s, expected a regular file", path,
		               S_ISLNK(st.st_mode) ? "symbolic link" : S_ISDIR(st.st_mode) ? "directory" : "special file");
	wn_code rc = digest_file(found, path, err);
	if (rc == WN_OK && strcmp(found, expected) != 0)
		rc = wn_fail(err, WN_INVALID, "%s: found %s, expected %s", path, found, expected);
	return rc;
}

/* Whatever kind of file it is: it would be read without having been hashed. */
static wn_code check_all_named(const manifest *m, const char *dir, wn_error *err)
{
	wn_code rc = WN_OK;
	DIR *d = opendir(dir);
	if (!d)
		return wn_fail(err, WN_IO, "%s: cannot open the directory: %s", dir, strerror(errno));
	for (struct dirent *e; rc == WN_OK && (errno = 0, e = readdir(d));)
		if (e->d_name[0] != '.' && strcmp(e->d_name, "winnow.json") != 0 && !json_object_get(m->files, e->d_name) &&
		    (text_ends_with(e->d_name, ".json") || text_ends_with(e->d_name, ".safetensors")))
			rc = wn_fail(err, WN_INVALID, "%s/%s: found a file that winnow.json does not name, expected none", dir, e->d_name);
	if (rc == WN_OK && errno != 0)
		rc = wn_fail(err, WN_IO, "%s: cannot read the directory: %s", dir, strerror(errno));
	closedir(d);
	return rc;
}

wn_code manifest_verify(const manifest *m, const char *dir, wn_error *err)
{
	const char *name;
	json_t *v;
	if (!m->files)
		return WN_OK;
	json_object_foreach(m->files, name, v)
	{
		char *path;
		if (asprintf(&path, "%s/%s", dir, name) < 0)
			return wn_fail(err, WN_NOMEM, "%s: out of memory", dir);
		wn_code rc = verify_one(path, json_string_value(v), err);
		free(path);
		if (rc != WN_OK)
			return rc;
	}
	return check_all_named(m, dir, err);
}

/* ---- writing ---- */

static json_t *labels_json(const manifest *m)
{
	json_t *list = json_array();
	for (int i = 0; list && i < m->num_labels; i++) {
		const label_spec *l = &m->labels[i];
		json_t *v = json_pack("{s:s, s:s, s:s, s:f, s:f}", "name", l->name, "verbalizer", l->verbalizer, "action",
		                      action_name(l->action), "threshold", l->threshold, "review_threshold", l->review_threshold);
		if (json_array_append_new(list, v) != 0) {
			json_decref(list);
			list = NULL;
		}
	}
	return list;
}

static json_t *manifest_json(const manifest *m)
{
	json_t *root = json_pack("{s:i, s:s}", "format", FORMAT, "name", m->name);
	int rc = root ? 0 : -1;
	if (m->prompt && *m->prompt)
		rc |= json_object_set_new(root, "prompt", json_string(m->prompt));
	if (m->max_text_tokens)
		rc |= json_object_set_new(root, "max_text_tokens", json_integer(m->max_text_tokens));
	if (m->num_labels > 0)
		rc |= json_object_set_new(root, "labels", labels_json(m));
	rc |= json_object_set_new(root, "precision", json_string(*m->precision ? m->precision : "f32"));
	if (m->widths)
		rc |= json_object_set(root, "widths", m->widths);
	if (m->quantization)
		rc |= json_object_set(root, "quantization", m->quantization);
	if (m->self_test)
		rc |= json_object_set(root, "self_test", m->self_test);
	if (m->lineage)
		rc |= json_object_set(root, "lineage", m->lineage);
	if (m->files)
		rc |= json_object_set(root, "files", m->files);
	if (rc == 0)
		return root;
	json_decref(root);
	return NULL;
}

/* *text: the file's content, the caller's, as manifest_parse takes it. */
static wn_code make_text(char **text, const manifest *m, wn_error *err)
{
	char *body = NULL;
	manifest check = {0};
	wn_code rc = WN_OK;
	json_t *root = NULL;
	*text = NULL;
	if (m->num_labels < 0 || m->num_labels > MAX_LABELS)
		return wn_fail(err, WN_INVALID, "found %d labels, expected at most %d", m->num_labels, MAX_LABELS);
	if (!(root = manifest_json(m)))
		return wn_fail(err, WN_INVALID, "a text in it is not UTF-8, or out of memory");
	body = json_write(root, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
	json_decref(root);
	if (!body || asprintf(text, "%s\n", body) < 0) {
		*text = NULL;
		rc = wn_fail(err, WN_NOMEM, "out of memory");
	}
	free(body);
	if (rc == WN_OK && (rc = manifest_parse(&check, *text, strlen(*text), err)) != WN_OK) {
		free(*text);
		*text = NULL;
	}
	manifest_close(&check);
	return rc;
}

wn_code manifest_check(const manifest *m, wn_error *err)
{
	char *text;
	wn_code rc = make_text(&text, m, err);
	free(text);
	return rc;
}

wn_code manifest_write(const manifest *m, const char *path, wn_error *err)
{
	char *text;
	wn_code rc = make_text(&text, m, err);
	if (rc != WN_OK)
		wn_fail_prefix(err, "%s", path);
	else
		rc = file_write_atomic(path, text, strlen(text), err);
	free(text);
	return rc;
}
