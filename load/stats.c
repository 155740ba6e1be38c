/* stats.c: see stats.h. Latencies are gathered into arrays of milliseconds and sorted; failures are INFINITY in
 * "every". */
#include "load/stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_BUCKETS     240
#define BUCKET_REQUESTS 10
#define CURVE_POINTS    200

/* An array of values that belong together, sorted once. */
typedef struct values {
	double *v; /* owned */
	size_t n;
} values;

static int compare_doubles(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

size_t percentile_rank(size_t n, double p)
{
	/* 99.9 percent of 1000 is 999, whatever binary fractions make of it */
	const double rank = ceil(p / 100 * (double)n - 1e-9 * (double)n);
	return rank < 1 ? 1 : rank > (double)n ? n : (size_t)rank;
}

double percentile_of(const double *sorted, size_t n, double p) { return n ? sorted[percentile_rank(n, p) - 1] : NAN; }

static latency_summary summarize(values *a)
{
	latency_summary s = {a->n, NAN, NAN, NAN, NAN, NAN, NAN};
	if (!a->n)
		return s;
	qsort(a->v, a->n, sizeof *a->v, compare_doubles);
	double sum = 0;
	for (size_t i = 0; i < a->n; i++)
		sum += a->v[i];
	s.mean = sum / (double)a->n;
	s.p50 = percentile_of(a->v, a->n, 50);
	s.p90 = percentile_of(a->v, a->n, 90);
	s.p99 = percentile_of(a->v, a->n, 99);
	s.p999 = percentile_of(a->v, a->n, 99.9);
	s.max = a->v[a->n - 1];
	return s;
}

/* ---- which samples, as what ---- */

typedef struct context {
	const samples *all;
	const stats_options *o;
	double *scratch; /* [all->count] */
} context;

static bool is_measured(const context *c, const sample *s) { return s->scheduled_ns >= c->o->from_ns; }

/* Stopped before it was late: it might have been answered in time or not. */
static bool is_unknown(const context *c, const sample *s)
{
	return s->outcome == OUTCOME_UNFINISHED && (double)s->latency_ns <= c->o->target_ms * 1e6;
}

/* Was a swap under way at any time between the request's schedule and its end? */
static bool overlaps_swap(const context *c, const sample *s)
{
	const swap_log *l = c->o->swaps;
	size_t low = 0, high = l->count; /* the first swap that ended at or after the schedule */
	while (low < high) {
		const size_t middle = (low + high) / 2;
		if (l->entries[middle].ended_ns < s->scheduled_ns)
			low = middle + 1;
		else
			high = middle;
	}
	return low < l->count && l->entries[low].begun_ns <= s->scheduled_ns + s->latency_ns;
}

typedef bool (*choice)(const context *c, const sample *s, const void *argument, double *value);

static latency_summary gather(context *c, choice choose, const void *argument)
{
	values a = {c->scratch, 0};
	for (size_t i = 0; i < c->all->count; i++) {
		const sample *s = samples_at(c->all, i);
		if (is_measured(c, s) && !is_unknown(c, s) && choose(c, s, argument, &a.v[a.n]))
			a.n++;
	}
	return summarize(&a);
}

static bool choose_every(const context *c, const sample *s, const void *argument, double *value)
{
	*value = outcome_is_ok(s->outcome) ? (double)s->latency_ns / 1e6 : INFINITY;
	return true;
}

static bool choose_ok(const context *c, const sample *s, const void *argument, double *value)
{
	*value = (double)s->latency_ns / 1e6;
	return outcome_is_ok(s->outcome);
}

static bool choose_outcome(const context *c, const sample *s, const void *argument, double *value)
{
	*value = (double)s->latency_ns / 1e6;
	return s->outcome == *(const outcome *)argument;
}

static bool choose_own_lag(const context *c, const sample *s, const void *argument, double *value)
{
	*value = (double)s->own_lag_s * 1e3;
	return true;
}

static bool choose_send_lag(const context *c, const sample *s, const void *argument, double *value)
{
	*value = (double)s->send_lag_s * 1e3;
	return s->send_lag_s >= 0;
}

static bool choose_by_swap(const context *c, const sample *s, const void *argument, double *value)
{
	*value = (double)s->latency_ns / 1e6;
	return outcome_is_ok(s->outcome) && overlaps_swap(c, s) == *(const bool *)argument;
}

/* ---- counts ---- */

static bool is_good(const context *c, const sample *s)
{
	return outcome_is_ok(s->outcome) && (double)s->latency_ns <= c->o->target_ms * 1e6;
}

static void count(run_stats *out, const context *c)
{
	for (size_t i = 0; i < c->all->count; i++) {
		const sample *s = samples_at(c->all, i);
		if (!is_measured(c, s))
			continue;
		if (is_unknown(c, s)) {
			out->unknown++;
			continue;
		}
		const bool ok = outcome_is_ok(s->outcome);
		out->scheduled++;
		out->ok += ok;
		out->failed += !ok;
		out->good += is_good(c, s);
		out->waited += s->flags & SAMPLE_WAITED;
		out->labels_right += (s->flags & SAMPLE_LABEL_RIGHT) != 0;
		out->labels_wrong += (s->flags & SAMPLE_LABEL_WRONG) != 0;
		out->own_limits += outcome_is_own_limit(s->outcome);
		if (!ok && c->o->swaps && c->o->swaps->count)
			out->failed_during_swaps += overlaps_swap(c, s);
	}
	out->window_s = (double)(c->o->until_ns - c->o->from_ns) / 1e9;
	out->good_share = out->scheduled ? (double)out->good / (double)out->scheduled : NAN;
	if (out->window_s > 0) {
		out->scheduled_rate = (double)out->scheduled / out->window_s;
		out->ok_rate = (double)out->ok / out->window_s;
		out->good_rate = (double)out->good / out->window_s;
	}
	out->met = out->scheduled && out->good >= percentile_rank(out->scheduled, c->o->percentile);
}

/* Once for being late itself, once for the crowd that those it held back then make. Needs own_lag. */
static bool is_missed_surely(const run_stats *out, const context *c)
{
	const double allowed_ms = c->o->target_ms + 2 * out->own_lag.max;
	size_t excused = 0;
	for (size_t i = 0; i < c->all->count; i++) {
		const sample *s = samples_at(c->all, i);
		if (is_measured(c, s) && !is_unknown(c, s))
			excused += outcome_is_own_limit(s->outcome) ||
				   (outcome_is_ok(s->outcome) && (double)s->latency_ns <= allowed_ms * 1e6);
	}
	return out->scheduled && excused < percentile_rank(out->scheduled, c->o->percentile);
}

static int compare_rows(const void *a, const void *b)
{
	const outcome_row *x = a, *y = b;
	return x->latency.count != y->latency.count ? (x->latency.count < y->latency.count ? 1 : -1)
						    : x->outcome - y->outcome;
}

static void list_outcomes(run_stats *out, context *c)
{
	bool seen[OUTCOME_END] = {false};
	for (size_t i = 0; i < c->all->count; i++) {
		const sample *s = samples_at(c->all, i);
		if (!is_measured(c, s) || is_unknown(c, s) || seen[s->outcome] ||
		    out->num_outcomes == STATS_MAX_OUTCOMES)
			continue;
		seen[s->outcome] = true;
		out->outcomes[out->num_outcomes++] =
		    (outcome_row){.outcome = s->outcome, .latency = gather(c, choose_outcome, &s->outcome)};
	}
	qsort(out->outcomes, (size_t)out->num_outcomes, sizeof *out->outcomes, compare_rows);
}

/* ---- over time, and the distribution ---- */

/* Some hundred buckets at most, and of those so few that each has requests enough for a median. */
static double bucket_seconds(double window_s, size_t requests)
{
	static const double NICE[] = {0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800};
	const double most = fmax(fmin(MAX_BUCKETS / 2.0, (double)requests / BUCKET_REQUESTS), 8);
	size_t i = 0;
	while (i + 1 < sizeof NICE / sizeof *NICE && window_s / NICE[i] > most)
		i++;
	return window_s / NICE[i] > MAX_BUCKETS ? window_s / MAX_BUCKETS : NICE[i];
}

static size_t bucket_of(const run_stats *out, const context *c, const sample *s)
{
	const size_t b = (size_t)((double)(s->scheduled_ns - c->o->from_ns) / 1e9 / out->bucket_s);
	return b < out->num_buckets ? b : out->num_buckets - 1;
}

/* Samples come in the order they ended; sorted by bucket by counting, each bucket's answers are then a run of
 * `scratch`. */
static void fill_buckets(run_stats *out, context *c)
{
	size_t starts[MAX_BUCKETS + 2] = {0}, filled[MAX_BUCKETS + 2];
	for (size_t i = 0; i < c->all->count; i++) {
		const sample *s = samples_at(c->all, i);
		if (!is_measured(c, s) || is_unknown(c, s))
			continue;
		time_bucket *b = &out->buckets[bucket_of(out, c, s)];
		const bool ok = outcome_is_ok(s->outcome);
		b->scheduled++;
		b->ok += ok;
		b->failed += !ok;
		b->good += is_good(c, s);
	}
	for (size_t b = 0; b < out->num_buckets; b++)
		starts[b + 1] = starts[b] + out->buckets[b].ok;
	memcpy(filled, starts, sizeof filled);
	for (size_t i = 0; i < c->all->count; i++) {
		const sample *s = samples_at(c->all, i);
		if (is_measured(c, s) && outcome_is_ok(s->outcome))
			c->scratch[filled[bucket_of(out, c, s)]++] = (double)s->latency_ns / 1e6;
	}
	for (size_t b = 0; b < out->num_buckets; b++) {
		const latency_summary l = summarize(&(values){c->scratch + starts[b], out->buckets[b].ok});
		out->buckets[b].start_s = (double)b * out->bucket_s;
		out->buckets[b].p50 = l.p50;
		out->buckets[b].p99 = l.p99;
		out->buckets[b].max = l.max;
	}
}

static wn_code make_buckets(run_stats *out, context *c, wn_error *err)
{
	if (!(out->window_s > 0))
		return WN_OK;
	out->bucket_s = bucket_seconds(out->window_s, out->scheduled);
	out->num_buckets = (size_t)ceil(out->window_s / out->bucket_s - 1e-9);
	out->num_buckets = out->num_buckets < 1 ? 1 : out->num_buckets > MAX_BUCKETS ? MAX_BUCKETS : out->num_buckets;
	out->buckets = calloc(out->num_buckets, sizeof *out->buckets);
	if (!out->buckets)
		return wn_fail(err, WN_NOMEM, "no memory for %zu seconds", out->num_buckets);
	fill_buckets(out, c);
	return WN_OK;
}

/* Evenly spaced in log(1 / (1 - p)): half, one in ten, one in a hundred … as far as there are answers. Needs the
 * answers sorted in scratch. */
static wn_code make_curve(run_stats *out, const context *c, wn_error *err)
{
	const size_t n = out->answered.count;
	if (!n)
		return WN_OK;
	out->curve = calloc(CURVE_POINTS + 1, sizeof *out->curve);
	if (!out->curve)
		return wn_fail(err, WN_NOMEM, "no memory for a curve");
	size_t last = 0;
	for (int i = 0; i <= CURVE_POINTS; i++) {
		const double one_in = pow((double)n, (double)i / CURVE_POINTS);
		const size_t rank = percentile_rank(n, 100 * (1 - 1 / one_in));
		if (rank == last && i < CURVE_POINTS)
			continue;
		last = rank;
		out->curve[out->num_points++] = (curve_point){one_in, c->scratch[(i == CURVE_POINTS ? n : rank) - 1]};
	}
	return WN_OK;
}

wn_code stats_make(run_stats *out, const samples *all, const stats_options *o, wn_error *err)
{
	context c = {all, o, malloc((all->count ? all->count : 1) * sizeof(double))};
	*out = (run_stats){0};
	if (!c.scratch)
		return wn_fail(err, WN_NOMEM, "no memory to sort %zu requests", all->count);
	count(out, &c);
	list_outcomes(out, &c);
	out->every = gather(&c, choose_every, NULL);
	out->at_percentile_ms = percentile_of(c.scratch, out->every.count, o->percentile);
	out->own_lag = gather(&c, choose_own_lag, NULL);
	out->missed_surely = is_missed_surely(out, &c);
	out->send_lag = gather(&c, choose_send_lag, NULL);
	if (o->swaps && o->swaps->count) {
		out->during_swaps = gather(&c, choose_by_swap, &(bool){true});
		out->between_swaps = gather(&c, choose_by_swap, &(bool){false});
	}
	wn_code code = make_buckets(out, &c, err);
	out->answered = gather(&c, choose_ok, NULL); /* leaves them sorted for the curve */
	if (code == WN_OK)
		code = make_curve(out, &c, err);
	free(c.scratch);
	if (code != WN_OK)
		stats_close(out);
	return code;
}

void stats_close(run_stats *s)
{
	free(s->buckets);
	free(s->curve);
	*s = (run_stats){0};
}
