/* html.c: see html.h. */
#include "base/html.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* Colours are variables, so that plots follow the scheme too. --c0: what the page is about, --c1: what it is compared with, then further curves. */
#define LIGHT                                                                                                         \
	"--bg:#fff;--fg:#1b1f24;--muted:#59636e;--line:#d5dae0;--panel:#f5f7f9;--c0:#0b6fb8;--c1:#8a95a1;--c2:#c4570a;" \
	"--c3:#12805c;--c4:#8a4fb5;--c5:#a77a00;--c6:#b3304b;--c7:#13808f;"
#define DARK                                                                                                             \
	"--bg:#14181d;--fg:#e4e8ec;--muted:#9aa5b1;--line:#353e48;--panel:#1c2229;--c0:#5aaef0;--c1:#84909c;--c2:#f0914a;" \
	"--c3:#46c295;--c4:#c292ea;--c5:#e0b84c;--c6:#f07a92;--c7:#5cc7d0;"

static const char STYLE[] =
	":root{color-scheme:light dark;" LIGHT "}\n"
	"@media (prefers-color-scheme:dark){:root{" DARK "}}\n"
	"*{box-sizing:border-box}\n"
	"body{margin:2rem auto;max-width:68rem;padding:0 1rem;background:var(--bg);color:var(--fg);"
	"font:16px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans','Noto Sans CJK SC',sans-serif}\n"
	"h1{font-size:1.6rem;line-height:1.25;margin:0 0 .3rem;overflow-wrap:anywhere}\n"
	"h2{font-size:1.2rem;margin:2.4rem 0 .6rem;padding-top:.6rem;border-top:1px solid var(--line)}\n"
	"p{margin:.5rem 0;overflow-wrap:anywhere}.note{color:var(--muted);font-size:.875rem}\n"
	".cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(11rem,1fr));gap:.8rem;margin:1rem 0}\n"
	".card{background:var(--panel);border:1px solid var(--line);border-radius:8px;padding:.7rem .9rem}\n"
	".card b{display:block;font-size:1.55rem;line-height:1.2;font-weight:600}.card span{font-size:.85rem;color:var(--muted)}\n"
	".wide{overflow-x:auto}\n"
	"table{border-collapse:collapse;font-size:.875rem;margin:.8rem 0;font-variant-numeric:tabular-nums}\n"
	"th,td{padding:.28rem .55rem;border-bottom:1px solid var(--line);text-align:right;vertical-align:top;white-space:nowrap;"
	"unicode-bidi:isolate}\n"
	"thead th{vertical-align:bottom;color:var(--muted);font-weight:600;white-space:normal}\n"
	"tbody th{font-weight:400}th:first-child{text-align:left;white-space:normal;overflow-wrap:break-word;min-width:7rem;max-width:24rem}\n"
	".t{text-align:left}td.t{white-space:normal;overflow-wrap:break-word;max-width:42rem}\n"
	"figure{margin:1rem 0}.grid{display:flex;flex-wrap:wrap;gap:.5rem 1.2rem}.grid figure{margin:.4rem 0}\n"
	"svg{display:block;max-width:100%;height:auto;font:11px system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans',"
	"'Noto Sans CJK SC',sans-serif}\n"
	"svg text{fill:var(--fg)}svg .m{fill:var(--muted)}svg .h{font-size:13px;font-weight:600}\n"
	"svg .g{stroke:var(--line);fill:none}svg .a{stroke:var(--muted);fill:none}svg .d{stroke:var(--muted);stroke-dasharray:4 3;fill:none}\n"
	"svg .l{fill:none;stroke-width:1.8;stroke-linejoin:round}svg .faint{stroke-width:1;opacity:.3}svg .o{fill:var(--bg);stroke-width:1.6}\n"
	".s0{stroke:var(--c0)}.s1{stroke:var(--c1)}.s2{stroke:var(--c2)}.s3{stroke:var(--c3)}.s4{stroke:var(--c4)}.s5{stroke:var(--c5)}"
	".s6{stroke:var(--c6)}.s7{stroke:var(--c7)}\n"
	".f0{fill:var(--c0)}.f1{fill:var(--c1)}.f2{fill:var(--c2)}.f3{fill:var(--c3)}.f4{fill:var(--c4)}.f5{fill:var(--c5)}.f6{fill:var(--c6)}"
	".f7{fill:var(--c7)}svg .p{opacity:.4}\n"
	"svg .halo{paint-order:stroke;stroke:var(--bg);stroke-width:3px}\n"
	"pre{background:var(--panel);border:1px solid var(--line);border-radius:6px;padding:.8rem;overflow:auto;font-size:.8rem}\n"
	"summary{cursor:pointer;color:var(--muted)}\n"
	/* last: it overrules what stands above */
	"@page{margin:14mm}\n"
	"@media print{:root{color-scheme:light;" LIGHT "}body{max-width:none;margin:0;padding:0;font-size:10pt}"
	"figure,tr,.card{break-inside:avoid}h2{break-after:avoid}details{display:none}.wide{overflow:visible}"
	"table{font-size:7.5pt}th,td{padding:.1rem .28rem}th:first-child{min-width:0}"
	".grid{display:block}.grid figure{display:inline-block;width:48%;margin-right:.5%}}\n";

/* ---- text ---- */

/* One character of UTF-8 at s: its code point and how many bytes; -1 and 1 byte when it is none (overlong, surrogate, cut). */
static int32_t next_character(const char *s, int *bytes)
{
	const unsigned char *u = (const unsigned char *)s;
	const int want = u[0] < 0x80 ? 1 : u[0] < 0xC2 ? 0 : u[0] < 0xE0 ? 2 : u[0] < 0xF0 ? 3 : u[0] < 0xF5 ? 4 : 0;
	*bytes = 1;
	if (want == 1)
		return u[0];
	int32_t c = want ? u[0] & (0x7F >> want) : -1;
	for (int i = 1; i < want; i++) {
		if ((u[i] & 0xC0) != 0x80) /* the final NUL too */
			return -1;
		c = c << 6 | (u[i] & 0x3F);
	}
	if (c < 0 || (want == 3 && c < 0x800) || (want == 4 && (c < 0x10000 || c > 0x10FFFF)) || (c >= 0xD800 && c < 0xE000))
		return -1;
	*bytes = want;
	return c;
}

static bool in_xml(int32_t c) { return c >= 0x20 ? c != 0x7F && c != 0xFFFE && c != 0xFFFF : c == '\t' || c == '\n' || c == '\r'; }

static int columns_of(int32_t c)
{
	return c >= 0x1100 && (c <= 0x115F || (c >= 0x2E80 && c <= 0xA4CF) || (c >= 0xAC00 && c <= 0xD7A3) || (c >= 0xF900 && c <= 0xFAFF) ||
	                       (c >= 0xFE30 && c <= 0xFE6F) || (c >= 0xFF00 && c <= 0xFF60) || (c >= 0x1F300 && c <= 0x1FAFF) || c >= 0x20000)
	               ? 2
	               : 1;
}

static void put_character(FILE *f, const char *s, int bytes, int32_t c)
{
	switch (c) {
	case '&': fputs("&amp;", f); break;
	case '<': fputs("&lt;", f); break;
	case '>': fputs("&gt;", f); break;
	case '"': fputs("&quot;", f); break;
	case '\'': fputs("&#39;", f); break;
	default:
		if (in_xml(c))
			fwrite(s, 1, (size_t)bytes, f);
		else
			fputs("\xEF\xBF\xBD", f);
	}
}

int text_columns(const char *text)
{
	int n = 0, bytes;
	for (const char *s = text; *s && n < 1 << 20; s += bytes)
		n += columns_of(next_character(s, &bytes));
	return n;
}

void html_text_fit(FILE *f, const char *text, int columns)
{
	const bool fits = text_columns(text) <= columns;
	int used = 0, bytes;
	for (const char *s = text; *s; s += bytes) {
		const int32_t c = next_character(s, &bytes);
		used += columns_of(c);
		if (!fits && used > columns - 1) {
			fputs("…", f);
			return;
		}
		put_character(f, s, bytes, c);
	}
}

void html_text(FILE *f, const char *text)
{
	int bytes;
	for (const char *s = text; *s; s += bytes) {
		const int32_t c = next_character(s, &bytes);
		put_character(f, s, bytes, c);
	}
}

/* ---- the page ---- */

void html_page_open(FILE *f, const char *title)
{
	fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
	      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>\n"
	      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>", f);
	html_text(f, title);
	fprintf(f, "</title>\n<style>\n%s</style>\n</head>\n<body>\n<h1>", STYLE);
	html_text(f, title);
	fputs("</h1>\n", f);
}

void html_page_close(FILE *f) { fputs("</body>\n</html>\n", f); }

void html_section_open(FILE *f, const char *id, const char *title)
{
	fprintf(f, "<section id=\"%s\">\n<h2>", id);
	html_text(f, title);
	fputs("</h2>\n", f);
}

void html_section_close(FILE *f) { fputs("</section>\n", f); }

static void formatted(FILE *f, const char *fmt, va_list args)
{
	char text[4096];
	vsnprintf(text, sizeof text, fmt, args);
	html_text(f, text);
}

void html_paragraph(FILE *f, const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	fputs("<p>", f);
	formatted(f, fmt, args);
	fputs("</p>\n", f);
	va_end(args);
}

void html_note(FILE *f, const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	fputs("<p class=\"note\">", f);
	formatted(f, fmt, args);
	fputs("</p>\n", f);
	va_end(args);
}

void html_table_open(FILE *f, const char *const *headers)
{
	fputs("<div class=\"wide\"><table>\n<thead><tr>", f);
	for (; *headers; headers++) {
		const bool text = **headers == '|';
		fputs(text ? "<th class=\"t\">" : "<th>", f);
		html_text(f, *headers + text);
		fputs("</th>", f);
	}
	fputs("</tr></thead>\n<tbody>\n", f);
}

void html_table_close(FILE *f) { fputs("</tbody></table></div>\n", f); }

void html_row_open(FILE *f, const char *name)
{
	fputs("<tr><th>", f);
	html_text(f, name);
	fputs("</th>", f);
}

void html_cell(FILE *f, const char *text)
{
	fputs("<td class=\"t\">", f);
	html_text(f, text);
	fputs("</td>", f);
}

void html_cell_number(FILE *f, number_text t)
{
	fputs("<td>", f);
	html_text(f, t.s);
	fputs("</td>", f);
}

void html_row_close(FILE *f) { fputs("</tr>\n", f); }

void html_cards_open(FILE *f) { fputs("<div class=\"cards\">\n", f); }

void html_card(FILE *f, const char *figure, const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	fputs("<div class=\"card\"><b>", f);
	html_text(f, figure);
	fputs("</b><span>", f);
	formatted(f, fmt, args);
	fputs("</span></div>\n", f);
	va_end(args);
}

void html_cards_close(FILE *f) { fputs("</div>\n", f); }
