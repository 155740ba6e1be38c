/* options.c: see options.h. Hand-written rather than getopt_long so that every mistake names what was expected. Runs once,
 * on the main thread, before any work. */
#include "prune/options.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void print_help(const command_info *info)
{
	printf("winnow-prune %s: %s\n\nUsage: winnow-prune %s", info->name, info->summary, info->name);
	for (const option_spec *o = info->options; o->name; o++)
		if (o->required)
			printf(" --%s %s", o->name, o->value_name);
	printf(" [options]\n\nOptions:\n");
	for (const option_spec *o = info->options; o->name; o++) {
		char left[64];
		snprintf(left, sizeof left, "--%s%s%s", o->name, o->value_name ? " " : "", o->value_name ? o->value_name : "");
		printf("  %-24s %s", left, o->help);
		if (o->required)
			printf(" (required)");
		else if (o->kind == OPTION_INT)
			printf(" (default %d)", *(int *)o->target);
		else if (o->kind == OPTION_DOUBLE)
			printf(" (default %g)", *(double *)o->target);
		else if (o->kind != OPTION_FLAG && *(const char **)o->target && **(const char **)o->target)
			printf(" (default %s)", *(const char **)o->target);
		printf("\n");
	}
	printf("  %-24s %s\n", "--help", "this text");
	if (info->examples && *info->examples) {
		printf("\nExamples:\n");
		for (const char *p = info->examples; *p;) {
			size_t n = strcspn(p, "\n");
			printf("  %.*s\n", (int)n, p);
			p += n + (p[n] == '\n');
		}
	}
	printf("\nExit codes: 0 done, 1 the work failed, 2 usage.\n");
}

/* Is `word` one of the space-separated words of `list`? */
static bool is_choice(const char *list, const char *word)
{
	size_t len = strlen(word);
	while (*list) {
		size_t n = strcspn(list, " ");
		if (n == len && !memcmp(list, word, n))
			return true;
		list += n + (list[n] == ' ');
	}
	return false;
}

static bool number_in_range(const option_spec *o, double v)
{
	return (o->min == 0 && o->max == 0) || (v >= o->min && v <= o->max);
}

/* Stores `value` in the option's target; false after a message. */
static bool store(const command_info *info, const option_spec *o, const char *value)
{
	char *end;
	errno = 0;
	switch (o->kind) {
	case OPTION_FLAG:
		*(bool *)o->target = true;
		return true;
	case OPTION_STRING:
	case OPTION_TEXT:
		if (*value || o->kind == OPTION_TEXT) {
			*(const char **)o->target = value;
			return true;
		}
		fprintf(stderr, "winnow-prune %s: --%s: empty value, expected %s\n", info->name, o->name, o->value_name);
		return false;
	case OPTION_CHOICE:
		if (is_choice(o->choices, value)) {
			*(const char **)o->target = value;
			return true;
		}
		fprintf(stderr, "winnow-prune %s: --%s: found \"%.60s\", expected one of: %s\n", info->name, o->name, value,
		        o->choices);
		return false;
	case OPTION_INT: {
		long v = strtol(value, &end, 10);
		if (*value && !*end && !errno && v >= -2147483647L && v <= 2147483647L && number_in_range(o, (double)v)) {
			*(int *)o->target = (int)v;
			return true;
		}
		break;
	}
	case OPTION_DOUBLE: {
		double v = strtod(value, &end);
		if (*value && !*end && isfinite(v) && number_in_range(o, v)) {
			*(double *)o->target = v;
			return true;
		}
		break;
	}
	}
	fprintf(stderr, "winnow-prune %s: --%s: found \"%.60s\", expected a%s number", info->name, o->name, value,
	        o->kind == OPTION_INT ? " whole" : "");
	if (o->min != 0 || o->max != 0)
		fprintf(stderr, " from %.10g to %.10g", o->min, o->max);
	fprintf(stderr, "\n");
	return false;
}

static const option_spec *find(const command_info *info, const char *name, size_t len)
{
	for (const option_spec *o = info->options; o->name; o++)
		if (strlen(o->name) == len && !memcmp(o->name, name, len))
			return o;
	return NULL;
}

/* One argument and its value; *i advances over both. False after a message. */
static bool parse_one(const command_info *info, int argc, char **argv, int *i)
{
	const char *a = argv[*i];
	if (strncmp(a, "--", 2) || !a[2]) {
		fprintf(stderr, "winnow-prune %s: found \"%.60s\", expected an option (try --help)\n", info->name, a);
		return false;
	}
	size_t len = strcspn(a + 2, "=");
	const char *value = a[2 + len] == '=' ? a + 3 + len : NULL;
	const option_spec *o = find(info, a + 2, len);
	if (!o) {
		fprintf(stderr, "winnow-prune %s: unknown option --%.*s (try --help)\n", info->name, (int)(len > 60 ? 60 : len),
		        a + 2);
		return false;
	}
	if (o->kind == OPTION_FLAG) {
		if (value) {
			fprintf(stderr, "winnow-prune %s: --%s takes no value\n", info->name, o->name);
			return false;
		}
		return store(info, o, "");
	}
	if (!value) {
		if (*i + 1 >= argc) {
			fprintf(stderr, "winnow-prune %s: --%s: value missing, expected %s\n", info->name, o->name, o->value_name);
			return false;
		}
		value = argv[++*i];
	}
	return store(info, o, value);
}

int options_parse(const command_info *info, int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
			print_help(info);
			return OPTIONS_HELP;
		}
	for (int i = 1; i < argc; i++)
		if (!parse_one(info, argc, argv, &i))
			return OPTIONS_USAGE;
	for (const option_spec *o = info->options; o->name; o++)
		if (o->required && !*(const char **)o->target) {
			fprintf(stderr, "winnow-prune %s: --%s %s is required (try --help)\n", info->name, o->name, o->value_name);
			return OPTIONS_USAGE;
		}
	return OPTIONS_OK;
}

int command_fail(const command_info *info, const wn_error *err)
{
	fflush(stdout);
	fprintf(stderr, "winnow-prune %s: %s\n", info->name, err->message[0] ? err->message : "failed without a reason");
	return EXIT_FAILED;
}
