/* audit.c: see audit.h. */
#include "server/audit.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/answers.h"
#include "server/decoder.h"
#include "server/fields.h"
#include "server/forecast.h"
#include "server/log.h"
#include "server/queue.h"
#include "server/worker.h"

struct audit_service {
	audit_options opt;
	field_limits field_limits;
	size_t capacity;
	atomic_size_t waiting;   /* places taken: admitted and not yet in a run of the model */
	atomic_size_t undecoded; /* of these, not yet decoded */
	atomic_bool abandoned;
	forecast forecast;
	decoder *image_decoders[SERVER_MAX_DECODE_THREADS]; /* [i] is decode thread i's */
	queue *to_decode, *to_infer;
	worker_pool *decoders, *inferrers;
};

/* ---- giving up ---- */

static double milliseconds(int64_t ns) { return (double)ns / 1e6; }

/* Whether r may go on to a stage; `needed` is the predicted time from here to its answer (0 = unknown). */
static bool may_go_on(audit_service *s, request *r, const char *next, int64_t needed)
{
	if (r->outcome != REASON_OK)
		return false;
	int64_t now = monotonic_ns();
	if (atomic_load(&s->abandoned))
		request_fail(r, REASON_DRAINING, "the server stopped before this request's turn came");
	else if (s->opt.gone(r))
		request_fail(r, REASON_CLIENT_CLOSED, "the client closed the connection before %s", next);
	else if (now >= r->deadline_ns)
		request_fail(r, REASON_DEADLINE_EXCEEDED, "the deadline of %.0f ms passed before %s",
			     milliseconds(r->deadline_budget_ns), next);
	else if (now + needed > r->deadline_ns)
		request_fail(r, REASON_DEADLINE_UNREACHABLE,
			     "%.1f ms are left of %.0f ms before %s, and the answer takes about %.1f ms more",
			     milliseconds(r->deadline_ns - now), milliseconds(r->deadline_budget_ns), next,
			     milliseconds(needed));
	return r->outcome == REASON_OK;
}

/* Gives r back, answered. Everything that needs the model happens here, so that its reference ends with the work. */
static void finish(audit_service *s, request *r)
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
			request_fail(r, REASON_OUT_OF_MEMORY, "there is no memory left for this request");
	}
	if (r->trial && r->outcome == REASON_OK && !r->cached) /* what was not computed tells a trial nothing */
		compare_submit(s->opt.comparer, r);
	registry_release(&r->model);
	registry_release(&r->other);
	trial_release(&r->trial);
	s->opt.done(r);
}

/* A request that a version on trial could not answer, for a reason of its own: from now on it is the other version's, which will decode
 * the image anew for its own inputs. The trial counts the failure, and no client pays for it. */
static bool fall_back(request *r)
{
	if ((r->outcome != REASON_INTERNAL && r->outcome != REASON_OUT_OF_MEMORY) || !r->trial ||
	    trial_get_mode(r->trial) != TRIAL_CANARY)
		return false;
	log_warning("request %s: model %s version %s on trial: %s; version %s answers", r->id, r->model->name, r->model->version,
		    r->detail, r->other->version);
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

static void give_place_back(audit_service *s) { atomic_fetch_sub(&s->waiting, 1); }

/* ---- decoding ---- */

static reason choose_model(audit_service *s, request *r)
{
	char name[MODEL_NAME_SIZE];
	size_t n = strcspn(r->model_name, "/"); /* NAME or NAME/VERSION */
	const char *version = r->model_name[n] ? r->model_name + n + 1 : "";
	snprintf(name, sizeof name, "%.*s", (int)n, r->model_name);
	registry_choice choice = registry_choose(s->opt.registry, name, version);
	r->model = choice.model;
	r->other = choice.other;
	r->trial = choice.trial;
	if (r->model)
		return REASON_OK;
	if (!*name)
		return request_fail(r, REASON_NO_MODEL, "no model is loaded");
	if (!*version && registry_knows(s->opt.registry, name))
		return request_fail(r, REASON_NO_MODEL, "model: \"%s\" is not loaded", name);
	return request_fail(r, REASON_UNKNOWN_MODEL, "model: \"%s\" is not served here", r->model_name);
}

/* Whether the same was asked before: then everything is known. */
static bool answer_from_cache(audit_service *s, request *r)
{
	if (!s->opt.cache)
		return false;
	const classifier *c = r->model->classifier;
	result_cache_key(r->result_key, r);
	if (!result_cache_get(s->opt.cache, r->result_key, r->probs, classifier_num_labels(c), monotonic_ns()))
		return false;
	r->verdict = classifier_decide(c, r->probs);
	r->cached = true;
	return true;
}

static reason decode_image(audit_service *s, int worker, request *r, image *img)
{
	const char *format = image_format(r->image, r->image_len);
	if (strcmp(format, "jpeg") != 0 && strcmp(format, "png") != 0)
		return request_fail(r, REASON_UNSUPPORTED_IMAGE, "image: found %s, expected jpeg or png",
				    strcmp(format, "unknown") == 0 ? "bytes that are no known image format" : format);
	/* choose_model came first: the model's size says how much of a large JPEG need be decoded. */
	const int size = classifier_checkpoint(r->model->classifier)->image_processor.size;
	wn_error err = {0};
	switch (decoder_decode(s->image_decoders[worker], img, r->image, r->image_len, size, size, &err)) {
	case WN_OK:
		return REASON_OK;
	case WN_TOO_LARGE:
		return request_fail(r, REASON_IMAGE_TOO_LARGE, "image: %s", err.message);
	case WN_UNSUPPORTED:
		return request_fail(r, REASON_UNSUPPORTED_IMAGE, "image: %s", err.message);
	case WN_NOMEM:
		return request_fail(r, REASON_OUT_OF_MEMORY, "there is no memory left for this request");
	case WN_IO:
		log_error("request %s: %s", r->id, err.message);
		return request_fail(r, REASON_INTERNAL, "the image decoder is not available");
	default:
		return request_fail(r, REASON_UNDECODABLE_IMAGE, "image: %s", err.message);
	}
}

static reason prepare_inputs(request *r, const image *img)
{
	const checkpoint *ckpt = classifier_checkpoint(r->model->classifier);
	const image_processor *ip = &ckpt->image_processor;
	wn_error err = {0};
	if (bytes_reserve(&r->pixels, 3 * sizeof(float) * (size_t)ip->size * (size_t)ip->size, &err) != WN_OK ||
	    bytes_reserve(&r->prompt, sizeof(int32_t) * (size_t)ckpt->manifest.max_text_tokens, &err) != WN_OK ||
	    image_preprocess((float *)r->pixels.data, ip, img, &err) != WN_OK)
		return request_fail(r, REASON_OUT_OF_MEMORY, "there is no memory left for this request");
	const char *assist = r->assist.len ? (const char *)r->assist.data : "";
	if (classifier_encode_prompt(r->model->classifier, (const char *)r->text.data, assist,
				     (int32_t *)r->prompt.data, &r->prompt_len, &err) != WN_OK) {
		if (err.code == WN_NOMEM)
			return request_fail(r, REASON_OUT_OF_MEMORY, "there is no memory left for this request");
		log_error("request %s: cannot build the prompt: %s", r->id, err.message);
		return request_fail(r, REASON_INTERNAL, "the prompt cannot be built from this text");
	}
	return REASON_OK;
}

/* Whether r's image was decoded: then what failed behind it is the version's own. */
static bool decode_one(audit_service *s, int worker, request *r)
{
	image img = {0};
	int64_t start = monotonic_ns();
	r->stage_ns[STAGE_QUEUE] += start - r->queued_ns;
	/* What was admitted before this request has been decoded and waits for inference, or is being decoded beside it. */
	int64_t needed = forecast_undecoded(&s->forecast, (forecast_ahead){.infer = queue_depth(s->to_infer)},
					    r->deadline_budget_ns, start);
	if (!may_go_on(s, r, "decoding", needed))
		return false;
	/* A model is there already when this is the second time (fall_back). */
	if (!r->model && (fields_parse(r, &s->field_limits) != REASON_OK || choose_model(s, r) != REASON_OK))
		return false;
	if (answer_from_cache(s, r))
		return false;
	reason why = decode_image(s, worker, r, &img);
	int64_t decoded = monotonic_ns();
	r->stage_ns[STAGE_DECODE] = decoded - start;
	needed = forecast_decoded_waiting(&s->forecast, queue_depth(s->to_infer), r->deadline_budget_ns, decoded);
	if (why == REASON_OK && may_go_on(s, r, "preprocessing", needed) && prepare_inputs(r, &img) == REASON_OK) {
		int64_t now = monotonic_ns();
		r->stage_ns[STAGE_PREPROCESS] = now - decoded;
		forecast_decoded(&s->forecast, now - start, now);
	}
	decoder_release(s->image_decoders[worker], &img);
	return why == REASON_OK;
}

static wn_code decode_start(void *cls, int worker, wn_error *err)
{
	audit_service *s = cls;
	const decoder_options opt = decoder_options_of(s->opt.config);
	return decoder_open(&s->image_decoders[worker], &opt, err);
}

static void decode_run(void *cls, int worker, void **items, size_t count)
{
	audit_service *s = cls;
	for (size_t i = 0; i < count; i++) {
		request *r = items[i];
		while (decode_one(s, worker, r) && fall_back(r))
			;
		atomic_fetch_sub(&s->undecoded, 1);
		r->queued_ns = monotonic_ns();
		/* Admission counted this request, so there is room; should that ever be wrong, the client is told. */
		if (r->outcome == REASON_OK && !r->cached) {
			if (queue_push(s->to_infer, r))
				continue;
			request_fail(r, REASON_INTERNAL, "the inference queue is full");
		}
		give_place_back(s);
		finish(s, r);
	}
}

/* ---- inference ---- */

/* r, whose model has changed, goes back to the decoders. False: they take no more (the server stops, or everything is full). */
static bool decode_again(audit_service *s, request *r)
{
	atomic_fetch_add(&s->waiting, 1);
	atomic_fetch_add(&s->undecoded, 1);
	if (queue_push(s->to_decode, r))
		return true;
	atomic_fetch_sub(&s->undecoded, 1);
	give_place_back(s);
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
			result_cache_put(s->opt.cache, r->result_key, probs + (size_t)i * (size_t)num_labels, num_labels, end);
		if (code != WN_OK) {
			log_error("request %s: inference failed: %s", r->id, err.message);
			if (code == WN_NOMEM)
				request_fail(r, REASON_OUT_OF_MEMORY, "there is no memory left for this request");
			else
				request_fail(r, REASON_INTERNAL, "inference failed");
		} else if (end >= r->deadline_ns) {
			/* Its client has stopped waiting: a late 200 would only hide that the target was missed. */
			request_fail(r, REASON_DEADLINE_EXCEEDED, "the deadline of %.0f ms passed during inference",
				     milliseconds(r->deadline_budget_ns));
		} else {
			memcpy(r->probs, probs + (size_t)i * (size_t)num_labels, (size_t)num_labels * sizeof probs[0]);
			r->verdict = classifier_decide(m->classifier, r->probs);
		}
		if (!fall_back(r) || !decode_again(s, r))
			finish(s, r);
	}
}

/* r's wait for inference ends, in a run or before one. */
static void leave_queue(audit_service *s, request *r)
{
	give_place_back(s);
	r->stage_ns[STAGE_QUEUE] += monotonic_ns() - r->queued_ns;
}

/* Ends those of ready[0..n) that may not go on; returns how many are left. */
static int drop_hopeless(audit_service *s, request **ready, int n)
{
	int kept = 0;
	for (int i = 0; i < n; i++) {
		if (may_go_on(s, ready[i], "inference", 0)) {
			ready[kept++] = ready[i];
			continue;
		}
		leave_queue(s, ready[i]);
		finish(s, ready[i]);
	}
	return kept;
}

/* Takes the next batch out of ready[0..n), which keeps the rest in order: requests of the first one's model (after a swap
 * two versions may be queued side by side), as many as will be in time together. 0: the first was given up instead. */
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
		may_go_on(s, ready[0], "inference", forecast_run(&s->forecast, 1, ESTIMATE_LIKELY, now));
		request_fail(ready[0], REASON_DEADLINE_UNREACHABLE, "the deadline is nearer than inference takes");
	}
	const served_model *m = ready[0]->model;
	for (int i = 0; i < *n; i++) {
		if (ready[i]->model == m && taken < (size ? size : 1)) {
			batch[taken++] = ready[i];
			leave_queue(s, ready[i]);
		} else {
			ready[rest++] = ready[i];
		}
	}
	*n = rest;
	if (size == 0)
		finish(s, batch[0]);
	return size;
}

static void infer_run(void *cls, int worker, void **items, size_t count)
{
	audit_service *s = cls;
	request *ready[WORKER_MAX_ITEMS], *batch[WORKER_MAX_ITEMS];
	int n = (int)count;
	memcpy(ready, items, count * sizeof ready[0]);
	while ((n = drop_hopeless(s, ready, n)) > 0) {
		int size = take_batch(s, worker, batch, ready, &n);
		if (size > 0)
			infer_group(s, worker, batch, size);
	}
}

static wn_code infer_start(void *cls, int worker, wn_error *err)
{
	placement_start(((audit_service *)cls)->opt.placement, worker);
	return WN_OK;
}

bool audit_run_on(void *service, int instance, void (*fn)(void *arg), void *arg)
{
	return worker_pool_run_on(((audit_service *)service)->inferrers, instance, fn, arg);
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
				.start = infer_start,
				.run = infer_run};
	worker_options decode = {
	    .name = "decode", .threads = c->decode_threads, .max_items = 1, .cls = s, .start = decode_start, .run = decode_run};
	wn_code code = queue_open(&s->to_decode, s->capacity, err);
	if (code == WN_OK)
		code = queue_open(&s->to_infer, s->capacity, err);
	infer.in = s->to_infer;
	decode.in = s->to_decode;
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
}

void audit_close(audit_service **sp)
{
	audit_service *s = *sp;
	if (!s)
		return;
	*sp = NULL;
	audit_stop(s);
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
	if (!may_go_on(s, r, "queueing", needed)) {
		atomic_fetch_sub(&s->undecoded, 1);
		give_place_back(s);
	}
	return r->outcome;
}

void audit_submit(audit_service *s, request *r)
{
	r->queued_ns = monotonic_ns();
	if (queue_push(s->to_decode, r))
		return;
	request_fail(r, REASON_DRAINING, "the server is shutting down");
	atomic_fetch_sub(&s->undecoded, 1);
	give_place_back(s);
	finish(s, r);
}

void audit_abandon(audit_service *s) { atomic_store(&s->abandoned, true); }

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
