/* bench_request.c: see bench_request.h. */
#include "prune/bench_request.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

double bench_now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

/* xorshift */
float bench_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return (float)((double)(*state >> 11) * 0x1p-52 - 1.0);
}

static int compare(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

double bench_median(double *times, int count)
{
	qsort(times, (size_t)count, sizeof *times, compare);
	return count % 2 ? times[count / 2] : (times[count / 2 - 1] + times[count / 2]) / 2;
}

struct bench_session {
	engine *engine;
	engine_session *session;
	float *pixels;
	int32_t *ids;
	int32_t *rows;
	float *logits;
	blip2_batch batch;
	size_t logit_rows;
};

void bench_close(bench_session **s)
{
	if (!*s)
		return;
	engine_session_close(&(*s)->session);
	engine_close(&(*s)->engine);
	free((*s)->pixels);
	free((*s)->ids);
	free((*s)->rows);
	free((*s)->logits);
	free(*s);
	*s = NULL;
}

static wn_code make_inputs(bench_session *s, const blip2_config *c, const bench_request_options *o, wn_error *err)
{
	const size_t pixels = 3 * (size_t)c->image_size * (size_t)c->image_size;
	const int len = c->num_query_tokens + o->tokens;
	uint64_t state = 1442695040888963407u;
	if (o->tokens < 1 || o->logit_rows < 1 || o->logit_rows > len)
		return wn_fail(err, WN_INVALID, "a request of %d tokens with %d rows of logits: expected at least 1 and 1 to %d", o->tokens,
			       o->logit_rows, len);
	s->pixels = malloc(pixels * sizeof *s->pixels);
	s->ids = malloc((size_t)o->tokens * sizeof *s->ids);
	s->rows = malloc((size_t)o->logit_rows * sizeof *s->rows);
	s->logits = malloc((size_t)o->logit_rows * (size_t)c->vocab_size * sizeof *s->logits);
	if (!s->pixels || !s->ids || !s->rows || !s->logits)
		return wn_fail(err, WN_NOMEM, "out of memory for the inputs");
	for (size_t i = 0; i < pixels; i++)
		s->pixels[i] = 2 * bench_random(&state);
	for (int i = 0; i < o->tokens; i++)
		s->ids[i] = (int32_t)((double)(bench_random(&state) + 1) / 2 * (c->vocab_size - 1));
	for (int i = 0; i < o->logit_rows; i++)
		s->rows[i] = len - o->logit_rows + i;
	s->batch = (blip2_batch){.n = 1, .text_len = o->tokens, .pixel_values = s->pixels, .input_ids = s->ids};
	s->logit_rows = (size_t)o->logit_rows;
	return WN_OK;
}

wn_code bench_open(bench_session **out, const blip2 *m, const bench_request_options *o, wn_error *err)
{
	double ms;
	bench_session *s = *out = calloc(1, sizeof *s);
	if (!s)
		return wn_fail(err, WN_NOMEM, "out of memory for a benchmark");
	wn_code rc = make_inputs(s, blip2_get_config(m), o, err);
	if (!rc)
		rc = engine_open(&s->engine, m, &(engine_options){.precision = o->precision, .source = o->source}, err);
	if (!rc)
		rc = engine_session_open(&s->session, s->engine, 1, o->tokens, o->logit_rows, err);
	for (int i = 0; i < BENCH_WARM_UP_RUNS && !rc; i++) {
		rc = bench_run(s, &ms, err);
		if (i == 0 && o->first_answer)
			o->first_answer(o->ctx);
	}
	if (!rc && !isfinite(s->logits[0]))
		rc = wn_fail(err, WN_INTERNAL, "logits: found %f, expected finite numbers", (double)s->logits[0]);
	if (rc)
		bench_close(out);
	return rc;
}

wn_code bench_run(bench_session *s, double *ms, wn_error *err)
{
	const double start = bench_now_ms();
	wn_code rc = engine_run(s->session, &s->batch, s->rows, s->logit_rows, s->logits, err);
	*ms = bench_now_ms() - start;
	return rc;
}

wn_code bench_request(const blip2 *m, const bench_request_options *o, double *times, wn_error *err)
{
	bench_session *s;
	wn_code rc = bench_open(&s, m, o, err);
	if (rc)
		return rc;
	if (o->mark)
		o->mark(o->ctx, true);
	for (int i = 0; i < o->runs && !rc; i++)
		rc = bench_run(s, &times[i], err);
	if (!rc && o->mark)
		o->mark(o->ctx, false);
	bench_close(&s);
	return rc;
}
