/* audit_decode.c: from a request's bytes to a model's inputs, on the decode threads.
 *
 *   body -> fields -> which model -> in the cache? -> image -> pixels and prompt -> the inference queue
 *
 * The image comes last but one because it is the dear part: whatever refuses or answers a request does so before. Each
 * thread has a decoder of its own. */
#include "server/audit_internal.h"

#include <stdio.h>
#include <string.h>

#include "server/log.h"

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
	switch (decoder_decode(s->image_decoders[worker], img, r->image, r->image_len, size, size, r->deadline_ns, &err)) {
	case WN_OK:
		return REASON_OK;
	case WN_CANCELLED:
		return audit_too_late(r, "decoding");
	case WN_TOO_LARGE:
		return request_fail(r, REASON_IMAGE_TOO_LARGE, "image: %s", err.message);
	case WN_UNSUPPORTED:
		return request_fail(r, REASON_UNSUPPORTED_IMAGE, "image: %s", err.message);
	case WN_NOMEM:
		return request_no_memory(r);
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
		return request_no_memory(r);
	const char *assist = r->assist.len ? (const char *)r->assist.data : "";
	if (classifier_encode_prompt(r->model->classifier, (const char *)r->text.data, assist,
				     (int32_t *)r->prompt.data, &r->prompt_len, &err) != WN_OK) {
		if (err.code == WN_NOMEM)
			return request_no_memory(r);
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
	/* What was admitted before this request has been decoded and waits for inference, or is being decoded beside
	 * it. */
	int64_t needed = forecast_undecoded(&s->forecast, (forecast_ahead){.infer = queue_depth(s->to_infer)},
					    r->deadline_budget_ns, start);
	if (!audit_may_go_on(s, r, "decoding", needed))
		return false;
	/* A model is there already when this is the second time (audit_fall_back). */
	if (!r->model && (fields_parse(r, &s->field_limits) != REASON_OK || choose_model(s, r) != REASON_OK))
		return false;
	if (answer_from_cache(s, r))
		return false;
	reason why = decode_image(s, worker, r, &img);
	int64_t decoded = monotonic_ns();
	r->stage_ns[STAGE_DECODE] = decoded - start;
	needed = forecast_decoded_waiting(&s->forecast, queue_depth(s->to_infer), r->deadline_budget_ns, decoded);
	if (why == REASON_OK && audit_may_go_on(s, r, "preprocessing", needed) &&
	    prepare_inputs(r, &img) == REASON_OK) {
		int64_t now = monotonic_ns();
		r->stage_ns[STAGE_PREPROCESS] = now - decoded;
		forecast_decoded(&s->forecast, now - start, now);
	} else {
		const bool timed_out = why == REASON_DEADLINE_EXCEEDED || decoded - start >= s->opt.config->decode_timeout_ns;
		forecast_decode_ended(&s->forecast, why != REASON_OK && !timed_out, decoded - start, decoded);
	}
	decoder_release(s->image_decoders[worker], &img);
	return why == REASON_OK;
}

wn_code audit_decode_start(void *cls, int worker, wn_error *err)
{
	audit_service *s = cls;
	const decoder_options opt = decoder_options_of(s->opt.config);
	return decoder_open(&s->image_decoders[worker], &opt, err);
}

void audit_decode_run(void *cls, int worker, void **items, size_t count)
{
	audit_service *s = cls;
	for (size_t i = 0; i < count; i++) {
		request *r = items[i];
		while (decode_one(s, worker, r) && audit_fall_back(r))
			;
		atomic_fetch_sub(&s->undecoded, 1);
		r->queued_ns = monotonic_ns();
		/* Admission counted this request, so there is room; should that ever be wrong, the client is told. */
		if (r->outcome == REASON_OK && !r->cached) {
			if (audit_enqueue(s, s->to_infer, r))
				continue;
			request_fail(r, REASON_INTERNAL, "the inference queue is full");
		}
		audit_give_place_back(s);
		audit_finish(s, r);
	}
}
