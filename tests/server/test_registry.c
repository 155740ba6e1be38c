/* The registry on disk: which directory is served, and what is refused before anything is loaded. Loading itself is the
 * end-to-end test's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/registry.h"

static char root[64];

static void make_dir(const char *name)
{
	char path[256];
	snprintf(path, sizeof path, "%s/%s", root, name);
	assert_int_equal(mkdir(path, 0755), 0);
}

static void make_link(const char *target, const char *name)
{
	char path[256];
	snprintf(path, sizeof path, "%s/%s", root, name);
	assert_int_equal(symlink(target, path), 0);
}

/* The message, with the root's path replaced by ROOT. */
static const char *open_error(const char *name, const char *version)
{
	static char shown[600];
	server_config c = {.registry_root = root,
			   .model_name = (char *)name,
			   .model_version = (char *)version,
			   .model_dir = "",
			   .instances = 1,
			   .max_batch = 1};
	registry *r;
	wn_error err = {0};
	assert_int_not_equal(registry_open(&r, &c, &err), WN_OK);
	assert_null(r);
	char *at = strstr(err.message, root);
	if (at)
		snprintf(shown, sizeof shown, "%.*sROOT%s", (int)(at - err.message), err.message, at + strlen(root));
	else
		snprintf(shown, sizeof shown, "%s", err.message);
	return shown;
}

static void names_that_are_paths_are_refused(void **state)
{
	assert_string_equal(open_error("../etc", "latest"),
			    "model.name: found \"../etc\", expected [A-Za-z0-9._-]{1,64} without a leading dot");
}

static void missing_parts_are_named(void **state)
{
	make_dir("empty");
	assert_string_equal(open_error("absent", "latest"),
			    "ROOT/absent: cannot open the directory: No such file or directory");
	assert_string_equal(open_error("empty", "latest"),
			    "ROOT/empty: found no version directory, expected names such as 1 or 2");
	assert_string_equal(open_error("empty", "7"),
			    "ROOT/empty/7: cannot open the directory: No such file or directory");
}

static void symbolic_links_are_refused_at_every_level(void **state)
{
	make_dir("real");
	make_dir("real/1");
	make_dir("linked-version");
	make_link("../real/1", "linked-version/3");
	make_link("real", "linked-name");
	make_dir("linked-file");
	make_dir("linked-file/1");
	make_link("/etc/passwd", "linked-file/1/config.json");
	assert_string_equal(open_error("linked-name", "latest"),
			    "ROOT/linked-name: found a symbolic link, expected a directory");
	assert_string_equal(open_error("linked-version", "3"),
			    "ROOT/linked-version/3: found a symbolic link, expected a directory");
	assert_string_equal(open_error("linked-version", "latest"),
			    "ROOT/linked-version: found no version directory, expected names such as 1 or 2");
	assert_string_equal(open_error("linked-file", "1"),
			    "ROOT/linked-file/1/config.json: found a symbolic link, expected regular files only");
}

static void latest_is_the_largest_number(void **state)
{
	make_dir("many");
	make_dir("many/9");
	make_dir("many/10");
	make_dir("many/010");    /* not a version */
	make_dir("many/11.tmp"); /* being published */
	make_dir("many/99x");
	make_link("9", "many/12");
	/* Version 10 is chosen, and is empty: the message names it and the file it misses. */
	const char *message = open_error("many", "latest");
	if (!strstr(message, "ROOT/many/10") || strstr(message, "/proc/"))
		fail_msg("%s", message);
}

static int make_root(void **state)
{
	strcpy(root, "/tmp/winnow-registry-XXXXXX");
	return mkdtemp(root) ? 0 : -1;
}

static int remove_root(void **state)
{
	char command[96];
	snprintf(command, sizeof command, "rm -r %s", root);
	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(names_that_are_paths_are_refused),
	    cmocka_unit_test(missing_parts_are_named),
	    cmocka_unit_test(symbolic_links_are_refused_at_every_level),
	    cmocka_unit_test(latest_is_the_largest_number),
	};
	return cmocka_run_group_tests(tests, make_root, remove_root);
}
