/* sections.h: the parts of a report, and what they share; private to report.c and section_*.c. Each writes one <section>. */
#ifndef WINNOW_PRUNE_REPORT_SECTIONS_H
#define WINNOW_PRUNE_REPORT_SECTIONS_H

#include <stdio.h>

#include "base/html.h"
#include "prune/report/energy.h"
#include "prune/report/run_reader.h"

/* Pixels: a plot over the page, and two or three beside each other (html.h's page is 1056 wide inside). */
#define PLOT_WIDE  1050
#define PLOT_HALF  510
#define PLOT_THIRD 336

/* Teacher and student, each with the evaluation that a reader may compare. */
typedef struct comparison {
	run_model teacher, student; /* either may be absent */
	bool finished;              /* the student is the final one; else the last iteration's */
	bool same_split;            /* both evaluations are of the same samples: their difference means something */
	bool same_session;          /* both latencies were measured in turns: their ratio means something */
	const char *student_name;
} comparison;

comparison run_compare(const run *r);

/* What a request and a year take of both, by one method: two would be compared otherwise. */
typedef struct energy_comparison {
	bool present, measured; /* measured: joules of both; else estimated from their CPU-seconds */
	energy_use teacher, student;
} energy_comparison;

energy_comparison run_compare_energy(const comparison *c, const energy_assumptions *a);

/* Of a compression */
void section_summary(FILE *f, const run *r, const comparison *c, const energy_assumptions *energy);
void section_tradeoff(FILE *f, const run *r);
void section_classes(FILE *f, const comparison *c);
void section_calibration(FILE *f, const run *r, const comparison *c);
void section_widths(FILE *f, const run *r);
void section_ablation(FILE *f, const run *r);
void section_energy(FILE *f, const comparison *c, const energy_assumptions *energy);
/* Of a training */
void section_training(FILE *f, const run *r);
/* Of both */
wn_code section_validation(FILE *f, const run *r, wn_error *err);
wn_code section_losses(FILE *f, const run *r, wn_error *err);
void section_origin(FILE *f, const run *r);

#endif
