/* curves.h: a log's many steps as a curve that a plot can carry: smoothed, and thinned to some hundred points.
 *
 * Both stop at the borders of segments (an iteration cuts the model, so the loss jumps: that jump shall stay a jump). Pure
 * functions over arrays. */
#ifndef WINNOW_PRUNE_REPORT_CURVES_H
#define WINNOW_PRUNE_REPORT_CURVES_H

#include <stddef.h>

#include "base/error.h"

typedef struct curve {
	double *x, *y; /* [count], owned */
	size_t count;
} curve;

/* x, y and segment [count]; NaN in y is skipped. smooth_share: an exponential mean, without bias at its start, over that share
 * of a segment's points (5 at least); 0: none. Each of at most max_points bins of equal length becomes its mean, and every segment
 * has one at least; with fewer points than bins nothing is merged. */
wn_code curve_make(curve *out, const double *x, const double *y, const int *segment, size_t count, double smooth_share,
                   size_t max_points, wn_error *err);
void curve_close(curve *c);

#endif
