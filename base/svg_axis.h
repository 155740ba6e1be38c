/* svg_axis.h: from values to pixels: the range of an axis, its ticks and their labels. Pure functions. */
#ifndef WINNOW_BASE_SVG_AXIS_H
#define WINNOW_BASE_SVG_AXIS_H

#include <stdbool.h>

#include "base/number_text.h"

#define AXIS_MAX_TICKS 16

typedef struct axis {
	bool log;        /* base 10 */
	double lo, hi;   /* the range; of log10(value) when log */
	double from, to; /* pixels of lo and hi; from > to on a vertical axis */
	double ticks[AXIS_MAX_TICKS]; /* values */
	int num_ticks;
	double step;     /* between linear ticks; 0 on decades */
} axis;

/* Can this value be drawn on it? Finite, and above zero on a log axis. */
bool axis_takes(bool log, double v);
/* A range that holds [lo, hi] (both drawable) with a little air, and at most max_ticks ticks (2 to AXIS_MAX_TICKS) in it. */
void axis_fit(axis *a, double lo, double hi, bool log, double from, double to, int max_ticks);
double axis_at(const axis *a, double v); /* pixel */
number_text axis_label(const axis *a, double tick);

#endif
