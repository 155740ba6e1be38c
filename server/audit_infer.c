/* audit_infer.c: runs of the model, on the inference threads.
 *
 * A thread takes what is queued, lets go of what nobody waits for any more, and runs a batch of the rest: of one model, and as
 * large as will be in time (forecast.h). What is not in it goes back to the queue's head before the run, which may take long: there
 * another thread finds it, or its deadline (audit_expire.c). A place is given back when the run begins: from then on it is
 * the run, and what is left of it, that others wait for. */
#include "server/audit_internal.h"

#include <string.h>

#include "server/log.h"

/* r, whose model has changed, goes back to the decoders. False: they take no more (the server stops). */
static bool decode_again(audit_service *s, request *r)
{
	atomic_fetch_add(&s->waiting, 1);
	atomic_fetch_add(&s->undecoded, 1);
	if (audit_enqueue(s, s->to_decode, r))
		return true;
	atomic_fetch_sub(&s->undecoded, 1);
	audit_give_place_back(s);
	request_fail(r, REASON_INTERNAL, "inference failed");
	return false;
}

/* Runs requests of one model together and ends them. */
static void infer_group(audit_service *s, int worker, request **group, int n)
{
	served_model *m = group[0]->model;
	int num_labels = classifier_num_labels(m->classifier);
	classifier_input in[WORKER_MAX_ITEMS];
	float probs[WORKER_MAX_ITEMS * MAX_LABELS];
	for (int i = 0; i < n; i++)
		in[i] = (classifier_input){.pixel_values = (const float *)group[i]->pixels.data,
					   .prompt_ids = (const int32_t *)group[i]->prompt.data,
					   .prompt_len = group[i]->prompt_len};
	wn_error err = {0};
	placement_keep(s->opt.placement, worker, classifier_session_threads(m->sessions[worker]));
	int64_t start = monotonic_ns();
	forecast_run_begins(&s->forecast, worker, n, start);
	wn_code code = classifier_run(m->sessions[worker], in, n, probs, &err);
	int64_t end = monotonic_ns();
	forecast_run_ends(&s->forecast, worker, end);
	if (code == WN_OK)
		metrics_count_batch(s->opt.metrics, n);
	for (int i = 0; i < n; i++) {
		request *r = group[i];
		r->stage_ns[STAGE_INFERENCE] = end - start;
		if (code == WN_OK && s->opt.cache) /* also when it is too late for this client: it may ask again */
			result_cache_put(s->opt.cache, r->result_key, probs + (size_t)i * (size_t)num_labels,
					 num_labels, end);
		if (code != WN_OK) {
			log_error("request %s: inference failed: %s", r->id, err.message);
			if (code == WN_NOMEM)
				request_no_memory(r);
			else
				request_fail(r, REASON_INTERNAL, "inference failed");
		} else if (end >= r->deadline_ns) {
			/* Its client has stopped waiting: a late 200 would only hide that the target was missed. */
			audit_too_late(r, "inference");
		} else {
			memcpy(r->probs, probs + (size_t)i * (size_t)num_labels, (size_t)num_labels * sizeof probs[0]);
			r->verdict = classifier_decide(m->classifier, r->probs);
		}
		if (!audit_fall_back(r) || !decode_again(s, r))
			audit_finish(s, r);
	}
}

/* Ends those of ready[0..n) that may not go on; returns how many are left. */
static int drop_hopeless(audit_service *s, request **ready, int n)
{
	int kept = 0;
	for (int i = 0; i < n; i++) {
		if (audit_may_go_on(s, ready[i], "inference", 0)) {
			ready[kept++] = ready[i];
			continue;
		}
		audit_leave_queue(s, ready[i]);
		audit_finish(s, ready[i]);
	}
	return kept;
}

/* Takes the next batch out of ready[0..n), which keeps the rest in order: requests of the first one's model (after a
 * swap two versions may be queued side by side), as many as will be in time together. 0: the first was given up
 * instead. */
static int take_batch(audit_service *s, int worker, request **batch, request **ready, int *n)
{
	forecast_request wanted[WORKER_MAX_ITEMS];
	int64_t now = monotonic_ns();
	int same = 0, rest = 0, taken = 0;
	for (int i = 0; i < *n; i++)
		if (ready[i]->model == ready[0]->model)
			wanted[same++] = (forecast_request){ready[i]->deadline_ns, ready[i]->deadline_budget_ns};
	/* The first one's own place is among those that wait. */
	bool contended = *n > 1 || audit_waiting(s) > 1 || forecast_waited(&s->forecast, worker, ready[0]->queued_ns);
	int size = forecast_batch(&s->forecast, wanted, same, contended, now);
	if (size == 0) {
		audit_may_go_on(s, ready[0], "inference", forecast_run(&s->forecast, 1, ESTIMATE_LIKELY, now));
		request_fail(ready[0], REASON_DEADLINE_UNREACHABLE, "the deadline is nearer than inference takes");
	}
	const served_model *m = ready[0]->model;
	for (int i = 0; i < *n; i++) {
		if (ready[i]->model == m && taken < (size ? size : 1)) {
			batch[taken++] = ready[i];
			audit_leave_queue(s, ready[i]);
		} else {
			ready[rest++] = ready[i];
		}
	}
	*n = rest;
	if (size == 0)
		audit_finish(s, batch[0]);
	return size;
}

void audit_infer_run(void *cls, int worker, void **items, size_t count)
{
	audit_service *s = cls;
	request *ready[WORKER_MAX_ITEMS], *batch[WORKER_MAX_ITEMS];
	int n = (int)count;
	memcpy(ready, items, count * sizeof ready[0]);
	while ((n = drop_hopeless(s, ready, n)) > 0) {
		int size = take_batch(s, worker, batch, ready, &n);
		if (size == 0)
			continue;
		n = (int)audit_put_back(s, s->to_infer, ready, (size_t)n);
		infer_group(s, worker, batch, size);
	}
}

wn_code audit_infer_start(void *cls, int worker, wn_error *err)
{
	placement_start(((audit_service *)cls)->opt.placement, worker);
	return WN_OK;
}
