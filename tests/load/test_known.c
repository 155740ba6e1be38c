/* Answers held against known ones: what is right, what is not and why, who is counted where; and files that are
 * refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "load/known.h"
#include "tests/base/temp_dir.h"

#define LABELS(a, b)                     "\"labels\":[{\"name\":\"x\",\"score\":" a "},{\"name\":\"y\",\"score\":" b "}]"
#define ENTRY(label, suggestion, labels) "{\"label\":\"" label "\",\"suggestion\":\"" suggestion "\"," labels "}"
#define ANSWER(version, digest, label, suggestion, labels)                                                             \
	"{\"model\":{\"version\":\"" version "\",\"digest\":\"" digest "\"},\"label\":\"" label                        \
	"\",\"suggestion\":\"" suggestion "\"," labels "}"

#define A1 ENTRY("x", "pass", LABELS("0.9", "0.1"))
#define B1 ENTRY("y", "block", LABELS("0.2", "0.8"))
#define A2 ENTRY("x", "pass", LABELS("0.7", "0.3"))

static const char FILE_TEXT[] =
    "{\"tolerance\":0.01,\"answers\":{\"d1\":{\"a.jpg\":" A1 ",\"b.jpg\":" B1 "},\"d2\":{\"a.jpg\":" A2 "}}}";

static known_answers *open_text(const char *text, wn_code expected, const char *why)
{
	char path[4096];
	known_answers *k = NULL;
	wn_error err = {0};
	snprintf(path, sizeof path, "%s/known.json", temp_dir);
	assert_int_equal(file_write_atomic(path, text, strlen(text), &err), WN_OK);
	assert_int_equal(known_answers_open(&k, path, &err), expected);
	if (expected != WN_OK) {
		assert_null(k);
		assert_non_null(strstr(err.message, path));
		assert_non_null(strstr(err.message, why));
	}
	return k;
}

static void ask(known_answers *k, const char *ad, const char *body) { known_answers_check(k, ad, body, strlen(body)); }

static void expect(const known_answers *k, size_t right, size_t wrong, size_t unknown)
{
	const known_counts c = known_answers_total(k);
	assert_int_equal(c.right, right);
	assert_int_equal(c.wrong, wrong);
	assert_int_equal(c.unknown, unknown);
}

static void right_answers(void **state)
{
	known_answers *k = open_text(FILE_TEXT, WN_OK, "");
	size_t n;
	ask(k, "a.jpg", ANSWER("1", "d1", "x", "pass", LABELS("0.905", "0.095")));
	ask(k, "b.jpg", ANSWER("1", "d1", "y", "block", LABELS("0.2", "0.8")));
	ask(k, "a.jpg", ANSWER("2", "d2", "x", "pass", LABELS("0.695", "0.305")));
	ask(k, "a.jpg", ANSWER("3", "d1", "x", "pass", LABELS("0.9", "0.1")));
	expect(k, 4, 0, 0);
	assert_string_equal(known_answers_first(k), "");
	const known_tally *t = known_answers_tallies(k, &n);
	assert_int_equal(n, 3);
	assert_string_equal(t[0].version, "1");
	assert_string_equal(t[0].digest, "d1");
	assert_int_equal(t[0].counts.right, 2);
	assert_string_equal(t[2].version, "3");
	assert_string_equal(t[2].digest, "d1");
	assert_int_equal(t[2].counts.right, 1);
	known_answers_close(&k);
	assert_null(k);
	known_answers_close(&k);
}

/* Each alone: what it counts as, and what the first line says. */
static void other_answers(void **state)
{
	static const struct {
		const char *ad, *body;
		size_t wrong, unknown;
		const char *why;
	} cases[] = {
	    /* version 2's answer under the name of version 1: what all this is for */
	    {"a.jpg", ANSWER("1", "d1", "x", "pass", LABELS("0.7", "0.3")), 1, 0,
	     "a.jpg: version 1 says x 0.7, its model 0.9"},
	    {"b.jpg", ANSWER("1", "d1", "y", "block", LABELS("0.2", "0.82")), 1, 0, "says y 0.82, its model 0.8"},
	    {"a.jpg", ANSWER("1", "d1", "y", "pass", LABELS("0.9", "0.1")), 1, 0, "says label \"y\", its model \"x\""},
	    {"a.jpg", ANSWER("1", "d1", "x", "block", LABELS("0.9", "0.1")), 1, 0, "says suggestion \"block\""},
	    {"a.jpg", ANSWER("1", "d1", "x", "pass", "\"labels\":[{\"name\":\"x\",\"score\":0.9}]"), 1, 0, "says y 0"},
	    {"a.jpg", ANSWER("1", "d1", "x", "pass", LABELS("0.9", "\"0.1\"")), 1, 0, "says y 0"},
	    {"a.jpg",
	     ANSWER("1", "d1", "x", "pass",
		    "\"labels\":[{\"name\":\"x\",\"score\":0.9},{\"name\":\"y\",\"score\":0.1},{\"name\":\"z\","
		    "\"score\":0}]"),
	     1, 0, "says 3 labels, its model 2"},
	    {"a.jpg", ANSWER("1", "d3", "x", "pass", LABELS("0.9", "0.1")), 0, 1, "no answer of it is known"},
	    {"c.jpg", ANSWER("1", "d1", "x", "pass", LABELS("0.9", "0.1")), 0, 1, "c.jpg: version \"1\""},
	    {"a.jpg", "{}", 0, 1, "version \"\""},
	    {"a.jpg", "", 0, 1, "version \"\""},
	    {"a.jpg", "[1", 0, 1, "version \"\""},
	    {"a.jpg", "{\"model\":[],\"label\":3}", 0, 1, "version \"\""},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		known_answers *k = open_text(FILE_TEXT, WN_OK, "");
		ask(k, cases[i].ad, cases[i].body);
		expect(k, 0, cases[i].wrong, cases[i].unknown);
		if (!strstr(known_answers_first(k), cases[i].why))
			fail_msg("case %zu: found \"%s\", expected \"%s\"", i, known_answers_first(k), cases[i].why);
		ask(k, "a.jpg", ANSWER("1", "d1", "x", "pass", LABELS("0.9", "0.1")));
		expect(k, 1, cases[i].wrong, cases[i].unknown);
		known_answers_close(&k);
	}
}

static void many_versions(void **state)
{
	known_answers *k = open_text(FILE_TEXT, WN_OK, "");
	char body[400];
	size_t n;
	for (int i = 0; i < KNOWN_MAX_VERSIONS + 10; i++) {
		static const char format[] = ANSWER("%d", "d1", "x", "pass", LABELS("0.9", "0.1"));
		snprintf(body, sizeof body, format, i);
		ask(k, "a.jpg", body);
	}
	ask(k, "a.jpg",
	    ANSWER("a version with a name of more than thirty-two bytes", "d1", "x", "pass", LABELS("0.9", "0.1")));
	expect(k, KNOWN_MAX_VERSIONS + 11, 0, 0); /* counted, if not told apart */
	known_answers_tallies(k, &n);
	assert_int_equal(n, KNOWN_MAX_VERSIONS);
	known_answers_close(&k);
}

static void refused_files(void **state)
{
	static const struct {
		const char *text, *why;
	} bad[] = {
	    {"", "known.json"},
	    {"{\"tolerance\":0.01,", ":1:"},
	    {"[]", "tolerance"},
	    {"{\"answers\":{}}", "tolerance"},
	    {"{\"tolerance\":0,\"answers\":{\"d\":{}}}", "tolerance"},
	    {"{\"tolerance\":0.01}", "\"answers\" is missing"},
	    {"{\"tolerance\":0.01,\"answers\":[]}", "\"answers\" is missing"},
	    {"{\"tolerance\":0.01,\"answers\":{\"d\":{}}}", "d: expected answers by ad"},
	    {"{\"tolerance\":0.01,\"answers\":{\"d\":{\"a\":3}}}", "d: a: expected \"label\""},
	    {"{\"tolerance\":0.01,\"answers\":{\"d\":{\"a\":{\"label\":\"x\"}}}}", "d: a: expected"},
	    {"{\"tolerance\":0.01,\"answers\":{\"d\":{\"a\":{\"label\":\"x\",\"labels\":[{\"name\":\"x\"}]}}}}",
	     "d: a: expected"},
	};
	known_answers *k;
	wn_error err = {0};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		open_text(bad[i].text, WN_INVALID, bad[i].why);
	assert_int_equal(known_answers_open(&k, "/no/such/file", &err), WN_NOT_FOUND);
	assert_null(k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(right_answers),
	    cmocka_unit_test(other_answers),
	    cmocka_unit_test(many_versions),
	    cmocka_unit_test(refused_files),
	};
	return cmocka_run_group_tests(tests, temp_dir_make, temp_dir_remove);
}
