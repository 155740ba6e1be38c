/* options.h: one table per subcommand describes its options; parsing, --help and usage errors follow from it.
 *
 *	const char *model = NULL;
 *	int runs = 100;
 *	bool json = false;
 *	const option_spec specs[] = {
 *		{"model", OPTION_STRING, &model, "DIR", "model directory", .required = true},
 *		{"runs", OPTION_INT, &runs, "N", "timed runs", .min = 1, .max = 1000000},
 *		{"json", OPTION_FLAG, &json, NULL, "print JSON"},
 *		{0}};
 *	const command_info info = {"bench", "time one request", "winnow-prune bench --model DIR\n", specs};
 *	int rc = options_parse(&info, argc, argv);
 *	if (rc != OPTIONS_OK)
 *		return rc == OPTIONS_HELP ? EXIT_DONE : EXIT_USAGE;
 */
#ifndef WINNOW_PRUNE_OPTIONS_H
#define WINNOW_PRUNE_OPTIONS_H

#include <stdbool.h>

#include "base/error.h"

/* What every subcommand returns (and the process exits with). */
enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

typedef enum option_kind {
	OPTION_FLAG,   /* target bool *: set to true */
	OPTION_STRING, /* target const char **: points into argv; "" is refused */
	OPTION_TEXT,   /* the same, and "" is a value: an ad may have no words */
	OPTION_INT,    /* target int *, checked against [min, max] */
	OPTION_DOUBLE, /* target double *, finite, checked against [min, max] */
	OPTION_CHOICE  /* target const char **: one of the words of `choices` */
} option_kind;

typedef struct option_spec {
	const char *name; /* without the dashes; {0} ends the table */
	option_kind kind;
	void *target;     /* holds the default before the parse */
	const char *value_name; /* for --help; NULL for flags */
	const char *help;
	bool required;    /* OPTION_STRING, OPTION_TEXT and OPTION_CHOICE only */
	double min, max;  /* both 0: any value */
	const char *choices; /* "f32 bf16 int8" */
} option_spec;

typedef struct command_info {
	const char *name;
	const char *summary;  /* one line */
	const char *examples; /* lines; each is indented by --help */
	const option_spec *options;
} command_info;

enum { OPTIONS_OK = 0, OPTIONS_HELP, OPTIONS_USAGE };

/* argv[0] is the subcommand. Accepts --name value and --name=value. --help prints to stdout and gives OPTIONS_HELP; a
 * mistake prints one line to stderr, naming the option, what was found and what was expected, and gives OPTIONS_USAGE. */
int options_parse(const command_info *info, int argc, char **argv);

/* "winnow-prune NAME: message" on stderr; returns EXIT_FAILED. */
int command_fail(const command_info *info, const wn_error *err);

#endif
