/* svg_plot.h: a small writer of plots as inline SVG: curves, dots, marked values. Colours come from the page's style (html.h).
 *
 * A plot fits its axes to its data, writes at most as many ticks as have room, and places labels beside dots where they
 * cover neither each other nor a dot: one that finds no place is left out (its dot still tells its name when pointed
 * at). */
#ifndef WINNOW_BASE_SVG_PLOT_H
#define WINNOW_BASE_SVG_PLOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

typedef struct plot_series {
	const char *name;  /* in the legend; NULL: not there */
	int colour;        /* 0 to 7; 0 is what the page is about, 1 what it is compared with */
	size_t count;
	const double *x, *y; /* [count]; what an axis does not take (NaN, zero on a log axis) leaves a gap */
	const char *const *labels; /* [count] of the dots, entries may be NULL; or NULL */
	bool line, faint;  /* faint: thin and pale, behind the others */
	bool dots, hollow;
} plot_series;

typedef struct plot_mark {
	double at;
	const char *label; /* NULL: none; it is left out where it would cover the one before */
	bool in_range;     /* widen the axis so that it shows; otherwise it is dropped beyond the data */
} plot_mark;

typedef struct plot {
	const char *title, *x_label, *y_label;
	int width, height; /* pixels */
	bool log_x, log_y;
	bool whole_x;      /* x counts something: ticks at whole numbers only */
	const double *x_range; /* [2]: the x axis holds these at least; or NULL */
	const plot_series *series;
	int num_series;
	const plot_mark *vertical, *horizontal; /* thin lines across the plot */
	int num_vertical, num_horizontal;
} plot;

/* False, and nothing written, when no series has a point. */
bool svg_plot(FILE *f, const plot *p);

/* For other charts too. Width of a text in the plots' font, roughly; a class: "m" muted, "h" heading; anchor: start, middle, end. */
double svg_text_width(const char *text, double font_px);
void svg_text(FILE *f, double x, double y, const char *anchor, const char *css_class, const char *text);
void svg_open(FILE *f, int width, int height, const char *title);
void svg_close(FILE *f);
/* One entry of a legend at *x, *y; wraps before `right`. */
void svg_legend(FILE *f, double *x, double *y, double right, const char *name, int colour, bool line, bool hollow);

#endif
