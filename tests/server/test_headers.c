/* Values of request headers: what is taken, and what only looks like it. */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "server/headers.h"

static void a_deadline_is_a_whole_number_in_range(void **state)
{
	static const struct {
		const char *text;
		long long ms; /* 0: refused */
	} CASES[] = {{"1", 1},	     {"90", 90},     {"5000", 5000}, {"0090", 90},  {"5001", 0},  {"0", 0},   {"", 0},	  {"-1", 0},
		     {"+90", 0},     {" 90", 0},     {"90 ", 0},     {"9e1", 0},    {"90.0", 0},  {"0x5a", 0}, {"90ms", 0}, {"999999999", 0},
		     {"0000000090", 0}, {"18446744073709551706", 0}, {"\xef\xbc\x99", 0}};
	for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
		if (header_deadline_ms(CASES[i].text, 5000) != CASES[i].ms)
			fail_msg("\"%s\": %lld", CASES[i].text, header_deadline_ms(CASES[i].text, 5000));
	assert_int_equal(header_deadline_ms("999999999", LLONG_MAX), 999999999);
}

static void a_bearer_s_key_is_the_rest(void **state)
{
	assert_string_equal(header_bearer("Bearer key"), "key");
	assert_string_equal(header_bearer("bEARER   key two "), "key two ");
	assert_string_equal(header_bearer("Bearer "), "");
	assert_null(header_bearer("Bearer"));
	assert_null(header_bearer("Bearerkey"));
	assert_null(header_bearer("Bearer\tkey"));
	assert_null(header_bearer(" Bearer key"));
	assert_null(header_bearer("Basic Bearer key"));
	assert_null(header_bearer(""));
}

static void a_length_that_cannot_be_read_is_beyond_every_limit(void **state)
{
	static const char *const BAD[] = {"", " 1", "1 ", "-1", "+1", "0x10", "1,1", "one", "18446744073709551616", "99999999999999999999999"};
	assert_true(header_length("0") == 0);
	assert_true(header_length("00012") == 12);
	assert_true(header_length("18446744073709551614") == ULLONG_MAX - 1);
	for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++)
		if (header_length(BAD[i]) != ULLONG_MAX)
			fail_msg("\"%s\"", BAD[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_deadline_is_a_whole_number_in_range),
	    cmocka_unit_test(a_bearer_s_key_is_the_rest),
	    cmocka_unit_test(a_length_that_cannot_be_read_is_beyond_every_limit),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
