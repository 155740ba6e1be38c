/* The error record: the first failure is kept, a message is one line, arenas measure and hand out alike. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/error.h"

static void first_error_is_kept(void **state)
{
	wn_error err = {0};
	assert_int_equal(wn_fail(&err, WN_IO, "first %d", 1), WN_IO);
	assert_int_equal(wn_fail(&err, WN_NOMEM, "second"), WN_NOMEM);
	assert_int_equal(err.code, WN_IO);
	assert_string_equal(err.message, "first 1");
	assert_int_equal(wn_fail(NULL, WN_INVALID, "nobody listens"), WN_INVALID);
}

static void outside_bytes_cannot_break_the_line(void **state)
{
	wn_error err = {0};
	wn_fail(&err, WN_INVALID, "key \"%s\"", "a\nb\x1b[31m\x7f");
	assert_string_equal(err.message, "key \"a?b?[31m?\"");
}

static void prefix_goes_in_front_and_fits(void **state)
{
	wn_error err = {0};
	wn_fail(&err, WN_INVALID, "key: found x");
	assert_int_equal(wn_fail_prefix(&err, "%s", "dir/config.json"), WN_INVALID);
	assert_string_equal(err.message, "dir/config.json: key: found x");
	char longname[2000];
	memset(longname, 'p', sizeof longname);
	longname[sizeof longname - 1] = '\0';
	wn_fail_prefix(&err, "%s", longname);
	assert_true(strlen(err.message) < sizeof err.message);
}

static void dry_arena_measures_what_a_real_one_hands_out(void **state)
{
	arena dry = {0}, real;
	wn_error err = {0};
	for (size_t i = 1; i < 200; i += 13)
		assert_non_null(arena_alloc(&dry, i));
	assert_int_equal(arena_open(&real, dry.used, &err), WN_OK);
	for (size_t i = 1; i < 200; i += 13) {
		unsigned char *p = arena_alloc(&real, i);
		assert_non_null(p);
		assert_int_equal((uintptr_t)p % 64, 0);
		memset(p, 1, i);
	}
	assert_int_equal(real.used, dry.used);
	assert_null(arena_alloc(&real, real.size));
	assert_null(arena_alloc(&real, SIZE_MAX - 8));
	float *floats;
	assert_false(arena_floats(&real, &floats, real.size, 1));
	assert_null(floats);
	assert_false(arena_floats(&dry, &floats, (size_t)1 << 33, (size_t)1 << 31)); /* 2^64 elements: 0 when it wraps */
	assert_false(arena_floats(&dry, &floats, (size_t)1 << 31, (size_t)1 << 31)); /* 2^64 bytes */
	assert_true(arena_floats(&dry, &floats, 3, 5));
	arena_close(&real);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(first_error_is_kept),
		cmocka_unit_test(outside_bytes_cannot_break_the_line),
		cmocka_unit_test(prefix_goes_in_front_and_fits),
		cmocka_unit_test(dry_arena_measures_what_a_real_one_hands_out),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
