/* number_text.c: see number_text.h. */
#include "base/number_text.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define UNKNOWN ((number_text){"–"})
#define MINUS   "\u2212"
#define SPACE   "\u00A0" /* a number and its unit stay on one line */

static number_text significant(double v, const char *prefix, const char *unit)
{
	number_text t;
	const double a = fabs(v);
	const int decimals = a < 9.995 ? 2 : a < 99.95 ? 1 : 0;
	snprintf(t.s, sizeof t.s, "%s%.*f%s%s%.12s", v < 0 ? MINUS : "", decimals, a, *prefix || *unit ? SPACE : "", prefix, unit);
	return t;
}

number_text text_si(double v, const char *unit)
{
	static const struct { double scale; const char *prefix; } scales[] = {{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}};
	static const struct { double scale; const char *prefix; } parts[] = {{1, ""}, {1e-3, "m"}, {1e-6, "µ"}, {1e-9, "n"}};
	number_text t;
	const double a = fabs(v);
	if (isnan(v))
		return UNKNOWN;
	if (a < 999.5 && a == floor(a)) {
		snprintf(t.s, sizeof t.s, "%s%.0f%s%.12s", v < 0 ? MINUS : "", a, *unit ? SPACE : "", unit);
		return t;
	}
	if (a >= 9.995e14) {
		snprintf(t.s, sizeof t.s, "%.2e%s%.12s", v, *unit ? SPACE : "", unit);
		return t;
	}
	for (size_t i = 0; i < sizeof scales / sizeof *scales; i++)
		if (a >= 0.9995 * scales[i].scale)
			return significant(v / scales[i].scale, scales[i].prefix, unit);
	if (!strcmp(unit, "J") || !strcmp(unit, "W"))
		for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
			if (a >= 0.9995 * parts[i].scale)
				return significant(v / parts[i].scale, parts[i].prefix, unit);
	if (a >= 0.1)
		return significant(v, "", unit);
	snprintf(t.s, sizeof t.s, "%.2e%s%.12s", v, *unit ? SPACE : "", unit);
	return t;
}

number_text text_fixed(double v, int decimals)
{
	number_text t;
	if (isnan(v))
		return UNKNOWN;
	if (fabs(v) >= 1e12 || (v != 0 && fabs(v) < 0.5 * pow(10, -decimals)))
		snprintf(t.s, sizeof t.s, "%.2e", v);
	else
		snprintf(t.s, sizeof t.s, "%s%.*f", v < 0 ? MINUS : "", decimals, fabs(v));
	return t;
}

number_text text_ms(double v)
{
	return isnan(v) ? UNKNOWN : significant(v, "", "ms");
}

number_text text_share(double v)
{
	number_text t;
	if (isnan(v))
		return UNKNOWN;
	snprintf(t.s, sizeof t.s, "%s%.1f" SPACE "%%", v < 0 ? MINUS : "", fabs(100 * v));
	return t;
}

number_text text_difference(double v, int decimals)
{
	number_text t;
	if (isnan(v))
		return UNKNOWN;
	char digits[40];
	snprintf(digits, sizeof digits, "%.*f", decimals, fabs(v));
	const bool zero = strspn(digits, "0.") == strlen(digits);
	snprintf(t.s, sizeof t.s, "%s%.40s", zero ? "±" : v < 0 ? MINUS : "+", digits);
	return t;
}

number_text text_points(double v)
{
	number_text t = text_difference(100 * v, 1);
	if (!isnan(v))
		strncat(t.s, SPACE "points", sizeof t.s - strlen(t.s) - 1);
	return t;
}

number_text text_ratio(double v)
{
	number_text t;
	if (isnan(v) || isinf(v))
		return UNKNOWN;
	snprintf(t.s, sizeof t.s, v < 9.995 ? "%.2f×" : v < 9999.5 ? "%.1f×" : "%.2e×", v);
	return t;
}

number_text text_seconds(double v)
{
	number_text t;
	if (isnan(v))
		return UNKNOWN;
	if (v < 100)
		snprintf(t.s, sizeof t.s, v < 10 ? "%.1f" SPACE "s" : "%.0f" SPACE "s", v);
	else if (v < 6000)
		snprintf(t.s, sizeof t.s, "%.1f" SPACE "min", v / 60);
	else
		snprintf(t.s, sizeof t.s, "%.1f" SPACE "h", v / 3600);
	return t;
}

number_text text_mean_sd(double mean, double sd, int decimals)
{
	number_text t = text_fixed(mean, decimals), s = text_fixed(sd, decimals);
	if (!isnan(mean) && !isnan(sd)) {
		strncat(t.s, SPACE "±" SPACE, sizeof t.s - strlen(t.s) - 1);
		strncat(t.s, s.s, sizeof t.s - strlen(t.s) - 1);
	}
	return t;
}
