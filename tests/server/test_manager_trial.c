/* test_manager_trial.c: what the manager does for a trial: it judges every result, looks at the disk for none, and finds room in the
 * memory budget for the sessions that comparing takes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

#include "in_process.h"
#include "manager_tells.h"
#include "tiny_registry.h"

static int set_up(void **state)
{
	tiny_registry_make(state, (tiny_classifier[]){{.seed = 1}, {.seed = 2}}, 2);
	return 0;
}

/* Version 1 answers; nothing tells of the disk but commands. */
static in_process *open_server(const char *budget)
{
	const char *const settings[] = {"model.name=tiny",       "model.version=1",     "model.watch=false",
					"model.poll_interval=1h", "canary.max_errors=3", budget, NULL};
	in_process *server = NULL;
	assert_ok(in_process_open(&server, tiny_root, settings, err));
	assert_ok(in_process_start_manager(server, err));
	return server;
}

static model_command start_trial(in_process *server)
{
	model_command c = {.kind = COMMAND_LOAD, .name = "tiny", .version = 2, .percent = 100, .mode = TRIAL_SHADOW};
	in_process_submit(server, &c);
	return c;
}

static void results_are_judged_without_a_look_at_the_disk(void **state)
{
	char dir[100], condition[32], why[480] = "";
	in_process *server = open_server("model.memory_budget=0");
	assert_int_equal(start_trial(server).outcome, REASON_OK);
	registry_choice c = registry_choose(in_process_registry(server), "tiny", "");
	assert_non_null(c.trial);
	tiny_version_dir(dir, 3);
	assert_ok(tiny_classifier_write(dir, &(tiny_classifier){.seed = 3}, err));
	for (int i = 0; i < 3; i++)
		trial_failed(c.trial);
	for (int i = 0; i < 6000 && !strstr(why, "taken back"); i++) {
		nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
		look(server, "2", condition, why);
	}
	assert_non_null(strstr(why, "3 requests failed"));
	look(server, "3", condition, why);
	assert_string_equal(condition, "");
	assert_int_equal(in_process_command(server, COMMAND_LOAD, "tiny", 3).outcome, REASON_OK); /* which looks */
	registry_release(&c.model);
	registry_release(&c.other);
	trial_release(&c.trial);
	in_process_close(&server);
}

static void sessions_for_comparing_are_in_the_budget(void **state)
{
	char budget[64], condition[32], why[480];
	in_process *server = open_server("model.memory_budget=0");
	const double one = gauge(server, "winnow_models_memory_bytes");
	assert_int_equal(start_trial(server).outcome, REASON_OK);
	const double both = gauge(server, "winnow_models_memory_bytes");
	served_model *m = registry_find(in_process_registry(server), "tiny", "1");
	const double session = (double)classifier_session_bytes(m->sessions[0]);
	registry_release(&m);
	assert_true(session > 0 && one == gauge(server, "winnow_model_bytes{name=\"tiny\",version=\"1\"}") - session);
	assert_true(both == 2 * one + 2 * session);
	assert_int_equal(start_trial(server).outcome, REASON_OK); /* again: they are there */
	assert_true(both == gauge(server, "winnow_models_memory_bytes"));
	in_process_close(&server);
	/* Both versions fit, the comparing does not: nothing changes. */
	snprintf(budget, sizeof budget, "model.memory_budget=%.0f", both - 1);
	server = open_server(budget);
	const model_command c = start_trial(server);
	assert_int_equal(c.outcome, REASON_LOAD_FAILED);
	assert_non_null(strstr(c.detail, "a trial's comparisons take about"));
	look(server, "2", condition, why);
	assert_string_equal(condition, "UNAVAILABLE");
	assert_true(gauge(server, "winnow_model_held{name=\"tiny\",version=\"1\"}") == -1);
	for (int i = 0; i < 6000 && gauge(server, "winnow_models_memory_bytes") != one; i++)
		nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
	assert_true(gauge(server, "winnow_models_memory_bytes") == one);
	in_process_close(&server);
}

/* The old candidate's memory is still a request's, and the new one's comparing finds none. */
static void a_candidate_replaced_in_vain_is_on_trial_no_longer(void **state)
{
	char budget[64], dir[100], condition[32], why[480];
	in_process *server = open_server("model.memory_budget=0");
	const double one = gauge(server, "winnow_models_memory_bytes");
	served_model *m = registry_find(in_process_registry(server), "tiny", "1");
	const double session = (double)classifier_session_bytes(m->sessions[0]);
	registry_release(&m);
	in_process_close(&server);
	snprintf(budget, sizeof budget, "model.memory_budget=%.0f", 3 * one + 2.5 * session);
	server = open_server(budget);
	assert_int_equal(start_trial(server).outcome, REASON_OK);
	m = registry_find(in_process_registry(server), "tiny", "2");
	tiny_version_dir(dir, 2);
	assert_ok(tiny_classifier_write(dir, &(tiny_classifier){.seed = 2}, err));
	const model_command c = start_trial(server);
	assert_int_equal(c.outcome, REASON_LOAD_FAILED);
	assert_non_null(strstr(c.detail, "a trial's comparisons take about"));
	look(server, "2", condition, why);
	assert_string_equal(why, "tried and taken back: its files were replaced, and those could not be put on trial");
	assert_string_equal(condition, "UNAVAILABLE");
	assert_int_equal((int)gauge(server, "winnow_canary_percent{name=\"tiny\",version=\"2\",mode=\"shadow\"}"), 0);
	registry_release(&m);
	assert_int_equal(start_trial(server).outcome, REASON_OK);
	in_process_close(&server);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(results_are_judged_without_a_look_at_the_disk),
	    cmocka_unit_test(sessions_for_comparing_are_in_the_budget),
	    cmocka_unit_test(a_candidate_replaced_in_vain_is_on_trial_no_longer),
	};
	return cmocka_run_group_tests(tests, set_up, temp_dir_remove);
}
