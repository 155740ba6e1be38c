/* svg_bars.c: see svg_bars.h. */
#include "prune/report/svg_bars.h"

#include <math.h>

#include "base/html.h"
#include "base/number_text.h"
#include "base/svg_axis.h"
#include "base/svg_plot.h"

#define FONT         11.0
#define NAME_COLUMNS 26
#define BAR          9.0
#define GROUP_GAP    9.0

static bool find_max(const bar_chart *b, double *max)
{
	bool any = false;
	*max = b->max;
	for (int s = 0; s < b->num_series; s++)
		for (int i = 0; i < b->num_categories; i++)
			if (isfinite(b->series[s].values[i])) {
				any = true;
				*max = fmax(*max, b->series[s].values[i]);
			}
	if (*max <= 0)
		*max = 1;
	return any;
}

static double draw_legend(FILE *f, const bar_chart *b)
{
	double x = 0, y = 34;
	for (int i = 0; i < b->num_series; i++)
		svg_legend(f, &x, &y, b->width, b->series[i].name, b->series[i].colour, false, false);
	return y;
}

bool svg_bars_across(FILE *f, const bar_chart *b)
{
	double max, name_width = 0;
	if (!find_max(b, &max))
		return false;
	for (int i = 0; i < b->num_categories; i++)
		name_width = fmax(name_width, fmin(NAME_COLUMNS, text_columns(b->categories[i])) * FONT * 0.56);
	const double group = BAR * b->num_series + GROUP_GAP, left = name_width + 10, right = b->width - 40;
	svg_open(f, b->width, (int)(52 + group * b->num_categories), b->title);
	double y = draw_legend(f, b) + 14;
	for (int i = 0; i < b->num_categories; i++, y += group) {
		fprintf(f, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">", left - 7, y + BAR * b->num_series / 2.0 + 4);
		html_text_fit(f, b->categories[i], NAME_COLUMNS);
		fputs("</text>\n", f);
		for (int s = 0; s < b->num_series; s++) {
			const double v = b->series[s].values[i], top = y + s * BAR;
			if (!isfinite(v))
				continue;
			const double length = fmax(0, v) / max * (right - left);
			fprintf(f, "<rect class=\"f%d\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>\n", b->series[s].colour, left, top,
			        length, BAR - 1.5);
			fprintf(f, "<text class=\"m\" font-size=\"9\" x=\"%.1f\" y=\"%.1f\">%s</text>\n", left + length + 4, top + BAR - 2,
			        text_fixed(v, b->decimals).s);
		}
	}
	fprintf(f, "<path class=\"a\" d=\"M%.1f 44V%.1f\"/>\n", left, y - GROUP_GAP + 3);
	svg_close(f);
	return true;
}

/* Names under the bars, as many as have room. */
static void draw_categories(FILE *f, const bar_chart *b, double left, double slot, double baseline)
{
	double free_from = -1e9;
	for (int i = 0; i < b->num_categories; i++) {
		const double x = left + (i + 0.5) * slot, half = svg_text_width(b->categories[i], FONT) / 2;
		if (x - half < free_from)
			continue;
		svg_text(f, x, baseline + 15, "middle", "m", b->categories[i]);
		free_from = x + half + 4;
	}
}

bool svg_bars_left_of(FILE *f, const bar_chart *b)
{
	double max;
	if (!find_max(b, &max))
		return false;
	svg_open(f, b->width, b->height, b->title);
	const double top = draw_legend(f, b) + 12, bottom = b->height - 22;
	axis y;
	axis_fit(&y, 0, max, false, bottom, top, (int)((bottom - top) / 30) + 1);
	double left = 0;
	for (int i = 0; i < y.num_ticks; i++)
		left = fmax(left, svg_text_width(axis_label(&y, y.ticks[i]).s, FONT) + 10);
	for (int i = 0; i < y.num_ticks; i++) {
		const double at = axis_at(&y, y.ticks[i]);
		fprintf(f, "<path class=\"g\" d=\"M%.1f %.1fH%d\"/>\n", left, at, b->width - 4);
		svg_text(f, left - 6, at + 4, "end", "m", axis_label(&y, y.ticks[i]).s);
	}
	const double slot = fmin(64, (b->width - 4 - left) / b->num_categories);
	for (int s = 0; s < b->num_series; s++)
		for (int i = 0; i < b->num_categories; i++) {
			const double v = b->series[s].values[i], w = slot * (s == 0 ? 0.8 : 0.46);
			if (!isfinite(v) || v < 0)
				continue;
			const double at = axis_at(&y, v);
			fprintf(f, "<rect class=\"f%d%s\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"><title>", b->series[s].colour,
			        s == 0 ? " p" : "", left + (i + 0.5) * slot - w / 2, at, w, bottom - at);
			html_text(f, b->series[s].name);
			fputs(", ", f);
			html_text(f, b->categories[i]);
			fprintf(f, ": %s</title></rect>\n", text_fixed(v, 0).s);
		}
	draw_categories(f, b, left, slot, bottom);
	svg_close(f);
	return true;
}
