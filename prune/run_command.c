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

static void print_continuation(FILE *f, const run_command *c, const run_arguments *a)
{
	fprintf(f, "; continue with: winnow-prune %s --config ", c->info.name);
	print_word(f, a->config_path);
	for (int i = 0; i < a->num_sets; i++) {
		fputs(" --set ", f);
		print_word(f, a->sets[i]);
	}
	fputs(" --resume", f);
}

int run_exit_status(FILE *f, const run_command *c, const run_arguments *a, wn_code rc, const wn_error *err)
{
	if (rc != WN_CANCELLED)
		return rc ? command_fail(&c->info, err) : EXIT_DONE;
	fprintf(f, "\n%s", err->message);
	if (!a->dry)
		print_continuation(f, c, a);
	fputc('\n', f);
	return EXIT_INTERRUPTED;
}

/* ---- options ---- */

/* Takes every --set KEY=VALUE out of argv: the option table takes an option once. Returns how many; -1 when a value is missing or there
 * are more than MAX_SETS. */
static int take_sets(int *argc, char **argv, const char **sets)
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

int run_arguments_parse(run_arguments *out, const run_command *c, int argc, char **argv)
{
	const char *set_help = NULL;
	bool print = false;
	*out = (run_arguments){0};
	const option_spec specs[] = {
		{"config", OPTION_STRING, &out->config_path, "FILE", "YAML configuration (see --print-config)"},
		{"set", OPTION_STRING, &set_help, "KEY=VALUE", "override one key of the configuration; may be repeated"},
		{"resume", OPTION_FLAG, &out->resume, NULL, "continue from the run's last checkpoint, if there is one"},
		{"max-steps", OPTION_INT, &out->max_steps, "N", "stop, resumable, after N steps in all", .min = 0, .max = 1e9},
		{"dry-run", OPTION_FLAG, &out->dry, NULL, c->dry_help},
		{"print-config", OPTION_FLAG, &print, NULL, "print every key with its default and meaning"},
		{0}};
	command_info info = c->info;
	info.options = specs;
	out->num_sets = take_sets(&argc, argv, out->sets);
	if (out->num_sets < 0) {
		fprintf(stderr, "winnow-prune %s: --set: expected KEY=VALUE, at most %d times\n", info.name, MAX_SETS);
		return EXIT_USAGE;
	}
	const int parsed = options_parse(&info, argc, argv);
	if (parsed != OPTIONS_OK)
		return parsed == OPTIONS_HELP ? EXIT_DONE : EXIT_USAGE;
	if (print) {
		config_print(c->schema, NULL, stdout);
		return EXIT_DONE;
	}
	if (!out->config_path) {
		fprintf(stderr, "winnow-prune %s: --config is missing (try --help)\n", info.name);
		return EXIT_USAGE;
	}
	return RUN_GOES_ON;
}
