/* options.h: winnow-load's command line. */
#ifndef WINNOW_LOAD_OPTIONS_H
#define WINNOW_LOAD_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#define OPTIONS_MAX_LIST 16

/* 0 the target was met, 1 it was missed (or a swap failed, or an answer was wrong), 2 usage, 3 the run could not be made (or not judged), 130 as a shell reports
 * SIGINT. */
enum { EXIT_MET = 0, EXIT_MISSED = 1, EXIT_USAGE = 2, EXIT_NOT_RUN = 3, EXIT_INTERRUPTED = 130 };

typedef struct option_list {
	const char *items[OPTIONS_MAX_LIST]; /* point into argv */
	int count;
} option_list;

/* Strings point into argv or the environment. */
typedef struct load_options {
	const char *url, *ads;
	int limit;       /* ads; 0: all */
	int format;      /* body_format */
	const char *key; /* NULL: none; WINNOW_INFERENCE_KEY when not given */
	option_list headers;
	int deadline_ms; /* 0: none sent */

	double rate;  /* per second; with find_max the first one tried */
	int arrivals; /* arrival_kind */
	int64_t duration_ns, warmup_ns, timeout_ns;
	int connections;
	uint64_t seed;

	double target_ms, percentile;
	double max_lag_ms; /* 0: a twentieth of the target, at least 1 */
	bool expect_labels;
	const char *answers; /* file of known answers; NULL: none */

	bool find_max;
	double max_rate, resolution_percent;
	int confirm;

	int64_t swap_every_ns; /* 0: none */
	const char *swap_path;
	option_list swap_bodies;
	const char *swap_key; /* NULL: none; WINNOW_ADMIN_KEY when not given */

	const char *json, *html; /* NULL: none; "-": stdout, for json */
	bool quiet, help, version;
} load_options;

/* False after one line on stderr that names the option, what was found and what was expected. With help or version set,
 * the rest is not checked. */
bool options_parse(load_options *o, int argc, char **argv);
void options_print_help(void);

#endif
