/* What pages are made of: numbers, text, axes and plots, as people read them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>

#include "base/html.h"
#include "base/svg_axis.h"
#include "base/svg_plot.h"
#include "page_check.h"
#include "temp_dir.h"

static void axes_have_ticks_people_read(void **state)
{
	static const struct { double lo, hi; bool log; int max; const char *expected; } cases[] = {
		{0, 100, false, 6, "0 20 40 60 80 100 "},
		{0.871, 0.899, false, 6, "0.87 0.88 0.89 0.90 "},
		{0, 12800, false, 5, "0 5 k 10 k "},
		{-3, 3, false, 5, "−2 0 2 "},
		{1, 4, false, 5, "1 2 3 4 "},
		{7.5, 7.5, false, 4, "7.0 7.5 8.0 "},
		{0, 0, false, 4, "0 0.5 1.0 "},
		{400000, 7.2e6, true, 6, "500 k 1 M 2 M 5 M "},
		{0.9, 10.2, true, 5, "1 2 5 10 "},
		{4.1, 5.2, true, 5, "4.25 4.50 4.75 5.00 5.25 "},
		{1e-6, 1e-3, true, 4, "1e-6 1e-5 1e-4 0.001 "},
		{1e-12, 1e12, true, 5, "1e-10 1e-5 1 100 k 10 G "},
		{0, 1e-4, false, 5, "0 2.5e-5 5e-5 7.5e-5 1e-4 "},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		axis a;
		char text[256] = "";
		axis_fit(&a, cases[i].lo, cases[i].hi, cases[i].log, 0, 100, cases[i].max);
		for (int k = 0; k < a.num_ticks; k++) {
			assert_true(axis_at(&a, a.ticks[k]) >= -1e-6 && axis_at(&a, a.ticks[k]) <= 100 + 1e-6);
			strcat(strcat(text, axis_label(&a, a.ticks[k]).s), " ");
		}
		if (strcmp(text, cases[i].expected) != 0)
			fail_msg("axis %zu: ticks \"%s\", expected \"%s\"", i, text, cases[i].expected);
		assert_true(a.num_ticks <= cases[i].max);
	}
	assert_false(axis_takes(true, 0));
	assert_false(axis_takes(false, NAN));
	assert_false(axis_takes(false, INFINITY));
	assert_true(axis_takes(false, -1));
}

static void numbers_are_written_for_people(void **state)
{
	struct { number_text got; const char *expected; } cases[] = {
		{text_si(7760448, ""), "7.76 M"}, {text_si(16, ""), "16"}, {text_si(999.6, ""), "1.00 k"}, {text_si(0.0031, "J"), "3.10 mJ"},
		{text_si(1234567890, "FLOP"), "1.23 GFLOP"}, {text_si(-2500, ""), "−2.50 k"}, {text_si(NAN, ""), "–"}, {text_si(0, ""), "0"},
		{text_si(0.25, ""), "0.25"}, {text_si(0.002, ""), "2.00e-03"}, {text_si(1e20, ""), "1.00e+20"}, {text_ms(12.345), "12.3 ms"},
		{text_share(0.88123), "88.1 %"}, {text_points(-0.0079), "−0.8 points"}, {text_points(0.0001), "±0.0 points"},
		{text_points(NAN), "–"}, {text_ratio(18.04), "18.0×"}, {text_ratio(1.004), "1.00×"}, {text_ratio(INFINITY), "–"},
		{text_fixed(0.0312, 3), "0.031"}, {text_fixed(-1.5, 1), "−1.5"}, {text_fixed(0.0001, 2), "1.00e-04"},
		{text_seconds(45), "45 s"}, {text_seconds(150), "2.5 min"}, {text_seconds(9000), "2.5 h"},
		{text_mean_sd(92, 2, 2), "92.00 ± 2.00"}, {text_mean_sd(92, NAN, 2), "92.00"}, {text_mean_sd(NAN, NAN, 2), "–"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		if (strcmp(plain_spaces(cases[i].got.s), cases[i].expected) != 0)
			fail_msg("number %zu: \"%s\", expected \"%s\"", i, cases[i].got.s, cases[i].expected);
}

static void text_is_escaped_cut_and_always_utf8(void **state)
{
	static const struct { const char *text; int columns; const char *expected; } cases[] = {
		{"a<b>&\"'", 0, "a&lt;b&gt;&amp;&quot;&#39;"},
		{"\x80\xC0\xAF\xC2", 0, "\uFFFD\uFFFD\uFFFD\uFFFD"},      /* stray, overlong, cut by the end */
		{"\xE0\x80\x80", 0, "\uFFFD\uFFFD\uFFFD"},                /* overlong */
		{"\xED\xA0\x80", 0, "\uFFFD\uFFFD\uFFFD"},                /* surrogate */
		{"\xF4\x90\x80\x80", 0, "\uFFFD\uFFFD\uFFFD\uFFFD"},      /* beyond Unicode */
		{"\xEF\xBF\xBF\x01\t\x7F", 0, "\uFFFD\uFFFD\t\uFFFD"},    /* not in XML */
		{"合规 ok 🎲", 0, "合规 ok 🎲"},
		{"合规合规", 8, "合规合规"},
		{"合规合规", 7, "合规合…"},
		{"abcdef", 4, "abc…"},
		{"<<<<<", 3, "&lt;&lt;…"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char *out = NULL;
		size_t len;
		FILE *f = open_memstream(&out, &len);
		if (cases[i].columns)
			html_text_fit(f, cases[i].text, cases[i].columns);
		else
			html_text(f, cases[i].text);
		fclose(f);
		if (strcmp(out, cases[i].expected) != 0)
			fail_msg("text %zu: \"%s\", expected \"%s\"", i, out, cases[i].expected);
		free(out);
	}
	assert_int_equal(text_columns("合规 ok"), 7);
}

/* Crowded and odd data: what fits is drawn, no text covers another (the checker says so), nothing is NaN. */
static void plots_stand_crowded_data(void **state)
{
	enum { N = 60 };
	double x[N], y[N];
	const char *labels[N];
	char names[N][24];
	const char *path = temp_path("plots.html");
	FILE *f = fopen(path, "w");
	html_page_open(f, "plots");
	for (int scene = 0; scene < 6; scene++) {
		for (int i = 0; i < N; i++) {
			snprintf(names[i], sizeof names[i], "%03d-合规 name", i);
			labels[i] = names[i];
			x[i] = scene == 1 ? 5 : scene == 2 ? pow(10, i / 4.0 - 6) : scene == 3 ? 1e-9 * i : i * 0.01;
			y[i] = scene == 1 ? -7 : scene == 2 ? pow(2, -i) : scene == 4 && i % 3 ? NAN : sin(i);
		}
		plot_mark marks[N];
		for (int i = 0; i < N; i++)
			marks[i] = (plot_mark){.at = x[i], .label = names[i]};
		const plot_mark level = {.at = scene == 2 ? 1e-4 : 0.5, .label = "teacher", .in_range = true};
		const plot_series series[] = {
			{.name = "a rather long name of a series that stands in the legend", .colour = 0, .count = N, .x = x, .y = y, .labels = labels,
			 .dots = true, .line = true},
			{.name = "another one that does not fit beside it", .colour = 1, .count = 1, .x = x, .y = y, .dots = true, .hollow = true},
			{.name = "and a third", .colour = 2, .count = 0},
		};
		const plot p = {.title = "crowded", .x_label = "x", .y_label = "y", .width = scene == 5 ? 300 : 470, .height = 300,
				.log_x = scene == 2, .log_y = scene == 2, .series = series, .num_series = 3, .vertical = marks, .num_vertical = N,
				.horizontal = &level, .num_horizontal = 1};
		assert_true(svg_plot(f, &p));
	}
	/* nothing to draw, nothing drawn */
	const double bad[] = {NAN, INFINITY, -1, 0};
	const plot_series nothing = {.colour = 0, .count = 4, .x = bad, .y = bad, .line = true, .dots = true};
	const plot empty = {.title = "empty", .x_label = "x", .y_label = "y", .width = 470, .height = 300, .log_x = true, .series = &nothing,
			    .num_series = 1};
	const long before = ftell(f);
	assert_false(svg_plot(f, &empty));
	assert_int_equal(ftell(f), before);
	html_page_close(f);
	fclose(f);
	page_checks(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(axes_have_ticks_people_read),
		cmocka_unit_test(numbers_are_written_for_people),
		cmocka_unit_test(text_is_escaped_cut_and_always_utf8),
		cmocka_unit_test(plots_stand_crowded_data),
	};
	return cmocka_run_group_tests(tests, temp_dir_make, temp_dir_remove);
}
