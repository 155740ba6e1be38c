/* curves.c: see curves.h. */
#include "prune/report/curves.h"

#include <math.h>
#include <stdlib.h>

#define MIN_WINDOW 5

/* Exponential mean of y[from, to) into out, as Adam's moments are: divided by the weight that has come in so far. */
static void smooth(double *out, const double *y, size_t from, size_t to, double share)
{
	const double window = fmax(MIN_WINDOW, share * (double)(to - from)), keep = share > 0 ? 1 - 1 / window : 0;
	double sum = 0, weight = 0;
	for (size_t i = from; i < to; i++) {
		if (!isnan(y[i])) {
			sum = keep * sum + (1 - keep) * y[i];
			weight = keep * weight + (1 - keep);
		}
		out[i] = isnan(y[i]) ? NAN : sum / weight;
	}
}

/* The points [from, to) in `bins` bins, appended to c. */
static void thin(curve *c, const double *x, const double *y, size_t from, size_t to, size_t bins)
{
	const size_t n = to - from;
	for (size_t b = 0; b < bins; b++) {
		double sum_x = 0, sum_y = 0;
		size_t used = 0;
		for (size_t i = from + b * n / bins; i < from + (b + 1) * n / bins; i++)
			if (!isnan(y[i])) {
				sum_x += x[i];
				sum_y += y[i];
				used++;
			}
		if (used) {
			c->x[c->count] = sum_x / (double)used;
			c->y[c->count++] = sum_y / (double)used;
		}
	}
}

wn_code curve_make(curve *out, const double *x, const double *y, const int *segment, size_t count, double smooth_share,
                   size_t max_points, wn_error *err)
{
	double *smoothed = calloc(count + 1, sizeof *smoothed);
	*out = (curve){.x = calloc(count + 1, sizeof(double)), .y = calloc(count + 1, sizeof(double))};
	if (!smoothed || !out->x || !out->y) {
		free(smoothed);
		curve_close(out);
		return wn_fail(err, WN_NOMEM, "no memory for a curve of %zu points", count);
	}
	for (size_t from = 0, to; from < count; from = to) {
		for (to = from + 1; to < count && segment[to] == segment[from]; to++)
			;
		const size_t n = to - from, share = (size_t)((double)max_points * (double)n / (double)count);
		const size_t bins = count <= max_points ? n : share ? share : 1;
		smooth(smoothed, y, from, to, smooth_share);
		thin(out, x, smoothed, from, to, bins);
	}
	free(smoothed);
	return WN_OK;
}

void curve_close(curve *c)
{
	free(c->x);
	free(c->y);
	*c = (curve){0};
}
