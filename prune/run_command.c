/* run_command.c: see run_command.h. */
#include "prune/run_command.h"

#include <stddef.h>
#include <string.h>

static volatile sig_atomic_t stop_requested;

static void on_signal(int sig)
{
	if (stop_requested) { /* the second one means it */
		signal(sig, SIG_DFL);
		raise(sig);
	}
	stop_requested = 1;
}

volatile sig_atomic_t *catch_stop_signals(void)
{
	struct sigaction a = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
	sigaction(SIGINT, &a, NULL);
	sigaction(SIGTERM, &a, NULL);
	return &stop_requested;
}

int take_sets(int *argc, char **argv, const char **sets)
{
	int kept = 0, n = 0;
	for (int i = 0; i < *argc; i++) {
		const char *value = NULL;
		if (!strncmp(argv[i], "--set=", 6))
			value = argv[i] + 6;
		else if (!strcmp(argv[i], "--set") && i + 1 < *argc)
			value = argv[++i];
		else if (!strcmp(argv[i], "--set"))
			return -1;
		if (!value)
			argv[kept++] = argv[i];
		else if (n == MAX_SETS)
			return -1;
		else
			sets[n++] = value;
	}
	argv[kept] = NULL;
	*argc = kept;
	return n;
}
