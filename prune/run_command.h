/* run_command.h: what the commands that run for long have in common: their options, signals that end a run without losing it, and how
 * it is continued. */
#ifndef WINNOW_PRUNE_RUN_COMMAND_H
#define WINNOW_PRUNE_RUN_COMMAND_H

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>

#include "base/error.h"
#include "base/yaml_config.h"
#include "prune/options.h"

#define MAX_SETS         256
#define EXIT_INTERRUPTED 130 /* as a shell reports a program that SIGINT ended */
#define RUN_GOES_ON      (-1) /* no exit status */

typedef struct run_command {
	command_info info;           /* without options: they are the same for all */
	const char *dry_help;        /* of --dry-run */
	const config_schema *schema; /* what --print-config prints */
} run_command;

/* What a run is told. Texts point into argv. */
typedef struct run_arguments {
	const char *config_path;
	const char *sets[MAX_SETS]; /* [num_sets]: values of --set, which may be given many times */
	int num_sets;
	bool resume, dry;
	int max_steps; /* 0: to the end */
} run_arguments;

/* RUN_GOES_ON, or the exit status where there is nothing to run: --help and --print-config, which were answered, and mistakes, which
 * were named in one line. */
int run_arguments_parse(run_arguments *out, const run_command *c, int argc, char **argv);

/* From now on SIGINT and SIGTERM set the returned flag; the second one ends the process. */
volatile sig_atomic_t *catch_stop_signals(void);

/* The exit status of a run that ended with rc. A failure is said on stderr; one that was stopped says why on f, with the line that
 * continues it (a dry run has none), with quotes around what a shell would take apart. */
int run_exit_status(FILE *f, const run_command *c, const run_arguments *a, wn_code rc, const wn_error *err);

#endif
