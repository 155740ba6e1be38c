/* svg_plot.c: see svg_plot.h. From top to bottom: title, legend, name of the y axis, the plot, ticks, name of the x axis. */
#include "base/svg_plot.h"

#include <math.h>
#include <string.h>

#include "base/html.h"
#include "base/svg_axis.h"

#define FONT       11.0
#define EM         0.56 /* mean width of a Latin letter; a wide character is two */
#define DOT        4.0
#define MAX_BOXES  4096
#define FEW_POINTS 128 /* labels keep off the lines of a series of no more */
#define TICK_Y     34.0 /* pixels a tick needs */
#define LEGEND_ROW 17.0
#define ABOVE      15.0 /* room for labels between the plot and its legend, beside the name of the y axis */

typedef struct box {
	double x0, y0, x1, y1;
	bool soft; /* a piece of a line: covered only if there is no other place */
} box;

typedef struct canvas {
	FILE *f;
	const plot *p;
	axis x, y;
	box taken[MAX_BOXES]; /* dots and labels that are drawn, pieces of lines */
	int num_taken;
} canvas;

static bool drawable(const plot *p, const plot_series *s, size_t i) { return axis_takes(p->log_x, s->x[i]) && axis_takes(p->log_y, s->y[i]); }

/* ---- shared pieces ---- */

double svg_text_width(const char *text, double font_px) { return text_columns(text) * font_px * EM; }

void svg_text(FILE *f, double x, double y, const char *anchor, const char *css_class, const char *text)
{
	fprintf(f, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\"", x, y, anchor);
	if (css_class)
		fprintf(f, " class=\"%s\"", css_class);
	fputs(">", f);
	html_text(f, text);
	fputs("</text>\n", f);
}

void svg_open(FILE *f, int width, int height, const char *title)
{
	fprintf(f, "<figure><svg viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" role=\"img\" aria-label=\"", width, height, width, height);
	html_text(f, title);
	fputs("\">\n<text x=\"0.0\" y=\"14.0\" class=\"h\">", f);
	html_text_fit(f, title, (int)(width / (13 * EM)));
	fputs("</text>\n", f);
}

void svg_close(FILE *f) { fputs("</svg></figure>\n", f); }

void svg_legend(FILE *f, double *x, double *y, double right, const char *name, int colour, bool line, bool hollow)
{
	const double width = fmin(24 + svg_text_width(name, FONT), right);
	if (*x > 0 && *x + width > right) {
		*x = 0;
		*y += LEGEND_ROW;
	}
	if (line)
		fprintf(f, "<path class=\"l s%d\" d=\"M%.1f %.1fh16\"/>\n", colour, *x + 1, *y - 4);
	else if (hollow)
		fprintf(f, "<circle class=\"o s%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\"/>\n", colour, *x + 9, *y - 4, DOT);
	else
		fprintf(f, "<circle class=\"f%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\"/>\n", colour, *x + 9, *y - 4, DOT);
	fprintf(f, "<text x=\"%.1f\" y=\"%.1f\">", *x + 21, *y);
	html_text_fit(f, name, (int)((right - 21) / (FONT * EM)));
	fputs("</text>\n", f);
	*x += width + 14;
}

/* ---- places for labels ---- */

static void take(canvas *c, box b)
{
	if (c->num_taken < MAX_BOXES)
		c->taken[c->num_taken++] = b;
}

static bool is_free(const canvas *c, box b, bool on_lines)
{
	if (b.x0 < c->x.from || b.x1 > c->x.to || b.y0 < c->y.to - ABOVE || b.y1 > c->y.from)
		return false;
	for (int i = 0; i < c->num_taken; i++) {
		const box *t = &c->taken[i];
		if (!(t->soft && on_lines) && b.x0 < t->x1 && b.x1 > t->x0 && b.y0 < t->y1 && b.y1 > t->y0)
			return false;
	}
	return true;
}

/* Text whose baseline starts at the first of n places where nothing is; else at the first that is free but for lines; else nowhere. */
static void place(canvas *c, const double (*at)[2], int n, const char *css_class, const char *text)
{
	const double w = svg_text_width(text, FONT);
	for (int i = 0; i < 2 * n; i++) {
		const double x = at[i % n][0], y = at[i % n][1];
		const box b = {x - 1, y - FONT, x + w + 1, y + 3, false};
		if (!is_free(c, b, i >= n))
			continue;
		take(c, b);
		svg_text(c->f, x, y, "start", css_class, text);
		return;
	}
}

static void label_dot(canvas *c, double x, double y, const char *text)
{
	const double w = svg_text_width(text, FONT), at[][2] = {{x - w / 2, y - 9}, {x + 8, y + 4}, {x - w / 2, y + 17}, {x - w - 8, y + 4},
	                                                         {x + 6, y - 7}, {x - w - 6, y - 7}, {x + 6, y + 14}, {x - w - 6, y + 14}};
	place(c, at, (int)(sizeof at / sizeof *at), "halo", text);
}

/* Every dot and, where points are few, every line, so that labels drawn later or earlier keep off them. */
static void take_series(canvas *c, const plot_series *s)
{
	double last_x = NAN, last_y = NAN;
	for (size_t i = 0; i < s->count; i++) {
		const bool ok = drawable(c->p, s, i);
		const double x = ok ? axis_at(&c->x, s->x[i]) : NAN, y = ok ? axis_at(&c->y, s->y[i]) : NAN;
		if (ok && s->dots)
			take(c, (box){x - DOT, y - DOT, x + DOT, y + DOT, false});
		const int pieces = s->line && !s->faint && s->count <= FEW_POINTS && !isnan(last_x + x) ? (int)(hypot(x - last_x, y - last_y) / 6) : 0;
		for (int k = 0; k < pieces; k++) {
			const double px = last_x + (x - last_x) * (k + 0.5) / pieces, py = last_y + (y - last_y) * (k + 0.5) / pieces;
			take(c, (box){px - 2, py - 2, px + 2, py + 2, true});
		}
		last_x = x;
		last_y = y;
	}
}

/* ---- the axes ---- */

static void widen(double range[2], double v)
{
	range[0] = fmin(range[0], v);
	range[1] = fmax(range[1], v);
}

/* False when there is nothing to draw. */
static bool find_ranges(const plot *p, double x[2], double y[2])
{
	x[0] = y[0] = INFINITY;
	x[1] = y[1] = -INFINITY;
	for (int s = 0; s < p->num_series; s++)
		for (size_t i = 0; i < p->series[s].count; i++)
			if (drawable(p, &p->series[s], i)) {
				widen(x, p->series[s].x[i]);
				widen(y, p->series[s].y[i]);
			}
	if (isinf(x[0]))
		return false;
	for (int i = 0; p->x_range && i < 2; i++)
		widen(x, p->x_range[i]);
	for (int i = 0; i < p->num_vertical; i++)
		if (p->vertical[i].in_range && axis_takes(p->log_x, p->vertical[i].at))
			widen(x, p->vertical[i].at);
	for (int i = 0; i < p->num_horizontal; i++)
		if (p->horizontal[i].in_range && axis_takes(p->log_y, p->horizontal[i].at))
			widen(y, p->horizontal[i].at);
	return true;
}

static double widest_label(const axis *a)
{
	double w = 0;
	for (int i = 0; i < a->num_ticks; i++)
		w = fmax(w, svg_text_width(axis_label(a, a->ticks[i]).s, FONT));
	return w;
}

/* As many x ticks as their labels leave room for. */
static void fit_x(axis *a, const plot *p, const double range[2], double left, double right)
{
	for (int n = AXIS_MAX_TICKS; n >= 2; n--) {
		axis_fit(a, range[0], range[1], p->log_x, left, right, n);
		if (p->whole_x && a->step > 0 && a->step < 1)
			continue;
		const double need = widest_label(a) + 14;
		bool fits = true;
		for (int i = 1; i < a->num_ticks; i++)
			fits &= axis_at(a, a->ticks[i]) - axis_at(a, a->ticks[i - 1]) >= need;
		if (fits)
			return;
	}
}

static void draw_axes(canvas *c)
{
	FILE *f = c->f;
	for (int i = 0; i < c->y.num_ticks; i++) {
		const double y = axis_at(&c->y, c->y.ticks[i]);
		fprintf(f, "<path class=\"g\" d=\"M%.1f %.1fH%.1f\"/>\n", c->x.from, y, c->x.to);
		svg_text(f, c->x.from - 6, y + 4, "end", "m", axis_label(&c->y, c->y.ticks[i]).s);
	}
	fprintf(f, "<path class=\"a\" d=\"M%.1f %.1fH%.1f\"/>\n", c->x.from, c->y.from, c->x.to);
	for (int i = 0; i < c->x.num_ticks; i++) {
		const double x = axis_at(&c->x, c->x.ticks[i]);
		if (c->p->whole_x && c->x.ticks[i] != floor(c->x.ticks[i]))
			continue;
		fprintf(f, "<path class=\"a\" d=\"M%.1f %.1fv4\"/>\n", x, c->y.from);
		svg_text(f, x, c->y.from + 17, "middle", "m", axis_label(&c->x, c->x.ticks[i]).s);
	}
	svg_text(f, c->x.to, c->y.from + 33, "end", "m", c->p->x_label);
	svg_text(f, 0, c->y.to - 4, "start", "m", c->p->y_label);
	take(c, (box){0, c->y.to - 4 - FONT, svg_text_width(c->p->y_label, FONT) + 4, c->y.to, false});
}

/* ---- marks and data ---- */

static bool on_axis(const axis *a, double v)
{
	if (!axis_takes(a->log, v))
		return false;
	const double s = a->log ? log10(v) : v;
	return s >= a->lo && s <= a->hi;
}

static void draw_verticals(canvas *c)
{
	const plot *p = c->p;
	for (int i = 0; i < p->num_vertical; i++) {
		const plot_mark *m = &p->vertical[i];
		if (!on_axis(&c->x, m->at))
			continue;
		const double x = axis_at(&c->x, m->at);
		fprintf(c->f, "<path class=\"%s\" d=\"M%.1f %.1fV%.1f\"/>\n", m->in_range ? "d" : "g", x, c->y.to, c->y.from);
		if (!m->label)
			continue;
		/* above its line; beside it where that is taken */
		const double w = svg_text_width(m->label, FONT), above = c->y.to - 4, inside = c->y.to + FONT;
		const double at[][2] = {{x - w / 2, above}, {x, above}, {x - w, above}, {x + 4, inside}, {x - w - 4, inside}};
		place(c, at, 5, "m halo", m->label);
	}
}

static void draw_horizontals(canvas *c)
{
	const plot *p = c->p;
	for (int i = 0; i < p->num_horizontal; i++) {
		const plot_mark *m = &p->horizontal[i];
		if (!on_axis(&c->y, m->at))
			continue;
		const double y = axis_at(&c->y, m->at);
		fprintf(c->f, "<path class=\"d\" d=\"M%.1f %.1fH%.1f\"/>\n", c->x.from, y, c->x.to);
		if (!m->label)
			continue;
		/* the first free place from right to left, above the line or below */
		const double right = c->x.to - svg_text_width(m->label, FONT) - 4, stride = (right - c->x.from - 4) / 12;
		double at[26][2];
		for (int k = 0; k < 26; k++) {
			at[k][0] = right - k / 2 * stride;
			at[k][1] = k % 2 ? y + 13 : y - 4;
		}
		place(c, (const double (*)[2])at, 26, "m halo", m->label);
	}
}

static void draw_line(canvas *c, const plot_series *s)
{
	bool down = false;
	fprintf(c->f, "<path class=\"l s%d%s\" d=\"", s->colour, s->faint ? " faint" : "");
	for (size_t i = 0; i < s->count; i++) {
		if (!drawable(c->p, s, i)) {
			down = false;
			continue;
		}
		fprintf(c->f, "%s%.1f %.1f", down ? "L" : "M", axis_at(&c->x, s->x[i]), axis_at(&c->y, s->y[i]));
		down = true;
	}
	fputs("\"/>\n", c->f);
}

static void draw_dots(canvas *c, const plot_series *s)
{
	for (size_t i = 0; i < s->count; i++) {
		if (!drawable(c->p, s, i))
			continue;
		const double x = axis_at(&c->x, s->x[i]), y = axis_at(&c->y, s->y[i]);
		fprintf(c->f, "<circle class=\"%s%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\">", s->hollow ? "o s" : "f", s->colour, x, y, DOT);
		if (s->labels && s->labels[i]) {
			fputs("<title>", c->f);
			html_text(c->f, s->labels[i]);
			fputs("</title>", c->f);
		}
		fputs("</circle>\n", c->f);
	}
}

static void draw_labels(canvas *c)
{
	for (int k = 0; k < c->p->num_series; k++) {
		const plot_series *s = &c->p->series[k];
		for (size_t i = 0; s->labels && i < s->count; i++)
			if (s->labels[i] && drawable(c->p, s, i))
				label_dot(c, axis_at(&c->x, s->x[i]), axis_at(&c->y, s->y[i]), s->labels[i]);
	}
}

static void draw_data(canvas *c)
{
	const plot *p = c->p;
	for (int pass = 0; pass < 2; pass++)
		for (int i = 0; i < p->num_series; i++)
			if (p->series[i].line && p->series[i].faint == (pass == 0) && p->series[i].count)
				draw_line(c, &p->series[i]);
	for (int i = 0; i < p->num_series; i++)
		if (p->series[i].dots)
			draw_dots(c, &p->series[i]);
}

static double draw_legend(FILE *f, const plot *p)
{
	double x = 0, y = 34;
	bool any = false;
	for (int i = 0; i < p->num_series; i++) {
		const plot_series *s = &p->series[i];
		if (!s->name || !s->count)
			continue;
		svg_legend(f, &x, &y, p->width, s->name, s->colour, s->line && !s->dots, s->hollow);
		any = true;
	}
	return any ? y : 16;
}

bool svg_plot(FILE *f, const plot *p)
{
	canvas c = {.f = f, .p = p};
	double x[2], y[2];
	if (!find_ranges(p, x, y))
		return false;
	svg_open(f, p->width, p->height, p->title);
	const double top = draw_legend(f, p) + 22, bottom = p->height - 38;
	axis_fit(&c.y, y[0], y[1], p->log_y, bottom, top, (int)((bottom - top) / TICK_Y) + 1);
	fit_x(&c.x, p, x, widest_label(&c.y) + 10, p->width - 8);
	draw_axes(&c);
	for (int i = 0; i < p->num_series; i++)
		take_series(&c, &p->series[i]);
	draw_verticals(&c);
	draw_horizontals(&c);
	draw_data(&c);
	draw_labels(&c);
	svg_close(f);
	return true;
}
