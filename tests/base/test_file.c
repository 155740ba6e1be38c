/* Whole-file reads refuse what they should, atomic writes leave the old file or the new one and no rest; so do directories, killed
 * at any call. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/resource.h>
#include <signal.h>

#include "base/file.h"
#include "kill_point.h"
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

static void copies_are_bounded_and_whole(void **state)
{
	char *data;
	size_t len;
	wn_error err = {0};
	const char *from = temp_file("original", "12345", 5), *to = temp_path("copy");
	assert_int_equal(file_copy(from, to, 4, &err), WN_TOO_LARGE);
	assert_int_equal(access(to, F_OK), -1);
	assert_int_equal(file_copy(from, to, 5, &err), WN_OK);
	assert_int_equal(file_read(to, 100, &data, &len, &err), WN_OK);
	assert_string_equal(data, "12345");
	free(data);
	assert_int_equal(file_copy(temp_path("nothing"), to, 5, &err), WN_NOT_FOUND);
}

/* ---- directories ---- */

static const char *const PARTS[] = {"one", "two", "three"};

static void write_parts(const char *dir, const char *text)
{
	char path[PATH_MAX + 16];
	for (int i = 0; i < 3; i++) {
		snprintf(path, sizeof path, "%s/%s", dir, PARTS[i]);
		if (file_write_atomic(path, text, strlen(text), NULL))
			abort();
	}
}

/* What all three parts say; fails when they disagree or one is absent. */
static const char *read_parts(const char *dir)
{
	static const char *const texts[] = {"old", "new"};
	int seen[2] = {0};
	for (int i = 0; i < 3; i++) {
		char path[PATH_MAX + 16], *data;
		size_t len;
		snprintf(path, sizeof path, "%s/%s", dir, PARTS[i]);
		assert_int_equal(file_read(path, 10, &data, &len, NULL), WN_OK);
		for (int k = 0; k < 2; k++)
			seen[k] += !strcmp(data, texts[k]);
		free(data);
	}
	assert_true(seen[0] == 3 || seen[1] == 3);
	return texts[seen[1] == 3];
}

static int count_entries(const char *dir)
{
	DIR *d = opendir(dir);
	int n = 0;
	for (struct dirent *e; (e = readdir(d));)
		n++;
	closedir(d);
	return n - 2;
}

static void replace_model(void)
{
	char temporary[PATH_MAX];
	if (file_temporary_dir(temp_path("swap/model"), temporary, NULL))
		abort();
	write_parts(temporary, "new");
	if (file_replace_dir(temporary, temp_path("swap/model"), NULL))
		abort();
}

static void killed_at_any_call_the_old_directory_or_the_new_one_stands(void **state)
{
	char model[200];
	struct stat st;
	snprintf(model, sizeof model, "%s/swap/model", temp_dir);
	for (int exchange = 1; exchange >= 0; exchange--) {
		int seen_old = 0, seen_new = 0;
		bool killed = true;
		calls.no_exchange = !exchange;
		mkdir(temp_path("swap"), 0755);
		for (int k = 1; killed; k++) {
			file_remove_dir(AT_FDCWD, model);
			assert_int_equal(mkdir(model, 0755), 0);
			write_parts(model, "old");
			killed = is_killed_at(k, replace_model);
			if (exchange)
				read_parts(model); /* also before anything is cleared up */
			file_sweep(temp_path("swap"), "model");
			const bool is_old = !strcmp(read_parts(model), "old");
			seen_old += is_old;
			seen_new += !is_old;
			assert_int_equal(count_entries(temp_path("swap")), 1);
			assert_int_equal(count_entries(model), 3);
			assert_int_equal(stat(model, &st), 0);
			assert_int_equal(st.st_mode & 0777, 0755);
		}
		assert_true(seen_old >= 10 && seen_new >= 5); /* three writers before, three files to remove after */
		assert_string_equal(read_parts(model), "new");
	}
	calls.no_exchange = false;
}

static void a_sweep_takes_what_writers_leave_and_nothing_else(void **state)
{
	static const char *const dirs[] = {"a.tmp-Ab12Cd", "a.tmp-000000.old", "a.tmp-short", "a.tmp-abc.ef", ".tmp-abcdef", "b.tmp-abcdef",
					   "a", "b.tmp-abcdef.old", "full.tmp-abcdef", "elsewhere"};
	static const char *const files[] = {".a.12-3.tmp", ".a.12-.tmp", ".a.tmp", "a.12-3.tmp", ".b.json.1234-56.tmp", ".12-3.tmp"};
	char path[200];
	mkdir(temp_path("sweep"), 0755);
	for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++) {
		snprintf(path, sizeof path, "sweep/%s", dirs[i]);
		assert_int_equal(mkdir(temp_path(path), 0755), 0);
		snprintf(path, sizeof path, "sweep/%s/part", dirs[i]);
		temp_file(path, "x", 1);
	}
	for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
		snprintf(path, sizeof path, "sweep/%s", files[i]);
		temp_file(path, "x", 1);
	}
	mkdir(temp_path("sweep/full.tmp-abcdef/below"), 0755);
	assert_int_equal(symlink("elsewhere", temp_path("sweep/a.tmp-symbol")), 0);
	const int before = count_entries(temp_path("sweep"));
	assert_int_equal(file_sweep(temp_path("sweep"), "c"), 0);
	assert_int_equal(count_entries(temp_path("sweep")), before);

	assert_int_equal(file_sweep(temp_path("sweep"), "a"), 3);
	assert_int_equal(count_entries(temp_path("sweep")), before - 3);
	assert_int_equal(access(temp_path("sweep/a/part"), F_OK), 0);
	assert_int_equal(access(temp_path("sweep/a.tmp-Ab12Cd"), F_OK), -1);
	assert_int_equal(access(temp_path("sweep/a.tmp-000000.old"), F_OK), -1);
	assert_int_equal(access(temp_path("sweep/.a.12-3.tmp"), F_OK), -1);

	assert_int_equal(file_sweep(temp_path("sweep"), NULL), 3); /* one of them put back: there is no b */
	assert_int_equal(count_entries(temp_path("sweep")), before - 5);
	assert_int_equal(access(temp_path("sweep/b/part"), F_OK), 0);
	assert_int_equal(access(temp_path("sweep/b.tmp-abcdef"), F_OK), -1);
	assert_int_equal(access(temp_path("sweep/.b.json.1234-56.tmp"), F_OK), -1);
	assert_int_equal(access(temp_path("sweep/full.tmp-abcdef/below"), F_OK), 0); /* no writer makes directories in it */
	assert_int_equal(access(temp_path("sweep/elsewhere/part"), F_OK), 0);
	assert_int_equal(file_sweep(temp_path("no/such"), NULL), 0);
}

static void directories_that_cannot_be_are_named(void **state)
{
	char temporary[PATH_MAX];
	wn_error err = {0};
	assert_int_equal(file_temporary_dir(temp_path("no/such"), temporary, &err), WN_NOT_FOUND);
	assert_non_null(strstr(err.message, "/no/such.tmp-"));
	err = (wn_error){0};
	assert_int_equal(file_temporary_dir(temp_path("taken"), temporary, &err), WN_OK);
	temp_file("taken", "x", 1);
	assert_int_equal(file_replace_dir(temporary, temp_path("taken"), &err), WN_IO);
	assert_non_null(strstr(err.message, "/taken: cannot rename the finished temporary: Not a directory"));
	assert_true(file_remove_dir(AT_FDCWD, temporary));
	assert_false(file_remove_dir(AT_FDCWD, temporary));
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
		cmocka_unit_test(copies_are_bounded_and_whole),
		cmocka_unit_test(killed_at_any_call_the_old_directory_or_the_new_one_stands),
		cmocka_unit_test(a_sweep_takes_what_writers_leave_and_nothing_else),
		cmocka_unit_test(directories_that_cannot_be_are_named),
	};
	return cmocka_run_group_tests(tests, temp_dir_make, temp_dir_remove);
}
