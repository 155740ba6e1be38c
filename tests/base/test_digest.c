/* SHA-256 against the vectors of FIPS 180-4, over memory, one file and several. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/digest.h"
#include "temp_dir.h"

#define EMPTY "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define ABC "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define MILLION_A "sha256:cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"

static void memory_matches_the_standard(void **state)
{
	char d[DIGEST_SIZE], *a = malloc(1000000);
	digest_memory(d, NULL, 0);
	assert_string_equal(d, EMPTY);
	digest_memory(d, "abc", 3);
	assert_string_equal(d, ABC);
	memset(a, 'a', 1000000);
	digest_memory(d, a, 1000000);
	assert_string_equal(d, MILLION_A);
	free(a);
}

static void files_match_memory(void **state)
{
	char d[DIGEST_SIZE], *a = malloc(1000000);
	wn_error err = {0};
	memset(a, 'a', 1000000);
	assert_int_equal(digest_file(d, temp_file("a", a, 1000000), &err), WN_OK);
	assert_string_equal(d, MILLION_A);
	assert_int_equal(digest_file(d, temp_file("empty", "", 0), &err), WN_OK);
	assert_string_equal(d, EMPTY);
	const char *parts[2];
	parts[0] = temp_file("1", "a", 1);
	parts[1] = temp_file("2", "bc", 2);
	assert_int_equal(digest_files(d, parts, 2, &err), WN_OK);
	assert_string_equal(d, ABC);
	free(a);
}

static void failures_name_the_file(void **state)
{
	char d[DIGEST_SIZE];
	wn_error err = {0};
	assert_int_equal(digest_file(d, temp_path("absent"), &err), WN_NOT_FOUND);
	assert_non_null(strstr(err.message, "/absent: cannot open"));
	assert_string_equal(d, "");
	err = (wn_error){0};
	assert_int_equal(digest_file(d, temp_dir, &err), WN_INVALID);
}

static void only_the_exact_spelling_is_a_digest(void **state)
{
	char upper[DIGEST_SIZE] = ABC;
	assert_true(digest_is_valid(ABC));
	assert_false(digest_is_valid(""));
	assert_false(digest_is_valid("sha256:"));
	assert_false(digest_is_valid(ABC "0"));
	assert_false(digest_is_valid(ABC + 1));
	upper[7] = 'B';
	assert_false(digest_is_valid(upper));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(memory_matches_the_standard),
		cmocka_unit_test(files_match_memory),
		cmocka_unit_test(failures_name_the_file),
		cmocka_unit_test(only_the_exact_spelling_is_a_digest),
	};
	return cmocka_run_group_tests(tests, temp_dir_make, temp_dir_remove);
}
