/* The configuration table: every type, every refusal with its exact message, and what --print-config prints loads again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/yaml_config.h"
#include "temp_dir.h"

typedef struct sample {
	char *address;
	int port;
	int64_t seed;
	double rate;
	bool log;
	int mode;
	int64_t deadline;
	size_t body;
	string_list keys;
	char *secret;
	int deep;
} sample;

static const char *const MODES[] = {"latest", "pinned", NULL};
static const config_key KEYS[] = {
	CONFIG_SECTION("listen", "where"),
	CONFIG_STRING(sample, address, "listen.address", "127.0.0.1", "address to bind"),
	CONFIG_INT(sample, port, "listen.port", "8080", 1, 65535, "TCP port"),
	CONFIG_INT64(sample, seed, "seed", "1", 0, 9e15, "random seed"),
	CONFIG_DOUBLE(sample, rate, "rate", "1e-3", 0, 10, "learning rate", .flags = CONFIG_RELOADABLE),
	CONFIG_BOOL(sample, log, "log", "true", "log requests"),
	CONFIG_ENUM(sample, mode, "mode", "latest", MODES, "which versions"),
	CONFIG_DURATION(sample, deadline, "deadline", "90ms", 1e-3, 60, "time to answer"),
	CONFIG_BYTES(sample, body, "limits.body", "16MiB", 1024, 1 << 30, "largest body"),
	CONFIG_STRING_LIST(sample, keys, "keys", "[a, 'b c']", "inference keys"),
	CONFIG_STRING(sample, secret, "secret", "", "not to be shown", .flags = CONFIG_SECRET),
	CONFIG_INT(sample, deep, "a.b.c.deep", "5", -5, 5, "four levels down"),
};
static const config_schema SCHEMA = CONFIG_SCHEMA(sample, KEYS);

typedef struct required {
	char *dir;
	int n;
} required;
static const config_key REQUIRED_KEYS[] = {
	CONFIG_STRING(required, dir, "data.dir", NULL, "where the data is"),
	CONFIG_INT(required, n, "n", NULL, 1, 9, "how many"),
};
static const config_schema REQUIRED = CONFIG_SCHEMA(required, REQUIRED_KEYS);

static wn_code parse(sample *c, const char *text, wn_error *err)
{
	memset(err, 0, sizeof *err);
	return config_parse(&SCHEMA, c, "w.yaml", text, strlen(text), err);
}

static void absent_keys_take_their_defaults(void **state)
{
	static const char *const empty[] = {"", "\n", "# only a comment\n", "---\n", "listen:\nlimits:\n", "{}\n", "---\n...\n"};
	for (size_t i = 0; i < sizeof empty / sizeof *empty; i++) {
		sample c;
		wn_error err;
		if (parse(&c, empty[i], &err) != WN_OK)
			fail_msg("%s", err.message);
		assert_string_equal(c.address, "127.0.0.1");
		assert_int_equal(c.port, 8080);
		assert_int_equal(c.seed, 1);
		assert_true(c.rate == 1e-3);
		assert_true(c.log);
		assert_int_equal(c.mode, 0);
		assert_int_equal(c.deadline, 90000000);
		assert_int_equal(c.body, 16 << 20);
		assert_int_equal(c.keys.count, 2);
		assert_string_equal(c.keys.items[1], "b c");
		assert_string_equal(c.secret, "");
		assert_int_equal(c.deep, 5);
		config_free(&SCHEMA, &c);
		assert_null(c.address);
	}
}

static void every_type_reads_its_value(void **state)
{
	sample c;
	wn_error err;
	const char *text = "seed: 8999999999999999\n"
	                   "listen:\n  port: 1\n  address: \"内容: 1\"\n"
	                   "rate: 2.5\nlog: false\nmode: pinned\ndeadline: 1.5s\n"
	                   "limits: {body: 64KiB}\n"
	                   "keys:\n- x\n- \"\"\n- 7\n"
	                   "a: {b: {c: {deep: -5}}}\n";
	if (parse(&c, text, &err) != WN_OK)
		fail_msg("%s", err.message);
	assert_int_equal(c.seed, 8999999999999999);
	assert_int_equal(c.port, 1);
	assert_string_equal(c.address, "内容: 1");
	assert_true(c.rate == 2.5);
	assert_false(c.log);
	assert_int_equal(c.mode, 1);
	assert_int_equal(c.deadline, 1500000000);
	assert_int_equal(c.body, 65536);
	assert_int_equal(c.keys.count, 3);
	assert_string_equal(c.keys.items[0], "x");
	assert_string_equal(c.keys.items[1], "");
	assert_string_equal(c.keys.items[2], "7");
	assert_int_equal(c.deep, -5);
	config_free(&SCHEMA, &c);
}

static void units_of_time_and_size(void **state)
{
	static const struct {
		const char *text;
		int64_t ns;
	} time[] = {{"1ms", 1000000}, {"1000us", 1000000}, {"1000000ns", 1000000}, {"0.5m", 30000000000}, {"1m", 60000000000},
	            {"0.25s", 250000000}, {"1.1ms", 1100000}, {"2e1s", 20000000000}};
	static const struct {
		const char *text;
		size_t bytes;
	} size[] = {{"1024", 1024}, {"1KiB", 1024}, {"2kB", 2000}, {"1.5MiB", 1572864}, {"1GB", 1000000000}, {"1GiB", 1 << 30},
	            {"4096B", 4096}};
	char text[64];
	sample c;
	wn_error err;
	for (size_t i = 0; i < sizeof time / sizeof *time; i++) {
		snprintf(text, sizeof text, "deadline: %s\n", time[i].text);
		assert_int_equal(parse(&c, text, &err), WN_OK);
		assert_int_equal(c.deadline, time[i].ns);
		config_free(&SCHEMA, &c);
	}
	for (size_t i = 0; i < sizeof size / sizeof *size; i++) {
		snprintf(text, sizeof text, "limits:\n  body: %s\n", size[i].text);
		assert_int_equal(parse(&c, text, &err), WN_OK);
		assert_int_equal(c.body, size[i].bytes);
		config_free(&SCHEMA, &c);
	}
}

#define DURATION "a duration from 1ms to 1m (units ns us ms s m h)"
#define SIZE "a size from 1KiB to 1GiB (units KiB MiB GiB TiB)"
static void refusals_name_line_key_found_and_expected(void **state)
{
	static const struct {
		const char *text, *message;
	} bad[] = {
		/* keys */
		{"listen:\n  prot: 1\n", "w.yaml:2: listen.prot: found an unknown key, expected \"port\" perhaps"},
		{"listen:\n  zebra: 1\n", "w.yaml:2: listen.zebra: found an unknown key, expected one of address, port"},
		{"limit: 1\n", "w.yaml:1: limit: found an unknown key, expected \"limits\" perhaps"},
		{"unknown: 1\n",
	         "w.yaml:1: unknown: found an unknown key, expected one of listen, seed, rate, log, mode, deadline, limits, "
	         "keys, secret, a"},
		{"listen.port: 1\n",
	         "w.yaml:1: listen.port: found an unknown key, expected one of listen, seed, rate, log, mode, deadline, "
	         "limits, keys, secret, a"},
		{"<<: {seed: 1}\n",
	         "w.yaml:1: <<: found an unknown key, expected one of listen, seed, rate, log, mode, deadline, limits, keys, "
	         "secret, a"},
		{"seed: 1\nseed: 2\n", "w.yaml:2: seed: found the key a second time, expected each key once"},
		{"listen: {port: 1}\nseed: 1\nlisten: {address: x}\n",
	         "w.yaml:3: listen: found the section a second time, expected each section once"},
		{"a: {b: {c: }, b: {c: {deep: 1}}}\n",
	         "w.yaml:1: a.b: found the section a second time, expected each section once"},
		{"? [a]\n: 1\n", "w.yaml:1: found a list, expected the name of a key"},
		/* structure */
		{"- a\n", "w.yaml:1: found a list, expected a section of keys"},
		{"just words\n", "w.yaml:1: found a value, expected a section of keys"},
		{"listen: 5\n", "w.yaml:1: listen: found \"5\", expected a section of keys"},
		{"listen: [a]\n", "w.yaml:1: listen: found a list, expected a section of keys"},
		{"seed: {a: 1}\n", "w.yaml:1: seed: found a section, expected an integer from 0 to 9000000000000000"},
		{"listen:\n  port: [1]\n", "w.yaml:2: listen.port: found a list, expected an integer from 1 to 65535"},
		{"seed: 1\n---\nseed: 2\n", "w.yaml:2: found a second document, expected one"},
		{"seed: &x 1\n", "w.yaml:1: seed: found an anchor (&), expected a plain value"},
		{"seed: *x\n", "w.yaml:1: seed: found an alias (*), expected the value itself"},
		{"listen: &l\n  port: 1\n", "w.yaml:1: listen: found an anchor (&), expected a plain value"},
		{"seed: !!int 1\n", "w.yaml:1: seed: found a tag (!), expected a plain value"},
		{"keys: [a, !x b]\n", "w.yaml:1: keys[1]: found a tag (!), expected a plain value"},
		{"seed: [\n", "w.yaml:1: seed: found a list, expected an integer from 0 to 9000000000000000"},
		{"seed: 1\n bad\n", "w.yaml:1: seed: found \"1 bad\", expected an integer from 0 to 9000000000000000"},
		{"seed: 1\nbad\n", "w.yaml:3: found invalid YAML (could not find expected ':'), expected \"key: value\" lines"},
		{"listen:\n\tport: 1\n",
	         "w.yaml:2: found invalid YAML (found character that cannot start any token), expected \"key: value\" lines"},
		{"log: \xff\n", "w.yaml: byte 5: found invalid leading UTF-8 octet, expected UTF-8 text"},
		{"log: \xed\xa0\x80\n", "w.yaml: byte 5: found invalid Unicode character, expected UTF-8 text"},
		{"log: \x01\n", "w.yaml: byte 5: found control characters are not allowed, expected UTF-8 text"},
		/* values */
		{"listen:\n  port: 0\n", "w.yaml:2: listen.port: found \"0\", expected an integer from 1 to 65535"},
		{"listen:\n  port: 65536\n", "w.yaml:2: listen.port: found \"65536\", expected an integer from 1 to 65535"},
		{"listen:\n  port: \"80\"\n",
	         "w.yaml:2: listen.port: found the quoted string \"80\", expected an integer from 1 to 65535"},
		{"listen:\n  port: 80x\n", "w.yaml:2: listen.port: found \"80x\", expected an integer from 1 to 65535"},
		{"listen:\n  port: 0x50\n", "w.yaml:2: listen.port: found \"0x50\", expected an integer from 1 to 65535"},
		{"listen:\n  port: 1.5\n", "w.yaml:2: listen.port: found \"1.5\", expected an integer from 1 to 65535"},
		{"listen:\n  port:\n", "w.yaml:2: listen.port: found nothing, expected an integer from 1 to 65535"},
		{"seed: 99999999999999999999\n",
	         "w.yaml:1: seed: found \"99999999999999999999\", expected an integer from 0 to 9000000000000000"},
		{"rate: .inf\n", "w.yaml:1: rate: found \".inf\", expected a number from 0 to 10"},
		{"rate: nan\n", "w.yaml:1: rate: found \"nan\", expected a number from 0 to 10"},
		{"rate: 1e999\n", "w.yaml:1: rate: found \"1e999\", expected a number from 0 to 10"},
		{"rate: 10.5\n", "w.yaml:1: rate: found \"10.5\", expected a number from 0 to 10"},
		{"rate: 0x1p3\n", "w.yaml:1: rate: found \"0x1p3\", expected a number from 0 to 10"},
		{"log: yes\n", "w.yaml:1: log: found \"yes\", expected true or false"},
		{"log: 1\n", "w.yaml:1: log: found \"1\", expected true or false"},
		{"log: \"true\"\n", "w.yaml:1: log: found the quoted string \"true\", expected true or false"},
		{"mode: newest\n", "w.yaml:1: mode: found \"newest\", expected one of latest, pinned"},
		{"mode:\n", "w.yaml:1: mode: found nothing, expected one of latest, pinned"},
		{"deadline: 90\n", "w.yaml:1: deadline: found \"90\", expected " DURATION},
		{"deadline: 90 ms\n", "w.yaml:1: deadline: found \"90 ms\", expected " DURATION},
		{"deadline: 61s\n", "w.yaml:1: deadline: found \"61s\", expected " DURATION},
		{"deadline: 0.9ms\n", "w.yaml:1: deadline: found \"0.9ms\", expected " DURATION},
		{"deadline: 1e300h\n", "w.yaml:1: deadline: found \"1e300h\", expected " DURATION},
		{"deadline: -1s\n", "w.yaml:1: deadline: found \"-1s\", expected " DURATION},
		{"limits: {body: 1023}\n", "w.yaml:1: limits.body: found \"1023\", expected " SIZE},
		{"limits: {body: 16M}\n", "w.yaml:1: limits.body: found \"16M\", expected " SIZE},
		{"limits: {body: 9999999TiB}\n", "w.yaml:1: limits.body: found \"9999999TiB\", expected " SIZE},
		{"limits: {body: 1024.5}\n", "w.yaml:1: limits.body: found \"1024.5\", expected " SIZE},
		{"listen: {address: }\n", "w.yaml:1: listen.address: found nothing, expected a string"},
		{"listen: {address: ~}\n", "w.yaml:1: listen.address: found nothing, expected a string"},
		{"listen: {address: \"a\\0b\"}\n", "w.yaml:1: listen.address: found a NUL, expected a string"},
		{"keys: a\n", "w.yaml:1: keys: found \"a\", expected a list of strings"},
		{"keys:\n", "w.yaml:1: keys: found nothing, expected a list of strings"},
		{"keys: [a, [b]]\n", "w.yaml:1: keys[1]: found a list, expected a string"},
		{"keys:\n- a\n- b: c\n", "w.yaml:3: keys[1]: found a section, expected a string"},
		{"keys: [a, ]\nkeys: []\n", "w.yaml:2: keys: found the key a second time, expected each key once"},
		{"keys:\n- a\n-\n", "w.yaml:3: keys[1]: found nothing, expected a string"},
		{"secret: [hunter2]\n", "w.yaml:1: secret: found a list, expected a string"},
		{"seed: 0123456789012345678901234567890123456789012345678901234567890\n",
	         "w.yaml:1: seed: found \"0123456789012345678901234567890123456789…\", expected an integer from 0 to "
	         "9000000000000000"},
	};
	int wrong = 0;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		sample c;
		wn_error err;
		memset(&c, 0xab, sizeof c);
		if (parse(&c, bad[i].text, &err) != WN_INVALID)
			fail_msg("accepted or wrong code: %s", bad[i].text);
		if (strcmp(err.message, bad[i].message) != 0) {
			print_error("found    %s\nexpected %s\n", err.message, bad[i].message);
			wrong++;
		}
		assert_null(c.address); /* cleared: nothing to free */
		assert_int_equal(c.port, 0);
	}
	assert_int_equal(wrong, 0);
}

static void depth_and_size_are_bounded(void **state)
{
	sample c;
	wn_error err;
	char *big = malloc(CONFIG_MAX_FILE + 2), expected[600];
	memset(big, '#', CONFIG_MAX_FILE + 1);
	big[CONFIG_MAX_FILE + 1] = '\0';
	assert_int_equal(parse(&c, big, &err), WN_TOO_LARGE);
	assert_string_equal(err.message, "w.yaml: found 1048577 bytes, expected at most 1048576");
	big[CONFIG_MAX_FILE] = '\0';
	assert_int_equal(parse(&c, big, &err), WN_OK); /* one comment of exactly 1 MiB */
	config_free(&SCHEMA, &c);

	big[CONFIG_MAX_FILE] = '#';
	const char *path = temp_file("big.yaml", big, CONFIG_MAX_FILE + 1);
	assert_int_equal(config_load(&SCHEMA, &c, path, &(wn_error){0}), WN_TOO_LARGE);
	memset(big, '[', CONFIG_MAX_FILE);
	big[CONFIG_MAX_FILE] = '\0';
	assert_int_equal(parse(&c, big, &err), WN_INVALID);
	assert_string_equal(err.message, "w.yaml:1: found a list, expected a section of keys");
	memset(big, '{', CONFIG_MAX_FILE);
	assert_int_equal(parse(&c, big, &err), WN_INVALID);
	free(big);

	char *many = malloc(6 * (CONFIG_MAX_LIST + 2)), *p = many + sprintf(many, "keys:\n");
	for (int i = 0; i <= CONFIG_MAX_LIST; i++)
		p += sprintf(p, "- x\n");
	assert_int_equal(parse(&c, many, &err), WN_INVALID);
	assert_string_equal(err.message, "w.yaml:4098: keys[4096]: found one entry more, expected at most 4096");
	free(many);
	err = (wn_error){0};
	assert_int_equal(config_load(&SCHEMA, &c, temp_path("absent.yaml"), &err), WN_NOT_FOUND);
	snprintf(expected, sizeof expected, "%s/absent.yaml: cannot open: No such file or directory", temp_dir);
	assert_string_equal(err.message, expected);
}

static void every_prefix_loads_or_fails_cleanly(void **state)
{
	const char *text = "listen: {port: 1, address: \"\\u5185\"}\nkeys: [a, 'b', \"c\"]\nrate: |\n  1\nmode: >-\n  pinned\n";
	for (size_t n = 0; n <= strlen(text); n++) {
		sample c;
		wn_error err = {0};
		char *copy = malloc(n ? n : 1); /* exact size: an overread is an ASan report */
		memcpy(copy, text, n);
		if (config_parse(&SCHEMA, &c, "w", copy, n, &err) == WN_OK)
			config_free(&SCHEMA, &c);
		else
			assert_true(strlen(err.message) > 10);
		free(copy);
	}
}

static void required_keys_must_be_given(void **state)
{
	required c;
	wn_error err = {0};
	assert_int_equal(config_defaults(&REQUIRED, &c, &err), WN_INVALID);
	assert_string_equal(err.message, "defaults: data.dir: found nothing, expected a string (required: where the data is)");
	err = (wn_error){0};
	assert_int_equal(config_parse(&REQUIRED, &c, "r", "data: {dir: x}\n", 15, &err), WN_INVALID);
	assert_string_equal(err.message, "r: n: found nothing, expected an integer from 1 to 9 (required: how many)");
	err = (wn_error){0};
	assert_int_equal(config_parse(&REQUIRED, &c, "r", "n: 3\ndata: {dir: x}\n", 20, &err), WN_OK);
	assert_int_equal(c.n, 3);
	config_free(&REQUIRED, &c);
}

static void set_changes_one_key_or_nothing(void **state)
{
	sample c;
	wn_error err = {0};
	assert_int_equal(config_defaults(&SCHEMA, &c, &err), WN_OK);
	assert_int_equal(config_set(&SCHEMA, &c, "listen.port=9000", &err), WN_OK);
	assert_int_equal(c.port, 9000);
	assert_int_equal(config_set(&SCHEMA, &c, "listen.address=内容：{text}=", &err), WN_OK);
	assert_string_equal(c.address, "内容：{text}=");
	assert_int_equal(config_set(&SCHEMA, &c, "listen.address=", &err), WN_OK);
	assert_string_equal(c.address, "");
	assert_int_equal(config_set(&SCHEMA, &c, "keys=[x, y, z]", &err), WN_OK);
	assert_int_equal(c.keys.count, 3);
	static const char *const bad[][2] = {
		{"listen.port=0", "listen.port: found \"0\", expected an integer from 1 to 65535"},
		{"listen.port", "found \"listen.port\", expected KEY=VALUE"},
		{"=1", "found \"=1\", expected KEY=VALUE"},
		{"listen=1", "listen: found an unknown key, expected one that --print-config lists"},
		{"listen.prt=1", "listen.prt: found an unknown key, expected \"listen.port\" perhaps"},
		{"lisen.port=1", "lisen.port: found an unknown key, expected \"listen.port\" perhaps"},
		{"keys=x", "keys: found \"x\", expected a list of strings: [a, b]"},
		{"keys=", "keys: found nothing, expected a list of strings: [a, b]"},
		{"keys=[a, *b]", "keys[1]: found an alias (*), expected the value itself"},
		{"keys=[a, b", "keys: found invalid YAML (did not find expected ',' or ']'), expected a list of strings: [a, b]"},
		{"listen.address=\xff", "listen.address: found \"\xff\", expected a string"},
	};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		err = (wn_error){0};
		assert_int_equal(config_set(&SCHEMA, &c, bad[i][0], &err), WN_INVALID);
		assert_string_equal(err.message, bad[i][1]);
	}
	assert_int_equal(c.port, 9000);
	assert_int_equal(c.keys.count, 3);
	assert_string_equal(c.address, "");
	config_free(&SCHEMA, &c);
}

static char *print(const config_schema *s, const void *cfg)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	config_print(s, cfg, f);
	fclose(f);
	return text;
}

static void printed_defaults_document_every_key(void **state)
{
	char *text = print(&SCHEMA, NULL);
	assert_string_equal(text, "# where\n"
	                          "listen:\n"
	                          "  # address to bind [a string]\n"
	                          "  address: \"127.0.0.1\"\n"
	                          "  # TCP port [an integer from 1 to 65535]\n"
	                          "  port: 8080\n"
	                          "# random seed [an integer from 0 to 9000000000000000]\n"
	                          "seed: 1\n"
	                          "# learning rate [a number from 0 to 10]\n"
	                          "rate: 1e-3\n"
	                          "# log requests [true or false]\n"
	                          "log: true\n"
	                          "# which versions [one of latest, pinned]\n"
	                          "mode: latest\n"
	                          "# time to answer [" DURATION "]\n"
	                          "deadline: 90ms\n"
	                          "\n"
	                          "limits:\n"
	                          "  # largest body [" SIZE "]\n"
	                          "  body: 16MiB\n"
	                          "# inference keys [a list of strings]\n"
	                          "keys: [a, 'b c']\n"
	                          "# not to be shown [a string]\n"
	                          "secret: \"\"\n"
	                          "\n"
	                          "a:\n"
	                          "  b:\n"
	                          "    c:\n"
	                          "      # four levels down [an integer from -5 to 5]\n"
	                          "      deep: 5\n");
	free(text);
	text = print(&REQUIRED, NULL);
	assert_string_equal(text, "data:\n"
	                          "  # where the data is [a string; required]\n"
	                          "  #dir:\n"
	                          "# how many [an integer from 1 to 9; required]\n"
	                          "#n:\n");
	free(text);
}

static void printed_values_load_again(void **state)
{
	sample a, b;
	wn_error err = {0};
	assert_int_equal(config_defaults(&SCHEMA, &a, &err), WN_OK);
	static const char *const hard[] = {"",     "null", "~",  "true", "8080", "a: b",    "# c", " x ", "\"q\" \\ 'r'", "l1\nl2\ttab",
	                                   "内容", "\xe2\x80\xa8\xef\xbb\xbf\xc2\x85\x7f", "- a", "*x", "&y", "😀"};
	assert_int_equal(config_set(&SCHEMA, &a, "rate=0.1", &err), WN_OK);
	assert_int_equal(config_set(&SCHEMA, &a, "deadline=1234567ns", &err), WN_OK);
	assert_int_equal(config_set(&SCHEMA, &a, "limits.body=1025", &err), WN_OK);
	assert_int_equal(config_set(&SCHEMA, &a, "seed=8999999999999999", &err), WN_OK);
	for (size_t i = 0; i < sizeof hard / sizeof *hard; i++) {
		char set[200];
		snprintf(set, sizeof set, "listen.address=%s", hard[i]);
		assert_int_equal(config_set(&SCHEMA, &a, set, &err), WN_OK);
		free(a.keys.items[i % 2]);
		a.keys.items[i % 2] = strdup(hard[i]);
		char *text = print(&SCHEMA, &a);
		if (config_parse(&SCHEMA, &b, "again", text, strlen(text), &err) != WN_OK)
			fail_msg("%s in\n%s", err.message, text);
		assert_null(config_first_difference(&SCHEMA, &a, &b, 0));
		assert_string_equal(b.address, hard[i]);
		config_free(&SCHEMA, &b);
		free(text);
	}
	config_free(&SCHEMA, &a);
}

static wn_code even_port(const void *cfg, wn_error *err)
{
	const sample *c = cfg;
	return c->port % 2 ? wn_fail(err, WN_UNSUPPORTED, "listen.port: found %d, expected an even one", c->port) : WN_OK;
}

/* A file, what the command line says otherwise, and what no single key can say. */
static void overrides_and_checks_are_refused_by_name(void **state)
{
	static const char *const good[] = {"listen.port=10", "rate=2", "listen.port=12"};
	static const struct {
		const char *set;
		wn_code code;
		const char *message;
	} bad[] = {
		{"listen.port=x", WN_INVALID, "--set listen.port=x: listen.port: found \"x\", expected an integer from 1 to 65535"},
		{"nonsense=1", WN_INVALID, "--set nonsense=1: nonsense: found an unknown key, expected one that --print-config lists"},
		{"listen.port=11", WN_UNSUPPORTED, "with.yaml: listen.port: found 11, expected an even one"},
	};
	const char *path = temp_file("with.yaml", "listen: {port: 8}\nseed: 5\n", 26);
	sample c;
	wn_error err = {0};
	assert_int_equal(config_load_with(&SCHEMA, &c, path, good, 3, even_port, &err), WN_OK);
	assert_int_equal(c.port, 12); /* the last one counts */
	assert_true(c.rate == 2 && c.seed == 5);
	char *text = config_text(&SCHEMA, &c), *printed = print(&SCHEMA, &c);
	assert_string_equal(text, printed);
	free(text);
	free(printed);
	config_free(&SCHEMA, &c);
	assert_int_equal(config_load_with(&SCHEMA, &c, path, NULL, 0, NULL, &err), WN_OK);
	assert_int_equal(c.port, 8);
	config_free(&SCHEMA, &c);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		err = (wn_error){0};
		memset(&c, 1, sizeof c);
		assert_int_equal(config_load_with(&SCHEMA, &c, path, &bad[i].set, 1, even_port, &err), bad[i].code);
		if (!strstr(err.message, bad[i].message))
			fail_msg("%s", err.message);
		assert_null(c.address); /* cleared */
	}
	err = (wn_error){0};
	assert_int_equal(config_load_with(&SCHEMA, &c, temp_path("absent.yaml"), NULL, 0, even_port, &err), WN_NOT_FOUND);
}

static void secrets_are_neither_printed_nor_quoted(void **state)
{
	sample c;
	wn_error err = {0};
	assert_int_equal(config_defaults(&SCHEMA, &c, &err), WN_OK);
	assert_int_equal(config_set(&SCHEMA, &c, "secret=hunter2", &err), WN_OK);
	char *text = print(&SCHEMA, &c);
	assert_null(strstr(text, "hunter2"));
	assert_non_null(strstr(text, "secret: \"***\""));
	free(text);
	assert_int_equal(config_set(&SCHEMA, &c, "secret=hunter2\xff", &err), WN_INVALID);
	assert_null(strstr(err.message, "hunter2"));
	config_free(&SCHEMA, &c);
}

static void first_difference_tells_reload_from_restart(void **state)
{
	sample a, b;
	wn_error err = {0};
	assert_int_equal(config_defaults(&SCHEMA, &a, &err), WN_OK);
	assert_int_equal(config_defaults(&SCHEMA, &b, &err), WN_OK);
	assert_null(config_first_difference(&SCHEMA, &a, &b, 0));
	b.rate = 2;
	assert_string_equal(config_first_difference(&SCHEMA, &a, &b, 0), "rate");
	assert_null(config_first_difference(&SCHEMA, &a, &b, CONFIG_RELOADABLE));
	assert_int_equal(config_set(&SCHEMA, &b, "keys=[a]", &err), WN_OK);
	assert_string_equal(config_first_difference(&SCHEMA, &a, &b, CONFIG_RELOADABLE), "keys");
	config_free(&SCHEMA, &a);
	config_free(&SCHEMA, &b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(absent_keys_take_their_defaults),
		cmocka_unit_test(every_type_reads_its_value),
		cmocka_unit_test(units_of_time_and_size),
		cmocka_unit_test(refusals_name_line_key_found_and_expected),
		cmocka_unit_test(depth_and_size_are_bounded),
		cmocka_unit_test(every_prefix_loads_or_fails_cleanly),
		cmocka_unit_test(required_keys_must_be_given),
		cmocka_unit_test(set_changes_one_key_or_nothing),
		cmocka_unit_test(printed_defaults_document_every_key),
		cmocka_unit_test(printed_values_load_again),
		cmocka_unit_test(overrides_and_checks_are_refused_by_name),
		cmocka_unit_test(secrets_are_neither_printed_nor_quoted),
		cmocka_unit_test(first_difference_tells_reload_from_restart),
	};
	return cmocka_run_group_tests(tests, temp_dir_make, temp_dir_remove);
}
