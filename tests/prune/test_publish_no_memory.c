/* test_publish_no_memory.c: memory runs out at every place of a publish in turn. The registry then holds what it held before, or one
 * whole version more, and nothing half made; and the next publish succeeds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <omp.h>

#include "../base/temp_dir.h"
#include "../engine/tiny_classifier.h"
#include "failing_calls.h"
#include "prune/publish.h"

static char model[128], registry[128], versions[160];

/* Whole versions in the registry; whatever else lies there fails the test. Removes them. */
static int take_versions(void)
{
	int count = 0;
	DIR *d = opendir(versions);
	for (struct dirent *e; d && (e = readdir(d));) {
		char path[512], file[600];
		manifest m;
		wn_error err = {0};
		if (e->d_name[0] == '.' && (!e->d_name[1] || !strcmp(e->d_name, "..")))
			continue;
		snprintf(path, sizeof path, "%s/%s", versions, e->d_name);
		snprintf(file, sizeof file, "%s/winnow.json", path);
		if (atoi(e->d_name) < 1 || manifest_read(&m, file, &err) != WN_OK || !m.self_test || manifest_verify(&m, path, &err) != WN_OK)
			fail_msg("%s: %s", path, err.message);
		manifest_close(&m);
		remove_tree(AT_FDCWD, path);
		count++;
	}
	if (d)
		closedir(d);
	return count;
}

static wn_code publish_once(wn_error *err)
{
	const publish_options o = {.model_dir = model, .registry = registry, .name = "tiny"};
	static publication p;
	wn_code rc = publish_open(&p, &o, err);
	if (rc == WN_OK) {
		rc = publish_commit(&p, err);
		publish_close(&p);
	}
	failing_calls_disarm(); /* what follows looks and clears up */
	return rc;
}

static wn_code publish(void *cls, wn_error *err)
{
	long *attempts = cls;
	wn_error none = {0};
	const wn_code rc = publish_once(err);
	assert_int_equal(take_versions(), rc == WN_OK);
	if (rc != WN_OK && ++*attempts % 16 == 0) {
		if (publish_once(&none) != WN_OK)
			fail_msg("after \"%s\": %s", err->message, none.message);
		assert_int_equal(take_versions(), 1);
	}
	return rc;
}

static void a_publish_survives_every_failure(void **state)
{
	long attempts = 0, refused = 0;
	wn_error err = {0};
	snprintf(model, sizeof model, "%s/model", temp_dir);
	snprintf(registry, sizeof registry, "%s/registry", temp_dir);
	snprintf(versions, sizeof versions, "%s/tiny", registry);
	assert_int_equal(mkdir(registry, 0755), 0);
	if (tiny_classifier_write(model, &(tiny_classifier){.seed = 1}, &err) != WN_OK)
		fail_msg("%s", err.message);
	omp_set_num_threads(1);
	const long calls = every_failure(CALLS_OWN, publish, &attempts, &refused);
	print_message("a publish: %ld calls of its own, %ld fatal to it\n", calls, refused);
	assert_true(calls > 100 && refused > calls / 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(a_publish_survives_every_failure)};
	return cmocka_run_group_tests(tests, temp_dir_make, temp_dir_remove);
}
