/* swap.c: see swap.h. */
#include "load/swap.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "load/answer.h"

/* What the answer names, against what answered before: of the same model, or nothing is known. */
static void note_model(swapper *s, swap_entry *e)
{
	const response *a = &s->connection.answer;
	if (!answer_model(a->body, a->body_kept, e->model, sizeof e->model))
		e->model[0] = 0;
	const size_t name = strcspn(e->model, "/") + 1;
	if (e->model[0] && strncmp(e->model, s->answers, name) == 0)
		e->effect = strcmp(e->model, s->answers) == 0 ? SWAP_NO_CHANGE : SWAP_CHANGED;
	snprintf(s->answers, sizeof s->answers, "%s", e->model);
}

void swapper_saw(swapper *s, const char *model)
{
	if (s->begun == 0)
		snprintf(s->answers, sizeof s->answers, "%s", model);
}

static void end_swap(swapper *s)
{
	swap_entry *e = &s->log->entries[s->log->count - 1];
	const response *a = &s->connection.answer;
	s->under_way = false;
	e->ended_ns = loop_now() - s->start_ns;
	e->outcome = s->connection.result;
	if (!outcome_is_status(e->outcome))
		snprintf(e->detail, sizeof e->detail, "%s", s->connection.detail);
	else if (!outcome_is_ok(e->outcome))
		answer_reason(a->body, a->body_kept, e->detail, sizeof e->detail);
	else
		note_model(s, e);
	connection_drop(&s->connection); /* the next swap may be minutes away */
}

static void on_ended(connection *c) { end_swap((swapper *)c); }

wn_code swapper_open(swapper *s, loop *l, const swap_options *o, int64_t start_ns, swap_log *log, wn_error *err)
{
	connection_init(&s->connection, l, o->to, on_ended, NULL);
	s->o = *o;
	s->log = log;
	s->start_ns = start_ns;
	s->next_ns = o->every_ns ? start_ns + o->every_ns : LOOP_NEVER;
	s->begun = 0;
	s->answers[0] = 0;
	s->under_way = false;
	if (!o->every_ns)
		return WN_OK;
	log->entries = calloc(SWAP_LOG_MAX, sizeof *log->entries);
	return log->entries ? WN_OK : wn_fail(err, WN_NOMEM, "no memory for a log of swaps");
}

void swapper_close(swapper *s)
{
	if (s->connection.loop) /* opened */
		connection_free(&s->connection);
}

static void begin(swapper *s, int64_t now_ns)
{
	const int i = (int)(s->begun++ % (size_t)s->o.num_requests);
	s->log->entries[s->log->count++] = (swap_entry){.begun_ns = now_ns - s->start_ns, .ended_ns = INT64_MAX};
	s->under_way = true;
	s->timeout_at_ns = now_ns + s->o.timeout_ns;
	if (connection_begin(&s->connection, s->o.requests[i], s->o.lens[i]) != OUTCOME_NONE)
		end_swap(s);
}

static void give_up(swapper *s, outcome o, const char *why)
{
	connection_drop(&s->connection);
	s->connection.result = o;
	snprintf(s->connection.detail, sizeof s->connection.detail, "%s", why);
	end_swap(s);
}

void swapper_abandon(swapper *s)
{
	if (s->under_way)
		give_up(s, OUTCOME_UNFINISHED, "the run ended before the answer");
}

void swapper_tick(swapper *s, int64_t now_ns, bool no_more)
{
	if (s->under_way && now_ns >= s->timeout_at_ns)
		give_up(s, OUTCOME_TIMEOUT_ANSWER, "no complete answer in time");
	if (no_more)
		s->next_ns = LOOP_NEVER;
	if (s->next_ns > now_ns)
		return;
	s->next_ns += s->o.every_ns;
	if (s->under_way || s->log->count == SWAP_LOG_MAX)
		s->log->skipped++;
	else
		begin(s, now_ns);
}

int64_t swapper_next(const swapper *s)
{
	return s->under_way && s->timeout_at_ns < s->next_ns ? s->timeout_at_ns : s->next_ns;
}

swap_tally swap_log_tally(const swap_log *l)
{
	swap_tally t = {0};
	for (size_t i = 0; i < l->count; i++) {
		const swap_entry *e = &l->entries[i];
		const double ms = (double)(e->ended_ns - e->begun_ns) / 1e6;
		const bool good = outcome_is_ok(e->outcome);
		t.good += good;
		t.changed += e->effect == SWAP_CHANGED;
		t.unchanged += e->effect == SWAP_NO_CHANGE;
		t.longest_ms = ms > t.longest_ms ? ms : t.longest_ms;
		if (!good && !t.bad)
			t.bad = e;
	}
	return t;
}
