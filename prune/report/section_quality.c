/* section_quality.c: where the quality went: class by class, and whether the probabilities still mean what they say. */
#include "prune/report/sections.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/svg_plot.h"
#include "prune/report/svg_bars.h"

static const run_class *find_class(const run_eval *e, const char *label)
{
	for (size_t i = 0; i < e->num_classes; i++)
		if (!strcmp(e->classes[i].label, label))
			return &e->classes[i];
	return NULL;
}

static void class_bars(FILE *f, const run_eval *t, const run_eval *s)
{
	const size_t n = s->num_classes;
	const char **names = calloc(n, sizeof *names);
	double *f1 = calloc(2 * n, sizeof *f1);
	if (!names || !f1) {
		html_note(f, "No memory for the plot.");
	} else {
		for (size_t i = 0; i < n; i++) {
			const run_class *of_teacher = find_class(t, s->classes[i].label);
			names[i] = s->classes[i].label;
			f1[i] = of_teacher ? 100 * of_teacher->f1 : NAN;
			f1[n + i] = 100 * s->classes[i].f1;
		}
		const bar_series series[] = {{"teacher", 1, f1}, {"student", 0, f1 + n}};
		const bar_chart b = {.title = "F1 of each class, %", .width = 760, .categories = names, .num_categories = (int)n, .series = series,
		                     .num_series = 2, .max = 100, .decimals = 1};
		svg_bars_across(f, &b);
	}
	free(names);
	free(f1);
}

static void class_table(FILE *f, const run_eval *t, const run_eval *s, bool comparable)
{
	static const char *const headers[] = {"class", "samples", "precision: teacher", "student", "recall: teacher", "student",
	                                      "F1: teacher", "student", "difference", NULL};
	const run_class unknown = {NULL, NAN, NAN, NAN, NAN};
	html_table_open(f, headers);
	for (size_t i = 0; i < s->num_classes; i++) {
		const run_class *b = &s->classes[i], *found = find_class(t, b->label), *a = found ? found : &unknown;
		html_row_open(f, b->label);
		html_cell_number(f, text_fixed(b->support, 0));
		html_cell_number(f, text_share(a->precision));
		html_cell_number(f, text_share(b->precision));
		html_cell_number(f, text_share(a->recall));
		html_cell_number(f, text_share(b->recall));
		html_cell_number(f, text_share(a->f1));
		html_cell_number(f, text_share(b->f1));
		html_cell_number(f, text_points(comparable ? b->f1 - a->f1 : NAN));
		html_row_close(f);
	}
	html_table_close(f);
}

void section_classes(FILE *f, const comparison *c)
{
	const run_eval *t = &c->teacher.eval, *s = &c->student.eval;
	html_section_open(f, "classes", "Class by class: teacher and student");
	if (!s->present || !s->num_classes) {
		html_note(f, "There are no figures by class of the student.");
	} else {
		class_bars(f, t, s);
		class_table(f, t, s, c->same_split);
		if (!t->present || !t->num_classes)
			html_note(f, "There are no figures by class of the teacher.");
		else if (!c->same_split)
			html_note(f, "Teacher and student were measured on different samples: no differences are shown.");
	}
	html_section_close(f);
}

/* ---- calibration ---- */

static void ece_plot(FILE *f, const run *r)
{
	const size_t n = r->num_iterations;
	double *v = calloc(3 * n + 1, sizeof *v);
	if (!v) {
		html_note(f, "No memory for the plot.");
		return;
	}
	for (size_t i = 0; i < n; i++) {
		const run_iteration *it = &r->iterations[i];
		v[i] = it->number;
		v[n + i] = it->before.present ? it->before.ece : NAN;
		v[2 * n + i] = it->after.present ? it->after.ece : NAN;
	}
	const plot_series series[] = {
		{.name = "cut, not yet distilled", .colour = 2, .count = n, .x = v, .y = v + n, .dots = true, .hollow = true},
		{.name = "after distillation", .colour = 0, .count = n, .x = v, .y = v + 2 * n, .line = true, .dots = true},
	};
	const plot_mark mark = {.at = r->teacher.eval.ece, .label = "teacher", .in_range = true};
	const plot p = {.title = "Calibration error by iteration", .x_label = "iteration", .y_label = "ECE", .width = 760, .height = 260,
	                .whole_x = true, .series = series, .num_series = 2, .horizontal = &mark,
	                .num_horizontal = r->teacher.eval.present && !isnan(r->teacher.eval.ece)};
	svg_plot(f, &p);
	free(v);
}

static void calibration_row(FILE *f, const char *name, const run_eval *e)
{
	html_row_open(f, name);
	html_cell(f, e->split ? e->split : "");
	html_cell_number(f, text_fixed(e->samples, 0));
	html_cell_number(f, text_fixed(e->ece, 4));
	html_cell_number(f, text_fixed(e->nll, 4));
	html_row_close(f);
}

void section_calibration(FILE *f, const run *r, const comparison *c)
{
	static const char *const headers[] = {"", "|split", "samples", "ECE", "negative log-likelihood", NULL};
	html_section_open(f, "calibration", "Calibration");
	if (!c->teacher.eval.present && !c->student.eval.present) {
		html_note(f, "Nothing was evaluated yet.");
	} else {
		html_note(f, "Expected calibration error: how far stated confidence and share of right answers are apart, averaged over 15 bins "
		             "of confidence (Guo et al. 2017). 0 is perfect.");
		ece_plot(f, r);
		html_table_open(f, headers);
		if (c->teacher.eval.present)
			calibration_row(f, "teacher", &c->teacher.eval);
		if (c->student.eval.present)
			calibration_row(f, c->student_name, &c->student.eval);
		html_table_close(f);
	}
	html_section_close(f);
}
