/* section_ablation.c: the same student made in other ways, some seeds each: what every part of the method is worth. */
#include "prune/report/sections.h"

#include <math.h>

typedef struct sample_stats {
	size_t n;
	double mean, sd; /* NaN without values; sd (of n - 1) NaN with one */
} sample_stats;

static sample_stats stats_of(const run_ablation_row *row, const char *key)
{
	sample_stats s = {0, NAN, NAN};
	double sum = 0, squares = 0;
	for (size_t i = 0; i < json_array_size(row->runs); i++) {
		const json_t *v = json_object_get(json_array_get(row->runs, i), key);
		if (json_is_number(v)) {
			sum += json_number_value(v);
			s.n++;
		}
	}
	if (!s.n)
		return s;
	s.mean = sum / (double)s.n;
	for (size_t i = 0; i < json_array_size(row->runs); i++) {
		const json_t *v = json_object_get(json_array_get(row->runs, i), key);
		if (json_is_number(v))
			squares += (json_number_value(v) - s.mean) * (json_number_value(v) - s.mean);
	}
	if (s.n > 1)
		s.sd = sqrt(squares / (double)(s.n - 1));
	return s;
}

/* Two standard errors of a difference of means; NaN when one has no spread. */
static double noise(const sample_stats *a, const sample_stats *b)
{
	return 2 * sqrt(a->sd * a->sd / (double)a->n + b->sd * b->sd / (double)b->n);
}

static const char *judge(const sample_stats *first, const sample_stats *row)
{
	const double limit = noise(first, row), d = row->mean - first->mean;
	if (isnan(limit) || isnan(d))
		return "too few seeds to tell";
	return d < -limit ? "worse" : d > limit ? "better" : "within the noise";
}

void section_ablation(FILE *f, const run *r)
{
	static const char *const headers[] = {"", "seeds", "accuracy, %", "difference", "macro-F1, %", "difference", "|accuracy is", NULL};
	html_section_open(f, "ablation", "Ablations");
	if (!r->num_ablation) {
		html_note(f, "This run has no ablation.json%s.", r->has_ablation ? " with rows" : "");
		html_section_close(f);
		return;
	}
	const sample_stats first = stats_of(&r->ablation[0], "accuracy"), first_f1 = stats_of(&r->ablation[0], "macro_f1");
	html_table_open(f, headers);
	for (size_t i = 0; i < r->num_ablation; i++) {
		const run_ablation_row *row = &r->ablation[i];
		const sample_stats a = stats_of(row, "accuracy"), f1 = stats_of(row, "macro_f1");
		html_row_open(f, row->name);
		html_cell_number(f, text_si((double)json_array_size(row->runs), ""));
		html_cell_number(f, text_mean_sd(100 * a.mean, 100 * a.sd, 2));
		html_cell_number(f, text_difference(i ? 100 * (a.mean - first.mean) : NAN, 2));
		html_cell_number(f, text_mean_sd(100 * f1.mean, 100 * f1.sd, 2));
		html_cell_number(f, text_difference(i ? 100 * (f1.mean - first_f1.mean) : NAN, 2));
		html_cell(f, i ? judge(&first, &a) : "");
		html_row_close(f);
	}
	html_table_close(f);
	html_note(f, "Mean ± standard deviation over seeds; differences in points, to the first row. “Within the noise”: not more than two "
	             "standard errors of the difference, so this part of the method is not shown to help (or to hurt).");
	html_section_close(f);
}
