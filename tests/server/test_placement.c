/* How many instances of how many threads, on which processors, and what is said about it: decided for machines of any size; then
 * threads that really are where they should be, also when OpenMP makes new ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <omp.h>
#include <pthread.h>
#include <sched.h>

#include "server/placement.h"

static const char *const VARIABLES[] = {"OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "OMP_DYNAMIC",
					"OMP_PROC_BIND",   "OMP_PLACES",       "GOMP_CPU_AFFINITY"};

static int clear_environment(void **state)
{
	for (size_t i = 0; i < sizeof VARIABLES / sizeof VARIABLES[0]; i++)
		unsetenv(VARIABLES[i]);
	return 0;
}

static processors machine(int affinity, double quota)
{
	processors p = {.affinity = affinity, .quota = quota};
	for (int i = 0; i < affinity; i++)
		p.allowed[i / 64] |= 1ul << (i % 64);
	processors_judge(&p, affinity, "/sys/fs/cgroup/cpu.max");
	return p;
}

static placement decide(const char *yaml, const processors *found)
{
	server_config c;
	wn_error err = {0};
	placement p;
	if (config_parse(&SERVER_CONFIG_SCHEMA, &c, "t.yaml", yaml, strlen(yaml), &err) != WN_OK ||
	    server_config_check(&c, &err) != WN_OK)
		fail_msg("%s: %s", yaml, err.message);
	placement_decide(&p, &c, found);
	config_free(&SERVER_CONFIG_SCHEMA, &c);
	return p;
}

static void instances_and_threads_fill_what_there_is(void **state)
{
	static const struct {
		const char *yaml;
		int affinity;
		double quota;
		int instances, threads;
		bool pinned, oversubscribed;
	} CASES[] = {
	    {"{}", 8, 0, 1, 8, true, false},
	    {"{}", 1, 0, 1, 1, true, false},
	    {"{}", 8, 2.5, 1, 3, false, false}, /* a quota can be used up anywhere: no place is better than another */
	    {"{}", 8, 0.1, 1, 1, false, false},
	    {"inference: {affinity: none}", 8, 0, 1, 8, false, false},
	    {"inference: {threads: 4}", 8, 0, 1, 4, false, false},
	    {"inference: {threads: 16}", 8, 0, 1, 16, false, true},
	    {"inference: {threads: 8}", 8, 4, 1, 8, true, true}, /* as many as the mask has, but not the time for it */
	    {"inference: {instances: 1}", 8, 0, 1, 8, true, false},
	    {"inference: {mode: throughput}", 8, 0, 8, 1, true, false},
	    {"inference: {mode: throughput}", 8, 2.5, 3, 1, false, false},
	    {"inference: {mode: throughput}", 1, 0, 1, 1, true, false},
	    {"inference: {mode: throughput, affinity: none}", 8, 0, 8, 1, false, false},
	    {"inference: {mode: throughput, threads: 2}", 8, 0, 4, 2, true, false},
	    {"inference: {mode: throughput, threads: 3}", 8, 0, 2, 3, false, false},
	    {"inference: {mode: throughput, threads: 16}", 8, 0, 1, 16, false, true},
	    {"inference: {mode: throughput, instances: 2}", 8, 0, 2, 4, true, false},
	    {"inference: {mode: throughput, instances: 12}", 8, 0, 12, 1, false, true},
	    {"inference: {mode: throughput, instances: 2, threads: 2}", 8, 0, 2, 2, false, false},
	    {"inference: {mode: throughput}", 4096, 0, SERVER_MAX_INSTANCES, 1, false, false},
	};
	for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
		const processors found = machine(CASES[i].affinity, CASES[i].quota);
		const placement p = decide(CASES[i].yaml, &found);
		if (p.instances != CASES[i].instances || p.threads != CASES[i].threads || p.pinned != CASES[i].pinned ||
		    p.oversubscribed != CASES[i].oversubscribed || (p.warning[0] != 0) != CASES[i].oversubscribed)
			fail_msg("%s on %s: %d x %d, pinned %d, oversubscribed %d, \"%s\"", CASES[i].yaml, found.reason, p.instances,
				 p.threads, p.pinned, p.oversubscribed, p.warning);
	}
}

static void too_many_threads_are_warned_of_with_the_reason(void **state)
{
	const processors found = machine(8, 1.5);
	const placement p = decide("inference: {mode: throughput, instances: 2, threads: 4}", &found);
	assert_string_equal(p.warning, "2 instance(s) of 4 thread(s) are more than this process may use, 2 of 8 processors: cgroup quota "
				       "1.5 (/sys/fs/cgroup/cpu.max): they will wait for each other");
}

static void expect_warning(const char *variable, const char *value, const char *warning, bool pinned)
{
	const processors found = machine(4, 0);
	clear_environment(NULL);
	setenv(variable, value, 1);
	const placement p = decide("{}", &found);
	if (!strstr(p.warning, warning) || !*warning != !p.warning[0] || p.pinned != pinned)
		fail_msg("%s=%s: \"%s\", pinned %d", variable, value, p.warning, p.pinned);
	clear_environment(NULL);
}

static void openmps_variables_that_contradict_are_warned_of(void **state)
{
	expect_warning("OMP_NUM_THREADS", "4", "", true);
	expect_warning("OMP_NUM_THREADS", "2,1", "OMP_NUM_THREADS is 2 and not followed: inference.threads decides, 4", true);
	expect_warning("OMP_NUM_THREADS", "nonsense", "", true);
	expect_warning("OMP_THREAD_LIMIT", "4", "", true);
	expect_warning("OMP_THREAD_LIMIT", "3", "OMP_THREAD_LIMIT is 3: an instance gets no more of its 4 threads", true);
	expect_warning("OMP_DYNAMIC", "false", "", true);
	expect_warning("OMP_DYNAMIC", "TRUE", "OMP_DYNAMIC is true", true);
	expect_warning("OMP_PROC_BIND", "false", "", true);
	expect_warning("OMP_PROC_BIND", "close", "OMP_PROC_BIND binds threads", false);
	expect_warning("OMP_PLACES", "cores", "OMP_PLACES binds threads", false);
	expect_warning("GOMP_CPU_AFFINITY", "0-3", "GOMP_CPU_AFFINITY binds threads", false);
}

static void several_warnings_are_one_line(void **state)
{
	const processors found = machine(4, 0);
	setenv("OMP_NUM_THREADS", "2", 1);
	setenv("GOMP_CPU_AFFINITY", "0", 1);
	const placement p = decide("inference: {threads: 5}", &found);
	assert_non_null(strstr(p.warning, "wait for each other; OMP_NUM_THREADS is 2"));
	assert_non_null(strstr(p.warning, "; GOMP_CPU_AFFINITY"));
	assert_null(strchr(p.warning, '\n'));
	clear_environment(NULL);
}

/* ---- threads ---- */

typedef struct visit {
	const placement *p;
	int instance;
	cpu_set_t mask;
} visit;

static void *start_and_look(void *arg)
{
	visit *v = arg;
	placement_start(v->p, v->instance);
	placement_keep(v->p, v->instance, v->p->threads);
	sched_getaffinity(0, sizeof v->mask, &v->mask);
	return NULL;
}

static visit visit_of(const placement *p, int instance)
{
	pthread_t thread;
	visit v = {.p = p, .instance = instance};
	assert_int_equal(pthread_create(&thread, NULL, start_and_look, &v), 0);
	pthread_join(thread, NULL);
	return v;
}

static void each_instance_has_a_processor_of_its_own(void **state)
{
	processors found;
	processors_look(&found, NULL);
	found.usable = found.affinity; /* whatever quota the test has */
	const placement p = decide("inference: {mode: throughput}", &found);
	assert_true(p.pinned);
	for (int i = 0; i < p.instances; i++) {
		const visit v = visit_of(&p, i);
		assert_int_equal(CPU_COUNT(&v.mask), 1);
		assert_true(CPU_ISSET((size_t)processors_nth(&found, i), &v.mask));
	}
	const placement free_one = decide("inference: {mode: throughput, affinity: none}", &found);
	const visit v = visit_of(&free_one, 0);
	assert_int_equal(CPU_COUNT(&v.mask), found.affinity);
	cpu_set_t own; /* the others' threads are not ours */
	sched_getaffinity(0, sizeof own, &own);
	assert_int_equal(CPU_COUNT(&own), found.affinity);
}

/* Places that the machine does not have are refused by the kernel, and remembered all the same: so a machine of two processors
 * can play one of four. */
static processors extended(const processors *real, int affinity)
{
	processors p = *real;
	for (int i = PROCESSORS_MOST - 1; p.affinity < affinity; i--, p.affinity++)
		p.allowed[i / 64] |= 1ul << (i % 64);
	p.usable = p.affinity;
	return p;
}

static int processors_of_team(int threads, bool alone[])
{
	int size = 0;
#pragma omp parallel num_threads(threads)
	{
		cpu_set_t mask;
		sched_getaffinity(0, sizeof mask, &mask);
		alone[omp_get_thread_num()] = CPU_COUNT(&mask) == 1;
#pragma omp single
		size = omp_get_num_threads();
	}
	return size;
}

static void *processors_of_this_thread(void)
{
	cpu_set_t mask;
	sched_getaffinity(0, sizeof mask, &mask);
	return (void *)(intptr_t)CPU_COUNT(&mask);
}

static void *teams_come_and_go(void *arg)
{
	const placement *p = arg;
	bool alone[4];
	placement_start(p, 0);
	assert_int_equal(omp_get_max_threads(), p->threads);
	assert_int_equal(processors_of_team(4, alone), 4);
	assert_true(alone[0]);
	for (int i = 0; i < 100; i++) /* the same team: nothing happens */
		placement_keep(p, 0, 4);
	assert_int_equal(processors_of_team(4, alone), 4);
	assert_true(alone[0]);
	for (int i = 0; i < 100; i++) { /* a smaller team in between ends one of the four */
		processors_of_team(3, alone);
		placement_keep(p, 0, 4);
	}
	assert_int_equal(processors_of_team(4, alone), 4);
	return processors_of_this_thread();
}

/* As many as a model takes that is too small for all. */
static void *small_teams_run(void *arg)
{
	const placement *p = arg;
	bool alone[4];
	placement_start(p, 0);
	for (int i = 0; i < 100; i++) {
		placement_keep(p, 0, 3);
		assert_int_equal(processors_of_team(3, alone), 3);
	}
	return processors_of_this_thread();
}

/* Models of two sizes take each other's place, with many runs of each. */
static void *models_are_swapped(void *arg)
{
	const placement *p = arg;
	bool alone[4];
	placement_start(p, 0);
	for (int swap = 0; swap < 40; swap++)
		for (int i = 0; i < 100; i++) {
			const int threads = swap % 2 ? 3 : 4;
			placement_keep(p, 0, threads);
			assert_int_equal(processors_of_team(threads, alone), threads);
		}
	return processors_of_this_thread();
}

/* One thread's life on a machine of four processors: on how many it may run in the end. */
static intptr_t allowed_after(void *(*life)(void *), int *real_processors)
{
	processors real;
#ifdef __SANITIZE_THREAD__ /* it does not know libgomp's barriers */
	skip();
#endif
	processors_look(&real, NULL);
	if (real.affinity > 4)
		skip();
	const processors found = extended(&real, 4);
	const placement p = decide("{}", &found);
	assert_true(p.pinned);
	assert_int_equal(p.threads, 4);
	pthread_t thread;
	void *allowed = NULL;
	assert_int_equal(pthread_create(&thread, NULL, life, (void *)(uintptr_t)&p), 0);
	pthread_join(thread, &allowed);
	*real_processors = real.affinity;
	return (intptr_t)allowed;
}

static void a_team_that_is_made_anew_again_and_again_is_let_go(void **state)
{
	int all;
	const intptr_t allowed = allowed_after(teams_come_and_go, &all);
	assert_int_equal(allowed, all);
}

static void a_model_of_fewer_threads_stays_in_its_places(void **state)
{
	int all;
	assert_int_equal(allowed_after(small_teams_run, &all), 1);
}

static void swaps_now_and_then_are_no_reason_to_let_go(void **state)
{
	int all;
	assert_int_equal(allowed_after(models_are_swapped, &all), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup(instances_and_threads_fill_what_there_is, clear_environment),
	    cmocka_unit_test_setup(too_many_threads_are_warned_of_with_the_reason, clear_environment),
	    cmocka_unit_test_setup(openmps_variables_that_contradict_are_warned_of, clear_environment),
	    cmocka_unit_test_setup(several_warnings_are_one_line, clear_environment),
	    cmocka_unit_test_setup(each_instance_has_a_processor_of_its_own, clear_environment),
	    cmocka_unit_test_setup(a_team_that_is_made_anew_again_and_again_is_let_go, clear_environment),
	    cmocka_unit_test_setup(a_model_of_fewer_threads_stays_in_its_places, clear_environment),
	    cmocka_unit_test_setup(swaps_now_and_then_are_no_reason_to_let_go, clear_environment),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
