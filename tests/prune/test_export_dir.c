/* Where a finished model may go: what is known to fail, or would cost somebody's files, is refused before the run. */
#include "tests/prune/support.h"

#include <limits.h>

#include "prune/export_dir.h"

static char dir[256];

static int open_dir(void **state)
{
	scratch_open(dir, sizeof dir);
	return 0;
}
static int close_dir(void **state)
{
	remove_tree(dir);
	return 0;
}

/* DIR/name; with `file`, a directory that holds a file of this name. */
static const char *made(const char *name, const char *file)
{
	static char path[4][400];
	static int next;
	char inside[500], *p = path[next++ % 4];
	snprintf(p, sizeof path[0], "%s/%s", dir, name);
	if (!file)
		return p;
	mkdir(p, 0755);
	snprintf(inside, sizeof inside, "%s/%s", p, file);
	if (*file)
		write_text(inside, "x");
	return p;
}

static void what_can_be_written_is_taken(void **state)
{
	const char *source = made("source", "config.json");
	assert_ok(export_dir_check("", source, "the source", err)); /* RUN/export */
	assert_ok(export_dir_check(made("new", NULL), source, "the source", err));
	assert_ok(export_dir_check(made("empty", ""), source, "the source", err));
	assert_ok(export_dir_check(made("model", "config.json"), source, "the source", err));
	assert_ok(export_dir_check(made("model", "config.json"), "", "the source", err));
	assert_ok(export_dir_check(made("model", "config.json"), "/no/such/source", "the source", err));
}

static void what_cannot_is_refused(void **state)
{
	char link[400], slash[420], endless[PATH_MAX];
	const char *source = made("source", "config.json"), *file = made("file", NULL);
	write_text(file, "x");
	assert_refused(WN_INVALID, "file: exists and is not a directory", export_dir_check(file, source, "the source", err));
	assert_refused(WN_INVALID, "somebodys: exists and is not a model directory",
		       export_dir_check(made("somebodys", "letters.txt"), source, "the source", err));
	assert_refused(WN_IO, "export.dir: nothing can be written into /no/such/place: No such file",
		       export_dir_check("/no/such/place/x", source, "the source", err));
	/* the source under other names */
	snprintf(slash, sizeof slash, "%s/", source);
	assert_refused(WN_INVALID, "is the source: it would be replaced", export_dir_check(slash, source, "the source", err));
	snprintf(link, sizeof link, "%s/link", dir);
	assert_int_equal(symlink(source, link), 0);
	assert_refused(WN_INVALID, "link is the source", export_dir_check(link, source, "the source", err));
	snprintf(slash, sizeof slash, "%s/another", dir); /* as checkpoint_save would, hours later */
	assert_int_equal(symlink(made("model", "config.json"), slash), 0);
	assert_refused(WN_INVALID, "export.dir: ", export_dir_check(slash, source, "the source", err));
	memset(endless, 'x', sizeof endless - 1);
	endless[sizeof endless - 20] = 0;
	assert_refused(WN_TOO_LARGE, "export.dir: path longer", export_dir_check(endless, source, "the source", err));
}

static void its_path_is_the_runs_unless_given(void **state)
{
	char path[PATH_MAX];
	assert_ok(export_dir_path("runs/a", "", path, err));
	assert_string_equal(path, "runs/a/export");
	assert_ok(export_dir_path("runs/a", "elsewhere/b", path, err));
	assert_string_equal(path, "elsewhere/b");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_can_be_written_is_taken, open_dir, close_dir),
		cmocka_unit_test_setup_teardown(what_cannot_is_refused, open_dir, close_dir),
		cmocka_unit_test(its_path_is_the_runs_unless_given),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
