/* config_value.c: see config_value.h. Every type's parser, printer, comparison and description side by side. Stateless. */
#include "base/config_value.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

typedef struct unit {
	const char *name;
	double factor;
} unit;

/* Largest first: printing takes the first that divides the value. */
static const unit DURATION_UNITS[] = {{"h", 3600e9}, {"m", 60e9}, {"s", 1e9}, {"ms", 1e6}, {"us", 1e3}, {"ns", 1}};
static const unit BYTE_UNITS[] = {{"TiB", 1099511627776.0}, {"GiB", 1073741824}, {"MiB", 1048576}, {"KiB", 1024},
                                  {"TB", 1e12},             {"GB", 1e9},         {"MB", 1e6},      {"kB", 1e3},
                                  {"B", 1},                 {"", 1}};
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static void *field(const config_key *k, void *cfg)
{
	return (char *)cfg + k->offset;
}

static const void *const_field(const config_key *k, const void *cfg)
{
	return (const char *)cfg + k->offset;
}

bool config_value_is_null(const char *text)
{
	return !*text || strcmp(text, "~") == 0 || strcmp(text, "null") == 0 || strcmp(text, "Null") == 0 ||
	       strcmp(text, "NULL") == 0;
}

/* Decodes one code point; 0 on invalid UTF-8 (and on NUL, which no value may hold). *p moves behind it. */
static uint32_t next_code_point(const unsigned char **p)
{
	static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
	const unsigned char *s = *p;
	int n = s[0] < 0x80 ? 1 : (s[0] & 0xe0) == 0xc0 ? 2 : (s[0] & 0xf0) == 0xe0 ? 3 : (s[0] & 0xf8) == 0xf0 ? 4 : 0;
	if (n == 0)
		return 0;
	uint32_t c = n == 1 ? s[0] : s[0] & (0xffu >> (n + 1));
	for (int i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (s[i] & 0x3f);
	}
	if (c > 0x10ffff || (c >= 0xd800 && c < 0xe000) || (n > 1 && c < smallest[n]))
		return 0;
	*p = s + n;
	return c;
}

static bool is_utf8(const char *text)
{
	const unsigned char *p = (const unsigned char *)text;
	while (*p)
		if (!next_code_point(&p))
			return false;
	return true;
}

/* A decimal number, nothing else (no "inf", "nan", hexadecimal); *end is where it stops. */
static bool parse_number(const char *text, double *out, const char **end)
{
	const char *p = text + (*text == '-' || *text == '+');
	size_t digits = strspn(p, "0123456789");
	p += digits;
	if (*p == '.') {
		size_t fraction = strspn(++p, "0123456789");
		p += fraction;
		digits += fraction;
	}
	if (digits == 0)
		return false;
	if (*p == 'e' || *p == 'E') { /* an exponent needs digits; "1eB" stops before the e */
		const char *e = p + 1 + (p[1] == '-' || p[1] == '+');
		if (*e >= '0' && *e <= '9')
			p = e + strspn(e, "0123456789");
	}
	*end = p;
	*out = strtod(text, NULL);
	return isfinite(*out);
}

static bool parse_integer(const config_key *k, const char *text, int64_t *out)
{
	const char *digits = text + (*text == '-' || *text == '+');
	char *end;
	if (*digits < '0' || *digits > '9')
		return false;
	errno = 0;
	long long v = strtoll(text, &end, 10);
	*out = v;
	return errno == 0 && *end == '\0' && (double)v >= k->min && (double)v <= k->max;
}

/* Number and unit to a whole count of the smallest unit; false when it is not one, or beyond 2^63. */
static bool parse_with_unit(const char *text, const unit *units, size_t count, bool unitless, double *out)
{
	const char *end;
	double v;
	if (!parse_number(text, &v, &end))
		return false;
	if (!*end && !unitless)
		return v == 0 ? (*out = 0, true) : false; /* zero is zero in any unit */
	for (size_t i = 0; i < count; i++)
		if (strcmp(end, units[i].name) == 0) {
			double whole = nearbyint(v * units[i].factor);
			*out = whole;
			/* 1.1ms is 1100000 ns up to rounding; 0.3 bytes is nothing. */
			return fabs(whole) < 9.2e18 && fabs(whole - v * units[i].factor) <= 1e-9 * fabs(whole);
		}
	return false;
}

static bool parse_bool(const char *text, bool *out)
{
	if (strcmp(text, "true") == 0 || strcmp(text, "True") == 0 || strcmp(text, "TRUE") == 0)
		return *out = true, true;
	if (strcmp(text, "false") == 0 || strcmp(text, "False") == 0 || strcmp(text, "FALSE") == 0)
		return *out = false, true;
	return false;
}

static bool parse_choice(const config_key *k, const char *text, int *out)
{
	for (int i = 0; k->choices[i]; i++)
		if (strcmp(text, k->choices[i]) == 0)
			return *out = i, true;
	return false;
}

static wn_code assign_string(const config_key *k, void *cfg, const char *text, scalar_style style)
{
	char **slot = field(k, cfg);
	if ((style == SCALAR_PLAIN && config_value_is_null(text)) || !is_utf8(text))
		return WN_INVALID;
	char *copy = strdup(text);
	if (!copy)
		return WN_NOMEM;
	free(*slot);
	*slot = copy;
	return WN_OK;
}

wn_code config_value_assign(const config_key *k, void *cfg, const char *text, size_t len, scalar_style style)
{
	int64_t i;
	double d;
	const char *end;
	if (strlen(text) != len) /* a NUL inside would hide what follows it */
		return WN_INVALID;
	if (k->type == CONFIG_TYPE_STRING)
		return assign_string(k, cfg, text, style);
	if (k->type == CONFIG_TYPE_ENUM) /* a name, quoted or not */
		return parse_choice(k, text, field(k, cfg)) ? WN_OK : WN_INVALID;
	if (style == SCALAR_QUOTED)
		return WN_INVALID;
	switch (k->type) {
	case CONFIG_TYPE_BOOL:
		return parse_bool(text, field(k, cfg)) ? WN_OK : WN_INVALID;
	case CONFIG_TYPE_INT:
		if (!parse_integer(k, text, &i) || i < INT32_MIN || i > INT32_MAX)
			return WN_INVALID;
		*(int *)field(k, cfg) = (int)i;
		return WN_OK;
	case CONFIG_TYPE_INT64:
		if (!parse_integer(k, text, &i))
			return WN_INVALID;
		*(int64_t *)field(k, cfg) = i;
		return WN_OK;
	case CONFIG_TYPE_DOUBLE:
		if (!parse_number(text, &d, &end) || *end || d < k->min || d > k->max)
			return WN_INVALID;
		*(double *)field(k, cfg) = d;
		return WN_OK;
	case CONFIG_TYPE_DURATION:
		if (!parse_with_unit(text, DURATION_UNITS, COUNT(DURATION_UNITS), false, &d) || d < k->min * 1e9 || d > k->max * 1e9)
			return WN_INVALID;
		*(int64_t *)field(k, cfg) = (int64_t)d;
		return WN_OK;
	case CONFIG_TYPE_BYTES:
		if (!parse_with_unit(text, BYTE_UNITS, COUNT(BYTE_UNITS), true, &d) || d < 0 || d < k->min || d > k->max)
			return WN_INVALID;
		*(size_t *)field(k, cfg) = (size_t)d;
		return WN_OK;
	default:
		return WN_INVALID;
	}
}

static void free_list(string_list *l)
{
	for (size_t i = 0; i < l->count; i++)
		free(l->items[i]);
	free(l->items);
	*l = (string_list){0};
}

void config_value_assign_list(const config_key *k, void *cfg, char **items, size_t count)
{
	string_list *l = field(k, cfg);
	free_list(l);
	*l = (string_list){items, count};
}

void config_value_free(const config_key *k, void *cfg)
{
	if (k->type == CONFIG_TYPE_STRING) {
		char **slot = field(k, cfg);
		free(*slot);
		*slot = NULL;
	} else if (k->type == CONFIG_TYPE_STRING_LIST) {
		free_list(field(k, cfg));
	}
}

static bool same_string(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

bool config_value_equal(const config_key *k, const void *a, const void *b)
{
	const void *x = const_field(k, a), *y = const_field(k, b);
	const string_list *l = x, *m = y;
	switch (k->type) {
	case CONFIG_TYPE_BOOL:
		return *(const bool *)x == *(const bool *)y;
	case CONFIG_TYPE_INT:
	case CONFIG_TYPE_ENUM:
		return *(const int *)x == *(const int *)y;
	case CONFIG_TYPE_INT64:
	case CONFIG_TYPE_DURATION:
		return *(const int64_t *)x == *(const int64_t *)y;
	case CONFIG_TYPE_DOUBLE:
		return *(const double *)x == *(const double *)y;
	case CONFIG_TYPE_BYTES:
		return *(const size_t *)x == *(const size_t *)y;
	case CONFIG_TYPE_STRING:
		return same_string(*(char *const *)x, *(char *const *)y);
	case CONFIG_TYPE_STRING_LIST:
		if (l->count != m->count)
			return false;
		for (size_t i = 0; i < l->count; i++)
			if (!same_string(l->items[i], m->items[i]))
				return false;
		return true;
	case CONFIG_TYPE_SECTION:
		break;
	}
	return true;
}

/* ---- text for people ---- */

static void format_number(char *buf, size_t size, double v)
{
	for (int digits = 1; digits <= 17; digits++) {
		snprintf(buf, size, "%.*g", digits, v);
		if (strtod(buf, NULL) == v)
			break;
	}
	if (v == nearbyint(v) && fabs(v) < 1e16) /* 65536, not 6.5536e+04 */
		snprintf(buf, size, "%.0f", v);
}

static void format_with_unit(char *buf, size_t size, double v, const unit *units, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if ((v != 0 || units[i].factor == 1) && fmod(v, units[i].factor) == 0) {
			snprintf(buf, size, "%.0f%s", v / units[i].factor, units[i].factor == 1 && units == BYTE_UNITS ? "" : units[i].name);
			return;
		}
}

const char *config_value_expected(const config_key *k, char *buf, size_t size)
{
	char lo[40] = "", hi[40] = "";
	size_t n;
	switch (k->type) {
	case CONFIG_TYPE_SECTION:
		snprintf(buf, size, "a section of keys");
		break;
	case CONFIG_TYPE_BOOL:
		snprintf(buf, size, "true or false");
		break;
	case CONFIG_TYPE_INT:
	case CONFIG_TYPE_INT64:
	case CONFIG_TYPE_DOUBLE:
		format_number(lo, sizeof lo, k->min);
		format_number(hi, sizeof hi, k->max);
		snprintf(buf, size, "%s from %s to %s", k->type == CONFIG_TYPE_DOUBLE ? "a number" : "an integer", lo, hi);
		break;
	case CONFIG_TYPE_STRING:
		snprintf(buf, size, "a string");
		break;
	case CONFIG_TYPE_ENUM:
		n = (size_t)snprintf(buf, size, "one of");
		for (int i = 0; k->choices[i] && n < size; i++)
			n += (size_t)snprintf(buf + n, size - n, "%s %s", i ? "," : "", k->choices[i]);
		break;
	case CONFIG_TYPE_DURATION:
		format_with_unit(lo, sizeof lo, nearbyint(k->min * 1e9), DURATION_UNITS, COUNT(DURATION_UNITS));
		format_with_unit(hi, sizeof hi, nearbyint(k->max * 1e9), DURATION_UNITS, COUNT(DURATION_UNITS));
		snprintf(buf, size, "a duration from %s to %s (units ns us ms s m h)", lo, hi);
		break;
	case CONFIG_TYPE_BYTES:
		format_with_unit(lo, sizeof lo, nearbyint(k->min), BYTE_UNITS, 4);
		format_with_unit(hi, sizeof hi, nearbyint(k->max), BYTE_UNITS, 4);
		if (!*lo)
			format_number(lo, sizeof lo, k->min);
		if (!*hi)
			format_number(hi, sizeof hi, k->max);
		snprintf(buf, size, "a size from %s to %s (units KiB MiB GiB TiB)", lo, hi);
		break;
	case CONFIG_TYPE_STRING_LIST:
		snprintf(buf, size, "a list of strings");
		break;
	}
	return buf;
}

const char *config_value_found(const config_key *k, const char *text, scalar_style style, char *buf, size_t size)
{
	bool text_type = k && (k->type == CONFIG_TYPE_STRING || k->type == CONFIG_TYPE_ENUM);
	/* A secret must not reach a log through a message. */
	if (k && k->flags & CONFIG_SECRET)
		snprintf(buf, size, "an unsuitable value");
	else if (style == SCALAR_PLAIN && config_value_is_null(text))
		snprintf(buf, size, "nothing");
	else
		snprintf(buf, size, "%s\"%.40s%s\"", style == SCALAR_QUOTED && !text_type ? "the quoted string " : "", text,
		         strlen(text) > 40 ? "…" : "");
	return buf;
}

/* Words that YAML readers turn into something else than a string. */
static bool is_reserved(const char *s)
{
	static const char *const word[] = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"};
	for (size_t i = 0; i < COUNT(word); i++)
		if (strcasecmp(s, word[i]) == 0)
			return true;
	return false;
}

static void print_string(const char *s, FILE *out)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./-";
	bool letter = (*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || *s == '/';
	if (letter && s[strspn(s, plain)] == '\0' && !is_reserved(s)) {
		fputs(s, out);
		return;
	}
	const unsigned char *p = (const unsigned char *)s;
	fputc('"', out);
	while (*p) {
		const unsigned char *start = p;
		uint32_t c = next_code_point(&p);
		if (c == 0) /* a caller's own bytes; what was parsed is valid */
			break;
		if (c == '"' || c == '\\')
			fprintf(out, "\\%c", (int)c);
		else if (c == '\n')
			fputs("\\n", out);
		else if (c < 0x20 || (c >= 0x7f && c < 0xa0))
			fprintf(out, "\\x%02x", (unsigned)c);
		else if (c == 0x2028 || c == 0x2029 || c == 0xfeff || c == 0xfffe || c == 0xffff)
			fprintf(out, "\\u%04x", (unsigned)c);
		else
			fwrite(start, 1, (size_t)(p - start), out);
	}
	fputc('"', out);
}

static void print_list(const string_list *l, bool secret, FILE *out)
{
	fputc('[', out);
	for (size_t i = 0; i < l->count; i++) {
		if (i)
			fputs(", ", out);
		print_string(secret && *l->items[i] ? "***" : l->items[i], out);
	}
	fputc(']', out);
}

void config_value_print(const config_key *k, const void *cfg, FILE *out)
{
	char buf[64] = "";
	bool secret = k->flags & CONFIG_SECRET;
	if (!cfg) {
		if (k->type == CONFIG_TYPE_STRING)
			print_string(k->default_value, out);
		else
			fputs(k->default_value, out);
		return;
	}
	const void *v = const_field(k, cfg);
	const char *s;
	switch (k->type) {
	case CONFIG_TYPE_SECTION:
		break;
	case CONFIG_TYPE_BOOL:
		fputs(*(const bool *)v ? "true" : "false", out);
		break;
	case CONFIG_TYPE_INT:
		fprintf(out, "%d", *(const int *)v);
		break;
	case CONFIG_TYPE_INT64:
		fprintf(out, "%" PRId64, *(const int64_t *)v);
		break;
	case CONFIG_TYPE_DOUBLE:
		format_number(buf, sizeof buf, *(const double *)v);
		fputs(buf, out);
		break;
	case CONFIG_TYPE_ENUM:
		fputs(k->choices[*(const int *)v], out);
		break;
	case CONFIG_TYPE_DURATION:
		format_with_unit(buf, sizeof buf, (double)*(const int64_t *)v, DURATION_UNITS, COUNT(DURATION_UNITS));
		fputs(buf, out);
		break;
	case CONFIG_TYPE_BYTES:
		format_with_unit(buf, sizeof buf, (double)*(const size_t *)v, BYTE_UNITS, 4);
		if (!*buf)
			snprintf(buf, sizeof buf, "%zu", *(const size_t *)v);
		fputs(buf, out);
		break;
	case CONFIG_TYPE_STRING:
		s = *(char *const *)v;
		print_string(!s ? "" : secret && *s ? "***" : s, out);
		break;
	case CONFIG_TYPE_STRING_LIST:
		print_list(v, secret, out);
		break;
	}
}
