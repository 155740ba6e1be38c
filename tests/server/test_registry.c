/* The registry on disk: which directory is served, and what is refused before anything is loaded; and in memory, with models
 * that are empty shells. Loading itself is the end-to-end tests'. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/manager.h"
#include "server/registry.h"
#include "server/registry_disk.h"

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

static bool run_at_once(void *cls, int instance, void (*fn)(void *arg), void *arg)
{
	fn(arg);
	return true;
}

/* The message, with the root's path replaced by ROOT. */
static const char *open_error(const char *name, const char *version)
{
	static char shown[600];
	server_config c = {.registry_root = root,
			   .model_name = (char *)name,
			   .model_version = (char *)version,
			   .model_dir = "",
			   .max_batch = 1};
	registry *r;
	manager *m;
	wn_error err = {0};
	assert_int_equal(registry_open(&r, name, &err), WN_OK);
	const placement p = {.instances = 1, .threads = 1};
	manager_options opt = {.config = &c, .placement = &p, .registry = r, .run_on = run_at_once};
	assert_int_not_equal(manager_open(&m, &opt, &err), WN_OK);
	assert_null(m);
	registry_close(&r);
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
			    "ROOT/linked-version/3: found a symbolic link, expected a directory");
	assert_string_equal(open_error("linked-file", "1"),
			    "ROOT/linked-file/1/config.json: found a symbolic link, expected regular files only");
}

/* As an unprivileged user: nothing is unreadable to root. */
static void a_version_that_cannot_be_opened_is_named(void **state)
{
	char path[256];
	const uid_t self = geteuid();
	make_dir("locked");
	make_dir("locked/4");
	snprintf(path, sizeof path, "%s/locked/4", root);
	assert_int_equal(chmod(path, 0), 0);
	assert_int_equal(chmod(root, 0755), 0);
	if (self == 0)
		assert_int_equal(seteuid(65534), 0);
	const char *found = open_error("locked", "latest");
	assert_int_equal(seteuid(self), 0);
	prctl(PR_SET_DUMPABLE, 1); /* which the change of users took away, and the leak sanitizer needs */
	assert_int_equal(chmod(path, 0755), 0);
	assert_string_equal(found, "ROOT/locked/4: cannot open the directory: Permission denied");
}

static void latest_is_the_largest_number(void **state)
{
	make_dir("many");
	make_dir("many/9");
	make_dir("many/10");
	make_dir("many/010");    /* not a version */
	make_dir("many/11.tmp"); /* being published */
	make_dir("many/99x");
	/* Version 10 is chosen, and is empty: the message names it and the file it misses. */
	assert_string_equal(open_error("many", "latest"),
			    "ROOT/many/10/winnow.json: found no such file, the version is not complete");
}

static void write_file(const char *name, const char *text)
{
	char path[256];
	snprintf(path, sizeof path, "%s/%s", root, name);
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static disk_state look(const char *name)
{
	char path[256];
	disk_state s;
	wn_error err = {0};
	snprintf(path, sizeof path, "%s/%s", root, name);
	int fd = open(path, O_RDONLY | O_DIRECTORY);
	assert_true(fd >= 0);
	if (disk_look(&s, fd, name, false, &err) != WN_OK)
		fail_msg("%s", err.message);
	close(fd);
	return s;
}

static void a_fingerprint_tells_every_change(void **state)
{
	char path[256], other[256];
	make_dir("changes");
	make_dir("changes/1");
	disk_state empty = look("changes/1"), before, after;
	assert_false(empty.has_manifest);
	write_file("changes/1/winnow.json", "{}");
	write_file("changes/1/weights", "12345");
	before = look("changes/1");
	assert_true(before.has_manifest);
	assert_int_equal(before.bytes, 7);
	assert_true(before.fingerprint != empty.fingerprint);
	assert_true(look("changes/1").fingerprint == before.fingerprint);
	/* The same bytes again, in the same file: only its times tell. */
	usleep(20000);
	write_file("changes/1/weights", "12345");
	after = look("changes/1");
	assert_true(after.fingerprint != before.fingerprint);
	/* The whole directory under another name stays itself, a copy is another one. */
	snprintf(path, sizeof path, "%s/changes/1", root);
	snprintf(other, sizeof other, "%s/changes/2", root);
	assert_int_equal(rename(path, other), 0);
	assert_true(look("changes/2").fingerprint == after.fingerprint);
	make_dir("changes/1");
	write_file("changes/1/winnow.json", "{}");
	write_file("changes/1/weights", "12345");
	assert_true(look("changes/1").fingerprint != after.fingerprint);
}

/* ---- in memory ---- */

static int num_retired;
static void count_retired(served_model *m, void *cls)
{
	num_retired++;
	free(m);
}

static served_model *fake(const char *name, int version)
{
	served_model *m = calloc(1, sizeof *m);
	atomic_init(&m->references, 1);
	snprintf(m->name, sizeof m->name, "%s", name);
	snprintf(m->version, sizeof m->version, "%d", version);
	m->number = version;
	m->retire = count_retired;
	return m;
}

static int answers(registry *r, const char *name, const char *version)
{
	served_model *m = registry_find(r, name, version);
	int number = m ? m->number : 0;
	registry_release(&m);
	return number;
}

static void a_request_keeps_its_version_until_it_is_done(void **state)
{
	registry *r;
	wn_error err = {0};
	num_retired = 0;
	assert_int_equal(registry_open(&r, "a", &err), WN_OK);
	assert_null(registry_acquire(r));
	assert_false(registry_knows(r, "a"));
	assert_int_equal(registry_put(r, fake("a", 1), true, &err), WN_OK);
	served_model *held = registry_acquire(r);
	assert_int_equal(held->number, 1);
	assert_int_equal(registry_put(r, fake("a", 2), false, &err), WN_OK);
	assert_int_equal(answers(r, "", ""), 1);
	assert_int_equal(answers(r, "a", "2"), 2);
	assert_true(registry_promote(r, "a", "2"));
	assert_false(registry_promote(r, "a", "3"));
	assert_int_equal(answers(r, "a", ""), 2);
	registry_drop(r, "a", "1");
	assert_int_equal(num_retired, 0); /* the request still has it */
	registry_release(&held);
	assert_null(held);
	assert_int_equal(num_retired, 1);
	/* The same number again replaces, and answers as the old one did. */
	assert_int_equal(registry_put(r, fake("a", 2), false, &err), WN_OK);
	assert_int_equal(num_retired, 2);
	assert_int_equal(answers(r, "a", ""), 2);
	registry_drop(r, "a", "");
	assert_int_equal(num_retired, 3);
	assert_int_equal(answers(r, "a", ""), 0);
	assert_true(registry_knows(r, "a"));
	registry_close(&r);
}

static void a_full_registry_refuses(void **state)
{
	registry *r;
	wn_error err = {0};
	num_retired = 0;
	assert_int_equal(registry_open(&r, NULL, &err), WN_OK);
	for (int v = 1; v <= REGISTRY_MAX_VERSIONS; v++)
		assert_int_equal(registry_put(r, fake("a", v), v == 1, &err), WN_OK);
	served_model *extra = fake("a", 99);
	assert_int_equal(registry_check_room(r, "a", "99", NULL), WN_TOO_LARGE);
	assert_int_equal(registry_check_room(r, "a", "8", NULL), WN_OK); /* it would be replaced */
	assert_int_equal(registry_check_room(r, "b", "1", NULL), WN_OK);
	assert_int_equal(registry_put(r, extra, true, &err), WN_TOO_LARGE);
	assert_int_equal(answers(r, "", ""), 1);
	registry_release(&extra);
	for (int i = 1; i < REGISTRY_MAX_MODELS; i++) {
		char name[8];
		snprintf(name, sizeof name, "m%d", i);
		assert_int_equal(registry_put(r, fake(name, 1), true, &err), WN_OK);
	}
	extra = fake("z", 1);
	assert_int_equal(registry_check_room(r, "z", "1", NULL), WN_TOO_LARGE);
	assert_int_equal(registry_put(r, extra, true, NULL), WN_TOO_LARGE);
	registry_release(&extra);
	registry_close(&r);
	assert_int_equal(num_retired, REGISTRY_MAX_VERSIONS + REGISTRY_MAX_MODELS - 1 + 2);
}

static void a_name_that_nothing_is_loaded_of_makes_room(void **state)
{
	char name[8];
	registry *r;
	trial *t;
	wn_error err = {0};
	assert_int_equal(registry_open(&r, "m0", &err), WN_OK);
	for (int i = 0; i < REGISTRY_MAX_MODELS; i++) {
		snprintf(name, sizeof name, "m%d", i);
		assert_int_equal(registry_put(r, fake(name, 1), true, &err), WN_OK);
	}
	assert_int_equal(trial_open(&t, TRIAL_CANARY, 100, NULL, NULL, &err), WN_OK);
	assert_int_equal(registry_put(r, fake("m3", 2), false, &err), WN_OK);
	registry_set_trial(r, "m3", "2", t);
	registry_drop(r, "m3", "");
	registry_drop(r, "m0", "");
	assert_true(registry_knows(r, "m3"));
	assert_int_equal(registry_check_room(r, "z", "1", &err), WN_OK);
	assert_int_equal(registry_put(r, fake("z", 1), true, &err), WN_OK);
	assert_int_equal(answers(r, "z", ""), 1);
	assert_int_equal(registry_put(r, fake("z", 2), false, &err), WN_OK);
	registry_choice c = registry_choose(r, "z", "");
	assert_null(c.trial);
	registry_release(&c.model);
	assert_false(registry_knows(r, "m3"));
	assert_int_equal(answers(r, "m15", ""), 1);
	/* The default's own does not. */
	assert_int_equal(registry_check_room(r, "y", "1", NULL), WN_TOO_LARGE);
	assert_true(registry_knows(r, "m0"));
	assert_int_equal(registry_put(r, fake("m0", 5), true, &err), WN_OK);
	assert_int_equal(answers(r, "", ""), 5);
	registry_close(&r);
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
	    cmocka_unit_test(a_version_that_cannot_be_opened_is_named),
	    cmocka_unit_test(latest_is_the_largest_number),
	    cmocka_unit_test(a_fingerprint_tells_every_change),
	    cmocka_unit_test(a_request_keeps_its_version_until_it_is_done),
	    cmocka_unit_test(a_full_registry_refuses),
	    cmocka_unit_test(a_name_that_nothing_is_loaded_of_makes_room),
	};
	return cmocka_run_group_tests(tests, make_root, remove_root);
}
