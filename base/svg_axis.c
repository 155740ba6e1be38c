/* svg_axis.c: see svg_axis.h. */
#include "base/svg_axis.h"

#include <math.h>
#include <stdio.h>

#define AIR 0.05 /* of the range, on each side */

bool axis_takes(bool log, double v) { return isfinite(v) && (!log || v > 0); }

static double scaled(const axis *a, double v) { return a->log ? log10(v) : v; }
static double value(const axis *a, double s) { return a->log ? pow(10, s) : s; }

static const double NICE[] = {1, 2, 2.5, 5};

/* Multiples of the smallest of 1, 2, 2.5, 5 times a power of ten of which at most max_ticks lie in the range. */
static void linear_ticks(axis *a, int max_ticks)
{
	const double lo = value(a, a->lo), hi = value(a, a->hi), decade = pow(10, floor(log10((hi - lo) / max_ticks)));
	for (int i = 0;; i++) {
		a->step = NICE[i % 4] * decade * pow(10, i / 4);
		if (floor(hi / a->step + 1e-9) - ceil(lo / a->step - 1e-9) < max_ticks)
			break;
	}
	a->num_ticks = 0;
	for (double k = ceil(lo / a->step - 1e-9); k <= hi / a->step + 1e-9 && a->num_ticks < max_ticks; k++)
		a->ticks[a->num_ticks++] = k == 0 ? 0 : k * a->step;
}

/* Digits 1 to 9 of every decade that stand in the mask (bit d), every `stride`th decade. Returns how many there are, keeps max_ticks. */
static int decade_ticks(axis *a, unsigned digits, int stride, int max_ticks)
{
	int count = 0;
	for (int e = (int)floor(a->lo); e <= (int)ceil(a->hi); e++)
		for (int d = 1; d < 10; d++) {
			const double s = e + log10(d);
			if (!(digits >> d & 1) || ((e % stride) + stride) % stride || s < a->lo - 1e-9 || s > a->hi + 1e-9)
				continue;
			if (count < max_ticks)
				a->ticks[count] = d * pow(10, e);
			count++;
		}
	a->num_ticks = count < max_ticks ? count : max_ticks;
	return count;
}

static void log_ticks(axis *a, int max_ticks)
{
	static const unsigned digits[] = {0x3FE, 1u << 1 | 1u << 2 | 1u << 5, 1u << 1 | 1u << 3, 1u << 1};
	a->step = 0;
	for (int i = 1; i < 4; i++) {
		const int n = decade_ticks(a, digits[i], 1, max_ticks);
		if (i == 1 && n < 3) { /* less than a decade: evenly spaced values read better */
			linear_ticks(a, max_ticks);
			return;
		}
		if (n <= max_ticks)
			return;
	}
	for (int stride = 2; decade_ticks(a, 1u << 1, stride, max_ticks) > max_ticks; stride++)
		;
}

void axis_fit(axis *a, double lo, double hi, bool log, double from, double to, int max_ticks)
{
	*a = (axis){.log = log, .from = from, .to = to};
	const bool positive = lo >= 0;
	a->lo = scaled(a, lo);
	a->hi = scaled(a, hi);
	if (a->hi - a->lo <= 1e-9 * fmax(fabs(a->lo), fabs(a->hi))) { /* one value: some room around it */
		const double room = log ? 0.3 : lo == 0 ? 1 : 0.1 * fabs(lo);
		a->lo -= room;
		a->hi += room;
	}
	const double air = AIR * (a->hi - a->lo);
	a->lo -= air;
	a->hi += air;
	if (!log && positive && a->lo < 0)
		a->lo = 0;
	max_ticks = max_ticks < 2 ? 2 : max_ticks > AXIS_MAX_TICKS ? AXIS_MAX_TICKS : max_ticks;
	if (log)
		log_ticks(a, max_ticks);
	else
		linear_ticks(a, max_ticks);
}

double axis_at(const axis *a, double v) { return a->from + (scaled(a, v) - a->lo) / (a->hi - a->lo) * (a->to - a->from); }

number_text axis_label(const axis *a, double tick)
{
	static const struct { double scale; const char *suffix; } scales[] = {{1e12, " T"}, {1e9, " G"}, {1e6, " M"}, {1e3, " k"}};
	number_text t;
	const double top = fmax(fabs(value(a, a->lo)), fabs(value(a, a->hi))), v = fabs(tick);
	const char *sign = tick < 0 ? "\u2212" : "";
	for (int i = 0; i < 4; i++)
		if (v >= scales[i].scale && v < 1e15 && (top >= 1e4 || i < 3)) {
			snprintf(t.s, sizeof t.s, "%s%.4g%s", sign, v / scales[i].scale, scales[i].suffix);
			return t;
		}
	if (v == 0)
		return (number_text){"0"};
	if (v < 1e-3 || v >= 1e15) {
		const int e = (int)floor(log10(v) + 1e-9);
		snprintf(t.s, sizeof t.s, "%s%.3ge%d", sign, v / pow(10, e), e);
		return t;
	}
	int decimals = 0;
	for (double s = a->step; s > 0 && decimals < 6 && fabs(s - round(s)) > 1e-6 * s; s *= 10)
		decimals++;
	if (a->step > 0)
		snprintf(t.s, sizeof t.s, "%s%.*f", sign, decimals, v);
	else
		snprintf(t.s, sizeof t.s, "%s%.4g", sign, v);
	return t;
}
