/* section_losses.c: the curves of a log: every term of the loss (of both kinds of run), and the validations on the way. */
#include "prune/report/sections.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/svg_plot.h"
#include "prune/report/curves.h"

#define MAX_POINTS 600
#define SMOOTH     0.01 /* of a segment's steps */
#define LOG_RATIO  50   /* a curve that spans more than this is drawn on a log axis */
#define MAX_MARKS  256

typedef struct term_plot {
	run_term term;
	const char *title, *y_label;
	double scale;
	bool wide, log;
} term_plot;

/* The first over the page, the others in two columns. */
static const term_plot TERM_PLOTS[] = {
	{TERM_LOSS, "Loss", "loss", 1, true, false},
	{TERM_NLL, "Label sequence: negative log-likelihood", "nats", 1, false, false},
	{TERM_KL, "Teacher's softened token distribution: KL", "nats", 1, false, false},
	{TERM_PAIR, "Order of the candidate answers: pairwise term", "loss", 1, false, false},
	{TERM_RELATION, "Relations between samples", "loss", 1, false, false},
	{TERM_HIDDEN, "Hidden states", "loss", 1, false, false},
	{TERM_ACCURACY, "Accuracy on training batches", "%", 100, false, false},
	{TERM_TOKEN_ACCURACY, "Token accuracy on training batches", "%", 100, false, false},
	{TERM_LR, "Learning rate", "rate", 1, false, false},
	{TERM_GRAD_NORM, "Gradient norm, before clipping", "norm", 1, false, true},
	{TERM_SAMPLES_PER_S, "Training speed", "samples/s", 1, false, false},
};

/* What all curves share: x and the borders between segments. */
typedef struct log_columns {
	double *x, *y; /* [steps] */
	int *segment;
	plot_mark marks[MAX_MARKS];
	int num_marks;
} log_columns;

static wn_code open_columns(log_columns *c, const run *r, wn_error *err)
{
	*c = (log_columns){.x = calloc(r->num_steps + 1, sizeof(double)), .y = calloc(r->num_steps + 1, sizeof(double)),
	                   .segment = calloc(r->num_steps + 1, sizeof(int))};
	if (!c->x || !c->y || !c->segment)
		return wn_fail(err, WN_NOMEM, "no memory for %zu steps", r->num_steps);
	for (size_t i = 0; i < r->num_steps; i++) {
		c->x[i] = (double)r->steps[i].step;
		c->segment[i] = r->steps[i].segment;
	}
	for (size_t i = 0; i < r->num_segments && c->num_marks < MAX_MARKS && r->num_segments > 1; i++)
		c->marks[c->num_marks++] = (plot_mark){.at = (double)r->segments[i].first_step, .label = r->segments[i].name};
	return WN_OK;
}

static void close_columns(log_columns *c)
{
	free(c->x);
	free(c->y);
	free(c->segment);
}

static bool wants_log(const curve *c)
{
	double lo = INFINITY, hi = 0;
	for (size_t i = 0; i < c->count; i++) {
		lo = fmin(lo, c->y[i]);
		hi = fmax(hi, c->y[i]);
	}
	return lo > 0 && hi > LOG_RATIO * lo;
}

static wn_code draw_term(FILE *f, const run *r, log_columns *c, const term_plot *t, wn_error *err)
{
	curve smooth = {0}, raw = {0};
	for (size_t i = 0; i < r->num_steps; i++)
		c->y[i] = t->scale * r->steps[i].terms[t->term];
	const bool plain = t->term == TERM_LR; /* a schedule is exact */
	wn_code rc = curve_make(&smooth, c->x, c->y, c->segment, r->num_steps, plain ? 0 : SMOOTH, MAX_POINTS, err);
	if (!rc && !plain)
		rc = curve_make(&raw, c->x, c->y, c->segment, r->num_steps, 0, MAX_POINTS, err);
	if (!rc) {
		const plot_series series[] = {
			{.colour = 0, .count = raw.count, .x = raw.x, .y = raw.y, .line = true, .faint = true},
			{.colour = 0, .count = smooth.count, .x = smooth.x, .y = smooth.y, .line = true},
		};
		const plot p = {.title = t->title, .x_label = "step", .y_label = t->y_label, .width = t->wide ? PLOT_WIDE : PLOT_HALF,
		                .height = t->wide ? 300 : 220, .log_y = (t->log || !plain) && t->scale == 1 && wants_log(&smooth), .series = series,
		                .num_series = 2, .vertical = c->marks, .num_vertical = c->num_marks};
		svg_plot(f, &p);
	}
	curve_close(&smooth);
	curve_close(&raw);
	return rc;
}

wn_code section_losses(FILE *f, const run *r, wn_error *err)
{
	log_columns c = {0};
	wn_code rc = WN_OK;
	html_section_open(f, "losses", "Loss curves");
	if (!r->num_steps) {
		html_note(f, "The log has no steps yet.");
	} else if (!(rc = open_columns(&c, r, err))) {
		html_note(f, "%s steps. Strong: an exponential mean over a hundredth of each %s; pale: as logged. Both are thinned to about %d points.%s",
		          text_fixed((double)r->num_steps, 0).s, r->compression ? "iteration" : "phase", MAX_POINTS,
		          c.num_marks ? r->compression ? " Upright lines: where an iteration begins, with its number." : " Upright lines: where a phase begins."
		                      : "");
		rc = draw_term(f, r, &c, &TERM_PLOTS[0], err);
		fputs("<div class=\"grid\">\n", f);
		for (size_t i = 1; !rc && i < sizeof TERM_PLOTS / sizeof *TERM_PLOTS; i++)
			rc = draw_term(f, r, &c, &TERM_PLOTS[i], err);
		fputs("</div>\n", f);
	}
	close_columns(&c);
	html_section_close(f);
	return rc;
}

/* ---- validations on the way ---- */

typedef struct quality {
	const char *name;
	size_t offset; /* in run_validation */
	int colour;
} quality;

static const quality QUALITIES[] = {
	{"accuracy", offsetof(run_validation, accuracy), 0},
	{"macro-F1", offsetof(run_validation, macro_f1), 2},
	{"token accuracy", offsetof(run_validation, token_accuracy), 3},
	{"first token", offsetof(run_validation, first_token_accuracy), 4},
	{"whole caption", offsetof(run_validation, exact_match), 5},
};
#define NUM_QUALITIES (sizeof QUALITIES / sizeof *QUALITIES)
static const quality LOSS = {"loss", offsetof(run_validation, loss), 0};

static double quality_of(const run_validation *v, const quality *q) { return *(const double *)((const char *)v + q->offset); }

static bool occurs(const run *r, const quality *q)
{
	for (size_t i = 0; i < r->num_validations; i++)
		if (!isnan(quality_of(&r->validations[i], q)))
			return true;
	return false;
}

static void validation_table(FILE *f, const run *r)
{
	const char *headers[8 + NUM_QUALITIES] = {"step", r->compression ? "|iteration" : "|phase", "samples", "loss"};
	bool shown[NUM_QUALITIES];
	int n = 4;
	for (size_t k = 0; k < NUM_QUALITIES; k++)
		if ((shown[k] = occurs(r, &QUALITIES[k])))
			headers[n++] = QUALITIES[k].name;
	headers[n++] = "ECE";
	headers[n] = "|best so far";
	html_table_open(f, headers);
	/* long runs validate hundreds of times: the last forty stand in the table, all in the plot */
	for (size_t i = r->num_validations > 40 ? r->num_validations - 40 : 0; i < r->num_validations; i++) {
		const run_validation *v = &r->validations[i];
		html_row_open(f, text_fixed((double)v->step, 0).s);
		html_cell(f, v->phase);
		html_cell_number(f, text_fixed(v->samples, 0));
		html_cell_number(f, text_fixed(v->loss, 4));
		for (size_t k = 0; k < NUM_QUALITIES; k++)
			if (shown[k])
				html_cell_number(f, text_share(quality_of(v, &QUALITIES[k])));
		html_cell_number(f, text_fixed(v->ece, 3));
		html_cell(f, v->best ? "yes" : "");
		html_row_close(f);
	}
	html_table_close(f);
}

/* x and y [2 validations], with a gap where a phase or iteration ends: what follows is another task, or another model. */
static size_t fill(double *x, double *y, const run *r, const quality *q, double scale)
{
	size_t n = 0;
	for (size_t i = 0; i < r->num_validations; i++) {
		const run_validation *v = &r->validations[i];
		x[n] = (double)v->step;
		y[n++] = scale * quality_of(v, q);
		if (i + 1 < r->num_validations && strcmp(v->phase, v[1].phase) != 0)
			x[n] = y[n] = NAN, n++;
	}
	return n;
}

/* memory: [4 validations (qualities)] */
static void validation_plot(FILE *f, const run *r, const log_columns *c, const char *title, const char *y_label, int height,
                            const quality *qualities, size_t count, double scale, double *memory)
{
	const size_t n = r->num_validations;
	plot_series series[NUM_QUALITIES];
	for (size_t k = 0; k < count; k++) {
		double *x = memory + 4 * k * n, *y = x + 2 * n;
		const size_t points = fill(x, y, r, &qualities[k], scale);
		series[k] = (plot_series){.name = count > 1 ? qualities[k].name : NULL, .colour = qualities[k].colour,
		                          .count = occurs(r, &qualities[k]) ? points : 0, .x = x, .y = y, .line = true, .dots = n <= 60};
	}
	const double range[2] = {r->num_steps ? c->x[0] : (double)r->validations[0].step,
	                         r->num_steps ? c->x[r->num_steps - 1] : (double)r->validations[0].step};
	const plot p = {.title = title, .x_label = "step", .y_label = y_label, .width = PLOT_WIDE, .height = height, .x_range = range,
	                .series = series, .num_series = (int)count, .vertical = c->marks, .num_vertical = c->num_marks};
	svg_plot(f, &p);
}

wn_code section_validation(FILE *f, const run *r, wn_error *err)
{
	log_columns c = {0};
	double *memory = NULL;
	wn_code rc = WN_OK;
	html_section_open(f, "validation", "Validation");
	if (!r->num_validations) {
		html_note(f, "The log has no validation yet.");
	} else if (!(rc = open_columns(&c, r, err))) {
		if ((memory = calloc(4 * NUM_QUALITIES * r->num_validations, sizeof *memory))) {
			validation_plot(f, r, &c, "Validation: quality", "%", 280, QUALITIES, NUM_QUALITIES, 100, memory);
			validation_plot(f, r, &c, "Validation: loss", "loss", 220, &LOSS, 1, 1, memory);
			validation_table(f, r);
		} else {
			rc = wn_fail(err, WN_NOMEM, "no memory for %zu validations", r->num_validations);
		}
	}
	free(memory);
	close_columns(&c);
	html_section_close(f);
	return rc;
}
