/* section_energy.c: joules a request, kWh and CO2 a year, with every assumption beside the number. */
#include "prune/report/sections.h"

#include <math.h>

static void row(FILE *f, const char *name, double teacher, double student, const char *unit)
{
	html_row_open(f, name);
	html_cell_number(f, text_si(teacher, unit));
	html_cell_number(f, text_si(student, unit));
	html_cell_number(f, text_si(teacher - student, unit));
	html_cell_number(f, text_ratio(teacher / student));
	html_row_close(f);
}

/* Tonnes read better than megagrams. */
static void co2_row(FILE *f, double teacher_kg, double student_kg)
{
	const bool tonnes = teacher_kg >= 1000;
	const double scale = tonnes ? 1e-3 : 1;
	html_row_open(f, tonnes ? "CO₂ a year, t" : "CO₂ a year, kg");
	html_cell_number(f, text_si(scale * teacher_kg, ""));
	html_cell_number(f, text_si(scale * student_kg, ""));
	html_cell_number(f, text_si(scale * (teacher_kg - student_kg), ""));
	html_cell_number(f, text_ratio(teacher_kg / student_kg));
	html_row_close(f);
}

energy_comparison run_compare_energy(const comparison *c, const energy_assumptions *a)
{
	const run_model *t = &c->teacher, *s = &c->student;
	energy_comparison e = {.measured = c->finished && t->joules > 0 && s->joules > 0};
	e.present = e.measured || (c->finished && t->cpu_seconds > 0 && s->cpu_seconds > 0);
	e.teacher = energy_of(t->cpu_seconds, e.measured ? t->joules : NAN, a);
	e.student = energy_of(s->cpu_seconds, e.measured ? s->joules : NAN, a);
	return e;
}

void section_energy(FILE *f, const comparison *c, const energy_assumptions *a)
{
	static const char *const headers[] = {"", "teacher", "student", "saved", "ratio", NULL};
	const run_model *t = &c->teacher, *s = &c->student;
	const energy_comparison e = run_compare_energy(c, a);
	const energy_use old = e.teacher, new = e.student;
	html_section_open(f, "energy", "Energy");
	if (!e.present) {
		html_note(f, "%s: energy is left out.", c->finished ? "The run measured neither joules nor CPU-seconds of a request"
		                                                  : "The run has not ended, and measures a request at its end");
		html_section_close(f);
		return;
	}
	html_paragraph(f, "At %.6g requests a second, all year, the student saves %s and %s of CO₂ a year.", a->requests_per_s,
	               text_si(1000 * (old.kwh_year - new.kwh_year), "Wh").s, text_si(1000 * (old.co2_kg_year - new.co2_kg_year), "g").s);
	html_table_open(f, headers);
	if (t->cpu_seconds > 0 && s->cpu_seconds > 0) {
		row(f, "CPU time a request, ms", 1000 * t->cpu_seconds, 1000 * s->cpu_seconds, "");
		row(f, "cores kept busy", old.busy_cores, new.busy_cores, "");
	}
	row(f, "energy a request", old.joules, new.joules, "J");
	row(f, "energy a year", 1000 * old.kwh_year, 1000 * new.kwh_year, "Wh");
	co2_row(f, old.co2_kg_year, new.co2_kg_year);
	html_table_close(f);
	if (e.measured)
		html_note(f, "Joules: measured with RAPL, processor packages and memory, around the requests of this run; idle power and whatever "
		             "else ran then are included, power supply and cooling are not.");
	else
		html_note(f, "Joules: estimated, CPU-seconds of a request × %.6g W a busy core (--watts-per-core; an assumption: server "
		             "processors have 4 to 7 W of design power a core; memory, power supply and cooling come on top). The machine's own counters "
		             "(RAPL) were not readable or not used.", a->watts_per_core);
	html_note(f, "A year: 365 days at a constant %.6g requests a second (--rate), one model serving all of them, cores counted only while "
	             "they compute. CO₂: %.6g g a kWh (--co2; the default is roughly the world's average, grids range from 20 to 800). "
	             "Not in it: making the student, network, storage, decoding of images.",
	          a->requests_per_s, a->co2_g_per_kwh);
	html_section_close(f);
}
