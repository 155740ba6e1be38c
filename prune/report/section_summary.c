/* section_summary.c: what came out, first: teacher against student in one table, the ratios in large figures. */
#include "prune/report/sections.h"

#include <math.h>
#include <string.h>

static bool same_split(const run_eval *a, const run_eval *b)
{
	return a->present && b->present && a->split && b->split && !strcmp(a->split, b->split) &&
	       (a->samples == b->samples || isnan(a->samples) || isnan(b->samples));
}

comparison run_compare(const run *r)
{
	comparison c = {.teacher = r->teacher, .finished = r->final.present};
	if (r->final.present) {
		c.student = r->final;
		c.student_name = "student";
		if (r->final_teacher.present)
			c.teacher.eval = r->final_teacher;
		c.same_session = !isnan(r->final_teacher_ms);
		if (c.same_session)
			c.teacher.latency_ms = r->final_teacher_ms;
	} else if (r->num_iterations) {
		const run_iteration *last = &r->iterations[r->num_iterations - 1];
		c.student = (run_model){.present = true, .parameters = last->parameters, .flops = last->flops,
		                        .latency_ms = last->latency_ms, .cpu_seconds = NAN, .joules = NAN, .eval = last->after};
		c.student_name = last->name;
	}
	c.same_split = same_split(&c.teacher.eval, &c.student.eval);
	return c;
}

static void state_sentences(FILE *f, const run *r, const comparison *c)
{
	if (!c->finished && c->student.present)
		html_note(f, "The run has not ended: the student here is its last finished iteration, %.200s.", c->student_name);
	else if (!c->student.present)
		html_note(f, "The run has not finished an iteration yet: there is no student to compare.");
	if (r->cut_line)
		html_note(f, "The log ends in the middle of a line (the run was killed there, or still writes); that line is left out.");
	if (!r->has_plan)
		html_note(f, "plan.json is missing: planned shapes and the target are left out.");
}

static void verdict_sentence(FILE *f, const comparison *c)
{
	const run_eval *t = &c->teacher.eval, *s = &c->student.eval;
	if (!c->same_split)
		return;
	html_paragraph(f, "On %.60s (%s samples) the teacher is right in %s of the cases, the student in %s: %s.", s->split,
	               text_fixed(s->samples, 0).s, text_share(t->accuracy).s, text_share(s->accuracy).s,
	               text_points(s->accuracy - t->accuracy).s);
}

static void target_sentence(FILE *f, const run *r, const comparison *c)
{
	if (!r->target_kind || isnan(r->target_value))
		return;
	const bool ms = !strcmp(r->target_kind, "latency_ms");
	const double reached = ms ? c->student.latency_ms : !strcmp(r->target_kind, "parameters") ? c->student.parameters
	                       : !strcmp(r->target_kind, "flops") ? c->student.flops : NAN;
	if (!c->finished || isnan(reached))
		html_paragraph(f, "Target: %.60s = %s.", r->target_kind, ms ? text_ms(r->target_value).s : text_si(r->target_value, "").s);
	else
		html_paragraph(f, "Target: %.60s = %s; reached %s (%s %%).", r->target_kind,
		               ms ? text_ms(r->target_value).s : text_si(r->target_value, "").s, ms ? text_ms(reached).s : text_si(reached, "").s,
		               text_difference(100 * (reached / r->target_value - 1), 1).s);
	if (!isnan(r->predicted_ms) && !isnan(r->measured_ms) && r->measured_ms > 0)
		html_note(f, "For the planned shape the cost model predicted %s; a model of that shape with random weights measured %s.",
		          text_ms(r->predicted_ms).s, text_ms(r->measured_ms).s);
}

static void cards(FILE *f, const comparison *c, const energy_assumptions *energy)
{
	const run_model *t = &c->teacher, *s = &c->student;
	html_cards_open(f);
	if (!isnan(t->parameters / s->parameters))
		html_card(f, text_ratio(t->parameters / s->parameters).s, "fewer parameters: %s instead of %s", text_si(s->parameters, "").s,
		          text_si(t->parameters, "").s);
	if (c->same_session && !isnan(t->latency_ms / s->latency_ms))
		html_card(f, text_ratio(t->latency_ms / s->latency_ms).s, "lower latency: %s instead of %s", text_ms(s->latency_ms).s,
		          text_ms(t->latency_ms).s);
	if (c->same_split) {
		html_card(f, text_difference(100 * (s->eval.accuracy - t->eval.accuracy), 1).s, "points of accuracy: %s instead of %s",
		          text_share(s->eval.accuracy).s, text_share(t->eval.accuracy).s);
		html_card(f, text_difference(100 * (s->eval.macro_f1 - t->eval.macro_f1), 1).s, "points of macro-F1: %s instead of %s",
		          text_share(s->eval.macro_f1).s, text_share(t->eval.macro_f1).s);
	}
	const energy_comparison e = run_compare_energy(c, energy);
	if (e.present)
		html_card(f, text_ratio(e.teacher.joules / e.student.joules).s, "less energy a request: %s instead of %s",
		          text_si(e.student.joules, "J").s, text_si(e.teacher.joules, "J").s);
	html_cards_close(f);
}

typedef number_text (*value_writer)(double);
static number_text count(double v) { return text_si(v, ""); }
static number_text flops(double v) { return text_si(v, "FLOP"); }
static number_text nats(double v) { return text_fixed(v, 3); }
static number_text share_to_3(double v) { return text_fixed(v, 3); }

/* A quantity that becomes smaller: the last column is teacher over student, if they can be compared. */
static void ratio_row(FILE *f, const char *name, double teacher, double student, bool comparable, value_writer write)
{
	if (isnan(teacher) && isnan(student))
		return;
	html_row_open(f, name);
	html_cell_number(f, write(teacher));
	html_cell_number(f, write(student));
	html_cell_number(f, text_ratio(comparable ? teacher / student : NAN));
	html_row_close(f);
}

static void difference_row(FILE *f, const char *name, double teacher, double student, bool comparable, value_writer write, bool points)
{
	if (isnan(teacher) && isnan(student))
		return;
	html_row_open(f, name);
	html_cell_number(f, write(teacher));
	html_cell_number(f, write(student));
	const double d = comparable ? student - teacher : NAN;
	html_cell_number(f, points ? text_points(d) : text_difference(d, 3));
	html_row_close(f);
}

void section_summary(FILE *f, const run *r, const comparison *c, const energy_assumptions *energy)
{
	static const char *const headers[] = {"", "teacher", "student", "ratio or difference", NULL};
	const run_eval none = {.samples = NAN, .accuracy = NAN, .macro_f1 = NAN, .ece = NAN, .nll = NAN};
	const run_model absent = {.parameters = NAN, .flops = NAN, .latency_ms = NAN, .cpu_seconds = NAN, .joules = NAN};
	comparison k = *c;
	if (!k.teacher.present)
		k.teacher = absent;
	if (!k.student.present)
		k.student = absent;
	const run_eval *t = k.teacher.eval.present ? &k.teacher.eval : &none, *s = k.student.eval.present ? &k.student.eval : &none;
	html_section_open(f, "summary", "Summary");
	state_sentences(f, r, &k);
	if (!k.teacher.present)
		html_note(f, "The log does not say what the teacher is: its column is empty.");
	verdict_sentence(f, &k);
	target_sentence(f, r, &k);
	cards(f, &k, energy);
	html_table_open(f, headers);
	ratio_row(f, "parameters", k.teacher.parameters, k.student.parameters, true, count);
	ratio_row(f, "operations a request", k.teacher.flops, k.student.flops, true, flops);
	ratio_row(f, "latency, median", k.teacher.latency_ms, k.student.latency_ms, k.same_session, text_ms);
	difference_row(f, "accuracy", t->accuracy, s->accuracy, k.same_split, text_share, true);
	difference_row(f, "macro-F1", t->macro_f1, s->macro_f1, k.same_split, text_share, true);
	difference_row(f, "calibration error (ECE)", t->ece, s->ece, k.same_split, share_to_3, false);
	difference_row(f, "negative log-likelihood", t->nll, s->nll, k.same_split, nats, false);
	html_table_close(f);
	if (!k.same_session && !isnan(k.teacher.latency_ms / k.student.latency_ms))
		html_note(f, "The latencies were measured at different times, under whatever else the machine did then: no ratio is shown.");
	if (t->split && s->split && !k.same_split)
		html_note(f, "The teacher's quality is of %.60s (%s samples), the student's of %.60s (%s samples): not the same samples, so no "
		             "difference is shown.", t->split, text_fixed(t->samples, 0).s, s->split, text_fixed(s->samples, 0).s);
	html_section_close(f);
}
