/* Whole-file reads refuse what they should, atomic writes leave the old file or the new one and no rest. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/resource.h>
#include <signal.h>

#include "base/file.h"
#include "temp_dir.h"

static void reads_what_was_written(void **state)
{
	char *data;
	size_t len;
	wn_error err = {0};
	const char *path = temp_path("bytes");
	assert_int_equal(file_write_atomic(path, "a\0b", 3, &err), WN_OK);
	assert_int_equal(file_read(path, 3, &data, &len, &err), WN_OK);
	assert_int_equal(len, 3);
	assert_memory_equal(data, "a\0b\0", 4);
	free(data);
	assert_int_equal(file_write_atomic(path, NULL, 0, &err), WN_OK);
	assert_int_equal(file_read(path, 0, &data, &len, &err), WN_OK);
	assert_int_equal(len, 0);
	assert_string_equal(data, "");
	free(data);
}

static void larger_than_allowed_is_refused_before_it_is_allocated(void **state)
{
	char *data, expected[600];
	size_t len;
	wn_error err = {0};
	const char *path = temp_file("huge", "", 0);
	assert_int_equal(truncate(path, (off_t)1 << 40), 0); /* a sparse TiB: allocating it would fail the test */
	assert_int_equal(file_read(path, 100, &data, &len, &err), WN_TOO_LARGE);
	snprintf(expected, sizeof expected, "%s: found 1099511627776 bytes, expected at most 100", path);
	assert_string_equal(err.message, expected);
	assert_null(data);
	unlink(path);
}

static void absent_directory_and_pipe_have_their_own_errors(void **state)
{
	char *data;
	size_t len;
	wn_error err = {0};
	assert_int_equal(file_read(temp_path("absent"), 10, &data, &len, &err), WN_NOT_FOUND);
	assert_non_null(strstr(err.message, "/absent: cannot open: No such file"));
	err = (wn_error){0};
	assert_int_equal(file_read(temp_dir, 10, &data, &len, &err), WN_INVALID);
	assert_non_null(strstr(err.message, "found a directory, expected a regular file"));
	err = (wn_error){0};
	const char *pipe = temp_path("pipe");
	assert_int_equal(mkfifo(pipe, 0600), 0);
	alarm(5); /* a blocking open would hang for ever */
	assert_int_equal(file_read(pipe, 10, &data, &len, &err), WN_INVALID);
	alarm(0);
	unlink(pipe);
}

static void replacing_keeps_the_old_file_when_the_disk_is_full(void **state)
{
	char *data, *big = calloc(1, 1 << 20);
	size_t len;
	wn_error err = {0};
	const char *path = temp_path("kept");
	struct rlimit old, small;
	assert_int_equal(file_write_atomic(path, "old", 3, &err), WN_OK);
	int entries = temp_dir_entries();
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &old);
	small = old;
	small.rlim_cur = 4096;
	setrlimit(RLIMIT_FSIZE, &small); /* the write fails in its middle, as on a full disk */
	assert_int_equal(file_write_atomic(path, big, 1 << 20, &err), WN_IO);
	setrlimit(RLIMIT_FSIZE, &old);
	assert_non_null(strstr(err.message, "/kept: cannot write: File too large"));
	assert_int_equal(temp_dir_entries(), entries); /* no temporary is left */
	err = (wn_error){0};
	assert_int_equal(file_read(path, 100, &data, &len, &err), WN_OK);
	assert_string_equal(data, "old");
	free(data);
	free(big);
}

static void aborted_writer_leaves_nothing(void **state)
{
	file_writer w;
	wn_error err = {0};
	int entries = temp_dir_entries();
	assert_int_equal(file_writer_open(&w, temp_path("never"), &err), WN_OK);
	assert_int_equal(file_writer_append(&w, "x", 1, &err), WN_OK);
	assert_int_equal(temp_dir_entries(), entries + 1);
	assert_int_equal(access(temp_path("never"), F_OK), -1);
	file_writer_abort(&w);
	file_writer_abort(&w);
	assert_int_equal(temp_dir_entries(), entries);
}

static void two_writers_of_one_name_do_not_share_a_temporary(void **state)
{
	file_writer a, b;
	char *data;
	size_t len;
	wn_error err = {0};
	assert_int_equal(file_writer_open(&a, temp_path("both"), &err), WN_OK);
	assert_int_equal(file_writer_open(&b, temp_path("both"), &err), WN_OK);
	assert_int_equal(file_writer_append(&a, "aaa", 3, &err), WN_OK);
	assert_int_equal(file_writer_append(&b, "bb", 2, &err), WN_OK);
	assert_int_equal(file_writer_commit(&a, &err), WN_OK);
	assert_int_equal(file_writer_commit(&b, &err), WN_OK);
	assert_int_equal(file_read(temp_path("both"), 100, &data, &len, &err), WN_OK);
	assert_string_equal(data, "bb");
	free(data);
}

static void unwritable_places_are_named(void **state)
{
	wn_error err = {0};
	assert_int_equal(file_write_atomic(temp_path("no/such/dir"), "x", 1, &err), WN_NOT_FOUND);
	assert_non_null(strstr(err.message, "/no/such/dir: cannot create: No such file"));
	err = (wn_error){0};
	assert_int_equal(file_write_atomic(temp_path("slash/"), "x", 1, &err), WN_INVALID);
	err = (wn_error){0};
	int entries = temp_dir_entries();
	assert_int_equal(mkdir(temp_path("adir"), 0700), 0);
	assert_int_equal(file_write_atomic(temp_path("adir"), "x", 1, &err), WN_IO);
	assert_int_equal(temp_dir_entries(), entries + 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reads_what_was_written),
		cmocka_unit_test(larger_than_allowed_is_refused_before_it_is_allocated),
		cmocka_unit_test(absent_directory_and_pipe_have_their_own_errors),
		cmocka_unit_test(replacing_keeps_the_old_file_when_the_disk_is_full),
		cmocka_unit_test(aborted_writer_leaves_nothing),
		cmocka_unit_test(two_writers_of_one_name_do_not_share_a_temporary),
		cmocka_unit_test(unwritable_places_are_named),
	};
	return cmocka_run_group_tests(tests, temp_dir_make, temp_dir_remove);
}
