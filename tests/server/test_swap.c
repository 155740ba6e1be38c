/* test_swap.c: whose time a new version's first runs take: while others are served the loader's, but for one on each serving thread. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>

#include <cmocka.h>
#include <omp.h>

#include "server/swap.h"
#include "tiny_registry.h"

#define INSTANCES 2

typedef struct whose {
	int aside, on[INSTANCES];
	bool stopping;
	void (*at_the_end)(void); /* of the last run, before the files are looked at again */
} whose;

static int set_up(void **state)
{
	tiny_registry_make(state, &(tiny_classifier){.seed = 1}, 1);
	return 0;
}

static void aside(void *cls, void (*fn)(void *arg), void *arg)
{
	((whose *)cls)->aside++;
	omp_set_num_threads(1); /* as the loader has */
	fn(arg);
}

static bool on(void *cls, int instance, void (*fn)(void *arg), void *arg)
{
	whose *w = cls;
	if (w->stopping)
		return false;
	w->on[instance]++;
	fn(arg);
	if (w->at_the_end && instance == INSTANCES - 1)
		w->at_the_end();
	return true;
}

static wn_code bring_in(served_model **m, whose *w, bool serving, wn_error *error)
{
	static const placement p = {.instances = INSTANCES, .threads = 2};
	server_config c = {0};
	char text[120];
	load_step step;
	snprintf(text, sizeof text, "model.registry=%s", tiny_root);
	assert_ok(config_defaults(&SERVER_CONFIG_SCHEMA, &c, err));
	assert_ok(config_set(&SERVER_CONFIG_SCHEMA, &c, text, err));
	const swap_options o = {.config = &c, .placement = &p, .run_aside = aside, .run_on = on, .cls = w, .serving = serving};
	const wn_code code = swap_bring_in(m, &o, "tiny", 1, UINT64_MAX, &step, error);
	config_free(&SERVER_CONFIG_SCHEMA, &c);
	return code;
}

static void a_serving_thread_makes_one_run(void **state)
{
	whose w = {0};
	served_model *m;
	assert_ok(bring_in(&m, &w, true, err));
	assert_int_equal(w.aside, 1 + INSTANCES); /* the load, the runs of each session */
	for (int i = 0; i < INSTANCES; i++)
		assert_int_equal(w.on[i], 1);
	model_free(m);
}

static void at_the_start_the_threads_that_will_serve_make_all_of_them(void **state)
{
	whose w = {0};
	served_model *m;
	assert_ok(bring_in(&m, &w, false, err));
	assert_int_equal(w.aside, 1);
	for (int i = 0; i < INSTANCES; i++)
		assert_int_equal(w.on[i], 2);
	model_free(m);
}

static void a_stop_ends_it(void **state)
{
	for (int serving = 0; serving < 2; serving++) {
		whose w = {.stopping = true};
		served_model *m;
		wn_error err = {0};
		assert_int_equal(bring_in(&m, &w, serving, &err), WN_CANCELLED);
		assert_null(m);
		assert_string_equal(strstr(err.message, "the server"), "the server is shutting down");
	}
}

/* ---- what the last look finds ---- */

static struct rlimit files;
static char version[100], moved[120];

static void leave_no_descriptor(void) { setrlimit(RLIMIT_NOFILE, &(struct rlimit){0, files.rlim_max}); }
static void move_away(void) { rename(version, moved); }

static void replace(void)
{
	move_away();
	mkdir(version, 0755);
}

static void what_could_not_be_looked_at_again_is_not_taken_for_replaced(void **state)
{
	tiny_version_dir(version, 1);
	snprintf(moved, sizeof moved, "%s/tiny/moved", tiny_root);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &files), 0);
	static const struct {
		void (*change)(void);
		wn_code code;
		const char *told;
	} cases[] = {{leave_no_descriptor, WN_IO, "cannot open the model registry: Too many open files"},
		     {move_away, WN_INVALID, "/tiny/1: removed while it was loaded"},
		     {replace, WN_INVALID, "/tiny/1: replaced or edited while it was loaded"}};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		whose w = {.at_the_end = cases[i].change};
		served_model *m;
		wn_error err = {0};
		const wn_code code = bring_in(&m, &w, true, &err);
		setrlimit(RLIMIT_NOFILE, &files);
		rmdir(version);
		rename(moved, version);
		assert_int_equal(code, cases[i].code);
		assert_non_null(strstr(err.message, cases[i].told));
		assert_null(m);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_serving_thread_makes_one_run),
	    cmocka_unit_test(at_the_start_the_threads_that_will_serve_make_all_of_them),
	    cmocka_unit_test(a_stop_ends_it),
	    cmocka_unit_test(what_could_not_be_looked_at_again_is_not_taken_for_replaced),
	};
	return cmocka_run_group_tests(tests, set_up, temp_dir_remove);
}
