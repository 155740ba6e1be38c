/* child_run.h: a run in a process of its own, which may be killed at any moment: what tests of resuming are made of.
 *
 * OpenMP's threads do not survive a fork: the test's own process must not have started any before the last of these. */
#ifndef WINNOW_TESTS_PRUNE_CHILD_RUN_H
#define WINNOW_TESTS_PRUNE_CHILD_RUN_H

#include "tests/prune/support.h"

#include <signal.h>
#include <stdbool.h>
#include <sys/wait.h>
#include <time.h>

typedef wn_code child_work(const char *run, bool resume, wn_error *err);

/* Waits for the child, and kills it after `milliseconds` (0: never). */
static inline int wait_or_kill(pid_t pid, long milliseconds)
{
	int status;
	for (long waited = 0; waited < milliseconds; waited += 2) {
		if (waitpid(pid, &status, WNOHANG) == pid)
			return status;
		nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
	}
	if (milliseconds > 0)
		kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

/* True when it came to its end, false when it was killed after `milliseconds` (0: never). The test fails when it failed. */
static inline bool run_in_child(child_work *work, const char *run, bool resume, long milliseconds)
{
	const pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		wn_error err = {0};
		const wn_code rc = work(run, resume, &err);
		if (rc)
			fprintf(stderr, "child: %s\n", err.message);
		_exit(rc ? 1 : 0);
	}
	const int status = wait_or_kill(pid, milliseconds);
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
		return false;
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	return true;
}

/* Milliseconds that a run takes when nobody disturbs it. Other moments come out of rand() in every run of the test: the claim is for
 * any. */
static inline long time_in_child(child_work *work, const char *run)
{
	struct timespec t0, t1;
	clock_gettime(CLOCK_MONOTONIC, &t0);
	assert_true(run_in_child(work, run, false, 0));
	clock_gettime(CLOCK_MONOTONIC, &t1);
	srand((unsigned)t1.tv_nsec);
	return (t1.tv_sec - t0.tv_sec) * 1000 + (t1.tv_nsec - t0.tv_nsec) / 1000000;
}

/* 5 to `most` + 5. */
static inline long random_moment(long most) { return 5 + most * (rand() % 1000) / 1000; }

#endif
