/* YAML configurations: what loads is printed and loads to the same values again. */
#include <stdint.h>
#include <stdlib.h>

#include "base/yaml_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct sample {
	char *s;
	int i, e;
	int64_t n, t;
	double d;
	bool b;
	size_t z;
	string_list l;
} sample;

static const char *const CHOICES[] = {"one", "two", NULL};
static const config_key KEYS[] = {
	CONFIG_STRING(sample, s, "a.s", "x", "string"),
	CONFIG_INT(sample, i, "a.b.i", "1", -100, 100, "int"),
	CONFIG_ENUM(sample, e, "e", "two", CHOICES, "enum"),
	CONFIG_INT64(sample, n, "n", "5", 0, 9e15, "int64"),
	CONFIG_DURATION(sample, t, "t", "90ms", 0, 86400, "duration"),
	CONFIG_DOUBLE(sample, d, "d", "0.5", -1e9, 1e9, "double"),
	CONFIG_BOOL(sample, b, "b", "true", "bool"),
	CONFIG_BYTES(sample, z, "z", "16MiB", 0, 1e15, "bytes"),
	CONFIG_STRING_LIST(sample, l, "l", "[p, q]", "list"),
};
static const config_schema SCHEMA = CONFIG_SCHEMA(sample, KEYS);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	sample c, again;
	wn_error err = {0};
	char *text = NULL;
	size_t len = 0;
	if (config_parse(&SCHEMA, &c, "fuzz", (const char *)data, size, &err) != WN_OK) {
		if (!*err.message || c.s)
			abort();
		return 0;
	}
	FILE *f = open_memstream(&text, &len);
	if (!f)
		abort();
	config_print(&SCHEMA, &c, f);
	fclose(f);
	if (config_parse(&SCHEMA, &again, "printed", text, len, &err) != WN_OK || config_first_difference(&SCHEMA, &c, &again, 0))
		abort();
	free(text);
	config_free(&SCHEMA, &c);
	config_free(&SCHEMA, &again);
	return 0;
}
