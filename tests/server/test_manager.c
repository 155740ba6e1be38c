/* test_manager.c: a command changes what it says or nothing, now and later; what could not be looked at is not taken for changed; and
 * what is told of a version is so while others load, and when its files are others than those that are loaded. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <time.h>

#include <cmocka.h>

#include "in_process.h"
#include "manager_tells.h"
#include "tiny_registry.h"

static int set_up(void **state)
{
	tiny_registry_make(state, (tiny_classifier[]){{.seed = 1}, {.seed = 2}, {.seed = 3}, {.seed = 4}}, 4);
	return 0;
}

static int three_more; /* the limit of open files that leaves three descriptors while the manager rests */

static void find_three_more(void)
{
	int lowest[3];
	for (int i = 0; i < 3; i++)
		assert_true((lowest[i] = dup(0)) >= 0);
	for (int i = 0; i < 3; i++)
		close(lowest[i]);
	three_more = lowest[2] + 1;
}

/* Nothing tells of the disk but commands. */
static in_process *open_server(const char *root, const char *policy, const char *more)
{
	const char *const settings[] = {"model.name=tiny", "model.watch=false", "model.poll_interval=1h", policy, more, NULL};
	in_process *server = NULL;
	assert_ok(in_process_open(&server, root, settings, err));
	find_three_more(); /* now: it looks at the disk behind a command too */
	assert_ok(in_process_start_manager(server, err));
	return server;
}

static void assert_told(in_process *server, const char *version, const char *condition, const char *why)
{
	char is[32], because[480];
	look(server, version, is, because);
	assert_string_equal(because, why);
	assert_string_equal(is, condition);
}

/* Of version 3: without its last byte, or as it was made. */
static void spoil(bool bad)
{
	char dir[100], path[130];
	struct stat st;
	tiny_version_dir(dir, 3);
	snprintf(path, sizeof path, "%s/model.safetensors", dir);
	if (!bad) {
		assert_ok(tiny_classifier_write(dir, &(tiny_classifier){.seed = 3}, err));
	} else {
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(truncate(path, st.st_size - 1), 0);
	}
}

static void what_comes_back_beside_the_one_that_answers_is_a_change(void **state)
{
	spoil(true);
	in_process *server = open_server(tiny_root, "model.version=2,3,4", "log.level=error");
	assert_int_equal(in_process_command(server, COMMAND_UNLOAD, "tiny", 2).outcome, REASON_OK);
	assert_told(server, "2", "UNAVAILABLE", "unloaded by command");
	model_command c = in_process_command(server, COMMAND_LOAD, "tiny", 0);
	assert_int_equal(c.outcome, REASON_OK);
	assert_int_equal(c.answers, 4);
	assert_non_null(strstr(c.detail, "tiny/3/model.safetensors"));
	assert_told(server, "2", "READY", "");
	c = in_process_command(server, COMMAND_LOAD, "tiny", 0); /* and now nothing does */
	assert_int_equal(c.outcome, REASON_LOAD_FAILED);
	in_process_close(&server);
	spoil(false);
}

/* Requests hold what was unloaded, so that there is no memory to load it anew. */
static void what_was_unloaded_does_not_come_back_after_a_command_that_failed(void **state)
{
	char budget[64], condition[32], why[480];
	in_process *server = open_server(tiny_root, "model.version=2", "model.memory_budget=0");
	snprintf(budget, sizeof budget, "model.memory_budget=%.0f", 2.5 * gauge(server, "winnow_models_memory_bytes"));
	in_process_close(&server);
	const char *const settings[] = {"model.name=tiny", "model.version=2", "model.watch=false", "model.poll_interval=50ms", budget, NULL};
	assert_ok(in_process_open(&server, tiny_root, settings, err));
	assert_ok(in_process_start_manager(server, err));
	assert_int_equal(in_process_command(server, COMMAND_LOAD, "tiny", 1).outcome, REASON_OK);
	served_model *held = registry_find(in_process_registry(server), "tiny", "2");
	assert_non_null(held);
	assert_int_equal(in_process_command(server, COMMAND_UNLOAD, "tiny", 2).outcome, REASON_OK);
	model_command c = in_process_command(server, COMMAND_LOAD, "tiny", 0);
	assert_int_equal(c.outcome, REASON_LOAD_FAILED);
	assert_int_equal(c.answers, 1);
	registry_release(&held);
	nanosleep(&(struct timespec){.tv_nsec = 500000000}, NULL); /* ten times what it would be tried again after */
	look(server, "2", condition, why);
	assert_string_equal(condition, "UNAVAILABLE");
	c = in_process_command(server, COMMAND_LOAD, "tiny", 0);
	assert_int_equal(c.outcome, REASON_OK);
	assert_int_equal(c.answers, 2);
	in_process_close(&server);
}

/* For the registry, a model and a version: there is none left to list the version with. */
static void leave_three_descriptors(struct rlimit *before)
{
	assert_int_equal(getrlimit(RLIMIT_NOFILE, before), 0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &(struct rlimit){(rlim_t)three_more, before->rlim_max}), 0);
}

static void a_version_that_could_not_be_listed_is_as_it_was(void **state)
{
	char root[100], dir[120];
	struct rlimit before;
	in_process *server = open_server(tiny_root, "model.version=1,2", "log.level=error");
	assert_int_equal(in_process_command(server, COMMAND_UNLOAD, "tiny", 1).outcome, REASON_OK);
	leave_three_descriptors(&before);
	model_command c = in_process_command(server, COMMAND_LOAD, "nobody", 0); /* the disk is looked at around it */
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	assert_string_equal(c.detail, "model \"nobody\" is not in the registry");
	assert_told(server, "1", "UNAVAILABLE", "unloaded by command");
	assert_told(server, "2", "READY", "");
	assert_told(server, "4", "UNAVAILABLE", "not wanted by the version policy");
	in_process_close(&server);
	/* One that nothing is known of is told of, and taken when it can be looked at. */
	snprintf(root, sizeof root, "%s/late", temp_dir);
	snprintf(dir, sizeof dir, "%s/tiny", root);
	assert_int_equal(mkdir(root, 0755) + mkdir(dir, 0755), 0);
	snprintf(dir, sizeof dir, "%s/tiny/1", root);
	assert_ok(tiny_classifier_write(dir, &(tiny_classifier){.seed = 1}, err));
	server = open_server(root, "model.version=latest", "log.level=error");
	snprintf(dir, sizeof dir, "%s/tiny/2", root);
	assert_ok(tiny_classifier_write(dir, &(tiny_classifier){.seed = 2}, err));
	leave_three_descriptors(&before);
	in_process_command(server, COMMAND_LOAD, "nobody", 0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	assert_told(server, "2", "UNAVAILABLE", "tiny/2: cannot list the directory: Too many open files");
	assert_int_equal(in_process_command(server, COMMAND_LOAD, "tiny", 0).answers, 2);
	assert_told(server, "2", "READY", "");
	in_process_close(&server);
}

static void a_link_in_a_models_place_is_told_of(void **state)
{
	char dir[100], aside[100];
	in_process *server = open_server(tiny_root, "model.version=1", "log.level=error");
	snprintf(dir, sizeof dir, "%s/tiny", tiny_root);
	snprintf(aside, sizeof aside, "%s/aside", temp_dir);
	assert_int_equal(rename(dir, aside), 0);
	assert_int_equal(symlink(aside, dir), 0);
	assert_int_equal(in_process_command(server, COMMAND_LOAD, "tiny", 0).outcome, REASON_OK);
	assert_told(server, "1", "READY", "tiny: found a symbolic link, expected a directory; what is loaded stays");
	assert_told(server, "2", "UNAVAILABLE", "tiny: found a symbolic link, expected a directory");
	assert_int_equal(unlink(dir), 0);
	assert_int_equal(in_process_command(server, COMMAND_LOAD, "tiny", 0).outcome, REASON_OK);
	assert_told(server, "1", "READY", "removed from the registry; what is loaded stays");
	assert_int_equal(rename(aside, dir), 0);
	assert_int_equal(in_process_command(server, COMMAND_LOAD, "tiny", 0).outcome, REASON_OK);
	assert_told(server, "1", "READY", "");
	in_process_close(&server);
}

/* ---- while it loads ---- */

static in_process *watched;
static char told_of_2[480];

wn_code __real_classifier_warm(classifier_session *s, wn_error *err);
wn_code __wrap_classifier_warm(classifier_session *s, wn_error *err);
wn_code __wrap_classifier_warm(classifier_session *s, wn_error *err)
{
	char condition[32];
	if (watched && !told_of_2[0])
		look(watched, "2", condition, told_of_2);
	return __real_classifier_warm(s, err);
}

static void what_a_list_names_waits_for_its_turn(void **state)
{
	in_process *server = open_server(tiny_root, "model.version=2,3", "log.level=error");
	assert_int_equal(in_process_command(server, COMMAND_UNLOAD, "tiny", 0).outcome, REASON_OK);
	watched = server;
	assert_int_equal(in_process_command(server, COMMAND_LOAD, "tiny", 0).outcome, REASON_OK);
	watched = NULL;
	assert_string_equal(told_of_2, "about to be loaded");
	in_process_close(&server);
}

static void others_in_the_place_of_the_loaded_files_are_told_of(void **state)
{
	static const char *const OTHERS = "its files are others now; what is loaded stays, a load of this version takes the new ones";
	char dir[100], why[300];
	in_process *server = open_server(tiny_root, "model.version=1,2", "canary.automatic=off");
	tiny_version_dir(dir, 2);
	assert_ok(tiny_classifier_write(dir, &(tiny_classifier){.seed = 20}, err));
	assert_int_equal(in_process_command(server, COMMAND_LOAD, "tiny", 0).outcome, REASON_OK);
	assert_told(server, "1", "READY", "");
	assert_told(server, "2", "READY", OTHERS);
	assert_int_equal(in_process_command(server, COMMAND_LOAD, "tiny", 2).outcome, REASON_OK);
	assert_told(server, "2", "READY", "");
	model_command tried = {.kind = COMMAND_LOAD, .name = "tiny", .version = 1, .percent = 10};
	in_process_submit(server, &tried);
	assert_int_equal(tried.outcome, REASON_OK);
	tiny_version_dir(dir, 1);
	assert_ok(tiny_classifier_write(dir, &(tiny_classifier){.seed = 10}, err));
	in_process_command(server, COMMAND_LOAD, "nobody", 0);
	snprintf(why, sizeof why, "on trial beside the version that answers; %s", OTHERS);
	assert_told(server, "1", "READY", why);
	in_process_close(&server);
}

/* ---- more models than are known ---- */

static void what_is_configured_has_room_before_what_lies_there(void **state)
{
	char root[100], dir[130];
	in_process *server;
	snprintf(root, sizeof root, "%s/crowd", temp_dir);
	assert_int_equal(mkdir(root, 0755), 0);
	for (int i = 0; i < 300; i++) {
		snprintf(dir, sizeof dir, "%s/m%03d", root, i);
		assert_int_equal(mkdir(dir, 0755), 0);
	}
	for (int i = 0; i < 2; i++) {
		snprintf(dir, sizeof dir, "%s/%s", root, i ? "tiny" : "zebra");
		assert_int_equal(mkdir(dir, 0755), 0);
		strcat(dir, "/1");
		assert_ok(tiny_classifier_write(dir, &(tiny_classifier){.seed = 1}, err));
	}
	server = open_server(root, "model.version=latest", "model.others=[zebra]");
	assert_int_equal(in_process_command(server, COMMAND_LOAD, "zebra", 1).answers, 1);
	const model_command c = in_process_command(server, COMMAND_LOAD, "m299", 0);
	assert_int_equal(c.outcome, REASON_UNKNOWN_MODEL);
	assert_string_equal(c.detail, "model \"m299\" is not in the registry; there are more models than the 256 that are known");
	in_process_close(&server);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(what_comes_back_beside_the_one_that_answers_is_a_change),
	    cmocka_unit_test(what_was_unloaded_does_not_come_back_after_a_command_that_failed),
	    cmocka_unit_test(a_version_that_could_not_be_listed_is_as_it_was),
	    cmocka_unit_test(a_link_in_a_models_place_is_told_of),
	    cmocka_unit_test(what_a_list_names_waits_for_its_turn),
	    cmocka_unit_test(others_in_the_place_of_the_loaded_files_are_told_of),
	    cmocka_unit_test(what_is_configured_has_room_before_what_lies_there),
	};
	return cmocka_run_group_tests(tests, set_up, temp_dir_remove);
}
