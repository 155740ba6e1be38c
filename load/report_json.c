/* report_json.c: the report for programs; see report.h. Times are milliseconds unless a name says otherwise; a number
 * that is not known is null, and so is a percentile at whose rank a failure stands ("every_request"). */
#include "load/report.h"

#include <math.h>

#include <jansson.h>

static void put_number(json_t *object, const char *name, double v)
{
	json_object_set_new(object, name, isfinite(v) ? json_real(v) : json_null());
}

static void put_count(json_t *object, const char *name, uint64_t v)
{
	json_object_set_new(object, name, json_integer((json_int_t)v));
}
/* Of any bytes: what is not UTF-8 has been replaced, or becomes null. */
static void put_text(json_t *object, const char *name, const char *text)
{
	json_t *s = json_string(text);
	json_object_set_new(object, name, s ? s : json_null());
}

static json_t *latency_json(const latency_summary *l)
{
	json_t *o = json_object();
	put_count(o, "count", l->count);
	put_number(o, "mean", l->mean);
	put_number(o, "p50", l->p50);
	put_number(o, "p90", l->p90);
	put_number(o, "p99", l->p99);
	put_number(o, "p99.9", l->p999);
	put_number(o, "max", l->max);
	return o;
}

static json_t *settings_json(const report *r)
{
	const load_options *o = r->options;
	json_t *s = json_object();
	put_text(s, "format", o->format == FORMAT_JSON ? "json" : "multipart");
	put_text(s, "arrivals", o->arrivals == ARRIVALS_CONSTANT ? "constant" : "poisson");
	put_count(s, "ads", r->num_ads);
	put_count(s, "ads_with_label", r->num_labelled);
	put_number(s, "rate", o->rate);
	put_number(s, "duration_s", (double)o->duration_ns / 1e9);
	put_number(s, "warmup_s", (double)o->warmup_ns / 1e9);
	put_number(s, "timeout_s", (double)o->timeout_ns / 1e9);
	put_count(s, "connections", (uint64_t)o->connections);
	char seed[24]; /* a string: 64 bits are more than a JSON number keeps */
	snprintf(seed, sizeof seed, "%llu", (unsigned long long)o->seed);
	put_text(s, "seed", seed);
	put_count(s, "deadline_ms", (uint64_t)o->deadline_ms);
	put_number(s, "target_ms", o->target_ms);
	put_number(s, "percentile", o->percentile);
	put_number(s, "max_lag_ms", o->max_lag_ms);
	put_number(s, "swap_every_s", (double)o->swap_every_ns / 1e9);
	return s;
}

static json_t *outcomes_json(const report *r)
{
	json_t *list = json_array();
	for (int i = 0; i < r->stats->num_outcomes; i++) {
		const outcome_row *row = &r->stats->outcomes[i];
		const char *note = run_note(r->run, row->outcome);
		json_t *o = json_object();
		put_text(o, "outcome", outcome_name(row->outcome).s);
		json_object_set_new(o, "latency_ms", latency_json(&row->latency));
		if (*note)
			put_text(o, "first", note);
		json_array_append_new(list, o);
	}
	return list;
}

static json_t *swaps_json(const report *r)
{
	const swap_log *l = &r->run->swaps;
	json_t *o = json_object(), *list = json_array();
	for (size_t i = 0; i < l->count; i++) {
		const swap_entry *e = &l->entries[i];
		json_t *x = json_object();
		put_number(x, "at_s", (double)(e->begun_ns - r->run->measured_from_ns) / 1e9);
		put_number(x, "took_ms", (double)(e->ended_ns - e->begun_ns) / 1e6);
		put_text(x, "outcome", outcome_name(e->outcome).s);
		if (e->detail[0])
			put_text(x, "detail", e->detail);
		if (e->model[0])
			put_text(x, "model", e->model);
		json_object_set_new(x, "changed", e->effect == SWAP_UNKNOWN ? json_null() : json_boolean(e->effect == SWAP_CHANGED));
		json_array_append_new(list, x);
	}
	json_object_set_new(o, "list", list);
	put_count(o, "changed", swap_log_tally(l).changed);
	put_count(o, "skipped", l->skipped);
	json_object_set_new(o, "latency_during_ms", latency_json(&r->stats->during_swaps));
	json_object_set_new(o, "latency_between_ms", latency_json(&r->stats->between_swaps));
	put_count(o, "failed_during", r->stats->failed_during_swaps);
	return o;
}

static json_t *timeline_json(const run_stats *s)
{
	json_t *list = json_array();
	for (size_t i = 0; i < s->num_buckets; i++) {
		const time_bucket *b = &s->buckets[i];
		json_t *o = json_object();
		put_number(o, "at_s", b->start_s);
		put_count(o, "scheduled", b->scheduled);
		put_count(o, "ok", b->ok);
		put_count(o, "within_target", b->good);
		put_count(o, "failed", b->failed);
		put_number(o, "p50_ms", b->p50);
		put_number(o, "p99_ms", b->p99);
		put_number(o, "max_ms", b->max);
		json_array_append_new(list, o);
	}
	return list;
}

static json_t *run_json(const report *r)
{
	const run_stats *s = r->stats;
	json_t *o = json_object(), *generator = json_object(), *requests = json_object();
	put_number(o, "rate", r->rate);
	put_number(o, "measured_s", s->window_s);
	put_count(requests, "scheduled", s->scheduled);
	put_count(requests, "ok", s->ok);
	put_count(requests, "failed", s->failed);
	put_count(requests, "within_target", s->good);
	put_count(requests, "unknown", s->unknown);
	put_count(requests, "waited_for_a_connection", s->waited);
	json_object_set_new(o, "requests", requests);
	put_number(o, "scheduled_per_s", s->scheduled_rate);
	put_number(o, "ok_per_s", s->ok_rate);
	put_number(o, "goodput_per_s", s->good_rate);
	put_number(o, "share_within_target", s->good_share);
	put_number(o, "at_percentile_ms", s->at_percentile_ms);
	json_object_set_new(o, "latency_ms", latency_json(&s->answered));
	json_t *every = latency_json(&s->every);
	json_object_del(every, "mean");
	json_object_set_new(o, "every_request_ms", every);
	json_object_set_new(o, "outcomes", outcomes_json(r));
	json_object_set_new(o, "send_lag_ms", latency_json(&s->send_lag));
	json_object_set_new(generator, "own_lag_ms", latency_json(&s->own_lag));
	json_object_set_new(generator, "too_slow", json_boolean(judge_own_limit(s, r->options->max_lag_ms)));
	put_number(generator, "loop_busy_share", r->run->busy_share);
	put_number(generator, "processor_share", r->run->cpu_share);
	put_count(generator, "connections_made", r->run->connections_made);
	put_count(generator, "connections_at_once", (uint64_t)r->run->most_connections);
	put_count(generator, "longest_line", r->run->most_waiting);
	put_count(generator, "failures_of_its_own", s->own_limits);
	json_object_set_new(o, "generator", generator);
	if (r->options->expect_labels) {
		json_t *labels = json_object();
		put_count(labels, "right", s->labels_right);
		put_count(labels, "wrong", s->labels_wrong);
		json_object_set_new(o, "labels", labels);
	}
	if (r->options->swap_every_ns)
		json_object_set_new(o, "swaps", swaps_json(r));
	put_number(o, "timeline_step_s", s->bucket_s);
	json_object_set_new(o, "timeline", timeline_json(s));
	return o;
}

static json_t *counts_json(const known_counts *c)
{
	json_t *o = json_object();
	put_count(o, "right", c->right);
	put_count(o, "wrong", c->wrong);
	put_count(o, "unknown", c->unknown);
	return o;
}

static json_t *known_json(const known_answers *k)
{
	const known_counts total = known_answers_total(k);
	size_t count;
	const known_tally *tallies = known_answers_tallies(k, &count);
	json_t *o = counts_json(&total), *list = json_array();
	for (size_t i = 0; i < count; i++) {
		json_t *x = counts_json(&tallies[i].counts);
		put_text(x, "version", tallies[i].version);
		put_text(x, "digest", tallies[i].digest);
		json_array_append_new(list, x);
	}
	json_object_set_new(o, "versions", list);
	if (*known_answers_first(k))
		put_text(o, "first", known_answers_first(k));
	return o;
}

static json_t *search_json(const trials *t)
{
	static const char *const RESULTS[] = {"met", "missed", "load_generator_too_slow"};
	json_t *o = json_object(), *list = json_array();
	put_text(o, "end", search_end_name(t->search.end));
	put_number(o, "max_rate", t->search.met > 0 ? t->search.met : NAN);
	put_number(o, "lowest_missed_rate", t->search.missed);
	put_count(o, "confirmed", t->search.met > 0 ? (uint64_t)t->search.met_count : 0);
	for (size_t i = 0; i < t->count; i++) {
		const trial *x = &t->items[i];
		json_t *j = json_object();
		put_number(j, "rate", x->rate);
		put_text(j, "result", RESULTS[x->result]);
		json_object_set_new(j, "ended_early", json_boolean(x->given_up));
		put_count(j, "scheduled", x->scheduled);
		put_count(j, "ok", x->ok);
		put_count(j, "failed", x->failed);
		put_number(j, "share_within_target", x->good_share);
		put_number(j, "at_percentile_ms", x->at_percentile_ms);
		put_number(j, "own_lag_p99_ms", x->own_lag_p99_ms);
		put_number(j, "loop_busy_share", x->busy_share);
		json_array_append_new(list, j);
	}
	json_object_set_new(o, "trials", list);
	return o;
}

void report_json(FILE *f, const report *r)
{
	char conclusion[400];
	remarks notes;
	json_t *root = json_object(), *lines = json_array();
	put_text(root, "tool", "winnow-load");
	put_text(root, "version", WINNOW_VERSION);
	put_text(root, "started_at", r->started_at);
	put_text(root, "host", r->to->authority);
	put_text(root, "path", r->to->path);
	put_text(root, "connected_to", r->reached->text);
	json_object_set_new(root, "settings", settings_json(r));
	put_text(root, "verdict", r->run ? verdict_name(r->verdict) : "nothing_measured");
	json_object_set_new(root, "interrupted", json_boolean(r->interrupted));
	report_conclusion(r, conclusion, sizeof conclusion);
	put_text(root, "conclusion", conclusion);
	report_remarks(r, &notes);
	for (int i = 0; i < notes.count; i++)
		json_array_append_new(lines, json_string(notes.lines[i]));
	json_object_set_new(root, "remarks", lines);
	json_object_set_new(root, "run", r->run ? run_json(r) : json_null());
	json_object_set_new(root, "find_max", r->trials ? search_json(r->trials) : json_null());
	if (r->known)
		json_object_set_new(root, "answers", known_json(r->known));
	json_dumpf(root, f, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
	fputs("\n", f);
	json_decref(root);
}
