/* tiny_registry.h: a registry in the test program's own directory: the model "tiny" in versions 1, 2, ... */
#ifndef WINNOW_TESTS_TINY_REGISTRY_H
#define WINNOW_TESTS_TINY_REGISTRY_H

#include "../base/assert_ok.h"
#include "../base/temp_dir.h"
#include "../engine/tiny_classifier.h"

static char tiny_root[80];

/* The directory of a version that is there, or might be. */
static void tiny_version_dir(char dir[100], int version) { snprintf(dir, 100, "%s/tiny/%d", tiny_root, version); }

/* count versions, each made as versions[i] says. For a group's set-up: it asserts. */
static void tiny_registry_make(void **state, const tiny_classifier *versions, int count)
{
	char dir[100];
	assert_int_equal(temp_dir_make(state), 0);
	snprintf(tiny_root, sizeof tiny_root, "%s/registry", temp_dir);
	snprintf(dir, sizeof dir, "%s/tiny", tiny_root);
	assert_int_equal(mkdir(tiny_root, 0755), 0);
	assert_int_equal(mkdir(dir, 0755), 0);
	for (int i = 0; i < count; i++) {
		tiny_version_dir(dir, i + 1);
		assert_ok(tiny_classifier_write(dir, &versions[i], err));
	}
}

#endif
