/* report_html.c: the report as one page: verdict, latency over time, its distribution, what became of the requests; see
 * report.h. */
#include "load/report.h"

#include <math.h>
#include <stdlib.h>

#include "base/html.h"
#include "base/svg_plot.h"

#define WIDTH  1000
#define HEIGHT 320
#define FEW    40 /* points that are drawn as dots too */

/* Columns of numbers for the plots; NULL after a failed allocation, and the plot is then left out. */
static double *column(size_t n) { return calloc(n ? n : 1, sizeof(double)); }

static number_text milliseconds(double ms)
{
	number_text t;
	snprintf(t.s, sizeof t.s, "%s", isinf(ms) ? "failure" : text_ms(ms).s);
	return t;
}

/* ---- plots ---- */

/* A thin line where every swap began. */
static plot_mark *swap_marks(const report *r, int *count)
{
	const swap_log *l = &r->run->swaps;
	plot_mark *marks = calloc(l->count ? l->count : 1, sizeof *marks);
	*count = 0;
	for (size_t i = 0; marks && i < l->count; i++)
		marks[(*count)++] = (plot_mark){.at = (double)(l->entries[i].begun_ns - r->run->measured_from_ns) / 1e9,
						.label = i ? NULL : "swaps"};
	return marks;
}

static void plot_latency(FILE *f, const report *r)
{
	const run_stats *s = r->stats;
	const size_t n = s->num_buckets;
	double *x = column(n), *p50 = column(n), *p99 = column(n), *max = column(n);
	int num_marks;
	plot_mark *marks = swap_marks(r, &num_marks);
	const plot_mark target = {.at = r->options->target_ms, .label = "target", .in_range = true};
	const double whole[] = {0, s->window_s};
	if (x && p50 && p99 && max && marks) {
		for (size_t i = 0; i < n; i++) {
			x[i] = s->buckets[i].start_s + s->bucket_s / 2;
			p50[i] = s->buckets[i].p50;
			p99[i] = s->buckets[i].p99;
			max[i] = s->buckets[i].max;
		}
		const plot_series series[] = {{"median", 0, n, x, p50, .line = true, .dots = n <= FEW},
					      {"p99", 2, n, x, p99, .line = true, .dots = n <= FEW},
					      {"slowest", 1, n, x, max, .line = true, .faint = true}};
		svg_plot(f, &(plot){.title = "Latency by the moment a request was due",
				    .x_label = "seconds",
				    .y_label = "ms, answers (2xx)",
				    .width = WIDTH,
				    .height = HEIGHT,
				    .log_y = true,
				    .x_range = whole,
				    .series = series,
				    .num_series = 3,
				    .horizontal = &target,
				    .num_horizontal = 1,
				    .vertical = marks,
				    .num_vertical = num_marks});
	}
	free(x);
	free(p50);
	free(p99);
	free(max);
	free(marks);
}

static void plot_rates(FILE *f, const report *r)
{
	const run_stats *s = r->stats;
	const size_t n = s->num_buckets;
	double *x = column(n), *due = column(n), *good = column(n), *failed = column(n);
	if (x && due && good && failed) {
		for (size_t i = 0; i < n; i++) {
			const time_bucket *b = &s->buckets[i];
			x[i] = b->start_s + s->bucket_s / 2;
			due[i] = (double)b->scheduled / s->bucket_s;
			good[i] = (double)b->good / s->bucket_s;
			failed[i] = s->failed ? (double)b->failed / s->bucket_s : NAN;
		}
		const plot_series series[] = {
		    {"due", 1, n, x, due, .line = true, .dots = n <= FEW},
		    {"answered within the target", 0, n, x, good, .line = true, .dots = n <= FEW},
		    {s->failed ? "failed" : NULL, 6, n, x, failed, .line = true, .dots = n <= FEW}};
		svg_plot(f, &(plot){.title = "Requests by the moment they were due",
				    .x_label = "seconds",
				    .y_label = "requests/s",
				    .width = WIDTH,
				    .height = 220,
				    .series = series,
				    .num_series = 3});
	}
	free(x);
	free(due);
	free(good);
	free(failed);
}

static void plot_distribution(FILE *f, const report *r)
{
	const run_stats *s = r->stats;
	double *x = column(s->num_points), *y = column(s->num_points);
	const plot_mark target = {.at = r->options->target_ms, .label = "target", .in_range = true};
	static const plot_mark ranks[] = {
	    {10, "p90"}, {100, "p99"}, {1000, "p99.9"}, {10000, "p99.99"}, {100000, "p99.999"}};
	if (x && y) {
		for (size_t i = 0; i < s->num_points; i++) {
			x[i] = s->curve[i].one_in;
			y[i] = s->curve[i].ms;
		}
		const plot_series one = {NULL, 0, s->num_points, x, y, .line = true, .dots = s->num_points < 3};
		svg_plot(f, &(plot){.title = "One answer in N is slower than",
				    .x_label = "N",
				    .y_label = "ms, answers (2xx)",
				    .width = WIDTH,
				    .height = HEIGHT,
				    .log_x = true,
				    .log_y = true,
				    .series = &one,
				    .num_series = 1,
				    .horizontal = &target,
				    .num_horizontal = 1,
				    .vertical = ranks,
				    .num_vertical = sizeof ranks / sizeof *ranks});
	}
	free(x);
	free(y);
}

static void plot_search(FILE *f, const report *r)
{
	const trials *t = r->trials;
	double *x = column(t->count), *met = column(t->count), *missed = column(t->count);
	const plot_mark answer = {.at = t->search.met, .label = "answer"},
			needed = {.at = r->options->percentile, .label = "target", .in_range = true};
	if (x && met && missed) {
		for (size_t i = 0; i < t->count; i++) {
			x[i] = t->items[i].rate;
			met[i] = t->items[i].result == TRIAL_MET ? 100 * t->items[i].good_share : NAN;
			missed[i] = t->items[i].result == TRIAL_MET ? NAN : 100 * t->items[i].good_share;
		}
		const plot_series series[] = {{"met", 0, t->count, x, met, .dots = true},
					      {"missed", 6, t->count, x, missed, .dots = true, .hollow = true}};
		svg_plot(f, &(plot){.title = "Trials",
				    .x_label = "requests/s",
				    .y_label = "% of requests answered within the target",
				    .width = WIDTH,
				    .height = HEIGHT,
				    .log_x = true,
				    .series = series,
				    .num_series = 2,
				    .vertical = &answer,
				    .num_vertical = t->search.met > 0,
				    .horizontal = &needed,
				    .num_horizontal = 1});
	}
	free(x);
	free(met);
	free(missed);
}

/* ---- tables ---- */

static void latency_row(FILE *f, const char *name, const latency_summary *l)
{
	if (!l->count)
		return;
	html_row_open(f, name);
	html_cell_number(f, text_fixed((double)l->count, 0));
	html_cell_number(f, milliseconds(l->p50));
	html_cell_number(f, milliseconds(l->p90));
	html_cell_number(f, milliseconds(l->p99));
	html_cell_number(f, milliseconds(l->p999));
	html_cell_number(f, milliseconds(l->max));
	html_row_close(f);
}

static void latency_table(FILE *f, const report *r)
{
	static const char *const HEADERS[] = {"", "requests", "p50", "p90", "p99", "p99.9", "slowest", NULL};
	const run_stats *s = r->stats;
	html_table_open(f, HEADERS);
	latency_row(f, "answers (2xx)", &s->answered);
	latency_row(f, "every request", &s->every);
	latency_row(f, "answers while a model was swapped", &s->during_swaps);
	latency_row(f, "answers between swaps", &s->between_swaps);
	latency_row(f, "send lag", &s->send_lag);
	latency_row(f, "the load generator's own lag", &s->own_lag);
	html_table_close(f);
	html_note(f, "Latency counts from the scheduled time to the last byte of the answer, whatever kept the "
		     "request: a busy connection, the "
		     "connection itself, the server. Percentiles are exact (nearest rank). In “every request” a "
		     "failure is slower than any answer.");
}

static void outcome_table(FILE *f, const report *r)
{
	static const char *const HEADERS[] = {
	    "outcome", "requests", "share", "p50", "p99", "slowest", "|the first one said", NULL};
	const run_stats *s = r->stats;
	html_table_open(f, HEADERS);
	for (int i = 0; i < s->num_outcomes; i++) {
		const outcome_row *row = &s->outcomes[i];
		html_row_open(f, outcome_name(row->outcome).s);
		html_cell_number(f, text_fixed((double)row->latency.count, 0));
		html_cell_number(f, text_share((double)row->latency.count / (double)s->scheduled));
		html_cell_number(f, milliseconds(row->latency.p50));
		html_cell_number(f, milliseconds(row->latency.p99));
		html_cell_number(f, milliseconds(row->latency.max));
		html_cell(f, run_note(r->run, row->outcome));
		html_row_close(f);
	}
	html_table_close(f);
}

static void swap_table(FILE *f, const report *r)
{
	static const char *const HEADERS[] = {"begun at", "took", "|outcome", "|answers now", "|it said", NULL};
	static const char *const EFFECTS[] = {[SWAP_UNKNOWN] = "", [SWAP_CHANGED] = "", [SWAP_NO_CHANGE] = " (no change)"};
	const swap_log *l = &r->run->swaps;
	html_section_open(f, "swaps", "Model swaps");
	html_table_open(f, HEADERS);
	for (size_t i = 0; i < l->count && i < 100; i++) {
		const swap_entry *e = &l->entries[i];
		char at[32], now[sizeof e->model + 16];
		snprintf(now, sizeof now, "%s%s", e->model, EFFECTS[e->effect]);
		snprintf(at, sizeof at, "%.1f s", (double)(e->begun_ns - r->run->measured_from_ns) / 1e9);
		html_row_open(f, at);
		html_cell_number(f, text_ms((double)(e->ended_ns - e->begun_ns) / 1e6));
		html_cell(f, outcome_name(e->outcome).s);
		html_cell(f, now);
		html_cell(f, e->detail);
		html_row_close(f);
	}
	html_table_close(f);
	if (l->count > 100)
		html_note(f, "The first 100 of %zu.", l->count);
	html_section_close(f);
}

static void trial_table(FILE *f, const report *r)
{
	static const char *const HEADERS[] = {"requests/s", "requests",    "failed",  "within the target",
					      "percentile", "own lag p99", "|result", NULL};
	static const char *const RESULTS[] = {"met", "missed", "load generator too slow"};
	html_section_open(f, "search", "Search");
	plot_search(f, r);
	html_table_open(f, HEADERS);
	for (size_t i = 0; i < r->trials->count; i++) {
		const trial *t = &r->trials->items[i];
		char rate[32], result[64];
		snprintf(rate, sizeof rate, "%.4g", t->rate);
		snprintf(result, sizeof result, "%s%s", RESULTS[t->result], t->given_up ? ", ended early" : "");
		html_row_open(f, rate);
		html_cell_number(f, text_fixed((double)t->scheduled, 0));
		html_cell_number(f, text_fixed((double)t->failed, 0));
		html_cell_number(f, text_share(t->good_share));
		html_cell_number(f, milliseconds(t->at_percentile_ms));
		html_cell_number(f, text_ms(t->own_lag_p99_ms));
		html_cell(f, result);
		html_row_close(f);
	}
	html_table_close(f);
	html_section_close(f);
}

/* ---- the page ---- */

static void cards(FILE *f, const report *r)
{
	const run_stats *s = r->stats;
	const load_options *o = r->options;
	static const char *const VERDICTS[] = {"met", "missed", "too slow to tell", "nothing"};
	html_cards_open(f);
	html_card(f, VERDICTS[r->verdict], "target: p%g within %g ms", o->percentile, o->target_ms);
	html_card(f, milliseconds(s->at_percentile_ms).s, "p%g over every request", o->percentile);
	html_card(f, text_share(s->good_share).s, "of %zu requests within %g ms", s->scheduled, o->target_ms);
	html_card(f, text_fixed(s->good_rate, 2).s, "requests/s within the target, of %.2f due", s->scheduled_rate);
	html_card(f, text_fixed((double)s->failed, 0).s, "failed");
	if (s->labels_right + s->labels_wrong)
		html_card(f, text_share((double)s->labels_right / (double)(s->labels_right + s->labels_wrong)).s,
			  "of %zu answers equal the ad's label", s->labels_right + s->labels_wrong);
	html_cards_close(f);
}

static void settings(FILE *f, const report *r)
{
	const load_options *o = r->options;
	html_section_open(f, "settings", "How it was measured");
	html_paragraph(f, "%s%s (%s), %s; %zu ads as %s; at most %d connections; timeout %g s; seed %llu.",
		       r->to->authority, r->to->path, r->reached->text, r->started_at, r->num_ads,
		       o->format == FORMAT_JSON ? "JSON" : "multipart", o->connections, (double)o->timeout_ns / 1e9,
		       (unsigned long long)o->seed);
	if (r->run)
		html_paragraph(f,
			       "%s arrivals at %.4g/s; %.4g s measured after %.4g s of warm-up. The load generator's "
			       "loop was busy %.1f %% of the time and "
			       "used %.1f %% of a processor; %llu connections were made, %d were open at once, the "
			       "longest line for one was %zu.",
			       o->arrivals == ARRIVALS_CONSTANT ? "Constant" : "Poisson", r->rate, r->stats->window_s,
			       (double)r->run->measured_from_ns / 1e9, 100 * r->run->busy_share,
			       100 * r->run->cpu_share, (unsigned long long)r->run->connections_made,
			       r->run->most_connections, r->run->most_waiting);
	html_note(f, "winnow-load " WINNOW_VERSION
		     ", an open loop: requests leave when the schedule says, whatever the server does.");
	html_section_close(f);
}

void report_html(FILE *f, const report *r)
{
	char title[400];
	remarks notes;
	snprintf(title, sizeof title, "Load on %s", r->to->authority);
	html_page_open(f, title);
	report_conclusion(r, title, sizeof title);
	html_paragraph(f, "%s.", title);
	report_remarks(r, &notes);
	for (int i = 0; i < notes.count; i++)
		html_note(f, "Note: %s.", notes.lines[i]);
	const bool any = r->run && r->stats->scheduled;
	if (any)
		cards(f, r);
	if (r->trials)
		trial_table(f, r);
	if (any) {
		html_section_open(f, "latency", r->trials ? "Latency at the answer's rate" : "Latency");
		plot_latency(f, r);
		plot_distribution(f, r);
		latency_table(f, r);
		html_section_close(f);
		html_section_open(f, "outcomes", "What became of the requests");
		plot_rates(f, r);
		outcome_table(f, r);
		html_section_close(f);
		if (r->run->swaps.count)
			swap_table(f, r);
	}
	settings(f, r);
	html_page_close(f);
}
