/* The server's configuration: defaults are safe, the shipped file and --print-config agree with the table, and
 * contradictions between keys are refused by name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <cmocka.h>

#include "server/config.h"
#include "server/keys.h"

static server_config load(const char *yaml)
{
	server_config c;
	wn_error err = {0};
	if (config_parse(&SERVER_CONFIG_SCHEMA, &c, "t.yaml", yaml, strlen(yaml), &err) != WN_OK)
		fail_msg("%s", err.message);
	return c;
}

static void expect_refusal(const char *yaml, const char *message)
{
	server_config c = load(yaml);
	wn_error err = {0};
	assert_int_equal(server_config_check(&c, &err), WN_INVALID);
	assert_string_equal(err.message, message);
	config_free(&SERVER_CONFIG_SCHEMA, &c);
}

static void defaults_are_valid_and_listen_on_loopback(void **state)
{
	server_config c = load("{}");
	wn_error err = {0};
	struct sockaddr_storage a;
	socklen_t len;
	assert_int_equal(server_config_check(&c, &err), WN_OK);
	assert_int_equal(server_config_address(&c, &a, &len, &err), WN_OK);
	assert_true(address_is_loopback((struct sockaddr *)&a));
	assert_int_equal(ntohs(((struct sockaddr_in *)&a)->sin_port), 8080);
	assert_int_equal(c.deadline_ns, 90000000);
	assert_int_equal(c.max_batch, 1);
	config_free(&SERVER_CONFIG_SCHEMA, &c);
}

static void shipped_file_says_the_defaults(void **state)
{
	server_config shipped, defaults;
	wn_error err = {0};
	if (config_load(&SERVER_CONFIG_SCHEMA, &shipped, "../../configs/serve.yaml", &err) != WN_OK)
		fail_msg("%s", err.message);
	assert_int_equal(config_defaults(&SERVER_CONFIG_SCHEMA, &defaults, &err), WN_OK);
	assert_null(config_first_difference(&SERVER_CONFIG_SCHEMA, &shipped, &defaults, 0));
	config_free(&SERVER_CONFIG_SCHEMA, &shipped);
	config_free(&SERVER_CONFIG_SCHEMA, &defaults);
}

static void unknown_key_is_refused_with_its_line(void **state)
{
	const char *yaml = "listen:\n  port: 80\nlimits:\n  bodi: 1MiB\n";
	server_config c;
	wn_error err = {0};
	assert_int_equal(config_parse(&SERVER_CONFIG_SCHEMA, &c, "t.yaml", yaml, strlen(yaml), &err), WN_INVALID);
	assert_non_null(strstr(err.message, "t.yaml:4:"));
	assert_non_null(strstr(err.message, "limits.bodi"));
}

static void contradictions_are_refused_by_name(void **state)
{
	expect_refusal("listen: {address: localhost}",
		       "listen.address: found \"localhost\", expected a numeric IPv4 or IPv6 address");
	expect_refusal("model: {version: \"01\"}",
		       "model.version: found \"01\", expected latest or a number from 1 to 999999999, or up to 8 of them: "
		       "2,3");
	expect_refusal("model: {others: [a, .b]}",
		       "model.others: found \".b\", expected [A-Za-z0-9._-]{1,64} without a leading dot");
	expect_refusal("model: {others: [a, b=3, a=2]}", "model.others: found \"a\" twice, expected once");
	expect_refusal("model: {others: [ad-audit]}", "model.others: found \"ad-audit\" twice, expected once");
	expect_refusal("model: {dir: x, others: [a]}", "model.dir and model.others are both set, expected one of them");
	expect_refusal("keys: {admin: aaaaaaaaaaaaaaaa, admin_file: f}",
		       "keys.admin and keys.admin_file are both set, expected one of them");
	expect_refusal("model: {name: \"\"}", "model.dir is empty: expected model.registry and model.name to be set");
	expect_refusal("keys: {inference: aaaaaaaaaaaaaaaa, inference_file: f}",
		       "keys.inference and keys.inference_file are both set, expected one of them");
	expect_refusal("inference: {instances: 2}",
		       "inference.instances: found 2, inference.mode latency has one; expected mode throughput");
	expect_refusal("inference: {deadline: 61s}", "inference.deadline: found 61000 ms, expected at most inference.max_deadline, 60000 ms");
	expect_refusal("limits: {image: 13MiB}", "limits.image: found 13631488 bytes, expected at most limits.body, 12582912");
	expect_refusal("limits: {body_budget: 1MiB}", "limits.body: found 12582912 bytes, expected at most limits.body_budget, 1048576");
}

static void loopback_is_told_from_public(void **state)
{
	static const struct {
		const char *address;
		bool loopback;
	} CASES[] = {{"127.0.0.1", true},
		     {"127.9.9.9", true},
		     {"::1", true},
		     {"0.0.0.0", false},
		     {"::", false},
		     {"10.0.0.1", false},
		     {"::2", false},
		     {"128.0.0.1", false},
		     {"::ffff:127.0.0.1", true},
		     {"::ffff:10.0.0.1", false}};
	for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
		server_config c = {.listen_address = (char *)CASES[i].address};
		struct sockaddr_storage a;
		socklen_t len;
		wn_error err = {0};
		assert_int_equal(server_config_address(&c, &a, &len, &err), WN_OK);
		if (address_is_loopback((struct sockaddr *)&a) != CASES[i].loopback)
			fail_msg("%s", CASES[i].address);
	}
}

static void listen_option_takes_every_spelling(void **state)
{
	static const struct {
		const char *arg, *address;
		int port;
	} CASES[] = {{"9000", "127.0.0.1", 9000},
		     {":9001", "127.0.0.1", 9001},
		     {"0.0.0.0:80", "0.0.0.0", 80},
		     {"[::1]:0", "::1", 0}};
	for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
		server_config c = load("{}");
		wn_error err = {0};
		assert_int_equal(server_config_set_listen(&c, CASES[i].arg, &err), WN_OK);
		assert_string_equal(c.listen_address, CASES[i].address);
		assert_int_equal(c.port, CASES[i].port);
		config_free(&SERVER_CONFIG_SCHEMA, &c);
	}
	static const char *const BAD[] = {"", "x", "1.2.3.4:", "1.2.3.4:99999", "80x", "-1", "1.2.3.4:-1", ":+1"};
	for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
		server_config c = load("{}");
		wn_error err = {0};
		if (server_config_set_listen(&c, BAD[i], &err) == WN_OK)
			fail_msg("accepted \"%s\"", BAD[i]);
		config_free(&SERVER_CONFIG_SCHEMA, &c);
	}
	server_config c = load("{}");
	wn_error err = {0};
	assert_int_equal(server_config_set_listen(&c, "1.2.3.4:99999", &err), WN_INVALID);
	assert_string_equal(err.message, "--listen: found port 99999, expected one from 0 to 65535");
	config_free(&SERVER_CONFIG_SCHEMA, &c);
}

static void printed_configuration_hides_keys(void **state)
{
	server_config c = load("keys: {inference: very-secret-value-1234}");
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	config_print(&SERVER_CONFIG_SCHEMA, &c, f);
	fclose(f);
	assert_null(strstr(text, "very-secret"));
	assert_non_null(strstr(text, "queue_capacity"));
	free(text);
	config_free(&SERVER_CONFIG_SCHEMA, &c);
}

/* ---- keys ---- */

static void write_key_file(char path[64], const char *text)
{
	strcpy(path, "/tmp/winnow-keys-XXXXXX");
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

static void keys_come_from_environment_value_or_file(void **state)
{
	key_set k;
	wn_error err = {0};
	char path[64];
	write_key_file(path, "# rotation\nold-key-old-key-old\r\n\n  new-key-new-key-new  \n");
	assert_int_equal(key_set_load(&k, "keys.inference", "", path, "WINNOW_TEST_KEY", &err), WN_OK);
	assert_int_equal(k.count, 2);
	assert_true(key_set_contains(&k, "old-key-old-key-old"));
	assert_true(key_set_contains(&k, "new-key-new-key-new"));
	assert_false(key_set_contains(&k, "new-key-new-key-ne"));
	assert_false(key_set_contains(&k, "new-key-new-key-new "));
	assert_false(key_set_contains(&k, ""));
	setenv("WINNOW_TEST_KEY", "environment-key-1", 1);
	assert_int_equal(key_set_load(&k, "keys.inference", "configured-key-1", "", "WINNOW_TEST_KEY", &err), WN_OK);
	assert_true(key_set_contains(&k, "environment-key-1"));
	assert_false(key_set_contains(&k, "configured-key-1"));
	unsetenv("WINNOW_TEST_KEY");
	assert_int_equal(key_set_load(&k, "keys.inference", "", "", "WINNOW_TEST_KEY", &err), WN_OK);
	assert_int_equal(k.count, 0);
	assert_false(key_set_contains(&k, ""));
	unlink(path);
}

static void expect_bad_keys(const char *text, int line, const char *message)
{
	key_set k;
	wn_error err = {0};
	char path[64], expected[200];
	write_key_file(path, text);
	snprintf(expected, sizeof expected, "%s:%d: %s", path, line, message);
	assert_int_not_equal(key_set_load(&k, "keys.inference", "", path, "WINNOW_TEST_KEY", &err), WN_OK);
	assert_string_equal(err.message, expected);
	assert_int_equal(k.count, 0);
	unlink(path);
}

static void bad_keys_are_refused_and_never_shown(void **state)
{
	key_set k;
	wn_error err = {0};
	assert_int_equal(key_set_load(&k, "keys.inference", "short", "", "WINNOW_TEST_KEY", &err), WN_INVALID);
	assert_string_equal(err.message, "keys.inference: found a key of 5 characters, expected 16 to 256");
	err = (wn_error){0};
	assert_int_equal(key_set_load(&k, "keys.inference", "white space in the key", "", "WINNOW_TEST_KEY", &err),
			 WN_INVALID);
	assert_null(strstr(err.message, "white"));
	err = (wn_error){0};
	char path[64];
	write_key_file(path, "# only a comment\n");
	assert_int_equal(key_set_load(&k, "keys.inference", "", path, "WINNOW_TEST_KEY", &err), WN_INVALID);
	unlink(path);
	expect_bad_keys("# who\na short\n", 2, "found a key of 5 characters, expected 16 to 256");
	expect_bad_keys("a 0123456789abcdef\n\na fedcba9876543210\n", 3,
			"found a second key of the name \"a\", expected a name for each: logs show nothing else");
	expect_bad_keys("key-2 0123456789abcdef\nfedcba9876543210\n", 2,
			"found a second key of the name \"key-2\", expected a name for each: logs show nothing else");
	char many[17 * 18 + 1] = "";
	for (int i = 0; i < 17; i++)
		snprintf(many + 18 * i, 19, "0123456789abcde%02d\n", i);
	expect_bad_keys(many, 17, "found more than 16 keys");
	err = (wn_error){0};
	assert_int_equal(key_set_load(&k, "keys.inference", "", "/nonexistent/keys", "WINNOW_TEST_KEY", &err),
			 WN_NOT_FOUND);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(defaults_are_valid_and_listen_on_loopback),
	    cmocka_unit_test(shipped_file_says_the_defaults),
	    cmocka_unit_test(unknown_key_is_refused_with_its_line),
	    cmocka_unit_test(contradictions_are_refused_by_name),
	    cmocka_unit_test(loopback_is_told_from_public),
	    cmocka_unit_test(listen_option_takes_every_spelling),
	    cmocka_unit_test(printed_configuration_hides_keys),
	    cmocka_unit_test(keys_come_from_environment_value_or_file),
	    cmocka_unit_test(bad_keys_are_refused_and_never_shown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
