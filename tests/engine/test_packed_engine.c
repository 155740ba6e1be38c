/* test_packed_engine.c: engine.h against stock transformers' logits and against blip2.h, in every precision: goldens of all kinds of
 * widths, masks and tries, batches in all sizes, and that a second run makes no primitive. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <omp.h>

#include "model/dnn.h"
#include "model/engine.h"
#include "tests/engine/golden.h"

static wn_error err;

/* cosine of two vectors */
static double cosine(const float *a, const float *b, size_t count)
{
	double ab = 0, aa = 0, bb = 0;
	for (size_t i = 0; i < count; i++) {
		ab += (double)a[i] * b[i];
		aa += (double)a[i] * a[i];
		bb += (double)b[i] * b[i];
	}
	return ab / sqrt(aa * bb);
}

typedef struct rows_of {
	int32_t *rows; /* all but padding */
	size_t count;
} rows_of;

static rows_of seen_rows(const golden *g)
{
	const int queries = blip2_get_config(g->ck.model)->num_query_tokens, len = queries + g->batch.text_len;
	rows_of r = {.rows = calloc((size_t)(g->batch.n * len), sizeof *r.rows)};
	for (int i = 0; i < g->batch.n; i++)
		for (int j = 0; j < len; j++)
			if (j < queries || !g->batch.attention_mask || g->batch.attention_mask[i * g->batch.text_len + j - queries])
				r.rows[r.count++] = i * len + j;
	return r;
}

/* The golden's logits of those rows. */
static float *expected_logits(const golden *g, const rows_of *r)
{
	const blip2_config *c = blip2_get_config(g->ck.model);
	const size_t v = (size_t)c->vocab_size, all = (size_t)(g->batch.n * (c->num_query_tokens + g->batch.text_len));
	const float *logits = golden_floats(g->out, "logits", all * v);
	float *out = calloc(r->count * v, sizeof *out);
	for (size_t i = 0; i < r->count; i++)
		memcpy(out + i * v, logits + (size_t)r->rows[i] * v, v * sizeof *out);
	return out;
}

static void goldens_in_every_precision(void **state)
{
	static const char *const cases[] = {"base", "no_qkv_bias", "freq3", "sharded", "single", "widths", "f16", "bf16_sharded"};
	static const double limits[] = {2e-5, 3e-2, 8e-2}, cosines[] = {0.999999, 0.9995, 0.997};
	for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
		golden g;
		golden_open(&g, cases[c]);
		rows_of r = seen_rows(&g);
		const size_t count = r.count * (size_t)blip2_get_config(g.ck.model)->vocab_size;
		float *want = expected_logits(&g, &r), *got = calloc(count, sizeof *got);
		for (int p = PRECISION_F32; p <= PRECISION_INT8; p++) {
			engine *e;
			engine_session *s;
			assert_ok(engine_open(&e, g.ck.model, &(engine_options){.precision = (precision)p}, &err), &err);
			assert_ok(engine_session_open(&s, e, g.batch.n, g.batch.text_len, (int)r.count, &err), &err);
			assert_non_null(strstr(engine_describe(e), PRECISION_NAMES[p]));
			assert_int_equal(engine_precision(e), p);
			int created = 0;
			for (int again = 0; again < 2; again++) {
				memset(got, 0, count * sizeof *got);
				assert_ok(engine_run(s, &g.batch, r.rows, r.count, got, &err), &err);
				printf("%s %s: %.2g apart, cosine %.6f\n", cases[c], engine_describe(e), worst_difference(got, want, count),
				       cosine(got, want, count));
				assert_at_most(worst_difference(got, want, count), limits[p], cases[c]);
				assert_true(cosine(got, want, count) >= cosines[p]);
				assert_true(!again || engine_session_created(s) == created);
				created = engine_session_created(s);
			}
			engine_session_close(&s);
			engine_close(&e);
		}
		free(want);
		free(got);
		free(r.rows);
		golden_close(&g);
	}
}

/* A trie of continuations, some samples, some rows: as blip2.h has them, whatever else is in the batch. */
static void tries_and_batches(void **state)
{
	enum { NODES = 4, PROMPT = 3, T = PROMPT + NODES, N = 3 };
	static const int16_t parent[NODES] = {-1, 0, -1, 2};
	golden g;
	golden_open(&g, "base");
	const blip2_config *c = blip2_get_config(g.ck.model);
	const int queries = c->num_query_tokens, len = queries + T;
	const size_t v = (size_t)c->vocab_size;
	int32_t ids[N * T], rows[N * (1 + NODES)];
	uint8_t mask[N * T];
	for (int i = 0; i < N * T; i++) {
		ids[i] = (i * 7 + 3) % c->vocab_size;
		mask[i] = i % T >= i / T; /* sample i has i tokens of padding */
	}
	for (int i = 0; i < N; i++)
		for (int k = 0; k <= NODES; k++)
			rows[i * (1 + NODES) + k] = i * len + queries + PROMPT - 1 + k;
	blip2_batch b = {.n = N, .text_len = T, .pixel_values = g.pixels, .input_ids = ids, .attention_mask = mask, .tail_len = NODES,
			 .tail_parent = parent};
	blip2_session_options o = blip2_session_defaults();
	o.max_batch = N;
	o.max_text_len = T;
	blip2_session *plain;
	float want[N * (1 + NODES) * 61], got[N * (1 + NODES) * 61];
	assert_true(v == 61);
	assert_ok(blip2_session_open(&plain, g.ck.model, &o, &err), &err);
	assert_ok(blip2_forward(plain, &b, &err), &err);
	blip2_logits(plain, rows, N * (1 + NODES), want);
	engine *e;
	engine_session *s;
	assert_ok(engine_open(&e, g.ck.model, &(engine_options){.precision = PRECISION_F32}, &err), &err);
	assert_ok(engine_session_open(&s, e, N, T, N * (1 + NODES), &err), &err);
	assert_ok(engine_run(s, &b, rows, N * (1 + NODES), got, &err), &err);
	assert_at_most(worst_difference(got, want, N * (1 + NODES) * v), 1e-5, "three samples");
	/* one sample of them alone */
	const size_t pixels = 3 * (size_t)c->image_size * (size_t)c->image_size;
	for (int i = 0; i < N; i++) {
		blip2_batch one = b;
		one.n = 1;
		one.pixel_values += (size_t)i * pixels;
		one.input_ids += i * T;
		one.attention_mask += i * T;
		assert_ok(engine_run(s, &one, rows, 1 + NODES, got, &err), &err);
		assert_at_most(worst_difference(got, want + (size_t)i * (1 + NODES) * v, (1 + NODES) * v), 1e-5, "one sample");
	}
	engine_session_close(&s);
	engine_close(&e);
	blip2_session_close(&plain);
	golden_close(&g);
}

/* However the rows are shared out: lanes that end inside samples, lanes without a query, one row of logits for all of them. */
static void any_number_of_threads(void **state)
{
	enum { N = 9, T = 5, ROWS = 11 };
	static const int counts[] = {1, 2, 3, 5, 8};
	static const double limits[] = {1e-5, 2e-2, 4e-2};
	const int threads = omp_get_max_threads();
	golden g;
	golden_open(&g, "freq3");
	const blip2_config *c = blip2_get_config(g.ck.model);
	const size_t pixels = 3 * (size_t)c->image_size * (size_t)c->image_size, v = (size_t)c->vocab_size;
	float *images = calloc(N * pixels, sizeof *images), *want = calloc(ROWS * v, sizeof *want), *got = calloc(ROWS * v, sizeof *got);
	int32_t ids[N * T], rows[ROWS];
	for (size_t i = 0; i < N * pixels; i++)
		images[i] = (float)((i * 2654435761u >> 8) % 1000) / 500 - 1;
	for (int i = 0; i < N * T; i++)
		ids[i] = (i * 5 + 3) % c->vocab_size;
	const int32_t all = N * (c->num_query_tokens + T);
	for (int i = 0; i < ROWS; i++)
		rows[i] = i < 4 ? i : all - 1 - 3 * (ROWS - 1 - i); /* four of one sample, the others apart */
	const blip2_batch b = {.n = N, .text_len = T, .pixel_values = images, .input_ids = ids};
	for (int p = PRECISION_F32; p <= PRECISION_INT8; p++) {
		engine *e;
		engine_session *s;
		assert_ok(engine_open(&e, g.ck.model, &(engine_options){.precision = (precision)p}, &err), &err);
		for (size_t k = 0; k < sizeof counts / sizeof *counts; k++) {
			omp_set_num_threads(counts[k]);
			assert_ok(engine_session_open(&s, e, N, T, ROWS, &err), &err);
			assert_ok(engine_run(s, &b, rows, ROWS, k ? got : want, &err), &err);
			if (k)
				assert_at_most(worst_difference(got, want, ROWS * v), limits[p], PRECISION_NAMES[p]);
			assert_ok(engine_run(s, &b, rows + 5, 1, got, &err), &err);
			assert_at_most(worst_difference(got, want + 5 * v, v), limits[p], PRECISION_NAMES[p]);
			engine_session_close(&s);
		}
		engine_close(&e);
	}
	omp_set_num_threads(threads);
	free(images);
	free(want);
	free(got);
	golden_close(&g);
}

static void what_does_not_fit_is_refused(void **state)
{
	golden g;
	engine *e;
	engine_session *s;
	float out[4 * 61];
	const int32_t rows[4] = {0, 1, 2, 3};
	golden_open(&g, "base");
	assert_ok(engine_open(&e, g.ck.model, &(engine_options){.precision = PRECISION_F32}, &err), &err);
	err = (wn_error){0};
	assert_int_equal(engine_session_open(&s, e, 0, 4, 1, &err), WN_INVALID);
	err = (wn_error){0};
	assert_int_equal(engine_session_open(&s, e, 1, 100000, 1, &err), WN_TOO_LARGE);
	assert_non_null(strstr(err.message, "max_position_embeddings"));
	assert_ok(engine_session_open(&s, e, 1, g.batch.text_len, 3, &err), &err);
	assert_int_equal(engine_run(s, &g.batch, rows, 1, out, &err), WN_TOO_LARGE); /* a batch of three */
	blip2_batch one = g.batch;
	one.n = 1;
	err = (wn_error){0};
	assert_int_equal(engine_run(s, &one, rows, 4, out, &err), WN_TOO_LARGE);
	assert_non_null(strstr(err.message, "4 rows of logits, expected 1 to 3"));
	int32_t ids[64] = {0};
	ids[0] = 1000;
	one.input_ids = ids;
	assert_int_equal(engine_run(s, &one, rows, 1, out, &err), WN_INVALID);
	engine_session_close(&s);
	const int32_t twice[2] = {1, 1};
	assert_ok(engine_session_open(&s, e, 1, g.batch.text_len, 3, &err), &err);
	one.input_ids = g.ids;
	err = (wn_error){0};
	assert_int_equal(engine_run(s, &one, twice, 2, out, &err), WN_INVALID);
	assert_non_null(strstr(err.message, "rows[1] of logits is 1"));
	engine_session_close(&s);
	err = (wn_error){0};
	assert_int_equal(engine_session_open(&s, e, 1, 1, 1000, &err), WN_INVALID);
	/* inside a parallel region there are no threads left for a session of two */
	const int threads = omp_get_max_threads();
	omp_set_num_threads(2);
	assert_ok(engine_session_open(&s, e, g.batch.n, g.batch.text_len, 3, &err), &err);
	err = (wn_error){0};
#pragma omp parallel num_threads(2)
#pragma omp master
	assert_int_equal(engine_run(s, &one, rows, 1, out, &err), WN_INTERNAL);
	assert_non_null(strstr(err.message, "opened with 2 OpenMP threads got 1"));
	/* a session keeps to the threads it was opened with */
	omp_set_num_threads(1);
	assert_ok(engine_run(s, &one, rows, 1, out, &err), &err);
	omp_set_num_threads(threads);
	engine_session_close(&s);
	engine_close(&e);
	golden_close(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(goldens_in_every_precision),
		cmocka_unit_test(tries_and_batches),
		cmocka_unit_test(any_number_of_threads),
		cmocka_unit_test(what_does_not_fit_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
