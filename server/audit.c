/* audit.c: see audit.h. What every request has in common, whichever stage it is in, and the service around the stages.
 *
 * `waiting` counts the places, which is what admission goes by. A request has one from audit_admit until its run begins
 * or it ends before, and once more when a fall-back in inference sends it through the stages again. */
#include "server/audit_internal.h"

#include <stdlib.h>
#include <string.h>

#include "server/answers.h"
#include "server/log.h"

/* ---- giving up ---- */

static double milliseconds(int64_t ns) { return (double)ns / 1e6; }

static reason too_late(request *r, const char *how, const char *step)
{
	return request_fail(r, REASON_DEADLINE_EXCEEDED, "the deadline of %.0f ms passed %s %s",
			    milliseconds(r->deadline_budget_ns), how, step);
}

reason audit_too_late(request *r, const char *step) { return too_late(r, "during", step); }

bool audit_may_go_on(audit_service *s, request *r, const char *next, int64_t needed)
{
	if (r->outcome != REASON_OK)
		return false;
	int64_t now = monotonic_ns();
	if (atomic_load(&s->abandoned))
		request_fail(r, REASON_DRAINING, "the server stopped before this request's turn came");
	else if (s->opt.gone(r))
		request_fail(r, REASON_CLIENT_CLOSED, "the client closed the connection before %s", next);
	else if (now >= r->deadline_ns)
		too_late(r, "before", next);
	else if (now + needed > r->deadline_ns)
		request_fail(r, REASON_DEADLINE_UNREACHABLE,
			     "%.1f ms are left of %.0f ms before %s, and the answer takes about %.1f ms more",
			     milliseconds(r->deadline_ns - now), milliseconds(r->deadline_budget_ns), next,
			     milliseconds(needed));
	return r->outcome == REASON_OK;
}

/* Everything that needs the model happens here, so that its reference ends with the work. */
void audit_finish(audit_service *s, request *r)
{
	r->answered_ns = monotonic_ns();
	if (r->model) {
		memcpy(r->served_name, r->model->name, sizeof r->served_name);
		memcpy(r->served_version, r->model->version, sizeof r->served_version);
	}
	if (r->outcome == REASON_OK) {
		const label_spec *label = classifier_label(r->model->classifier, r->verdict.label);
		r->answer = answer_audit(r);
		r->answer_len = r->answer ? strlen(r->answer) : 0;
		r->answer_type = TYPE_JSON;
		memcpy(r->label, label->name, sizeof r->label);
		if (r->answer)
			metrics_count_decision(s->opt.metrics, r->label, action_name(r->verdict.suggestion));
		else
			request_no_memory(r);
	}
	if (r->trial && r->outcome == REASON_OK && !r->cached) /* what was not computed tells a trial nothing */
		compare_submit(s->opt.comparer, r);
	registry_release(&r->model);
	registry_release(&r->other);
	trial_release(&r->trial);
	s->opt.done(r);
}

bool audit_fall_back(request *r)
{
	if ((r->outcome != REASON_INTERNAL && r->outcome != REASON_OUT_OF_MEMORY) || !r->trial ||
	    trial_get_mode(r->trial) != TRIAL_CANARY)
		return false;
	log_warning("request %s: model %s version %s on trial: %s; version %s answers", r->id, r->model->name,
		    r->model->version, r->detail, r->other->version);
	trial_failed(r->trial);
	trial_release(&r->trial);
	registry_release(&r->model);
	r->model = r->other;
	r->other = NULL;
	r->outcome = REASON_OK;
	r->detail[0] = 0;
	r->queued_ns = monotonic_ns(); /* what it waited until now has been counted */
	return true;
}

void audit_give_place_back(audit_service *s) { atomic_fetch_sub(&s->waiting, 1); }

void audit_leave_queue(audit_service *s, request *r)
{
	audit_give_place_back(s);
	r->stage_ns[STAGE_QUEUE] += monotonic_ns() - r->queued_ns;
}

/* ---- the service ---- */

wn_code audit_open(audit_service **out, const audit_options *opt, wn_error *err)
{
	const server_config *c = opt->config;
	audit_service *s = *out = calloc(1, sizeof *s);
	if (!s)
		return wn_fail(err, WN_NOMEM, "out of memory for the audit service");
	s->opt = *opt;
	s->field_limits =
	    (field_limits){.max_image = c->max_image, .max_text = c->max_text, .json_depth = c->json_depth};
	s->capacity = (size_t)c->queue_capacity;
	s->forecast.instances = opt->placement->instances;
	s->forecast.decode_threads = c->decode_threads;
	s->forecast.max_batch = c->max_batch;
	worker_options infer = {.name = "inference",
				.threads = opt->placement->instances,
				.max_items = (size_t)c->max_batch,
				.cls = s,
				.start = audit_infer_start,
				.run = audit_infer_run};
	worker_options decode = {.name = "decode",
				 .threads = c->decode_threads,
				 .max_items = 1,
				 .cls = s,
				 .start = audit_decode_start,
				 .run = audit_decode_run};
	/* What falls back in a run takes a place above the capacity: a queue is full for nobody who has one. */
	const size_t room = s->capacity + (size_t)infer.threads * infer.max_items;
	wn_code code = queue_open(&s->to_decode, room, err);
	if (code == WN_OK)
		code = queue_open(&s->to_infer, room, err);
	infer.in = s->to_infer;
	decode.in = s->to_decode;
	if (code == WN_OK)
		code = audit_expire_start(s, err);
	if (code == WN_OK)
		code = worker_pool_open(&s->inferrers, &infer, err);
	if (code == WN_OK)
		code = worker_pool_open(&s->decoders, &decode, err);
	if (code != WN_OK)
		audit_close(out);
	return code;
}

void audit_stop(audit_service *s)
{
	worker_pool_close(&s->decoders); /* first: they feed the others */
	worker_pool_close(&s->inferrers);
	audit_expire_stop(s); /* last: what they have not reached yet has its deadline */
}

void audit_close(audit_service **sp)
{
	audit_service *s = *sp;
	if (!s)
		return;
	*sp = NULL;
	audit_stop(s);
	audit_expire_close(s);
	for (int i = 0; i < SERVER_MAX_DECODE_THREADS; i++)
		decoder_close(&s->image_decoders[i]);
	queue_close(&s->to_decode);
	queue_close(&s->to_infer);
	free(s);
}

reason audit_admit(audit_service *s, request *r)
{
	r->deadline_ns = r->received_ns + r->deadline_budget_ns;
	size_t ahead = atomic_load(&s->waiting);
	do {
		if (ahead >= s->capacity)
			return request_fail(r, REASON_QUEUE_FULL, "%zu requests are waiting already", ahead);
	} while (!atomic_compare_exchange_weak(&s->waiting, &ahead, ahead + 1));
	size_t undecoded = atomic_fetch_add(&s->undecoded, 1);
	int64_t needed = forecast_undecoded(&s->forecast, (forecast_ahead){.decode = undecoded, .infer = ahead},
					    r->deadline_budget_ns, monotonic_ns());
	if (!audit_may_go_on(s, r, "queueing", needed)) {
		atomic_fetch_sub(&s->undecoded, 1);
		audit_give_place_back(s);
	}
	return r->outcome;
}

void audit_submit(audit_service *s, request *r)
{
	r->queued_ns = monotonic_ns();
	if (audit_enqueue(s, s->to_decode, r))
		return;
	request_fail(r, REASON_DRAINING, "the server is shutting down");
	atomic_fetch_sub(&s->undecoded, 1);
	audit_give_place_back(s);
	audit_finish(s, r);
}

bool audit_run_on(void *service, int instance, void (*fn)(void *arg), void *arg)
{
	return worker_pool_run_on(((audit_service *)service)->inferrers, instance, fn, arg);
}

void audit_abandon(audit_service *s)
{
	atomic_store(&s->abandoned, true);
	audit_expire_soon(s);
}

size_t audit_waiting(audit_service *s) { return atomic_load(&s->waiting); }

int64_t audit_predicted_wait_ns(audit_service *s)
{
	return forecast_wait(&s->forecast, audit_waiting(s), INT64_MAX, monotonic_ns());
}

uint64_t audit_decoder_restarts(audit_service *s)
{
	uint64_t n = 0;
	for (int i = 0; i < s->opt.config->decode_threads; i++)
		n += s->image_decoders[i] ? decoder_restarts(s->image_decoders[i]) : 0;
	return n;
}

int audit_retry_after(audit_service *s)
{
	int64_t seconds = (audit_predicted_wait_ns(s) + 999999999) / 1000000000;
	return seconds < 1 ? 1 : seconds > 60 ? 60 : (int)seconds;
}
