/* image_resize.c: Pillow's antialiased bicubic resize for RGB, bit for bit, and quick.
 *
 * The arithmetic (Pillow's libImaging/Resample.c defines it; models are trained behind it): each output sample is a
 * weighted sum of the input samples within two filter widths of its centre, the filter widened by the scale when
 * shrinking. Weights are computed in double, normalised to sum 1, rounded to 22-bit fixed point; a sum is rounded and
 * clamped to 8 bits. One pass along the rows, one down the columns, the first one's 8-bit results feeding the other (which
 * is first: columns_first below); a direction whose size stays is skipped.
 *
 * The speed: both passes are ops.h's weigh_bytes, neighbouring bytes of output at once, each tap one fused row of
 * multiplies. Down the columns neighbours lie side by side anyway; for the rows, sixteen rows are first interleaved so that
 * the same pixel of all sixteen (16 x RGB = 48 bytes) lies side by side. Interleaving costs a third of the weighing: it runs
 * just ahead of it, so that what it wrote is still in the nearest cache. Integers only, so every instruction set gives the
 * same bytes. Stateless; the caller's thread does it all. */
#include "model/image_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PRECISION_BITS = 32 - 8 - 2, ROWS = 16, LANES = 3 * ROWS, AHEAD = 64 };
static const double BICUBIC_SUPPORT = 2.0;

/* What one output position is made of. */
typedef struct span {
	int first, count; /* input positions */
} span;

typedef struct taps {
	int n, stride; /* outputs; weights reserved for each */
	span *spans;   /* [n] */
	int32_t *weight; /* [n][stride] */
} taps;

static double bicubic(double x)
{
	const double a = -0.5;
	x = fabs(x);
	if (x < 1.0)
		return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
	if (x < 2.0)
		return (((x - 5) * x + 8) * x - 4) * a;
	return 0.0;
}

static void taps_free(taps *t)
{
	free(t->spans);
	free(t->weight);
	*t = (taps){0};
}

/* For `out_size` positions that cover what of `in_size` input positions is not cut off at either end. */
static wn_code taps_make(taps *t, int in_size, double cut_first, double cut_last, int out_size, wn_error *err)
{
	const double scale = (in_size - cut_last - cut_first) / out_size, widen = scale < 1.0 ? 1.0 : scale;
	const double support = BICUBIC_SUPPORT * widen, inverse = 1.0 / widen;
	int most = (int)ceil(support) * 2 + 1;
	*t = (taps){.n = out_size, .stride = most < in_size ? most : in_size};
	t->spans = malloc((size_t)out_size * sizeof *t->spans);
	t->weight = malloc((size_t)out_size * (size_t)t->stride * sizeof *t->weight);
	double *w = malloc((size_t)t->stride * sizeof *w);
	wn_code rc = WN_OK;
	if (!t->spans || !t->weight || !w) {
		taps_free(t);
		rc = wn_fail(err, WN_NOMEM, "out of memory for the weights of a resize from %d to %d", in_size, out_size);
		goto out;
	}
	for (int i = 0; i < out_size; i++) {
		double centre = cut_first + (i + 0.5) * scale, sum = 0.0;
		int first = (int)(centre - support + 0.5), last = (int)(centre + support + 0.5);
		first = first < 0 ? 0 : first;
		last = last > in_size ? in_size : last;
		for (int k = 0; k < last - first; k++) {
			w[k] = bicubic((k + first - centre + 0.5) * inverse);
			sum += w[k];
		}
		int32_t *fixed = t->weight + (size_t)i * (size_t)t->stride;
		for (int k = 0; k < last - first; k++) {
			double v = sum != 0.0 ? w[k] / sum : w[k];
			fixed[k] = (int32_t)((v < 0 ? -0.5 : 0.5) + v * (1 << PRECISION_BITS));
		}
		t->spans[i] = (span){first, last - first};
	}
out:
	free(w);
	return rc;
}

/* Pixels [from, to) of `width` go into lanes [width][ROWS][3]. Four bytes at a time: the fourth lands where the next row's
 * first is written afterwards; not so for a half's last row and a row's last pixel. */
static void interleave(uint8_t *lanes, const uint8_t *const rows[ROWS], int from, int to, int width)
{
	enum { HALF = ROWS / 2 }; /* so many pointers fit the registers */
	const size_t begin = 3 * (size_t)from, end = 3 * (size_t)(to == width ? to - 1 : to);
	for (int half = 0; half < ROWS; half += HALF) {
		const uint8_t *const *r = rows + half;
		uint8_t *o = lanes + (size_t)from * LANES + 3 * half;
		for (size_t at = begin; at < end; at += 3, o += LANES) {
			for (int i = 0; i < HALF - 1; i++)
				memcpy(o + 3 * i, r[i] + at, 4);
			memcpy(o + 3 * (HALF - 1), r[HALF - 1] + at, 3);
		}
	}
	for (int i = 0; i < ROWS && to == width; i++)
		memcpy(lanes + (size_t)(to - 1) * LANES + 3 * i, rows[i] + end, 3);
}

/* Up to ROWS rows of in [rows][width][3] to as many of out [rows][t->n][3]. lanes: [width][ROWS][3] for its own use. */
static void resize_rows(uint8_t *out, const uint8_t *in, int rows, int width, const taps *t, uint8_t *lanes,
			const ops_table *o)
{
	const uint8_t *from[ROWS]; /* absent rows repeat the last one */
	for (int r = 0; r < ROWS; r++)
		from[r] = in + (size_t)(r < rows ? r : rows - 1) * (size_t)width * 3;
	const size_t row = (size_t)t->n * 3;
	uint8_t pixel[LANES + 1] = {0};
	int ready = 0;
	for (int x = 0; x < t->n; x++) {
		const span s = t->spans[x];
		if (s.first + s.count > ready) {
			int to = s.first + s.count + AHEAD < width ? s.first + s.count + AHEAD : width;
			interleave(lanes, from, ready, to, width);
			ready = to;
		}
		o->weigh_bytes(pixel, lanes + (size_t)s.first * LANES, LANES, t->weight + (size_t)x * (size_t)t->stride,
			       (size_t)s.count, LANES);
		uint8_t *at = out + 3 * (size_t)x;
		for (int r = 0; r < rows && x < t->n - 1; r++)
			memcpy(at + (size_t)r * row, pixel + 3 * r, 4); /* the fourth is written over, here too */
		for (int r = 0; r < rows && x == t->n - 1; r++)
			memcpy(at + (size_t)r * row, pixel + 3 * r, 3);
	}
}

/* Pillow 13 resizes down the columns first when that saves enough (found by comparing its output with both orders: the
 * rule below explains all of 2926 random shapes); before 13 it never did. The rounding between the passes makes the
 * order visible, by a level or two. */
static int columns_first(int in_width, int in_height, int out_width, int out_height)
{
	return out_height < in_height && in_height - out_height > 2 * (in_width - out_width);
}

static wn_code all_rows(uint8_t *out, const uint8_t *in, int in_width, const float beyond[4], int out_width, int height,
			const ops_table *o, wn_error *err)
{
	taps t = {0};
	wn_code rc = taps_make(&t, in_width, beyond[0], beyond[2], out_width, err);
	if (rc)
		return rc;
	uint8_t *lanes = malloc((size_t)in_width * LANES);
	if (!lanes)
		rc = wn_fail(err, WN_NOMEM, "out of memory resizing rows from %d to %d pixels", in_width, out_width);
	for (int y = 0; rc == WN_OK && y < height; y += ROWS)
		resize_rows(out + (size_t)y * (size_t)out_width * 3, in + (size_t)y * (size_t)in_width * 3,
			    height - y < ROWS ? height - y : ROWS, in_width, &t, lanes, o);
	free(lanes);
	taps_free(&t);
	return rc;
}

static wn_code all_columns(uint8_t *out, const uint8_t *in, int width, int in_height, const float beyond[4], int out_height,
			   const ops_table *o, wn_error *err)
{
	taps t = {0};
	const size_t row = (size_t)width * 3;
	wn_code rc = taps_make(&t, in_height, beyond[1], beyond[3], out_height, err);
	for (int y = 0; rc == WN_OK && y < out_height; y++)
		o->weigh_bytes(out + (size_t)y * row, in + (size_t)t.spans[y].first * row, row,
			       t.weight + (size_t)y * (size_t)t.stride, (size_t)t.spans[y].count, row);
	taps_free(&t);
	return rc;
}

wn_code image_resize_by(const ops_table *o, uint8_t *out, int out_width, int out_height, const image *in, wn_error *err)
{
	const int w = in->width, h = in->height;
	if (out_width < 1 || out_height < 1 || w < 1 || h < 1 || out_width > 65535 || out_height > 65535 || w > 65535 ||
	    h > 65535)
		return wn_fail(err, WN_INVALID, "cannot resize %dx%d to %dx%d; sides are 1 to 65535", w, h, out_width,
			       out_height);
	const int same_width = out_width == w && in->beyond[0] == 0 && in->beyond[2] == 0;
	const int same_height = out_height == h && in->beyond[1] == 0 && in->beyond[3] == 0;
	if (same_width && same_height) {
		memcpy(out, in->rgb, (size_t)w * (size_t)h * 3);
		return WN_OK;
	}
	if (same_height)
		return all_rows(out, in->rgb, w, in->beyond, out_width, h, o, err);
	if (same_width)
		return all_columns(out, in->rgb, w, h, in->beyond, out_height, o, err);
	const int down = columns_first(w, h, out_width, out_height);
	uint8_t *middle = malloc(3 * (down ? (size_t)w * (size_t)out_height : (size_t)out_width * (size_t)h));
	wn_code rc;
	if (!middle)
		return wn_fail(err, WN_NOMEM, "out of memory resizing %dx%d to %dx%d", w, h, out_width, out_height);
	if (down) {
		rc = all_columns(middle, in->rgb, w, h, in->beyond, out_height, o, err);
		rc = rc ? rc : all_rows(out, middle, w, in->beyond, out_width, out_height, o, err);
	} else {
		rc = all_rows(middle, in->rgb, w, in->beyond, out_width, h, o, err);
		rc = rc ? rc : all_columns(out, middle, out_width, h, in->beyond, out_height, o, err);
	}
	free(middle);
	return rc;
}

wn_code image_resize(uint8_t *out, int out_width, int out_height, const image *in, wn_error *err)
{
	return image_resize_by(ops, out, out_width, out_height, in, err);
}
