/* section_widths.c: what is left of every block: teacher against student, and how the shape went from one to the other. */
#include "prune/report/sections.h"

#include <math.h>
#include <stdio.h>

#include "prune/report/run_parse.h"
#include "prune/report/svg_bars.h"

typedef enum width_kind { WIDTH_FFN, WIDTH_SELF, WIDTH_CROSS, NUM_WIDTHS } width_kind;
static const char *const WIDTH_TITLES[NUM_WIDTHS] = {"FFN", "self-attention", "cross-attention"};

static int width_of(const run_block *b, width_kind k)
{
	return k == WIDTH_FFN ? b->ffn_dim : k == WIDTH_SELF ? b->num_heads * b->head_dim : b->cross_num_heads * b->cross_head_dim;
}

static bool has_width(const run_stack *s, width_kind k)
{
	for (int i = 0; i < s->num_blocks; i++)
		if (width_of(&s->blocks[i], k))
			return true;
	return false;
}

static void chart(FILE *f, const char *component, const run_stack *t, const run_stack *s, width_kind k)
{
	double teacher[RUN_MAX_BLOCKS], student[RUN_MAX_BLOCKS];
	char numbers[RUN_MAX_BLOCKS][12], title[120];
	const char *names[RUN_MAX_BLOCKS];
	const int n = t->num_blocks > s->num_blocks ? t->num_blocks : s->num_blocks;
	for (int i = 0; i < n; i++) {
		teacher[i] = i < t->num_blocks ? width_of(&t->blocks[i], k) : NAN;
		student[i] = i < s->num_blocks ? width_of(&s->blocks[i], k) : NAN;
		snprintf(numbers[i], sizeof numbers[i], "%d", i);
		names[i] = numbers[i];
	}
	snprintf(title, sizeof title, "%s: %s", component, WIDTH_TITLES[k]);
	const bar_series series[] = {{"teacher", 1, teacher}, {"student", 0, student}};
	const bar_chart b = {.title = title, .width = n > 16 ? PLOT_WIDE : PLOT_THIRD, .height = 200, .categories = names, .num_categories = n,
	                     .series = series, .num_series = 2};
	svg_bars_left_of(f, &b);
}

/* "64" or "48–64" */
static void range_text(char out[32], const run_stack *s, int (*of)(const run_block *))
{
	int lo = 0, hi = 0;
	for (int i = 0; i < s->num_blocks; i++) {
		const int v = of(&s->blocks[i]);
		lo = i && lo < v ? lo : v;
		hi = i && hi > v ? hi : v;
	}
	snprintf(out, 32, lo == hi ? "%d" : "%d–%d", lo, hi);
}

static int heads(const run_block *b) { return b->num_heads; }
static int head_dim(const run_block *b) { return b->head_dim; }
static int ffn(const run_block *b) { return b->ffn_dim; }

/* "6 · 192 · 3×64 · 768" */
static void stack_cell(FILE *f, const run_stack *s)
{
	char h[32], d[32], w[32];
	number_text t;
	range_text(h, s, heads);
	range_text(d, s, head_dim);
	range_text(w, s, ffn);
	snprintf(t.s, sizeof t.s, "%d · %d · %.8s×%.8s · %.12s", s->num_blocks, s->hidden_size, h, d, w);
	html_cell_number(f, t);
}

static void shape_row(FILE *f, const char *name, const run_widths *w)
{
	html_row_open(f, name);
	for (int i = 0; i < RUN_COMPONENTS; i++)
		stack_cell(f, &w->stacks[i]);
	html_cell_number(f, text_si(w->num_query_tokens, ""));
	html_row_close(f);
}

/* Until the run has ended, the shape it has reached; else the plan's end, which it then has. */
static const run_widths *current(const run *r, const char **name)
{
	*name = "student";
	if (r->final.present && r->student_widths.present)
		return &r->student_widths;
	for (size_t i = r->num_iterations; i-- > 0;)
		if (r->iterations[i].widths.present) {
			*name = r->iterations[i].name;
			return &r->iterations[i].widths;
		}
	*name = "student (planned)";
	return &r->student_widths;
}

void section_widths(FILE *f, const run *r)
{
	static const char *const headers[] = {"", "vision", "Q-Former", "language model", "query tokens", NULL};
	const char *name;
	const run_widths *t = &r->teacher_widths, *s = current(r, &name);
	html_section_open(f, "widths", "Widths of every block");
	if (!t->present || !s->present) {
		html_note(f, "The run has no plan.json with the shapes of teacher and student: widths are left out.");
		html_section_close(f);
		return;
	}
	html_note(f, "Pale: teacher. Strong: %.100s. The width of an attention is heads × head size. "
	             "Blocks are numbered as they stand in each model.", name);
	for (int i = 0; i < RUN_COMPONENTS; i++) {
		fputs("<div class=\"grid\">\n", f);
		for (width_kind k = 0; k < NUM_WIDTHS; k++)
			if (has_width(&t->stacks[i], k) || has_width(&s->stacks[i], k))
				chart(f, RUN_COMPONENT_TITLES[i], &t->stacks[i], &s->stacks[i], k);
		fputs("</div>\n", f);
	}
	html_table_open(f, headers);
	shape_row(f, "teacher", t);
	for (size_t i = 0; i < r->num_iterations; i++)
		if (r->iterations[i].widths.present)
			shape_row(f, r->iterations[i].name, &r->iterations[i].widths);
	if (r->student_widths.present)
		shape_row(f, r->final.present ? "student" : "student (planned)", &r->student_widths);
	html_table_close(f);
	html_note(f, "6 · 192 · 3×64 · 768: 6 blocks, hidden width 192, 3 heads of size 64, FFN width 768. A range: not all blocks are alike.");
	html_section_close(f);
}
