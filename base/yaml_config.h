/* yaml_config.h: a YAML file into a C struct, through one table of keys.
 *
 * The table says for every key its dotted path, the struct field it fills, its default (as text), its range and one
 * line of description. Parsing, defaults, `--set KEY=VALUE`, `--print-config` and freeing all come from that table, so a new
 * option is one line:
 *
 *	typedef struct server_config {
 *		char *listen_address;
 *		int port;
 *		int64_t deadline_ns;
 *		size_t max_body;
 *		int version_policy; // index into POLICIES
 *		string_list keys;
 *		bool access_log;
 *	} server_config;
 *
 *	static const char *const POLICIES[] = {"latest", "pinned", "list", NULL};
 *	static const config_key KEYS[] = {
 *		CONFIG_SECTION("listen", "where the server listens"),
 *		CONFIG_STRING(server_config, listen_address, "listen.address", "127.0.0.1", "address to bind"),
 *		CONFIG_INT(server_config, port, "listen.port", "8080", 1, 65535, "TCP port"),
 *		CONFIG_DURATION(server_config, deadline_ns, "deadline", "90ms", 1e-3, 60, "default deadline of a request",
 *		                .flags = CONFIG_RELOADABLE),
 *		CONFIG_BYTES(server_config, max_body, "limits.body", "16MiB", 1024, 1 << 30, "largest request body"),
 *		CONFIG_ENUM(server_config, version_policy, "versions", "latest", POLICIES, "which versions are served"),
 *		CONFIG_STRING_LIST(server_config, keys, "keys", "[]", "inference keys"),
 *		CONFIG_BOOL(server_config, access_log, "access_log", "true", "write one JSON line per request"),
 *	};
 *	static const config_schema SCHEMA = CONFIG_SCHEMA(server_config, KEYS);
 *
 *	server_config c;
 *	if (config_load(&SCHEMA, &c, "winnow.yaml", &err) != WN_OK) ...; // err.message: "winnow.yaml:3: listen.port: found "x", …"
 *	...
 *	config_free(&SCHEMA, &c);
 *
 * The file nests (`listen:` newline `  port: 8080`); keys may come in any order; absent keys take their default; a key whose
 * default is NULL is required. Refused, each with `file:line: key: found X, expected Y`: unknown and duplicate keys, wrong
 * types, values out of range, anchors, aliases and tags, more than one document, nesting deeper than 8, files beyond 1 MiB,
 * invalid UTF-8. A field of another C type than its macro says does not compile.
 *
 * Nothing here is global; a schema is constant and may be shared by threads. The struct belongs to the caller; its strings
 * are malloc'ed and released by config_free. */
#ifndef WINNOW_BASE_YAML_CONFIG_H
#define WINNOW_BASE_YAML_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"

#define CONFIG_MAX_FILE ((size_t)1 << 20) /* bytes */
#define CONFIG_MAX_DEPTH 8
#define CONFIG_MAX_LIST 4096 /* entries of one list */

typedef enum config_type {
	CONFIG_TYPE_SECTION,     /* no field: describes the keys below `path` for --print-config */
	CONFIG_TYPE_BOOL,        /* bool: true | false */
	CONFIG_TYPE_INT,         /* int in [min, max] */
	CONFIG_TYPE_INT64,       /* int64_t in [min, max] */
	CONFIG_TYPE_DOUBLE,      /* double in [min, max], finite */
	CONFIG_TYPE_STRING,      /* char *, never NULL, UTF-8 without NUL */
	CONFIG_TYPE_ENUM,        /* int: index into choices */
	CONFIG_TYPE_DURATION,    /* int64_t nanoseconds: 90ms, 1.5s, 250us, 10ns, 2m, 1h; min and max in seconds */
	CONFIG_TYPE_BYTES,       /* size_t: 65536, 64KiB, 16MiB, 2GiB, 1kB, 1MB, 1GB */
	CONFIG_TYPE_STRING_LIST, /* string_list: [a, b] or one "- a" per line */
} config_type;

typedef struct string_list {
	char **items;
	size_t count;
} string_list;

enum {
	CONFIG_RELOADABLE = 1, /* the caller's business: see config_first_difference */
	CONFIG_SECRET = 2,     /* config_print shows "***" in place of a non-empty value */
};

typedef struct config_key {
	const char *path;           /* dotted: "listen.port"; each part [a-z0-9_]+ */
	config_type type;
	unsigned flags;
	size_t offset;
	const char *default_value;  /* "8080", "90ms", "[a, b]"; a string as it is; NULL: the key is required */
	double min, max;            /* exact for integers up to 2^53 */
	const char *const *choices; /* NULL-terminated, for CONFIG_TYPE_ENUM */
	const char *description;    /* one line */
} config_key;

typedef struct config_schema {
	const config_key *keys;
	size_t count;
	size_t size; /* of the caller's struct */
} config_schema;

/* offsetof, refused by the compiler when the field is not of type C. */
#define CONFIG_AT(T, f, C) \
	(offsetof(T, f) + 0 * sizeof(char[__builtin_types_compatible_p(__typeof__(((T *)0)->f), C) ? 1 : -1]))

/* `...`: further designated initialisers, e.g. .flags = CONFIG_RELOADABLE */
#define CONFIG_SECTION(path_, desc_) {.path = path_, .type = CONFIG_TYPE_SECTION, .description = desc_}
#define CONFIG_BOOL(T, f, path_, def_, desc_, ...) \
	{.path = path_, .type = CONFIG_TYPE_BOOL, .offset = CONFIG_AT(T, f, bool), .default_value = def_, .description = desc_, ##__VA_ARGS__}
#define CONFIG_INT(T, f, path_, def_, min_, max_, desc_, ...)                                                          \
	{.path = path_, .type = CONFIG_TYPE_INT, .offset = CONFIG_AT(T, f, int), .default_value = def_, .min = min_, \
	 .max = max_, .description = desc_, ##__VA_ARGS__}
#define CONFIG_INT64(T, f, path_, def_, min_, max_, desc_, ...)                                                            \
	{.path = path_, .type = CONFIG_TYPE_INT64, .offset = CONFIG_AT(T, f, int64_t), .default_value = def_, .min = min_, \
	 .max = max_, .description = desc_, ##__VA_ARGS__}
#define CONFIG_DOUBLE(T, f, path_, def_, min_, max_, desc_, ...)                                                           \
	{.path = path_, .type = CONFIG_TYPE_DOUBLE, .offset = CONFIG_AT(T, f, double), .default_value = def_, .min = min_, \
	 .max = max_, .description = desc_, ##__VA_ARGS__}
#define CONFIG_STRING(T, f, path_, def_, desc_, ...) \
	{.path = path_, .type = CONFIG_TYPE_STRING, .offset = CONFIG_AT(T, f, char *), .default_value = def_, .description = desc_, ##__VA_ARGS__}
#define CONFIG_ENUM(T, f, path_, def_, choices_, desc_, ...)                                                \
	{.path = path_, .type = CONFIG_TYPE_ENUM, .offset = CONFIG_AT(T, f, int), .default_value = def_, \
	 .choices = choices_, .description = desc_, ##__VA_ARGS__}
#define CONFIG_DURATION(T, f, path_, def_, min_, max_, desc_, ...)                                                           \
	{.path = path_, .type = CONFIG_TYPE_DURATION, .offset = CONFIG_AT(T, f, int64_t), .default_value = def_, .min = min_, \
	 .max = max_, .description = desc_, ##__VA_ARGS__}
#define CONFIG_BYTES(T, f, path_, def_, min_, max_, desc_, ...)                                                           \
	{.path = path_, .type = CONFIG_TYPE_BYTES, .offset = CONFIG_AT(T, f, size_t), .default_value = def_, .min = min_, \
	 .max = max_, .description = desc_, ##__VA_ARGS__}
#define CONFIG_STRING_LIST(T, f, path_, def_, desc_, ...)                                                             \
	{.path = path_, .type = CONFIG_TYPE_STRING_LIST, .offset = CONFIG_AT(T, f, string_list), .default_value = def_, \
	 .description = desc_, ##__VA_ARGS__}

#define CONFIG_SCHEMA(T, keys_) {.keys = keys_, .count = sizeof(keys_) / sizeof((keys_)[0]), .size = sizeof(T)}

/* Clears *cfg, sets every default, then reads the file over them. On failure *cfg is cleared (nothing to free). */
wn_code config_load(const config_schema *s, void *cfg, const char *path, wn_error *err);
/* The same from memory; `name` stands for the file in messages. */
wn_code config_parse(const config_schema *s, void *cfg, const char *name, const char *text, size_t len, wn_error *err);
/* The same without any file (a schema with required keys: WN_INVALID names the first; their fields would be zero). */
wn_code config_defaults(const config_schema *s, void *cfg, wn_error *err);

/* config_load, then one override after the other (config_set), then what a single key cannot say: check (may be NULL) refuses values that
 * do not go together. Messages begin with the path, or with the override that is wrong. On failure *cfg is cleared. */
wn_code config_load_with(const config_schema *s, void *cfg, const char *path, const char *const *sets, int num_sets,
                         wn_code (*check)(const void *cfg, wn_error *err), wn_error *err);

/* Applies one "listen.port=9000" (a `--set` argument) to a loaded struct. A string is taken as it is, without quotes; a list is
 * YAML: "keys=[a, b]". On failure *cfg is unchanged. */
wn_code config_set(const config_schema *s, void *cfg, const char *assignment, wn_error *err);

/* Releases the strings and clears *cfg; safe on a zeroed struct. */
void config_free(const config_schema *s, void *cfg);

/* Prints the YAML document, every key with its description, type and range as comments: the defaults when cfg is NULL (a
 * required key is commented out), else the values in cfg. config_load reads it back, secrets ("***") excepted. */
void config_print(const config_schema *s, const void *cfg, FILE *out);
/* The same as a text, malloc'ed; NULL: no memory. */
char *config_text(const config_schema *s, const void *cfg);

/* Path of the first key without the flags in `ignore` whose values differ in a and b, or NULL: with CONFIG_RELOADABLE, the
 * key that makes a reload need a restart. */
const char *config_first_difference(const config_schema *s, const void *a, const void *b, unsigned ignore);

#endif
