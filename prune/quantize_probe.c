/* quantize_probe.c: see quantize_probe.h. All inputs are prepared once; an engine is made for every score. */
#include "prune/quantize_probe.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "prune/ad_input.h"
#include "prune/bench_request.h"

#define RANDOM_SAMPLES 8
#define RANDOM_TOKENS  32

struct quantize_samples {
	const checkpoint *ck;
	dataset data; /* count 0: random */
	size_t count, image_floats;
	int max_prompt;
	float *pixels;        /* [count][3][size][size] */
	int32_t *ids;         /* [count][max_prompt] */
	classifier_input *in; /* [count] */
	size_t row_floats;    /* logits of one sample; known behind the first run */
	float *reference;     /* [count][row_floats] */
	/* of the score under way */
	size_t at;
	bool first, failed;
	double cosines;
};

/* ---- inputs ---- */

static wn_code take_random(quantize_samples *s)
{
	uint64_t state = 88172645463325252u;
	const int vocab = blip2_get_config(s->ck->model)->vocab_size;
	for (size_t i = 0; i < s->count * s->image_floats; i++)
		s->pixels[i] = 2 * bench_random(&state);
	for (size_t i = 0; i < s->count * (size_t)s->max_prompt; i++)
		s->ids[i] = (int32_t)((double)(bench_random(&state) + 1) / 2 * (vocab - 1));
	for (size_t i = 0; i < s->count; i++)
		s->in[i] = (classifier_input){s->pixels + i * s->image_floats, s->ids + i * (size_t)s->max_prompt, s->max_prompt};
	return WN_OK;
}

static wn_code borrow(classifier **out, const quantize_samples *s, const engine_options *o, wn_error *err)
{
	const checkpoint *ck = s->ck;
	return classifier_borrow_as(out, ck->model, ck->tokenizer, &ck->image_processor, &ck->manifest, o, err);
}

static wn_code take_ads(quantize_samples *s, wn_error *err)
{
	classifier *c = NULL;
	const modalities seen = ad_modalities(&s->ck->manifest);
	wn_code rc = borrow(&c, s, &(engine_options){.precision = PRECISION_F32}, err);
	for (size_t i = 0; i < s->count && !rc; i++)
		rc = ad_input_load(&s->in[i], c, &s->data, i, seen, s->pixels + i * s->image_floats, s->ids + i * (size_t)s->max_prompt, NULL,
				   err);
	classifier_close(&c);
	return rc;
}

static wn_code read_data(quantize_samples *s, const quantize_samples_options *o, wn_error *err)
{
	const manifest *m = &s->ck->manifest;
	if (!s->ck->has_manifest || m->num_labels < 2 || !s->ck->tokenizer)
		return wn_fail(err, WN_INVALID, "--data: this model has no labels or no tokenizer.json: leave --data out");
	s->max_prompt = m->max_text_tokens;
	wn_code rc = dataset_read(&s->data, o->data, o->split, m->labels, m->num_labels, DATASET_NEEDS_LABEL, (size_t)o->samples, err);
	s->count = s->data.count;
	return rc;
}

wn_code quantize_samples_open(quantize_samples **out, const checkpoint *ck, const quantize_samples_options *o, wn_error *err)
{
	const blip2_config *c = blip2_get_config(ck->model);
	const int room = c->max_position_embeddings - c->num_query_tokens;
	quantize_samples *s = *out = calloc(1, sizeof *s);
	if (!s)
		return wn_fail(err, WN_NOMEM, "no memory for calibration");
	s->ck = ck;
	s->count = o->samples ? (size_t)o->samples : RANDOM_SAMPLES;
	s->max_prompt = room < RANDOM_TOKENS ? room : RANDOM_TOKENS;
	s->image_floats = 3 * (size_t)c->image_size * (size_t)c->image_size;
	wn_code rc = o->data ? read_data(s, o, err) : WN_OK;
	if (!rc) {
		s->pixels = malloc(s->count * s->image_floats * sizeof *s->pixels);
		s->ids = malloc(s->count * (size_t)s->max_prompt * sizeof *s->ids);
		s->in = calloc(s->count, sizeof *s->in);
		rc = s->pixels && s->ids && s->in ? WN_OK : wn_fail(err, WN_NOMEM, "no memory for %zu samples", s->count);
	}
	if (!rc)
		rc = o->data ? take_ads(s, err) : take_random(s);
	if (rc)
		quantize_samples_close(out);
	return rc;
}

void quantize_samples_close(quantize_samples **s)
{
	if (!*s)
		return;
	dataset_close(&(*s)->data);
	free((*s)->pixels);
	free((*s)->ids);
	free((*s)->in);
	free((*s)->reference);
	free(*s);
	*s = NULL;
}

size_t quantize_samples_count(const quantize_samples *s) { return s->count; }
const char *quantize_samples_digest(const quantize_samples *s) { return s->data.digest; }

/* ---- scores ---- */

static double cosine(const float *a, const float *b, size_t count)
{
	double ab = 0, aa = 0, bb = 0;
	for (size_t i = 0; i < count; i++) {
		ab += (double)a[i] * b[i];
		aa += (double)a[i] * a[i];
		bb += (double)b[i] * b[i];
	}
	return ab == 0 ? 0 : ab / sqrt(aa * bb);
}

/* Sample s->at's logits: kept by the first score, compared by later ones. */
static void take_logits(void *ctx, const float *logits, size_t rows, size_t vocab)
{
	quantize_samples *s = ctx;
	if (!s->reference) {
		s->row_floats = rows * vocab;
		s->reference = malloc(s->count * s->row_floats * sizeof *s->reference);
		s->failed = !s->reference;
	}
	if (s->failed)
		return;
	float *kept = s->reference + s->at * s->row_floats;
	if (s->first)
		memcpy(kept, logits, s->row_floats * sizeof *kept);
	s->cosines += cosine(kept, logits, s->row_floats);
}

static wn_code score_ads(quantize_samples *s, const engine_options *o, quantize_score *out, wn_error *err)
{
	classifier *c = NULL;
	classifier_session *session = NULL;
	float probs[MAX_LABELS];
	size_t right = 0;
	wn_code rc = borrow(&c, s, o, err);
	if (!rc)
		rc = classifier_session_open(&session, c, 1, err);
	if (!rc)
		classifier_observe(session, take_logits, s);
	for (s->at = 0; s->at < s->count && !rc; s->at++) {
		rc = classifier_run(session, &s->in[s->at], 1, probs, err);
		if (!rc)
			right += classifier_decide(c, probs).label == s->data.samples[s->at].label;
	}
	out->accuracy = (double)right / (double)s->count;
	classifier_session_close(&session);
	classifier_close(&c);
	return rc;
}

static wn_code score_random(quantize_samples *s, const engine_options *o, quantize_score *out, wn_error *err)
{
	const blip2_config *c = blip2_get_config(s->ck->model);
	const int32_t last = c->num_query_tokens + s->max_prompt - 1;
	engine *e = NULL;
	engine_session *session = NULL;
	float *logits = malloc((size_t)c->vocab_size * sizeof *logits);
	wn_code rc = logits ? engine_open(&e, s->ck->model, o, err) : wn_fail(err, WN_NOMEM, "no memory for logits");
	if (!rc)
		rc = engine_session_open(&session, e, 1, s->max_prompt, 1, err);
	for (s->at = 0; s->at < s->count && !rc; s->at++) {
		const classifier_input *in = &s->in[s->at];
		const blip2_batch b = {.n = 1, .text_len = s->max_prompt, .pixel_values = in->pixel_values, .input_ids = in->prompt_ids};
		rc = engine_run(session, &b, &last, 1, logits, err);
		if (!rc)
			take_logits(s, logits, 1, (size_t)c->vocab_size);
	}
	out->accuracy = NAN;
	engine_session_close(&session);
	engine_close(&e);
	free(logits);
	return rc;
}

static wn_code score(void *ctx, const engine_options *o, quantize_score *out, wn_error *err)
{
	quantize_samples *s = ctx;
	s->first = !s->reference;
	s->cosines = 0;
	wn_code rc = s->data.count ? score_ads(s, o, out, err) : score_random(s, o, out, err);
	if (!rc && s->failed)
		rc = wn_fail(err, WN_NOMEM, "no memory for the logits of %zu samples", s->count);
	out->cosine = s->cosines / (double)s->count;
	return rc;
}

quantize_probe quantize_samples_probe(quantize_samples *s) { return (quantize_probe){score, s}; }
