/* program.c: see program.h. Standard streams go through files in the working directory: no pipe can fill up. */
#include "program.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *program;

void program_is(const char *path) { program = path; }

static void slurp(char *out, size_t size, const char *path)
{
	FILE *f = fopen(path, "r");
	assert_non_null(f);
	out[fread(out, 1, size - 1, f)] = 0;
	fclose(f);
}

void run_program(outcome *o, const char *input, const char *const *arguments)
{
	char in_path[64], out_path[64], err_path[64];
	const char *argv[32] = {program};
	int n = 1, status = 0;
	for (; arguments[n - 1]; n++) {
		assert_true(n < 31);
		argv[n] = arguments[n - 1];
	}
	snprintf(in_path, sizeof in_path, "program-%d.in", (int)getpid());
	snprintf(out_path, sizeof out_path, "program-%d.out", (int)getpid());
	snprintf(err_path, sizeof err_path, "program-%d.err", (int)getpid());
	FILE *f = fopen(in_path, "w");
	assert_non_null(f);
	fputs(input ? input : "", f);
	fclose(f);
	const pid_t child = fork();
	if (child == 0) {
		dup2(open(in_path, O_RDONLY), 0);
		dup2(open(out_path, O_WRONLY | O_CREAT | O_TRUNC, 0644), 1);
		dup2(open(err_path, O_WRONLY | O_CREAT | O_TRUNC, 0644), 2);
		execv(program, (char **)argv);
		_exit(127);
	}
	assert_true(child > 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	o->exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
	slurp(o->out, sizeof o->out, out_path);
	slurp(o->err, sizeof o->err, err_path);
	unlink(in_path);
	unlink(out_path);
	unlink(err_path);
}

void assert_refused(const outcome *o, int exit_code, const char *word)
{
	const size_t len = strlen(o->err);
	if (o->exit_code != exit_code)
		fail_msg("exit code %d, expected %d (%s): %s", o->exit_code, exit_code, word, o->err);
	if (!len || strchr(o->err, '\n') != o->err + len - 1)
		fail_msg("expected one line on stderr (%s), found: %s", word, o->err);
	if (!strstr(o->err, word))
		fail_msg("expected \"%s\" in: %s", word, o->err);
}
