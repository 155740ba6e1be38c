/* run_command.h: what the commands that run for long have in common: --set, and signals that end a run without losing it. */
#ifndef WINNOW_PRUNE_RUN_COMMAND_H
#define WINNOW_PRUNE_RUN_COMMAND_H

#include <signal.h>

#define MAX_SETS         256
#define EXIT_INTERRUPTED 130 /* as a shell reports a program that SIGINT ended */

/* Takes every --set KEY=VALUE out of argv: it may be given many times, which the option table does not do. Returns how many;
 * -1 when a value is missing or there are more than MAX_SETS. */
int take_sets(int *argc, char **argv, const char **sets);

/* From now on SIGINT and SIGTERM set the returned flag; the second one ends the process. */
volatile sig_atomic_t *catch_stop_signals(void);

#endif
