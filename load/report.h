/* report.h: what was measured, as text for people, JSON for programs and one HTML page for both to keep.
 *
 * Written to a FILE (open_memstream); ferror is looked at by the caller. Keys never appear. Everything that came from
 * the server or the folder is escaped by the format's own writer. */
#ifndef WINNOW_LOAD_REPORT_H
#define WINNOW_LOAD_REPORT_H

#include <stdio.h>

#include "load/options.h"
#include "load/trials.h"

typedef struct report {
	const load_options *options;
	const url *to;
	const endpoint *reached;
	size_t num_ads, num_labelled;
	char started_at[32];    /* RFC 3339, UTC */
	double rate;            /* of the run below */
	const run_result *run;  /* NULL: no run to report (--find-max found nothing) */
	const run_stats *stats; /* NULL with run */
	verdict verdict;        /* of the run */
	const trials *trials;   /* NULL without --find-max */
	const known_answers *known; /* NULL without --answers */
	bool interrupted;
} report;

void report_text(FILE *f, const report *r);
void report_json(FILE *f, const report *r);
void report_html(FILE *f, const report *r);

/* "44.1 ms", "a failure" or "nothing": a percentile over every request. */
typedef struct ms_text {
	char s[32];
} ms_text;
ms_text report_ms(double ms);
/* One sentence: what came of the target, or of the search. */
void report_conclusion(const report *r, char *out, size_t size);
/* Remarks on how far the numbers can be trusted, one line each; NULL ends them. The texts live until the next call. */
#define REPORT_MAX_REMARKS 8
typedef struct remarks {
	char lines[REPORT_MAX_REMARKS][240];
	int count;
} remarks;
void report_remarks(const report *r, remarks *out);

#endif
