/* svg_bars.h: bars as inline SVG, teacher against student. */
#ifndef WINNOW_PRUNE_REPORT_SVG_BARS_H
#define WINNOW_PRUNE_REPORT_SVG_BARS_H

#include <stdbool.h>
#include <stdio.h>

#define BARS_MAX_SERIES 3

typedef struct bar_series {
	const char *name;
	int colour;
	const double *values; /* [num_categories], not negative; NaN: no bar */
} bar_series;

typedef struct bar_chart {
	const char *title;
	int width, height; /* pixels; svg_bars_across finds its own height */
	const char *const *categories; /* [num_categories] */
	int num_categories;
	const bar_series *series; /* at most BARS_MAX_SERIES */
	int num_series;
	double max;        /* of the scale; 0: the largest value */
	int decimals;      /* of the values printed at the bars of svg_bars_across */
} bar_chart;

/* Bars from left to right, one group of thin bars a category, its name on the left. False, and nothing written, without a value. */
bool svg_bars_across(FILE *f, const bar_chart *b);
/* Upright bars: the first series wide and pale, the second narrow before it: what is left of what was. */
bool svg_bars_left_of(FILE *f, const bar_chart *b);

#endif
