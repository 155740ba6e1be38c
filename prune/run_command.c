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

/* As one word of a POSIX shell. */
static void print_word(FILE *f, const char *word)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-+=./:,@%";
	if (*word && strspn(word, plain) == strlen(word)) {
		fputs(word, f);
		return;
	}
	fputc('\'', f);
	for (; *word; word++)
		if (*word == '\'')
			fputs("'\\''", f);
		else
			fputc(*word, f);
	fputc('\'', f);
}

int run_interrupted(FILE *f, const run_line *line, const wn_error *why, bool resumable)
{
	fprintf(f, "\n%s", why->message);
	if (resumable) {
		fprintf(f, "; continue with: winnow-prune %s --config ", line->command);
		print_word(f, line->config_path);
		for (int i = 0; i < line->num_sets; i++) {
			fputs(" --set ", f);
			print_word(f, line->sets[i]);
		}
		fputs(" --resume", f);
	}
	fputc('\n', f);
	return EXIT_INTERRUPTED;
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
