/* run_command.h: what the commands that run for long have in common: --set, signals that end a run without losing it, and how it is
 * continued. */
#ifndef WINNOW_PRUNE_RUN_COMMAND_H
#define WINNOW_PRUNE_RUN_COMMAND_H

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>

#include "base/error.h"

#define MAX_SETS         256
#define EXIT_INTERRUPTED 130 /* as a shell reports a program that SIGINT ended */

/* Takes every --set KEY=VALUE out of argv: it may be given many times, which the option table does not do. Returns how many;
 * -1 when a value is missing or there are more than MAX_SETS. */
int take_sets(int *argc, char **argv, const char **sets);

/* From now on SIGINT and SIGTERM set the returned flag; the second one ends the process. */
volatile sig_atomic_t *catch_stop_signals(void);

/* How a run was started: what it takes to start it again. */
typedef struct run_line {
	const char *command, *config_path;
	const char *const *sets; /* [num_sets]: values of --set */
	int num_sets;
} run_line;

/* What a run that was stopped says: why, and (resumable) the line that continues it, with quotes around what a shell would take
 * apart. Returns EXIT_INTERRUPTED. */
int run_interrupted(FILE *f, const run_line *line, const wn_error *why, bool resumable);

#endif
