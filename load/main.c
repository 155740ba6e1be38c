/* main.c: winnow-load's command line, from options to exit code.
 *
 * Everything happens on the main thread. SIGINT and SIGTERM are blocked and arrive only while the loop waits; the first
 * ends the run, which is then reported, the second has its default action. */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "load/report.h"

#define CONNECT_TIMEOUT_MS 5000
#define DEFAULT_PATH       "/v1/audit"
#define MAX_TRIALS         60

static volatile sig_atomic_t stop_requested;

static void on_signal(int number) { stop_requested = 1; }

/* What a run is made of; owned by main. */
typedef struct session {
	load_options o;
	url to;
	endpoint reached;
	payloads requests;
	known_answers *known; /* owned; NULL without --answers */
	size_t num_ads, num_labelled;
	char *swap_requests[OPTIONS_MAX_LIST]; /* owned */
	size_t swap_lens[OPTIONS_MAX_LIST];
	sigset_t while_waiting;
	progress progress;
	char started_at[32];
} session;

/* ---- before the run ---- */

static void catch_signals(session *s)
{
	struct sigaction a = {.sa_handler = on_signal, .sa_flags = SA_RESETHAND};
	sigset_t stops;
	sigemptyset(&stops);
	sigaddset(&stops, SIGINT);
	sigaddset(&stops, SIGTERM);
	sigprocmask(SIG_BLOCK, &stops, &s->while_waiting);
	sigdelset(&s->while_waiting, SIGINT);
	sigdelset(&s->while_waiting, SIGTERM);
	sigaction(SIGINT, &a, NULL);
	sigaction(SIGTERM, &a, NULL);
	signal(SIGPIPE, SIG_IGN);
}

/* A descriptor for each connection, and some. */
static wn_code raise_descriptors(int connections, wn_error *err)
{
	struct rlimit l;
	const rlim_t need = (rlim_t)connections + 32;
	if (getrlimit(RLIMIT_NOFILE, &l) != 0 || l.rlim_cur >= need)
		return WN_OK;
	l.rlim_cur = need < l.rlim_max ? need : l.rlim_max;
	if (l.rlim_cur >= need && setrlimit(RLIMIT_NOFILE, &l) == 0)
		return WN_OK;
	return wn_fail(err, WN_IO,
		       "--connections %d: this process may have %llu descriptors (ulimit -n), expected at least %llu",
		       connections, (unsigned long long)l.rlim_max, (unsigned long long)need);
}

/* That a report cannot be written is said before the run, not after it. */
static wn_code check_writable(const char *path, wn_error *err)
{
	file_writer w = {0};
	if (!path || !strcmp(path, "-"))
		return WN_OK;
	wn_code code = file_writer_open(&w, path, err);
	file_writer_abort(&w);
	return code;
}

static wn_code make_requests(session *s, wn_error *err)
{
	const load_options *o = &s->o;
	const request_head head = {.to = &s->to,
				   .key = o->key,
				   .deadline_ms = o->deadline_ms,
				   .headers = o->headers.items,
				   .num_headers = o->headers.count};
	const request_head admin = {.to = &s->to, .key = o->swap_key};
	ads a;
	wn_code code = ads_read(&a, o->ads, (size_t)o->limit, err);
	if (code != WN_OK)
		return code;
	s->num_ads = a.count;
	s->num_labelled = a.labelled;
	if (o->expect_labels && !a.labelled)
		code = wn_fail(err, WN_INVALID, "--expect labels: no ad in %s has a label", o->ads);
	if (code == WN_OK)
		code = payloads_make(&s->requests, &a, (body_format)o->format, &head, o->seed, err);
	ads_close(&a);
	for (int i = 0; code == WN_OK && o->swap_every_ns && i < o->swap_bodies.count; i++)
		code = payload_json_post(&s->swap_requests[i], &s->swap_lens[i], &admin, o->swap_path,
					 o->swap_bodies.items[i], err);
	return code;
}

static run_options plan(session *s)
{
	const load_options *o = &s->o;
	return (run_options){
	    .to = &s->reached,
	    .requests = &s->requests,
	    .arrivals = (arrival_kind)o->arrivals,
	    .rate = o->rate,
	    .seed = o->seed,
	    .warmup_ns = o->warmup_ns,
	    .duration_ns = o->duration_ns,
	    .max_connections = o->connections,
	    .timeout_ns = o->timeout_ns,
	    .target_ms = o->target_ms,
	    .check_labels = o->expect_labels,
	    .known = s->known,
	    .give_up_after = SIZE_MAX,
	    .swap = {.to = &s->reached,
		     .every_ns = o->swap_every_ns,
		     .timeout_ns = 60000000000,
		     .requests = (const char *const *)s->swap_requests,
		     .lens = s->swap_lens,
		     .num_requests = o->swap_bodies.count},
	    .progress = o->quiet ? NULL : &s->progress,
	    .stop = &stop_requested,
	    .signals_while_waiting = &s->while_waiting,
	};
}

/* One request alone: a wrong path, key or format shows in all of them alike, and hours of refusals are no measurement.
 * What a loaded server may say (408, 429, 5xx) is no reason not to begin. */
static wn_code try_one_request(session *s, wn_error *err)
{
	run_options r = plan(s);
	run_result result;
	r.arrivals = ARRIVALS_CONSTANT; /* the first at 0, the next after the end */
	r.warmup_ns = 0;
	r.duration_ns = 1;
	r.progress = NULL;
	r.known = NULL;
	r.swap.every_ns = 0;
	wn_code code = run_load(&result, &r, err);
	if (code != WN_OK)
		return code;
	const outcome o = result.samples.count ? samples_at(&result.samples, 0)->outcome : OUTCOME_UNFINISHED;
	const bool refused = o >= 300 && o < 500 && o != 408 && o != 429;
	if (!stop_requested && (refused || !outcome_is_status(o)))
		code = wn_fail(err, WN_IO, "%s%s: a first request ended with %s: %s", s->to.authority, s->to.path,
			       outcome_name(o).s, run_note(&result, o));
	run_close(&result);
	return code;
}

/* ---- after it ---- */

static wn_code write_report(const char *path, const report *r, void (*write)(FILE *, const report *), wn_error *err)
{
	char *text = NULL;
	size_t len = 0;
	if (!path)
		return WN_OK;
	FILE *f = open_memstream(&text, &len);
	if (!f)
		return wn_fail(err, WN_NOMEM, "%s: no memory", path);
	write(f, r);
	const bool bad = ferror(f);
	wn_code code = fclose(f) != 0 || bad ? wn_fail(err, WN_NOMEM, "%s: no memory", path) : WN_OK;
	if (code == WN_OK && strcmp(path, "-"))
		code = file_write_atomic(path, text, len, err);
	else if (code == WN_OK && (fwrite(text, 1, len, stdout) != len || fflush(stdout) != 0))
		code = wn_fail(err, WN_IO, "stdout: cannot write: %s", strerror(errno));
	free(text);
	return code;
}

/* Whatever the times are: a wrong answer is no answer. */
static bool answers_are_right(const report *r)
{
	const known_counts c = r->known ? known_answers_total(r->known) : (known_counts){0};
	return c.wrong + c.unknown == 0;
}

/* Nor does a run say anything of swaps that were refused. */
static bool swaps_succeeded(const report *r) { return !r->run || !swap_log_tally(&r->run->swaps).bad; }

static int publish(const report *r, int exit_code)
{
	wn_error err = {0};
	if (exit_code == EXIT_MET && !(answers_are_right(r) && swaps_succeeded(r)))
		exit_code = EXIT_MISSED;
	const bool json_on_stdout = r->options->json && !strcmp(r->options->json, "-");
	report_text(json_on_stdout ? stderr : stdout, r);
	fflush(stdout);
	wn_code code = write_report(r->options->json, r, report_json, &err);
	if (code == WN_OK)
		code = write_report(r->options->html, r, report_html, &err);
	if (code == WN_OK)
		return exit_code;
	fprintf(stderr, "winnow-load: %s\n", err.message);
	return EXIT_NOT_RUN;
}

static report report_of(const session *s)
{
	report r = {.options = &s->o,
		    .to = &s->to,
		    .reached = &s->reached,
		    .num_ads = s->num_ads,
		    .num_labelled = s->num_labelled,
		    .known = s->known};
	memcpy(r.started_at, s->started_at, sizeof r.started_at);
	return r;
}

static int exit_code_of(verdict v)
{
	return v == VERDICT_MET ? EXIT_MET : v == VERDICT_MISSED ? EXIT_MISSED : EXIT_NOT_RUN;
}

/* ---- the two kinds of work ---- */

static int measure(session *s, wn_error *err)
{
	const run_options options = plan(s);
	run_result result;
	run_stats stats;
	report r = report_of(s);
	int rc = EXIT_NOT_RUN;
	progress_start(&s->progress, stderr, "", loop_now());
	if (run_load(&result, &options, err) != WN_OK)
		return EXIT_NOT_RUN;
	if (!s->o.quiet)
		progress_end(&s->progress);
	const stats_options so = {.from_ns = result.measured_from_ns,
				  .until_ns = result.measured_until_ns,
				  .target_ms = s->o.target_ms,
				  .percentile = s->o.percentile,
				  .swaps = &result.swaps};
	if (stats_make(&stats, &result.samples, &so, err) == WN_OK) {
		r.rate = s->o.rate;
		r.run = &result;
		r.stats = &stats;
		r.verdict = judge_run(&stats, s->o.max_lag_ms);
		r.interrupted = result.end == RUN_INTERRUPTED;
		rc = publish(&r, r.interrupted ? EXIT_INTERRUPTED : exit_code_of(r.verdict));
		stats_close(&stats);
	}
	run_close(&result);
	return rc;
}

static void tell_trial(void *context, const trial *t)
{
	static const char *const RESULTS[] = {"met", "missed", "load generator too slow"};
	session *s = context;
	if (s->o.quiet)
		return;
	progress_end(&s->progress);
	fprintf(stderr, "%8.4g/s: %s, %.2f %% of %zu requests within %g ms%s\n", t->rate, RESULTS[t->result],
		100 * t->good_share, t->scheduled, s->o.target_ms, t->given_up ? " (ended early)" : "");
}

static int exit_code_of_search(const trials *t)
{
	if (t->interrupted)
		return EXIT_INTERRUPTED;
	switch (t->search.end) {
	case SEARCH_FOUND:
	case SEARCH_AT_MAX_RATE:
		return EXIT_MET;
	case SEARCH_OWN_LIMIT:
		return t->search.met > 0 ? EXIT_MET : EXIT_NOT_RUN;
	case SEARCH_NOTHING_MET:
		return EXIT_MISSED;
	default:
		return EXIT_NOT_RUN;
	}
}

static int find_max(session *s, wn_error *err)
{
	const load_options *o = &s->o;
	/* a trial with a handful of requests decides nothing */
	const double lowest = fmin(o->rate, fmax(0.1, 5e9 / (double)o->duration_ns));
	const trials_options options = {
	    .run = plan(s),
	    .search = {.first_rate = o->rate,
		       .min_rate = lowest,
		       .max_rate = o->max_rate,
		       .resolution = o->resolution_percent / 100,
		       .confirm = o->confirm,
		       .max_trials = MAX_TRIALS},
	    .percentile = o->percentile,
	    .max_lag_ms = o->max_lag_ms,
	    .tell = tell_trial,
	    .context = s,
	};
	trials t;
	report r = report_of(s);
	progress_start(&s->progress, stderr, "", loop_now());
	if (trials_run(&t, &options, err) != WN_OK) {
		trials_close(&t);
		return EXIT_NOT_RUN;
	}
	if (!o->quiet)
		progress_end(&s->progress);
	r.trials = &t;
	r.interrupted = t.interrupted;
	if (t.search.met > 0) {
		r.rate = t.search.met;
		r.run = &t.best;
		r.stats = &t.best_stats;
		r.verdict = judge_run(&t.best_stats, o->max_lag_ms);
	}
	const int rc = publish(&r, exit_code_of_search(&t));
	trials_close(&t);
	return rc;
}

/* ---- main ---- */

static wn_code prepare(session *s, wn_error *err)
{
	wn_code code = check_writable(s->o.json, err);
	if (code == WN_OK)
		code = check_writable(s->o.html, err);
	if (code == WN_OK)
		code = raise_descriptors(s->o.connections, err);
	if (code == WN_OK)
		code = make_requests(s, err);
	if (code == WN_OK && s->o.answers)
		code = known_answers_open(&s->known, s->o.answers, err);
	if (code == WN_OK)
		code = endpoint_find(&s->reached, &s->to, CONNECT_TIMEOUT_MS, err);
	if (code != WN_OK)
		return code;
	catch_signals(s);
	const time_t now = time(NULL);
	struct tm utc;
	strftime(s->started_at, sizeof s->started_at, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
	return try_one_request(s, err);
}

static void close_session(session *s)
{
	payloads_close(&s->requests);
	known_answers_close(&s->known);
	for (int i = 0; i < OPTIONS_MAX_LIST; i++)
		free(s->swap_requests[i]);
}

int main(int argc, char **argv)
{
	static session s;
	wn_error err = {0};
	int rc = EXIT_NOT_RUN;
	if (!options_parse(&s.o, argc, argv))
		return EXIT_USAGE;
	if (s.o.help || s.o.version) {
		if (s.o.help)
			options_print_help();
		else
			puts("winnow-load " WINNOW_VERSION);
		return EXIT_MET;
	}
	if (url_parse(&s.to, s.o.url, DEFAULT_PATH, &err) != WN_OK) {
		fprintf(stderr, "winnow-load: --url: %s\n", err.message);
		return EXIT_USAGE;
	}
	if (prepare(&s, &err) == WN_OK) {
		if (stop_requested)
			rc = EXIT_INTERRUPTED;
		else
			rc = s.o.find_max ? find_max(&s, &err) : measure(&s, &err);
	}
	if (err.code != WN_OK)
		fprintf(stderr, "winnow-load: %s\n", err.message);
	close_session(&s);
	return rc;
}
