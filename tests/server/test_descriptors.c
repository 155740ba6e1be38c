/* Connections that fit into the limit of open files: each case in a process of its own, as a hard limit never rises again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "server/descriptors.h"

typedef struct outcome {
	int connections;
	rlim_t soft;
} outcome;

static outcome try(rlim_t soft, rlim_t hard, int connections, int others)
{
	int ends[2];
	outcome o = {0};
	assert_int_equal(pipe(ends), 0);
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		struct rlimit l = {.rlim_cur = soft, .rlim_max = hard};
		if (setrlimit(RLIMIT_NOFILE, &l) != 0)
			_exit(1);
		o.connections = descriptors_make_room(connections, others);
		getrlimit(RLIMIT_NOFILE, &l);
		o.soft = l.rlim_cur;
		_exit(write(ends[1], &o, sizeof o) != sizeof o);
	}
	close(ends[1]);
	assert_int_equal(read(ends[0], &o, sizeof o), sizeof o);
	close(ends[0]);
	int status;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	return o;
}

static void the_soft_limit_is_raised_as_needed(void **state)
{
	static const struct {
		rlim_t soft, hard;
		int connections, others;
		outcome expected;
	} CASES[] = {
	    {500, 600, 256, 84, {256, 500}},  /* enough */
	    {340, 600, 256, 84, {256, 340}},  /* just enough */
	    {339, 600, 256, 84, {256, 340}},  /* raised to what is needed, no further */
	    {100, 340, 256, 84, {256, 340}},
	    {100, 339, 256, 84, {255, 339}},  /* one too few */
	    {200, 200, 256, 84, {116, 200}},  /* all but the others */
	    {100, 100, 256, 84, {50, 100}},   /* half of them */
	    {64, 64, 8, 84, {8, 64}},	      /* those may even do */
	    {20, 20, 65536, 1000, {10, 20}},
	};
	for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
		outcome found = try(CASES[i].soft, CASES[i].hard, CASES[i].connections, CASES[i].others);
		if (found.connections != CASES[i].expected.connections || found.soft != CASES[i].expected.soft)
			fail_msg("case %zu: %d connections, limit %llu", i, found.connections, (unsigned long long)found.soft);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(the_soft_limit_is_raised_as_needed)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
