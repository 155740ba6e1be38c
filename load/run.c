/* run.c: see run.h. Each turn of the loop: take down what has become due, begin what a connection is free for, end what
 * has timed out, then sleep until the next arrival or event. */
#include "load/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "load/answer.h"
#include "load/client.h"

/* A request that is due and not begun. */
typedef struct waiting {
	int64_t scheduled_ns, noticed_ns;
	size_t index;
} waiting;

typedef struct runner {
	const run_options *o;
	run_result *out;
	loop loop;
	client *client;
	swapper swapper;
	schedule schedule;
	int64_t start_ns, next_ns; /* next arrival; LOOP_NEVER: none to come */
	size_t next_index;
	size_t waited_below; /* requests in line with a smaller index were there when no connection was free */
	waiting *line;       /* ring of [line_room], a power of two; owned */
	size_t line_first, line_count, line_room;
	bool model_asked;
	size_t missed; /* measured requests known to miss the target */
	wn_error err;  /* from within a callback */
} runner;

/* ---- what became of a request ---- */

static void note(run_result *r, outcome o, const char *text)
{
	if (*run_note(r, o) || r->num_notes == RUN_MAX_NOTES || !*text)
		return;
	outcome_note *n = &r->notes[r->num_notes++];
	n->outcome = o;
	snprintf(n->text, sizeof n->text, "%s", text);
	for (char *p = n->text; *p; p++) /* it may quote the server, and may end on a terminal */
		*p = *p >= ' ' && *p < 0x7f ? *p : '?';
}

const char *run_note(const run_result *r, outcome o)
{
	for (int i = 0; i < r->num_notes; i++)
		if (r->notes[i].outcome == o)
			return r->notes[i].text;
	return "";
}

static void record(runner *r, const sample *s)
{
	const bool ok = outcome_is_ok(s->outcome);
	if (s->scheduled_ns >= r->o->warmup_ns)
		r->missed += !ok || (double)s->latency_ns > r->o->target_ms * 1e6;
	if (r->o->progress)
		progress_answer(r->o->progress, ok, s->latency_ns);
	samples_add(&r->out->samples, s, &r->err);
}

static uint16_t check_label(const runner *r, const exchange *e, const response *answer)
{
	const char *expected = r->o->requests->items[e->index % r->o->requests->count].label;
	char label[256];
	if (!r->o->check_labels || !expected)
		return 0;
	const bool right =
	    answer_label(answer->body, answer->body_kept, label, sizeof label) && strcmp(label, expected) == 0;
	return right ? SAMPLE_LABEL_RIGHT : SAMPLE_LABEL_WRONG;
}

/* The first answer tells which version answers before any swap; the others are not asked. */
static void see_model(runner *r, const response *answer)
{
	char model[sizeof r->swapper.answers];
	if (!r->o->swap.every_ns || r->model_asked)
		return;
	r->model_asked = true;
	if (answer_model(answer->body, answer->body_kept, model, sizeof model))
		swapper_saw(&r->swapper, model);
}

static void on_done(void *context, const exchange *e, const connection *c, int64_t now_ns)
{
	runner *r = context;
	sample s = {
	    .scheduled_ns = e->scheduled_ns - r->start_ns,
	    .latency_ns = now_ns - e->scheduled_ns,
	    .own_lag_s = (float)((double)((e->waited ? e->noticed_ns : e->begun_ns) - e->scheduled_ns) / 1e9),
	    .send_lag_s = c->first_sent_ns ? (float)((double)(c->first_sent_ns - e->scheduled_ns) / 1e9) : -1,
	    .outcome = c->result,
	    .flags = e->waited ? SAMPLE_WAITED : 0,
	};
	if (outcome_is_ok(c->result)) {
		see_model(r, &c->answer);
		s.flags |= check_label(r, e, &c->answer);
		if (r->o->known)
			known_answers_check(r->o->known, r->o->requests->items[e->index % r->o->requests->count].name,
					    c->answer.body, c->answer.body_kept);
	} else if (!outcome_is_status(c->result)) {
		note(r->out, c->result, c->detail);
	} else if (!*run_note(r->out, c->result)) {
		char reason[sizeof r->out->notes->text];
		answer_reason(c->answer.body, c->answer.body_kept, reason, sizeof reason);
		note(r->out, c->result, *reason ? reason : "an empty body");
	}
	record(r, &s);
}

/* ---- the line of those that are due ---- */

static bool line_push(runner *r, const waiting *w)
{
	if (r->line_count == r->line_room) {
		const size_t room = r->line_room ? 2 * r->line_room : 1024;
		waiting *grown = malloc(room * sizeof *grown);
		if (!grown) {
			wn_fail(&r->err, WN_NOMEM, "no memory for %zu requests in line", room);
			return false;
		}
		for (size_t i = 0; i < r->line_count; i++)
			grown[i] = r->line[(r->line_first + i) & (r->line_room - 1)];
		free(r->line);
		r->line = grown;
		r->line_room = room;
		r->line_first = 0;
	}
	r->line[(r->line_first + r->line_count++) & (r->line_room - 1)] = *w;
	return true;
}

static waiting line_pop(runner *r)
{
	const waiting w = r->line[r->line_first];
	r->line_first = (r->line_first + 1) & (r->line_room - 1);
	r->line_count--;
	return w;
}

static void notice_arrivals(runner *r, int64_t now_ns)
{
	while (r->next_ns <= now_ns) {
		const waiting w = {r->next_ns, now_ns, r->next_index++};
		if (!line_push(r, &w))
			return;
		if (r->o->progress)
			r->o->progress->scheduled++;
		const int64_t next = schedule_next(&r->schedule);
		r->next_ns = next < r->o->warmup_ns + r->o->duration_ns ? r->start_ns + next : LOOP_NEVER;
	}
}

static void begin_waiting(runner *r)
{
	while (r->line_count && client_has_room(r->client)) {
		const waiting w = line_pop(r);
		const payload *p = &r->o->requests->items[w.index % r->o->requests->count];
		const exchange e = {.scheduled_ns = w.scheduled_ns,
				    .noticed_ns = w.noticed_ns,
				    .index = w.index,
				    .waited = w.index < r->waited_below};
		client_send(r->client, &e, p->bytes, p->len);
	}
	if (!r->line_count)
		return;
	r->waited_below = r->next_index;
	if (r->line_count > r->out->most_waiting)
		r->out->most_waiting = r->line_count;
}

static void end_waiting(runner *r, outcome o, const char *why)
{
	const waiting w = line_pop(r);
	note(r->out, o, why);
	record(r, &(sample){.scheduled_ns = w.scheduled_ns - r->start_ns,
			    .latency_ns = loop_now() - w.scheduled_ns,
			    .own_lag_s = (float)((double)(w.noticed_ns - w.scheduled_ns) / 1e9),
			    .send_lag_s = -1,
			    .outcome = o,
			    .flags = SAMPLE_WAITED});
}

static int64_t line_timeout(const runner *r)
{
	return r->line_count ? r->line[r->line_first].scheduled_ns + r->o->timeout_ns : LOOP_NEVER;
}

/* ---- the loop ---- */

static int64_t earliest(int64_t a, int64_t b) { return a < b ? a : b; }

static bool is_finished(const runner *r)
{
	return r->next_ns == LOOP_NEVER && !r->line_count && !client_under_way(r->client) && !r->swapper.under_way;
}

static wn_code turn(runner *r, int64_t now_ns)
{
	notice_arrivals(r, now_ns);
	client_expire(r->client,
		      now_ns); /* first: it also closes connections that have been idle for too long to be used */
	begin_waiting(r);
	while (line_timeout(r) <= now_ns)
		end_waiting(r, OUTCOME_TIMEOUT_WAITING, "every connection was busy until the timeout");
	swapper_tick(&r->swapper, now_ns, r->next_ns == LOOP_NEVER);
	int64_t until = earliest(earliest(r->next_ns, client_next_timeout(r->client)),
				 earliest(line_timeout(r), swapper_next(&r->swapper)));
	if (r->o->progress) {
		progress_tick(r->o->progress, now_ns, now_ns - r->start_ns, client_under_way(r->client), r->line_count);
		until = earliest(until, r->o->progress->next_ns);
	}
	if (r->err.code != WN_OK || is_finished(r))
		return r->err.code;
	return loop_wait(&r->loop, until, r->o->signals_while_waiting, &r->err);
}

/* Ends with everything accounted for: answered, failed, or unfinished. */
static wn_code drive(runner *r)
{
	const int64_t end_ns = r->start_ns + r->o->warmup_ns + r->o->duration_ns;
	bool accounted = false;
	int64_t now = loop_now();
	r->out->end = RUN_COMPLETE;
	while (!is_finished(r)) {
		if (r->o->stop && *r->o->stop)
			r->out->end = RUN_INTERRUPTED;
		else if (r->missed > r->o->give_up_after)
			r->out->end = RUN_GIVEN_UP;
		if (r->out->end != RUN_COMPLETE)
			break;
		if (turn(r, now) != WN_OK)
			return r->err.code;
		now = loop_now();
		if (!accounted &&
		    r->next_ns == LOOP_NEVER) { /* what follows is waiting only: it would flatter the loop */
			loop_account(&r->loop, &r->out->busy_share, &r->out->cpu_share);
			accounted = true;
		}
	}
	if (!accounted)
		loop_account(&r->loop, &r->out->busy_share, &r->out->cpu_share);
	if (r->out->end == RUN_INTERRUPTED) {
		notice_arrivals(r, now);
		client_abandon(r->client, OUTCOME_UNFINISHED);
		while (r->line_count)
			end_waiting(r, OUTCOME_UNFINISHED, "the run was stopped before it was sent");
	}
	swapper_abandon(&r->swapper);
	r->out->measured_from_ns = r->o->warmup_ns;
	r->out->measured_until_ns = (r->out->end == RUN_COMPLETE ? end_ns : earliest(now, end_ns)) - r->start_ns;
	if (r->out->measured_until_ns < r->out->measured_from_ns)
		r->out->measured_until_ns = r->out->measured_from_ns;
	return r->err.code;
}

wn_code run_load(run_result *out, const run_options *o, wn_error *err)
{
	runner r = {.o = o, .out = out};
	const client_options co = {.to = o->to,
				   .max_connections = o->max_connections,
				   .timeout_ns = o->timeout_ns,
				   .done = on_done,
				   .context = &r};
	*out = (run_result){0};
	wn_code code = loop_open(&r.loop, &r.err);
	if (code == WN_OK)
		code = client_open(&r.client, &r.loop, &co, &r.err);
	if (code == WN_OK) {
		r.start_ns = loop_now();
		code = swapper_open(&r.swapper, &r.loop, &o->swap, r.start_ns, &out->swaps, &r.err);
	}
	if (code == WN_OK) {
		schedule_start(&r.schedule, o->arrivals, o->rate, o->seed);
		const int64_t first = schedule_next(&r.schedule);
		r.next_ns = first < o->warmup_ns + o->duration_ns ? r.start_ns + first : LOOP_NEVER;
		loop_account_start(&r.loop);
		code = drive(&r);
		out->connections_made = client_connections_made(r.client);
		out->most_connections = client_most_connections(r.client);
	}
	swapper_close(&r.swapper);
	client_close(&r.client);
	loop_close(&r.loop);
	free(r.line);
	if (code == WN_OK)
		return WN_OK;
	run_close(out);
	return wn_fail(err, code, "%s", r.err.message);
}

void run_close(run_result *r)
{
	samples_close(&r->samples);
	free(r->swaps.entries);
	*r = (run_result){0};
}
