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

typedef struct inputs {
	float *pixels;
	int32_t *ids;
	int32_t *rows;
	float *logits;
} inputs;

static void inputs_free(inputs *in)
{
	free(in->pixels);
	free(in->ids);
	free(in->rows);
	free(in->logits);
}

static wn_code inputs_make(inputs *in, const blip2_config *c, const bench_request_options *o, wn_error *err)
{
	const size_t pixels = 3 * (size_t)c->image_size * (size_t)c->image_size;
	const int len = c->num_query_tokens + o->tokens;
	uint64_t state = 1442695040888963407u;
	if (o->tokens < 1 || o->logit_rows < 1 || o->logit_rows > len)
		return wn_fail(err, WN_INVALID, "a request of %d tokens with %d rows of logits: expected at least 1 and 1 to %d", o->tokens,
			       o->logit_rows, len);
	in->pixels = malloc(pixels * sizeof *in->pixels);
	in->ids = malloc((size_t)o->tokens * sizeof *in->ids);
	in->rows = malloc((size_t)o->logit_rows * sizeof *in->rows);
	in->logits = malloc((size_t)o->logit_rows * (size_t)c->vocab_size * sizeof *in->logits);
	if (!in->pixels || !in->ids || !in->rows || !in->logits)
		return wn_fail(err, WN_NOMEM, "out of memory for the inputs");
	for (size_t i = 0; i < pixels; i++)
		in->pixels[i] = 2 * bench_random(&state);
	for (int i = 0; i < o->tokens; i++)
		in->ids[i] = (int32_t)((double)(bench_random(&state) + 1) / 2 * (c->vocab_size - 1));
	for (int i = 0; i < o->logit_rows; i++)
		in->rows[i] = len - o->logit_rows + i;
	return WN_OK;
}

wn_code bench_request(const blip2 *m, const bench_request_options *o, double *times, wn_error *err)
{
	engine *e = NULL;
	engine_session *s = NULL;
	inputs in = {0};
	wn_code rc = inputs_make(&in, blip2_get_config(m), o, err);
	if (!rc)
		rc = engine_open(&e, m, o->precision, err);
	if (!rc)
		rc = engine_session_open(&s, e, 1, o->tokens, o->logit_rows, err);
	const blip2_batch b = {.n = 1, .text_len = o->tokens, .pixel_values = in.pixels, .input_ids = in.ids};
	for (int i = -BENCH_WARM_UP_RUNS; i < o->runs && rc == WN_OK; i++) {
		if (i == 0 && o->mark)
			o->mark(o->ctx, true);
		const double start = bench_now_ms();
		rc = engine_run(s, &b, in.rows, (size_t)o->logit_rows, in.logits, err);
		if (i >= 0)
			times[i] = bench_now_ms() - start;
	}
	if (rc == WN_OK && o->mark)
		o->mark(o->ctx, false);
	if (rc == WN_OK && !isfinite(in.logits[0]))
		rc = wn_fail(err, WN_INTERNAL, "logits: found %f, expected finite numbers", (double)in.logits[0]);
	engine_session_close(&s);
	engine_close(&e);
	inputs_free(&in);
	return rc;
}
