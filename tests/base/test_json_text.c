/* test_json_text.c: JSON as jansson reads and writes it, and memory that runs out anywhere in it: an error, never a wrong value or a
 * damaged text, never a byte beyond a buffer (the address sanitizer looks), nothing left behind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/json_text.h"
#include "failing_calls.h"

typedef struct text {
	char bytes[8192];
	size_t len, from, to; /* [from, to) is left out */
	const json_t *expected;
} text;

static wn_code read_once(void *cls, wn_error *err)
{
	const text *t = cls;
	json_error_t e;
	char *exact = malloc(t->len); /* the first byte beyond it is somebody else's */
	if (!exact)
		return wn_fail(err, WN_NOMEM, "no memory for the test itself");
	memcpy(exact, t->bytes, t->len);
	json_t *found = json_read_without(exact, t->len, t->from, t->to, JSON_REJECT_DUPLICATES, &e);
	failing_calls_disarm();
	if (found && t->expected && !json_equal(found, t->expected))
		fail_msg("%.60s: another value", t->bytes);
	wn_code rc = found ? WN_OK : wn_fail(err, json_read_code(&e), "%s", e.text);
	json_decref(found);
	free(exact);
	return rc;
}

static long fail_every_call(text *t)
{
	long refused = 0;
	wn_error none = {0};
	if (read_once(t, &none) != WN_OK)
		fail_msg("%.60s: %s", t->bytes, none.message);
	const long calls = every_failure(CALLS_JANSSON, read_once, t, &refused);
	assert_int_equal(refused, calls); /* there is nothing that a value could do without */
	return calls;
}

/* Tokens of every length around those at which jansson's buffer doubles: where it cannot, is where it would lose its way. */
static void a_token_of_any_length_survives_every_failure(void **state)
{
	static const char *const AROUND[][3] = {{"[\"", "x", "\"]"}, {"{\"", "k", "\":[]}"}, {"[\"", "\\u00e9", "\"]"},
						{"[", "7", ".5]"}, {"[0.", "1", "]"}, {"[1e", "0", "]"}};
	static text t;
	for (size_t c = 0; c < sizeof AROUND / sizeof *AROUND; c++)
		for (int n = 1; n <= 300; n += n < 70 ? 1 : 23) {
			strcpy(t.bytes, AROUND[c][0]);
			for (int i = 0; i < n; i++)
				strcat(t.bytes, AROUND[c][1]);
			strcat(t.bytes, AROUND[c][2]);
			t.len = strlen(t.bytes);
			json_t *right = json_read(t.bytes, t.len, 0, NULL);
			assert_non_null(right);
			t.expected = right;
			assert_true(fail_every_call(&t) >= 3);
			json_decref(right);
		}
}

static void a_document_survives_every_failure(void **state)
{
	static text t;
	strcpy(t.bytes, "{\"list\": [1, 2.5, true, false, null, [], {}]");
	for (int i = 0; i < 40; i++) {
		const size_t n = strlen(t.bytes);
		snprintf(t.bytes + n, sizeof t.bytes - n, ", \"a member with the number %d\": {\"%0*d\": [%d, \"\\ud83d\\ude00 %0*d\"]}", i,
			 i + 1, i, i, 2 * i + 1, i);
	}
	strcat(t.bytes, "}");
	t.len = strlen(t.bytes);
	json_t *right = json_read(t.bytes, t.len, 0, NULL);
	assert_int_equal(json_object_size(right), 41);
	t.expected = right;
	const long calls = fail_every_call(&t);
	print_message("a document of %zu bytes: %ld calls\n", t.len, calls);
	assert_true(calls > 200);
	json_decref(right);
}

static void refusals_are_jansson_s_own_also_without_memory(void **state)
{
	static const char *const BAD[] = {"{\"a\":1,\"a\":2}", "[1,", "[\"0123456789012345678901234567890123456789", "{} x", "[tru]", "\xff", ""};
	for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
		static text t;
		json_error_t e = {0}, right = {0};
		wn_error err = {0};
		strcpy(t.bytes, BAD[i]);
		t.len = strlen(t.bytes);
		assert_null(json_loadb(BAD[i], t.len, JSON_REJECT_DUPLICATES, &right));
		assert_null(json_read(BAD[i], t.len, JSON_REJECT_DUPLICATES, &e));
		assert_memory_equal(&e, &right, sizeof e);
		assert_int_equal(json_read_code(&e), WN_INVALID);
		assert_null(json_read(BAD[i], t.len, JSON_REJECT_DUPLICATES, NULL));
		for (long k = 1;; k++) {
			err = (wn_error){0};
			failing_calls_arm(CALLS_JANSSON, k);
			const wn_code rc = read_once(&t, &err);
			if (!failing_calls_disarm()) {
				assert_int_equal(rc, WN_INVALID);
				break;
			}
			assert_int_equal(rc, WN_NOMEM);
			assert_string_equal(err.message, "out of memory");
		}
	}
}

static void what_is_left_out_is_not_read(void **state)
{
	static text t = {.bytes = "{\"a\": \"\x01 not JSON \\q\", \"b\": [\"cut\"]}"};
	json_t *right = json_pack("{s:s, s:[s]}", "a", "", "b", "cut");
	t.len = strlen(t.bytes);
	t.from = (size_t)(strchr(t.bytes, 1) - t.bytes);
	t.to = (size_t)(strchr(t.bytes, 'q') - t.bytes) + 1;
	t.expected = right;
	assert_null(json_read(t.bytes, t.len, 0, NULL));
	assert_true(fail_every_call(&t) > 5);
	json_decref(right);
	/* At both ends. */
	right = json_read_without("xxx[1]", 6, 0, 3, 0, NULL);
	assert_int_equal(json_array_size(right), 1);
	json_decref(right);
	right = json_read_without("[1]xxx", 6, 3, 6, 0, NULL);
	assert_int_equal(json_array_size(right), 1);
	json_decref(right);
	assert_null(json_read_without("[1]", 3, 0, 3, 0, NULL));
}

/* The hook is there for everything that jansson does. */
static void values_outlive_the_reading_and_texts_are_free_s(void **state)
{
	json_t *first = json_read("{\"a\": [1, {\"b\": \"c\"}]}", 22, 0, NULL), *a = json_incref(json_object_get(first, "a"));
	json_decref(first);
	assert_null(json_read("[", 1, 0, NULL));
	json_t *second = json_read("[2]", 3, 0, NULL);
	assert_int_equal(json_array_append(a, second), 0);
	char *dumped = json_write(a, JSON_COMPACT);
	assert_string_equal(dumped, "[1,{\"b\":\"c\"},[2]]");
	free(dumped);
	json_decref(second);
	json_decref(a);
}

static wn_code write_whole(void *cls, wn_error *err)
{
	char *written = json_write(cls, JSON_COMPACT);
	failing_calls_disarm();
	json_t *back = written ? json_read(written, strlen(written), 0, NULL) : NULL;
	if (written && !json_equal(back, cls))
		fail_msg("damaged: %.200s", written);
	json_decref(back);
	free(written);
	return written ? WN_OK : wn_fail(err, WN_NOMEM, "no memory for a text");
}

/* Keys and values around the lengths at which the text's buffer doubles. */
static void a_text_is_whole_or_none(void **state)
{
	char key[80] = "";
	json_t *document = json_object();
	for (int n = 0; n < 70; n++) {
		memset(key, 'k', (size_t)n);
		json_object_set_new(document, key, n % 3 ? json_string(key) : json_pack("[i, f, {s:b}]", n, n / 7.0, key, 1));
		long refused = 0, calls = every_failure(CALLS_JANSSON, write_whole, document, &refused);
		assert_true(calls > 0 && refused == calls);
	}
	json_decref(document);
	assert_null(json_write(NULL, 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_token_of_any_length_survives_every_failure),
		cmocka_unit_test(a_document_survives_every_failure),
		cmocka_unit_test(refusals_are_jansson_s_own_also_without_memory),
		cmocka_unit_test(what_is_left_out_is_not_read),
		cmocka_unit_test(a_text_is_whole_or_none),
		cmocka_unit_test(values_outlive_the_reading_and_texts_are_free_s),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
