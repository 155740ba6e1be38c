/* options.c: see options.h. One table describes every option: parsing, ranges, messages and --help follow from it. */
#include "load/options.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "load/payload.h"
#include "load/samples.h"
#include "load/schedule.h"

typedef enum option_kind {
	HEADING,  /* of a group in --help */
	FLAG,     /* bool */
	STRING,   /* const char *, not empty */
	LIST,     /* option_list, may be given again */
	INT,      /* int in [min, max] */
	SEED,     /* uint64_t */
	NUMBER,   /* double in [min, max] */
	DURATION, /* int64_t ns: "10", "1.5s", "200ms", "2m", "1h"; [min, max] in seconds */
	CHOICE    /* int: index into choices */
} option_kind;

typedef struct option_spec {
	const char *name; /* NULL ends the table */
	option_kind kind;
	size_t offset;
	const char *value, *help;
	double min, max;
	const char *const *choices; /* NULL-terminated */
} option_spec;

static const char *const FORMATS[] = {"multipart", "json", NULL};
static const char *const ARRIVALS[] = {"poisson", "constant", NULL};
static const char *const EXPECTATIONS[] = {"nothing", "labels", NULL};

#define AT(field) offsetof(load_options, field)

static const option_spec SPECS[] = {
    {"What is asked", HEADING},
    {"url", STRING, AT(url), "URL",
     "http://HOST[:PORT][/PATH]; without a path /v1/audit (default http://127.0.0.1:8080)"},
    {"ads", STRING, AT(ads), "DIR", "folder with metadata.jsonl and its images (required); or such a file"},
    {"limit", INT, AT(limit), "N", "only the first N ads (default 0: all)", 0, 1e9},
    {"format", CHOICE, AT(format), "KIND", "multipart (default) or json", .choices = FORMATS},
    {"key", STRING, AT(key), "KEY",
     "API key (default: WINNOW_INFERENCE_KEY in the environment, where ps does not show it)"},
    {"header", LIST, AT(headers), "'NAME: VALUE'", "a further request header; may be repeated"},
    {"deadline-ms", INT, AT(deadline_ms), "N", "X-Deadline-Ms of every request (default 0: the server's own deadline)",
     0, 3600000},
    {"How often", HEADING},
    {"rate", NUMBER, AT(rate), "R", "requests per second (default 10); with --find-max the first rate tried", 0.01,
     1e6},
    {"arrivals", CHOICE, AT(arrivals), "KIND", "poisson (default) or constant", .choices = ARRIVALS},
    {"duration", DURATION, AT(duration_ns), "T",
     "what is measured, e.g. 30s, 5m (default 10s); with --find-max of each trial", 0.1, 86400},
    {"warmup", DURATION, AT(warmup_ns), "T", "load before that, at the same rate, not measured (default 1s)", 0, 3600},
    {"connections", INT, AT(connections), "N",
     "at most; while all are busy requests wait, and the wait counts (default 128)", 1, 16384},
    {"timeout", DURATION, AT(timeout_ns), "T", "a request without a whole answer by then has failed (default 10s)",
     0.001, 3600},
    {"seed", SEED, AT(seed), "N", "of the arrival times and the order of the ads (default 1)"},
    {"What must hold", HEADING},
    {"target-ms", NUMBER, AT(target_ms), "MS", "latency from the scheduled time to the last byte (default 90)", 0.001,
     3600000},
    {"percentile", NUMBER, AT(percentile), "P",
     "share of all requests, in percent, answered 2xx within it (default 99)", 0.1, 100},
    {"max-lag-ms", NUMBER, AT(max_lag_ms), "MS",
     "load generator too slow when its own p99 lag is above (default: target / 20, at least 1)", 0, 3600000},
    {"expect", CHOICE, AT(expect_labels), "WHAT", "labels: count the answers that equal the ad's label",
     .choices = EXPECTATIONS},
    {"answers", STRING, AT(answers), "FILE",
     "known answers by model digest and ad: every answer is held against them (docs/load.md)"},
    {"Search", HEADING},
    {"find-max", FLAG, AT(find_max), NULL, "find the highest rate that meets the target"},
    {"max-rate", NUMBER, AT(max_rate), "R", "do not go beyond (default 10000)", 0.01, 1e6},
    {"resolution", NUMBER, AT(resolution_percent), "PERCENT", "stop when the answer is known this closely (default 5)",
     0.1, 100},
    {"confirm", INT, AT(confirm), "N", "trials in a row that the answer must meet (default 3)", 1, 100},
    {"Model swaps meanwhile", HEADING},
    {"swap-every", DURATION, AT(swap_every_ns), "T", "ask the server to load a model every T", 0.1, 86400},
    {"swap-path", STRING, AT(swap_path), "PATH", "POSTed to for that (default /v2/repository/models/ad-audit/load)"},
    {"swap-body", LIST, AT(swap_bodies), "JSON", "its body (default {}: back to the server's policy); repeated ones take turns"},
    {"swap-key", STRING, AT(swap_key), "KEY", "administration key (default: WINNOW_ADMIN_KEY in the environment)"},
    {"What is written", HEADING},
    {"json", STRING, AT(json), "FILE", "the report as JSON; - is stdout"},
    {"html", STRING, AT(html), "FILE", "the report as one page with plots"},
    {"quiet", FLAG, AT(quiet), NULL, "no progress line"},
    {"version", FLAG, AT(version), NULL, "the version"},
    {"help", FLAG, AT(help), NULL, "this text"},
    {NULL},
};

void options_print_help(void)
{
	fputs("winnow-load: open-loop load generator for winnow-serve\n"
	      "\n"
	      "Requests leave when the schedule says, whatever the server does, and latency counts from the scheduled "
	      "time:\n"
	      "a server that stalls cannot hide it.\n"
	      "\n"
	      "Usage: winnow-load --ads DIR [options]\n",
	      stdout);
	for (const option_spec *s = SPECS; s->name; s++) {
		char left[64];
		if (s->kind == HEADING) {
			printf("\n%s:\n", s->name);
			continue;
		}
		snprintf(left, sizeof left, "--%s%s%s", s->name, s->value ? " " : "", s->value ? s->value : "");
		printf("  %-24s %s\n", left, s->help);
	}
	fputs("\nExamples:\n"
	      "  winnow-load --ads tests/samples/test --rate 30 --duration 60s --html load.html\n"
	      "  winnow-load --ads tests/samples/test --rate 30 --target-ms 90 --percentile 99 && echo fast enough\n"
	      "  winnow-load --ads tests/samples/test --find-max --duration 20s --json max.json\n"
	      "  winnow-load --ads tests/samples/test --rate 30 --duration 60s --swap-every 5s \\\n"
	      "      --swap-body '{\"parameters\":{\"version\":\"1\"}}' --swap-body '{\"parameters\":{\"version\":\"2\"}}'\n"
	      "  WINNOW_INFERENCE_KEY=… winnow-load --url http://audit.internal:8080 --ads ads/test --format json\n"
	      "\n"
	      "Ctrl-C ends a run and reports what was measured so far; a second one ends it at once.\n"
	      "Exit codes: 0 the target was met; 1 missed, or an answer was not the known one, or a swap failed; 2 usage; 3 could not run\n"
	      "(or the load generator was too slow to tell); 130 interrupted.\n",
	      stdout);
}

/* ---- values ---- */

static bool __attribute__((format(printf, 1, 2))) usage_error(const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	fputs("winnow-load: ", stderr);
	vfprintf(stderr, fmt, args);
	fputs("\n", stderr);
	va_end(args);
	return false;
}

static bool complain(const option_spec *s, const char *found, const char *expected)
{
	return usage_error("--%s: found \"%.80s\", expected %s", s->name, found, expected);
}

/* A finite number that begins at text; *end behind it. */
static bool read_number(const char *text, double *out, char **end)
{
	errno = 0;
	*out = strtod(text, end);
	return *end != text && !errno && isfinite(*out);
}

static bool set_number(const option_spec *s, const char *text, double *out)
{
	char *end, expected[80];
	if (read_number(text, out, &end) && !*end && *out >= s->min && *out <= s->max &&
	    (s->kind != INT || *out == floor(*out)))
		return true;
	snprintf(expected, sizeof expected, "a%s number from %.10g to %.10g", s->kind == INT ? " whole" : "", s->min,
		 s->max);
	return complain(s, text, expected);
}

static bool set_duration(const option_spec *s, const char *text, int64_t *out)
{
	static const struct {
		const char *name;
		double seconds;
	} UNITS[] = {{"", 1}, {"s", 1}, {"ms", 1e-3}, {"us", 1e-6}, {"m", 60}, {"h", 3600}};
	char *end, expected[120];
	double v;
	if (read_number(text, &v, &end))
		for (size_t i = 0; i < sizeof UNITS / sizeof *UNITS; i++)
			if (!strcmp(end, UNITS[i].name) && v * UNITS[i].seconds >= s->min &&
			    v * UNITS[i].seconds <= s->max) {
				*out = llround(v * UNITS[i].seconds * 1e9);
				return true;
			}
	snprintf(expected, sizeof expected, "a time from %.10g to %.10g s, such as 500ms, 10s, 2m", s->min, s->max);
	return complain(s, text, expected);
}

static bool set_seed(const option_spec *s, const char *text, uint64_t *out)
{
	char *end;
	errno = 0;
	*out = strtoull(text, &end, 10);
	return *text >= '0' && *text <= '9' && !*end && !errno ? true
							       : complain(s, text, "a whole number from 0 to 2^64 - 1");
}

static bool set_choice(const option_spec *s, const char *text, int *out)
{
	char expected[120] = "one of:";
	for (int i = 0; s->choices[i]; i++) {
		if (!strcmp(s->choices[i], text)) {
			*out = i;
			return true;
		}
		const size_t used = strlen(expected);
		snprintf(expected + used, sizeof expected - used, "%s %s", i ? "," : "", s->choices[i]);
	}
	return complain(s, text, expected);
}

static bool set_value(load_options *o, const option_spec *s, const char *text)
{
	char *field = (char *)o + s->offset;
	double number;
	int choice = 0;
	switch (s->kind) {
	case STRING:
		*(const char **)field = text;
		return *text ? true : complain(s, text, s->value);
	case LIST: {
		option_list *l = (option_list *)field;
		if (l->count == OPTIONS_MAX_LIST)
			return complain(s, text, "at most 16 of them");
		l->items[l->count++] = text;
		return true;
	}
	case INT:
		if (!set_number(s, text, &number))
			return false;
		*(int *)field = (int)number;
		return true;
	case NUMBER:
		return set_number(s, text, (double *)field);
	case SEED:
		return set_seed(s, text, (uint64_t *)field);
	case DURATION:
		return set_duration(s, text, (int64_t *)field);
	case CHOICE:
		if (!set_choice(s, text, &choice))
			return false;
		if (s->choices == EXPECTATIONS)
			*(bool *)field = choice == 1;
		else
			*(int *)field = choice;
		return true;
	default:
		return false;
	}
}

/* ---- the line ---- */

static const option_spec *find(const char *name, size_t len)
{
	for (const option_spec *s = SPECS; s->name; s++)
		if (s->kind != HEADING && strlen(s->name) == len && !memcmp(s->name, name, len))
			return s;
	return NULL;
}

static bool parse_one(load_options *o, int argc, char **argv, int *i)
{
	const char *a = argv[*i];
	if (strncmp(a, "--", 2) || !a[2])
		return usage_error("found \"%.80s\", expected an option (try --help)", a);
	const size_t len = strcspn(a + 2, "=");
	const char *value = a[2 + len] == '=' ? a + 3 + len : NULL;
	const option_spec *s = find(a + 2, len);
	if (!s)
		return usage_error("unknown option --%.*s (try --help)", (int)(len < 60 ? len : 60), a + 2);
	if (s->kind == FLAG) {
		*(bool *)((char *)o + s->offset) = true;
		return value ? usage_error("--%s takes no value", s->name) : true;
	}
	if (!value && *i + 1 >= argc)
		return usage_error("--%s: value missing, expected %s", s->name, s->value);
	return set_value(o, s, value ? value : argv[++*i]);
}

static const char *environment(const char *name)
{
	const char *v = getenv(name);
	return v && *v ? v : NULL;
}

/* What no single option can tell. */
static bool check(const load_options *o)
{
	wn_error err = {0};
	const double seconds = (double)(o->duration_ns + o->warmup_ns) / 1e9,
		     rate = o->find_max ? o->max_rate : o->rate;
	if (!o->ads)
		return usage_error(
		    "--ads DIR is required: a folder with metadata.jsonl, e.g. tests/samples/test (try --help)");
	if (seconds * rate > 0.9 * (double)SAMPLES_MAX)
		return usage_error("%s times the duration: found %.3g requests, expected at most %.3g",
				   o->find_max ? "--max-rate" : "--rate", seconds * rate, 0.9 * (double)SAMPLES_MAX);
	if (o->find_max && o->rate > o->max_rate)
		return usage_error("--rate %g is above --max-rate %g", o->rate, o->max_rate);
	if (!o->swap_every_ns && (o->swap_bodies.count || o->swap_path))
		return usage_error("%s without --swap-every", o->swap_path ? "--swap-path" : "--swap-body");
	if (o->swap_path && (*o->swap_path != '/' || strpbrk(o->swap_path, " \t\r\n")))
		return usage_error(
		    "--swap-path: found \"%.80s\", expected a path such as /v2/repository/models/NAME/load",
		    o->swap_path);
	if (o->html && !strcmp(o->html, "-"))
		return usage_error("--html: found \"-\", expected the name of a file");
	wn_code code = o->key ? key_check(o->key, "--key", &err) : WN_OK;
	if (code == WN_OK && o->swap_key)
		code = key_check(o->swap_key, "--swap-key", &err);
	for (int i = 0; code == WN_OK && i < o->headers.count; i++)
		code = header_check(o->headers.items[i], &err);
	return code == WN_OK ? true : usage_error("%s", err.message);
}

bool options_parse(load_options *o, int argc, char **argv)
{
	*o = (load_options){
	    .url = "http://127.0.0.1:8080",
	    .rate = 10,
	    .duration_ns = 10000000000,
	    .warmup_ns = 1000000000,
	    .timeout_ns = 10000000000,
	    .connections = 128,
	    .seed = 1,
	    .target_ms = 90,
	    .percentile = 99,
	    .max_rate = 10000,
	    .resolution_percent = 5,
	    .confirm = 3,
	};
	for (int i = 1; i < argc; i++)
		if (!parse_one(o, argc, argv, &i))
			return false;
	if (o->help || o->version)
		return true;
	if (!o->key)
		o->key = environment("WINNOW_INFERENCE_KEY");
	if (!o->swap_key)
		o->swap_key = environment("WINNOW_ADMIN_KEY");
	if (!o->max_lag_ms)
		o->max_lag_ms = fmax(o->target_ms / 20, 1);
	if (!check(o))
		return false;
	if (!o->swap_path)
		o->swap_path = "/v2/repository/models/ad-audit/load";
	if (!o->swap_bodies.count)
		o->swap_bodies = (option_list){{"{}"}, 1};
	return true;
}
