/* yaml_config.c: see yaml_config.h.
 *
 * libyaml's event parser, one event at a time: the recursion follows the sections of the table, so that nothing a file
 * holds is kept unless the table knows it, and a bad file is refused at its first bad line. */
#include "base/yaml_config.h"

#include <stdlib.h>
#include <string.h>

#include <yaml.h>

#include "base/config_value.h"
#include "base/file.h"

#define MAX_PATH_LEN 200
#define LIST_ALONE   "a list of strings: [a, b]"

typedef struct reader {
	const config_schema *schema;
	void *cfg;
	const char *name; /* of the file, or of the key, for messages */
	bool alone;       /* the text is a list's value, no document */
	wn_error *err;
	yaml_parser_t parser;
	yaml_event_t event; /* the current one; deleted by next() */
	bool has_event;
	unsigned char *seen;          /* [count] key was given */
	unsigned short *seen_section; /* [count] bit d: the section that is the first d parts of this key's path was given */
} reader;

static size_t line(const reader *r)
{
	return r->event.start_mark.line + 1;
}

static wn_code next(reader *r)
{
	if (r->has_event)
		yaml_event_delete(&r->event);
	r->has_event = yaml_parser_parse(&r->parser, &r->event);
	if (r->has_event)
		return WN_OK;
	memset(&r->event, 0, sizeof r->event);
	if (r->parser.error == YAML_MEMORY_ERROR)
		return wn_fail(r->err, WN_NOMEM, "%s: out of memory", r->name);
	if (r->alone && r->parser.error != YAML_READER_ERROR)
		return wn_fail(r->err, WN_INVALID, "%s: found invalid YAML (%s), expected " LIST_ALONE, r->name,
		               r->parser.problem ? r->parser.problem : "unknown problem");
	if (r->parser.error == YAML_READER_ERROR)
		return wn_fail(r->err, WN_INVALID, "%s: byte %zu: found %s, expected UTF-8 text", r->name,
		               r->parser.problem_offset, r->parser.problem);
	return wn_fail(r->err, WN_INVALID, "%s:%zu: found invalid YAML (%s), expected \"key: value\" lines", r->name,
	               r->parser.problem_mark.line + 1, r->parser.problem ? r->parser.problem : "unknown problem");
}

static wn_code fail(const reader *r, const char *path, const char *found, const char *expected)
{
	if (r->alone)
		return wn_fail(r->err, WN_INVALID, "%s: found %s, expected %s", path, found, expected);
	return wn_fail(r->err, WN_INVALID, "%s:%zu: %s%sfound %s, expected %s", r->name, line(r), path, *path ? ": " : "", found,
	               expected);
}

/* What the event is, for "found …". */
static const char *event_kind(const yaml_event_t *e)
{
	return e->type == YAML_MAPPING_START_EVENT ? "a section" : e->type == YAML_SEQUENCE_START_EVENT ? "a list" : "a value";
}

/* Anchors, aliases and tags are what makes small files large and plain values something else. */
static wn_code check_plain(const reader *r, const char *path)
{
	const yaml_event_t *e = &r->event;
	const yaml_char_t *anchor = NULL, *tag = NULL;
	if (e->type == YAML_ALIAS_EVENT)
		return fail(r, path, "an alias (*)", "the value itself");
	if (e->type == YAML_SCALAR_EVENT) {
		anchor = e->data.scalar.anchor;
		tag = e->data.scalar.tag;
	} else if (e->type == YAML_SEQUENCE_START_EVENT) {
		anchor = e->data.sequence_start.anchor;
		tag = e->data.sequence_start.tag;
	} else if (e->type == YAML_MAPPING_START_EVENT) {
		anchor = e->data.mapping_start.anchor;
		tag = e->data.mapping_start.tag;
	}
	if (anchor)
		return fail(r, path, "an anchor (&)", "a plain value");
	if (tag)
		return fail(r, path, "a tag (!)", "a plain value");
	return WN_OK;
}

static const char *scalar_text(const reader *r)
{
	return (const char *)r->event.data.scalar.value;
}

static scalar_style style_of(const reader *r)
{
	return r->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE ? SCALAR_PLAIN : SCALAR_QUOTED;
}

static bool is_null(const reader *r)
{
	return r->event.type == YAML_SCALAR_EVENT && style_of(r) == SCALAR_PLAIN && config_value_is_null(scalar_text(r));
}

/* Index of the key with this path, or -1. */
static int find_key(const config_schema *s, const char *path)
{
	for (size_t i = 0; i < s->count; i++)
		if (s->keys[i].type != CONFIG_TYPE_SECTION && strcmp(s->keys[i].path, path) == 0)
			return (int)i;
	return -1;
}

/* Index of the first key below this path, or -1. "" holds everything. */
static int find_section(const config_schema *s, const char *path)
{
	size_t n = strlen(path);
	for (size_t i = 0; i < s->count; i++)
		if (s->keys[i].type != CONFIG_TYPE_SECTION && strncmp(s->keys[i].path, path, n) == 0 && s->keys[i].path[n] == '.')
			return (int)i;
	return -1;
}

static size_t edit_distance(const char *a, const char *b, size_t len_b)
{
	size_t row[65], len_a = strlen(a);
	if (len_b > 64 || len_a > 64)
		return 64;
	for (size_t j = 0; j <= len_b; j++)
		row[j] = j;
	for (size_t i = 1; i <= len_a; i++) {
		size_t diagonal = row[0];
		row[0] = i;
		for (size_t j = 1; j <= len_b; j++) {
			size_t cost = diagonal + (a[i - 1] != b[j - 1]);
			diagonal = row[j];
			if (diagonal + 1 < cost)
				cost = diagonal + 1;
			if (row[j - 1] + 1 < cost)
				cost = row[j - 1] + 1;
			row[j] = cost;
		}
	}
	return row[len_b];
}

/* What the writer of `written` probably meant: of the keys that begin with prefix, what stands behind it, up to the next dot
 * (part) or whole. NULL: like none of them. */
static const char *nearest_name(const config_schema *s, const char *prefix, const char *written, bool part, size_t *nearest_len)
{
	const size_t prefix_len = strlen(prefix);
	const char *nearest = NULL;
	size_t best = 3;
	for (size_t i = 0; i < s->count; i++) {
		const config_key *k = &s->keys[i];
		if (k->type == CONFIG_TYPE_SECTION || strncmp(k->path, prefix, prefix_len) != 0)
			continue;
		const char *name = k->path + prefix_len;
		size_t len = part ? strcspn(name, ".") : strlen(name), d = edit_distance(written, name, len);
		if (d < best && d < len && d < strlen(written)) {
			best = d;
			nearest = name;
			*nearest_len = len;
		}
	}
	return nearest;
}

/* The key the writer probably meant, else the keys there are. */
static wn_code unknown_key(const reader *r, const char *prefix, const char *key, const char *path)
{
	char expected[256];
	size_t prefix_len = strlen(prefix), n, nearest_len = 0;
	const char *nearest = nearest_name(r->schema, prefix, key, true, &nearest_len);
	n = (size_t)snprintf(expected, sizeof expected, "one of");
	for (size_t i = 0; i < r->schema->count; i++) {
		const config_key *k = &r->schema->keys[i];
		const char *name = k->path + prefix_len;
		if (k->type == CONFIG_TYPE_SECTION || strncmp(k->path, prefix, prefix_len) != 0)
			continue;
		size_t len = strcspn(name, ".");
		/* Keys of one section stand together: naming each section once is a comparison with the line above. */
		if (i > 0 && strncmp(r->schema->keys[i - 1].path, k->path, prefix_len + len + 1) == 0 && name[len] == '.')
			continue;
		if (n < sizeof expected)
			n += (size_t)snprintf(expected + n, sizeof expected - n, "%s%.*s", n > 6 ? ", " : " ", (int)len, name);
	}
	if (nearest)
		snprintf(expected, sizeof expected, "\"%.*s\" perhaps", (int)nearest_len, nearest);
	else if (n >= sizeof expected)
		strcpy(expected + sizeof expected - 5, " …");
	return fail(r, path, "an unknown key", expected);
}

static void free_items(char **items, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(items[i]);
	free(items);
}

/* The current event is the value of k. Leaves the last event of the value current. */
static wn_code read_list(reader *r, const config_key *k)
{
	char expected[64], path[MAX_PATH_LEN + 32];
	char **items = NULL;
	size_t count = 0, room = 0;
	wn_code rc;
	if (r->event.type != YAML_SEQUENCE_START_EVENT) {
		char found[80];
		const char *what = r->event.type == YAML_SCALAR_EVENT
		                       ? config_value_found(k, scalar_text(r), style_of(r), found, sizeof found)
		                       : event_kind(&r->event);
		return fail(r, k->path, what, r->alone ? LIST_ALONE : config_value_expected(k, expected, sizeof expected));
	}
	for (;;) {
		if ((rc = next(r)) != WN_OK)
			goto out;
		if (r->event.type == YAML_SEQUENCE_END_EVENT)
			break;
		snprintf(path, sizeof path, "%s[%zu]", k->path, count);
		if ((rc = check_plain(r, path)) != WN_OK)
			goto out;
		if (r->event.type != YAML_SCALAR_EVENT || is_null(r) ||
		    strlen(scalar_text(r)) != r->event.data.scalar.length) {
			rc = fail(r, path,
			          r->event.type != YAML_SCALAR_EVENT ? event_kind(&r->event)
			          : is_null(r)                       ? "nothing"
			                                             : "a NUL",
			          "a string");
			goto out;
		}
		if (count == CONFIG_MAX_LIST) {
			rc = fail(r, path, "one entry more", "at most 4096");
			goto out;
		}
		if (count == room) {
			room = room ? 2 * room : 8;
			char **grown = realloc(items, room * sizeof *items);
			if (!grown) {
				rc = wn_fail(r->err, WN_NOMEM, "%s: out of memory", r->name);
				goto out;
			}
			items = grown;
		}
		if (!(items[count] = strdup(scalar_text(r)))) {
			rc = wn_fail(r->err, WN_NOMEM, "%s: out of memory", r->name);
			goto out;
		}
		count++;
	}
	config_value_assign_list(k, r->cfg, items, count);
	return WN_OK;
out:
	free_items(items, count);
	return rc;
}

static wn_code read_value(reader *r, const config_key *k)
{
	char found[128], expected[256];
	if (k->type == CONFIG_TYPE_STRING_LIST)
		return read_list(r, k);
	config_value_expected(k, expected, sizeof expected);
	if (r->event.type != YAML_SCALAR_EVENT)
		return fail(r, k->path, event_kind(&r->event), expected);
	wn_code rc = config_value_assign(k, r->cfg, scalar_text(r), r->event.data.scalar.length, style_of(r));
	if (rc == WN_NOMEM)
		return wn_fail(r->err, rc, "%s: out of memory", r->name);
	if (rc != WN_OK && strlen(scalar_text(r)) != r->event.data.scalar.length)
		return fail(r, k->path, "a NUL", expected);
	if (rc != WN_OK)
		return fail(r, k->path, config_value_found(k, scalar_text(r), style_of(r), found, sizeof found), expected);
	return WN_OK;
}

static wn_code read_section(reader *r, const char *prefix, int depth);

/* The current event is what stands behind `path`, a known section. */
static wn_code enter_section(reader *r, const char *path, int first, int depth)
{
	char prefix[MAX_PATH_LEN + 2], found[80];
	if (r->seen_section[first] & 1u << depth)
		return fail(r, path, "the section a second time", "each section once");
	r->seen_section[first] |= (unsigned short)(1u << depth);
	if (is_null(r)) /* every key below it is commented out */
		return WN_OK;
	if (r->event.type != YAML_MAPPING_START_EVENT)
		return fail(r, path,
		            r->event.type == YAML_SCALAR_EVENT
		                ? config_value_found(NULL, scalar_text(r), style_of(r), found, sizeof found)
		                : event_kind(&r->event),
		            "a section of keys");
	snprintf(prefix, sizeof prefix, "%s.", path);
	return read_section(r, prefix, depth + 1);
}

/* Behind a MAPPING-START; prefix is "" or ends in a dot. Returns on its MAPPING-END. */
static wn_code read_section(reader *r, const char *prefix, int depth)
{
	char path[MAX_PATH_LEN + 1], key[80];
	wn_code rc;
	if (depth > CONFIG_MAX_DEPTH)
		return fail(r, prefix, "nesting deeper than 8", "fewer levels");
	for (;;) {
		if ((rc = next(r)) != WN_OK)
			return rc;
		if (r->event.type == YAML_MAPPING_END_EVENT)
			return WN_OK;
		if ((rc = check_plain(r, prefix)) != WN_OK)
			return rc;
		if (r->event.type != YAML_SCALAR_EVENT)
			return fail(r, prefix, event_kind(&r->event), "the name of a key");
		snprintf(key, sizeof key, "%.70s", scalar_text(r));
		if (snprintf(path, sizeof path, "%s%s", prefix, key) >= (int)sizeof path || strchr(key, '.') ||
		    strlen(scalar_text(r)) != r->event.data.scalar.length || strlen(key) != strlen(scalar_text(r)))
			return unknown_key(r, prefix, key, path);
		int i = find_key(r->schema, path), section = find_section(r->schema, path);
		if (i < 0 && section < 0)
			return unknown_key(r, prefix, key, path);
		if (i >= 0 && r->seen[i])
			return fail(r, path, "the key a second time", "each key once");
		if ((rc = next(r)) != WN_OK || (rc = check_plain(r, path)) != WN_OK)
			return rc;
		if (i >= 0) {
			r->seen[i] = 1;
			rc = read_value(r, &r->schema->keys[i]);
		} else {
			rc = enter_section(r, path, section, depth);
		}
		if (rc != WN_OK)
			return rc;
	}
}

static wn_code read_document(reader *r)
{
	wn_code rc;
	if ((rc = next(r)) != WN_OK || (rc = next(r)) != WN_OK) /* STREAM-START, then DOCUMENT-START or the end */
		return rc;
	if (r->event.type == YAML_STREAM_END_EVENT)
		return WN_OK;
	if ((rc = next(r)) != WN_OK || (rc = check_plain(r, "")) != WN_OK)
		return rc;
	if (!is_null(r)) {
		if (r->event.type != YAML_MAPPING_START_EVENT)
			return fail(r, "", event_kind(&r->event), "a section of keys");
		if ((rc = read_section(r, "", 1)) != WN_OK)
			return rc;
	}
	if ((rc = next(r)) != WN_OK || (rc = next(r)) != WN_OK) /* DOCUMENT-END */
		return rc;
	if (r->event.type != YAML_STREAM_END_EVENT)
		return fail(r, "", "a second document", "one");
	return WN_OK;
}

/* Parses text as a document over what *cfg already holds. seen gets which keys it gave. */
static wn_code read_text(const config_schema *s, void *cfg, const char *name, const char *text, size_t len,
                         unsigned char *seen, wn_error *err)
{
	wn_code rc;
	reader r = {.schema = s, .cfg = cfg, .name = name, .err = err, .seen = seen};
	if (len > CONFIG_MAX_FILE)
		return wn_fail(err, WN_TOO_LARGE, "%s: found %zu bytes, expected at most %zu", name, len, CONFIG_MAX_FILE);
	r.seen_section = calloc(s->count + 1, sizeof *r.seen_section);
	if (!r.seen_section || !yaml_parser_initialize(&r.parser)) {
		free(r.seen_section);
		return wn_fail(err, WN_NOMEM, "%s: out of memory", name);
	}
	yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING); /* no guessing: two bytes must not turn it into UTF-16 */
	yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, len);
	rc = read_document(&r);
	if (r.has_event)
		yaml_event_delete(&r.event);
	yaml_parser_delete(&r.parser);
	free(r.seen_section);
	return rc;
}

/* A list default is YAML in the table: read it through the same parser, as a document that holds this key alone. */
static wn_code assign_list_text(const config_schema *s, void *cfg, const config_key *k, const char *text, wn_error *err)
{
	reader r = {.schema = s, .cfg = cfg, .name = k->path, .alone = true, .err = err};
	if (!yaml_parser_initialize(&r.parser))
		return wn_fail(err, WN_NOMEM, "%s: out of memory", k->path);
	yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, strlen(text));
	wn_code rc = WN_OK;
	for (int i = 0; i < 3 && rc == WN_OK && r.event.type != YAML_STREAM_END_EVENT; i++)
		rc = next(&r);
	if (rc == WN_OK && (rc = check_plain(&r, k->path)) == WN_OK)
		rc = r.event.type == YAML_STREAM_END_EVENT ? fail(&r, k->path, "nothing", LIST_ALONE) : read_list(&r, k);
	if (r.has_event)
		yaml_event_delete(&r.event);
	yaml_parser_delete(&r.parser);
	return rc;
}

static wn_code assign_text(const config_schema *s, void *cfg, const config_key *k, const char *text, wn_error *err)
{
	char found[128], expected[256];
	if (k->type == CONFIG_TYPE_STRING_LIST)
		return assign_list_text(s, cfg, k, text, err);
	wn_code rc = config_value_assign(k, cfg, text, strlen(text), SCALAR_RAW);
	if (rc == WN_NOMEM)
		return wn_fail(err, rc, "%s: out of memory", k->path);
	if (rc != WN_OK)
		return wn_fail(err, rc, "%s: found %s, expected %s", k->path,
		               config_value_found(k, text, SCALAR_RAW, found, sizeof found),
		               config_value_expected(k, expected, sizeof expected));
	return WN_OK;
}

static wn_code set_defaults(const config_schema *s, void *cfg, wn_error *err)
{
	memset(cfg, 0, s->size);
	for (size_t i = 0; i < s->count; i++) {
		const config_key *k = &s->keys[i];
		if (k->type == CONFIG_TYPE_SECTION)
			continue;
		/* A required key holds an empty value until the file gives one, so that no string is ever NULL. */
		const char *text = k->default_value ? k->default_value : k->type == CONFIG_TYPE_STRING ? "" : NULL;
		wn_code rc = text ? assign_text(s, cfg, k, text, err) : WN_OK;
		if (rc != WN_OK)
			return rc;
	}
	return WN_OK;
}

wn_code config_parse(const config_schema *s, void *cfg, const char *name, const char *text, size_t len, wn_error *err)
{
	char expected[256];
	unsigned char *seen = calloc(s->count + 1, 1);
	wn_code rc = set_defaults(s, cfg, err);
	if (rc == WN_OK && !seen)
		rc = wn_fail(err, WN_NOMEM, "%s: out of memory", name);
	if (rc == WN_OK)
		rc = read_text(s, cfg, name, text, len, seen, err);
	for (size_t i = 0; rc == WN_OK && i < s->count; i++)
		if (s->keys[i].type != CONFIG_TYPE_SECTION && !s->keys[i].default_value && !seen[i])
			rc = wn_fail(err, WN_INVALID, "%s: %s: found nothing, expected %s (required: %s)", name, s->keys[i].path,
			             config_value_expected(&s->keys[i], expected, sizeof expected), s->keys[i].description);
	free(seen);
	if (rc != WN_OK)
		config_free(s, cfg);
	return rc;
}

wn_code config_load(const config_schema *s, void *cfg, const char *path, wn_error *err)
{
	char *text;
	size_t len;
	memset(cfg, 0, s->size);
	wn_code rc = file_read(path, CONFIG_MAX_FILE, &text, &len, err);
	if (rc != WN_OK)
		return rc;
	rc = config_parse(s, cfg, path, text, len, err);
	free(text);
	return rc;
}

wn_code config_defaults(const config_schema *s, void *cfg, wn_error *err)
{
	return config_parse(s, cfg, "defaults", "", 0, err);
}

wn_code config_set(const config_schema *s, void *cfg, const char *assignment, wn_error *err)
{
	char path[MAX_PATH_LEN + 1];
	const char *equals = strchr(assignment, '=');
	if (!equals || equals == assignment)
		return wn_fail(err, WN_INVALID, "found \"%.80s\", expected KEY=VALUE", assignment);
	snprintf(path, sizeof path, "%.*s", (int)(equals - assignment < MAX_PATH_LEN ? equals - assignment : MAX_PATH_LEN),
	         assignment);
	int i = find_key(s, path);
	if (i < 0) {
		size_t len = 0;
		const char *nearest = nearest_name(s, "", path, false, &len);
		return wn_fail(err, WN_INVALID, "%s: found an unknown key, expected %s%.*s%s", path,
			       nearest ? "\"" : "one that --print-config lists", (int)len, nearest ? nearest : "",
			       nearest ? "\" perhaps" : "");
	}
	return assign_text(s, cfg, &s->keys[i], equals + 1, err);
}

wn_code config_load_with(const config_schema *s, void *cfg, const char *path, const char *const *sets, int num_sets,
                         wn_code (*check)(const void *cfg, wn_error *err), wn_error *err)
{
	wn_code rc = config_load(s, cfg, path, err);
	if (rc != WN_OK)
		return rc;
	for (int i = 0; rc == WN_OK && i < num_sets; i++)
		if ((rc = config_set(s, cfg, sets[i], err)) != WN_OK)
			wn_fail_prefix(err, "--set %.100s", sets[i]);
	if (rc == WN_OK && check && (rc = check(cfg, err)) != WN_OK)
		wn_fail_prefix(err, "%s", path);
	if (rc != WN_OK)
		config_free(s, cfg);
	return rc;
}

void config_free(const config_schema *s, void *cfg)
{
	for (size_t i = 0; i < s->count; i++)
		config_value_free(&s->keys[i], cfg);
	memset(cfg, 0, s->size);
}

const char *config_first_difference(const config_schema *s, const void *a, const void *b, unsigned ignore)
{
	for (size_t i = 0; i < s->count; i++)
		if (!(s->keys[i].flags & ignore) && !config_value_equal(&s->keys[i], a, b))
			return s->keys[i].path;
	return NULL;
}

/* ---- --print-config ---- */

static bool starts_before(const config_schema *s, size_t i, size_t prefix_len)
{
	for (size_t j = 0; j < i; j++)
		if (s->keys[j].type != CONFIG_TYPE_SECTION && strncmp(s->keys[j].path, s->keys[i].path, prefix_len) == 0)
			return true;
	return false;
}

static const char *section_description(const config_schema *s, const char *path, size_t len)
{
	for (size_t i = 0; i < s->count; i++)
		if (s->keys[i].type == CONFIG_TYPE_SECTION && strlen(s->keys[i].path) == len &&
		    strncmp(s->keys[i].path, path, len) == 0)
			return s->keys[i].description;
	return NULL;
}

static void print_section(const config_schema *s, const void *cfg, const char *prefix, size_t prefix_len, int indent,
                          FILE *out)
{
	char expected[256];
	for (size_t i = 0; i < s->count; i++) {
		const config_key *k = &s->keys[i];
		if (k->type == CONFIG_TYPE_SECTION || strncmp(k->path, prefix, prefix_len) != 0)
			continue;
		const char *name = k->path + prefix_len;
		size_t len = strcspn(name, ".");
		if (name[len] == '.') { /* keys of one section print together, where its first one stands in the table */
			if (starts_before(s, i, prefix_len + len + 1))
				continue;
			const char *text = section_description(s, k->path, prefix_len + len);
			if (indent == 0 && i > 0 && starts_before(s, i, 0))
				fputc('\n', out);
			if (text)
				fprintf(out, "%*s# %s\n", indent, "", text);
			fprintf(out, "%*s%.*s:\n", indent, "", (int)len, name);
			print_section(s, cfg, k->path, prefix_len + len + 1, indent + 2, out);
			continue;
		}
		fprintf(out, "%*s# %s [%s%s]\n", indent, "", k->description, config_value_expected(k, expected, sizeof expected),
		        k->default_value ? "" : "; required");
		if (!cfg && !k->default_value) {
			fprintf(out, "%*s#%s:\n", indent, "", name);
			continue;
		}
		fprintf(out, "%*s%s: ", indent, "", name);
		config_value_print(k, cfg, out);
		fputc('\n', out);
	}
}

void config_print(const config_schema *s, const void *cfg, FILE *out)
{
	print_section(s, cfg, "", 0, 0, out);
}

char *config_text(const config_schema *s, const void *cfg)
{
	char *text = NULL;
	size_t size = 0;
	FILE *f = open_memstream(&text, &size);
	if (!f)
		return NULL;
	config_print(s, cfg, f);
	if (fclose(f) != 0) {
		free(text);
		return NULL;
	}
	return text;
}
