/* test_unreadable.c: a version that cannot be opened stands in the index with its reason, beside one that serves; once it can be
 * opened the reason is gone and it takes over. As an unprivileged user: nothing is unreadable to root. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <time.h>

#include <cmocka.h>

#include "in_process.h"
#include "tiny_registry.h"

#define NOBODY 65534

static char second[100];

static int set_up(void **state)
{
	tiny_registry_make(state, (tiny_classifier[]){{.seed = 1}, {.seed = 2}}, 2);
	tiny_version_dir(second, 2);
	return chmod(temp_dir, 0755);
}

/* State and reason of version 2, as the index tells. */
static void look(in_process *server, char state[32], char why[480])
{
	size_t i;
	json_t *v, *list = manager_index(in_process_manager(server), false);
	*state = *why = 0;
	json_array_foreach(list, i, v)
	{
		if (strcmp(json_string_value(json_object_get(v, "version")), "2") != 0)
			continue;
		snprintf(state, 32, "%s", json_string_value(json_object_get(v, "state")));
		snprintf(why, 480, "%s", json_string_value(json_object_get(v, "reason")));
	}
	json_decref(list);
}

static void an_unreadable_version_is_told_of_until_it_can_be_read(void **state)
{
	static const char *const settings[] = {"model.name=tiny", "model.poll_interval=50ms", NULL};
	char condition[32], why[480];
	in_process *server = NULL;
	wn_error err = {0};
	const uid_t self = geteuid();
	assert_int_equal(chmod(second, 0), 0);
	if (self == 0)
		assert_int_equal(seteuid(NOBODY), 0);
	wn_code rc = in_process_open(&server, tiny_root, settings, &err);
	if (rc == WN_OK)
		rc = in_process_start_manager(server, &err);
	if (rc != WN_OK)
		fail_msg("%s", err.message);
	look(server, condition, why);
	assert_string_equal(condition, "UNAVAILABLE");
	assert_string_equal(why, "tiny/2: cannot open the directory: Permission denied");
	assert_int_equal(seteuid(self), 0);
	prctl(PR_SET_DUMPABLE, 1); /* which the change of users took away, and the leak sanitizer needs */
	assert_int_equal(chmod(second, 0755), 0);
	for (int i = 0; i < 6000 && strcmp(condition, "READY") != 0; i++) {
		nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
		look(server, condition, why);
	}
	assert_string_equal(condition, "READY");
	assert_string_equal(why, "");
	in_process_close(&server);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(an_unreadable_version_is_told_of_until_it_can_be_read)};
	return cmocka_run_group_tests(tests, set_up, temp_dir_remove);
}
