/* test_unreadable.c: a version that cannot be opened stands in the index with its reason, beside one that serves; once it can be
 * opened the reason is gone and it takes over. A model whose whole directory cannot be opened is not taken for gone. As an
 * unprivileged user: nothing is unreadable to root. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <time.h>

#include <cmocka.h>

#include "in_process.h"
#include "manager_tells.h"
#include "tiny_registry.h"

#define NOBODY 65534

static char second[100];
static uid_t self;

static int set_up(void **state)
{
	tiny_registry_make(state, (tiny_classifier[]){{.seed = 1}, {.seed = 2}}, 2);
	tiny_version_dir(second, 2);
	self = geteuid();
	return chmod(temp_dir, 0755);
}

/* A server with its manager's thread, as nobody from now on. */
static in_process *open_as_nobody(void)
{
	static const char *const settings[] = {"model.name=tiny", "model.poll_interval=50ms", NULL};
	in_process *server = NULL;
	if (self == 0)
		assert_int_equal(seteuid(NOBODY), 0);
	assert_ok(in_process_open(&server, tiny_root, settings, err));
	assert_ok(in_process_start_manager(server, err));
	return server;
}

static void be_oneself_again(void)
{
	assert_int_equal(seteuid(self), 0);
	prctl(PR_SET_DUMPABLE, 1); /* which the change of users took away, and the leak sanitizer needs */
}

static void an_unreadable_version_is_told_of_until_it_can_be_read(void **state)
{
	char condition[32], why[480];
	assert_int_equal(chmod(second, 0), 0);
	in_process *server = open_as_nobody();
	look(server, "2", condition, why);
	assert_string_equal(condition, "UNAVAILABLE");
	assert_string_equal(why, "tiny/2: cannot open the directory: Permission denied");
	be_oneself_again();
	assert_int_equal(chmod(second, 0755), 0);
	for (int i = 0; i < 6000 && strcmp(condition, "READY") != 0; i++) {
		nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
		look(server, "2", condition, why);
	}
	assert_string_equal(condition, "READY");
	assert_string_equal(why, "");
	in_process_close(&server);
}

static void set_mode_of_model(mode_t mode)
{
	char dir[100];
	snprintf(dir, sizeof dir, "%s/tiny", tiny_root);
	assert_int_equal(chmod(dir, mode), 0);
}

static void a_model_that_cannot_be_looked_at_is_not_taken_for_gone(void **state)
{
	char condition[32], why[480];
	in_process *server = open_as_nobody();
	be_oneself_again();
	set_mode_of_model(0);
	if (self == 0)
		assert_int_equal(seteuid(NOBODY), 0);
	model_command c = in_process_command(server, COMMAND_LOAD, "tiny", 0); /* the disk is looked at before it */
	assert_int_equal(c.outcome, REASON_OK);
	look(server, "2", condition, why);
	assert_string_equal(condition, "READY");
	assert_string_equal(why, "tiny: cannot open the directory: Permission denied; what is loaded stays");
	look(server, "1", condition, why);
	assert_string_equal(condition, "UNAVAILABLE");
	assert_string_equal(why, "tiny: cannot open the directory: Permission denied");
	assert_int_equal((int)gauge(server, "winnow_registry_readable"), 0);
	c = in_process_command(server, COMMAND_LOAD, "tiny", 1);
	assert_int_equal(c.outcome, REASON_LOAD_FAILED);
	assert_string_equal(c.detail, "tiny: cannot open the directory: Permission denied");
	c = in_process_command(server, COMMAND_LOAD, "tiny", 9);
	assert_int_equal(c.outcome, REASON_UNKNOWN_MODEL);
	assert_string_equal(c.detail, "model \"tiny\" has no version 9 in the registry; tiny: cannot open the directory: Permission denied");
	be_oneself_again();
	set_mode_of_model(0755);
	c = in_process_command(server, COMMAND_LOAD, "tiny", 9);
	assert_string_equal(c.detail, "model \"tiny\" has no version 9 in the registry");
	assert_int_equal((int)gauge(server, "winnow_registry_readable"), 1);
	in_process_close(&server);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(an_unreadable_version_is_told_of_until_it_can_be_read),
					   cmocka_unit_test(a_model_that_cannot_be_looked_at_is_not_taken_for_gone)};
	return cmocka_run_group_tests(tests, set_up, temp_dir_remove);
}
