/* section_tradeoff.c: what every iteration gave up and what it got: accuracy over parameters, over latency, and how far
 * distillation brought back what a cut took. */
#include "prune/report/sections.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/svg_plot.h"

/* Columns of the iterations; all [n] with n = iterations, except the recovery lines of [3 n]. */
typedef struct columns {
	size_t n;
	double *parameters, *latency, *number, *before, *after; /* before, after: accuracy in percent */
	double *sticks_x, *sticks_y;
	char (*numbers)[12]; /* short labels */
	const char **labels; /* into numbers */
	double *memory;
} columns;

static double percent(const run_eval *e) { return e->present ? 100 * e->accuracy : NAN; }

static bool open_columns(columns *c, const run *r)
{
	const size_t n = r->num_iterations;
	*c = (columns){.n = n, .memory = calloc(11 * n + 1, sizeof(double)), .labels = calloc(n + 1, sizeof(char *)),
	               .numbers = calloc(n + 1, sizeof *c->numbers)};
	if (!c->memory || !c->labels || !c->numbers)
		return false;
	c->parameters = c->memory;
	c->latency = c->memory + n;
	c->number = c->memory + 2 * n;
	c->before = c->memory + 3 * n;
	c->after = c->memory + 4 * n;
	c->sticks_x = c->memory + 5 * n;
	c->sticks_y = c->memory + 8 * n;
	for (size_t i = 0; i < n; i++) {
		const run_iteration *it = &r->iterations[i];
		c->parameters[i] = it->parameters;
		c->latency[i] = it->latency_ms;
		c->number[i] = it->number;
		c->before[i] = percent(&it->before);
		c->after[i] = percent(&it->after);
		snprintf(c->numbers[i], sizeof c->numbers[i], "%d", it->number);
		c->labels[i] = c->numbers[i];
		c->sticks_x[3 * i] = c->sticks_x[3 * i + 1] = it->number;
		c->sticks_y[3 * i] = c->before[i];
		c->sticks_y[3 * i + 1] = c->after[i];
		c->sticks_x[3 * i + 2] = c->sticks_y[3 * i + 2] = NAN;
	}
	return true;
}

static void close_columns(columns *c)
{
	free(c->memory);
	free(c->labels);
	free(c->numbers);
}

static bool any(const double *v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!isnan(v[i]))
			return true;
	return false;
}

/* The final's own split is another one than the iterations' as a rule: it has its place in the summary. */
static void cost_plot(FILE *f, const run *r, const columns *c, const char *title, const char *x_label, const double *x, double teacher_x,
                      const char *target_kind)
{
	if (!any(x, c->n))
		return;
	const double teacher_y = percent(&r->teacher.eval);
	const bool teacher = r->teacher.present && !isnan(teacher_x) && !isnan(teacher_y);
	const double path_x[2] = {teacher_x, c->n ? x[0] : NAN}, path_y[2] = {teacher_y, c->n ? c->after[0] : NAN};
	const char *const teacher_label[] = {"teacher"};
	const plot_series series[] = {
		{.colour = 0, .count = teacher ? 2 : 0, .x = path_x, .y = path_y, .line = true, .faint = true},
		{.name = "after distillation, numbered by iteration", .colour = 0, .count = c->n, .x = x, .y = c->after, .labels = c->labels,
		 .line = true, .dots = true},
		{.name = "teacher", .colour = 1, .count = teacher ? 1 : 0, .x = &teacher_x, .y = &teacher_y, .labels = teacher_label, .dots = true},
	};
	const bool aimed = r->target_kind && !strcmp(r->target_kind, target_kind) && r->target_value > 0;
	const plot_mark target = {.at = r->target_value, .label = "target", .in_range = true};
	const plot p = {.title = title, .x_label = x_label, .y_label = "accuracy, %", .width = PLOT_HALF, .height = 330, .log_x = true,
	                .series = series, .num_series = 3, .vertical = &target, .num_vertical = aimed};
	svg_plot(f, &p);
}

static void recovery_plot(FILE *f, const run *r, const columns *c)
{
	const double teacher = percent(&r->teacher.eval);
	const plot_series series[] = {
		{.colour = 2, .count = 3 * c->n, .x = c->sticks_x, .y = c->sticks_y, .line = true, .faint = true},
		{.name = "cut, not yet distilled", .colour = 2, .count = c->n, .x = c->number, .y = c->before, .labels = NULL, .dots = true,
		 .hollow = true},
		{.name = "after distillation", .colour = 0, .count = c->n, .x = c->number, .y = c->after, .dots = true},
	};
	const plot_mark mark = {.at = teacher, .label = "teacher", .in_range = true};
	const plot p = {.title = "What each cut took, and what distillation brought back", .x_label = "iteration", .y_label = "accuracy, %",
	                .width = PLOT_WIDE, .height = 300, .whole_x = true, .series = series, .num_series = 3, .horizontal = &mark,
	                .num_horizontal = !isnan(teacher)};
	svg_plot(f, &p);
}

/* "1.5, 0.25, 0" */
static number_text lost_text(const run_iteration *it)
{
	number_text t = {""};
	bool known = false;
	for (int k = 0; k < RUN_COMPONENTS; k++) {
		const size_t len = strlen(t.s);
		char value[16] = "–";
		if (!isnan(it->score_lost[k])) {
			snprintf(value, sizeof value, "%.3g", it->score_lost[k]);
			known = true;
		}
		snprintf(t.s + len, sizeof t.s - len, "%s%s", k ? ", " : "", value);
	}
	return known ? t : text_fixed(NAN, 0);
}

static void table(FILE *f, const run *r)
{
	static const char *const headers[] = {"iteration", "parameters", "ratio", "operations", "latency", "ratio", "accuracy cut",
	                                      "accuracy distilled", "macro-F1", "ECE", "importance cut", "time", NULL};
	const run_model *t = &r->teacher;
	double seconds = 0;
	html_table_open(f, headers);
	if (t->present) {
		const run_eval *e = &t->eval;
		html_row_open(f, "teacher");
		html_cell_number(f, text_si(t->parameters, ""));
		html_cell_number(f, text_ratio(1));
		html_cell_number(f, text_si(t->flops, "FLOP"));
		html_cell_number(f, text_ms(t->latency_ms));
		html_cell_number(f, text_ratio(t->latency_ms / t->latency_ms));
		html_cell_number(f, text_share(NAN));
		html_cell_number(f, text_share(e->present ? e->accuracy : NAN));
		html_cell_number(f, text_share(e->present ? e->macro_f1 : NAN));
		html_cell_number(f, text_fixed(e->present ? e->ece : NAN, 3));
		html_cell_number(f, text_fixed(NAN, 0));
		html_cell_number(f, text_fixed(NAN, 0));
		html_row_close(f);
	}
	for (size_t i = 0; i < r->num_iterations; i++) {
		const run_iteration *it = &r->iterations[i];
		html_row_open(f, it->name);
		html_cell_number(f, text_si(it->parameters, ""));
		html_cell_number(f, text_ratio(t->present ? t->parameters / it->parameters : NAN));
		html_cell_number(f, text_si(it->flops, "FLOP"));
		html_cell_number(f, text_ms(it->latency_ms));
		html_cell_number(f, text_ratio(t->present ? t->latency_ms / it->latency_ms : NAN));
		html_cell_number(f, text_share(it->before.present ? it->before.accuracy : NAN));
		html_cell_number(f, text_share(it->after.present ? it->after.accuracy : NAN));
		html_cell_number(f, text_share(it->after.present ? it->after.macro_f1 : NAN));
		html_cell_number(f, text_fixed(it->after.present ? it->after.ece : NAN, 3));
		html_cell_number(f, lost_text(it));
		html_cell_number(f, text_seconds(it->seconds));
		html_row_close(f);
		seconds += isnan(it->seconds) ? 0 : it->seconds;
	}
	html_table_close(f);
	const run_eval *e = &r->iterations[r->num_iterations - 1].after;
	html_note(f, "Quality here is of the split %.60s (%s samples). Importance cut: the scores of what was removed, of vision, Q-Former, language model. "
	             "All iterations together took %s. Latencies are of the minute in which an iteration ended, and the teacher's of the beginning: "
	             "their ratios here are rough.", e->split ? e->split : "(not named)",
	          text_fixed(e->present ? e->samples : NAN, 0).s, text_seconds(seconds).s);
}

void section_tradeoff(FILE *f, const run *r)
{
	columns c;
	html_section_open(f, "tradeoff", "Accuracy, parameters and latency, iteration by iteration");
	if (!r->num_iterations) {
		html_note(f, "No iteration has finished yet.");
	} else if (!open_columns(&c, r)) {
		html_note(f, "No memory for the plots.");
		close_columns(&c);
	} else {
		fputs("<div class=\"grid\">\n", f);
		cost_plot(f, r, &c, "Accuracy over parameters", "parameters (log scale)", c.parameters, r->teacher.parameters, "parameters");
		cost_plot(f, r, &c, "Accuracy over latency", "median latency of a request, ms (log scale)", c.latency, r->teacher.latency_ms,
		          "latency_ms");
		fputs("</div>\n", f);
		if (!any(c.latency, c.n))
			html_note(f, "This run did not measure latency: that plot is left out.");
		recovery_plot(f, r, &c);
		table(f, r);
		close_columns(&c);
	}
	html_section_close(f);
}
