/* test_attend.c: int8 attention, plain and this CPU's kernel, against softmax(q k^T) v of the dequantised operands in double
 * precision: what is left is the probabilities' rounding to a 255th of the largest. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "model/attend.h"
#include "tests/ops/values.h"

enum { MAX_KEYS = 260, MAX_DIM = 130, HEADS = 2 };

typedef struct operands {
	int8_t q[MAX_KEYS][HEADS * MAX_DIM], k[MAX_KEYS][HEADS * MAX_DIM], v[MAX_KEYS][HEADS * MAX_DIM];
	float q_scale[MAX_KEYS][HEADS], k_scale[MAX_KEYS][HEADS], v_scale[MAX_KEYS][HEADS];
	float mask[MAX_KEYS * MAX_KEYS];
	float out[MAX_KEYS][MAX_DIM + 3];
} operands;

static operands *o;

static float uniform(float lo, float hi)
{
	static size_t drawn;
	return lo + (hi - lo) * 0.5f * (1 + value(drawn++, 5));
}

static void fill_rows(int8_t rows[][HEADS * MAX_DIM], float scale[][HEADS], float most)
{
	for (int i = 0; i < MAX_KEYS; i++) {
		for (int d = 0; d < HEADS * MAX_DIM; d++)
			rows[i][d] = (int8_t)(floor(uniform(-127, 127.99f)));
		for (int h = 0; h < HEADS; h++)
			scale[i][h] = uniform(0.1f, 1) * most;
	}
}

static int open_operands(void **state)
{
	(void)state;
	o = calloc(1, sizeof *o);
	assert_non_null(o);
	fill_rows(o->q, o->q_scale, 0.02f);
	fill_rows(o->k, o->k_scale, 0.02f);
	fill_rows(o->v, o->v_scale, 0.01f);
	return 0;
}

static int close_operands(void **state)
{
	(void)state;
	free(o);
	return 0;
}

static attend_rows head(int8_t rows[][HEADS * MAX_DIM], float scale[][HEADS], size_t h, size_t d)
{
	return (attend_rows){rows[0] + h * d, HEADS * MAX_DIM, scale[0] + h, HEADS};
}

static attend_job job_of(size_t queries, size_t keys, size_t d, void *scratch)
{
	return (attend_job){.q = head(o->q, o->q_scale, 1, d), .k = head(o->k, o->k_scale, 1, d), .v = head(o->v, o->v_scale, 1, d),
			    .keys = keys, .head_dim = d, .scale = 1 / sqrtf((float)d), .queries = {.count = queries, .len = keys},
			    .out = o->out[0], .out_stride = MAX_DIM + 3, .scratch = scratch};
}

static double meant(const attend_rows *r, size_t row, size_t d) { return r->data[row * r->stride + d] * (double)r->scale[row * r->scale_stride]; }

static void expect_row(const char *name, const attend_job *j, size_t i, size_t row)
{
	double p[MAX_KEYS], sum = 0, top = -INFINITY, most = 0;
	const size_t valid = j->causal ? row + 1 : j->keys;
	for (size_t k = 0; k < valid; k++) {
		p[k] = j->mask ? j->mask[row * j->keys + k] : 0;
		for (size_t d = 0; d < j->head_dim; d++)
			p[k] += meant(&j->q, row, d) * meant(&j->k, k, d) * j->scale;
		top = fmax(top, p[k]);
	}
	for (size_t k = 0; k < valid; k++)
		sum += p[k] = exp(p[k] - top);
	for (size_t k = 0; k < valid; k++)
		most = fmax(most, p[k] * j->v.scale[k * j->v.scale_stride] / sum);
	for (size_t d = 0; d < j->head_dim; d++) {
		double want = 0, noise = 0;
		for (size_t k = 0; k < valid; k++) {
			want += p[k] / sum * meant(&j->v, k, d);
			noise += p[k] > 0 ? abs(j->v.data[k * j->v.stride + d]) : 0;
		}
		const double got = o->out[i][d], bound = noise * most / 255 * 0.51 + 1e-5;
		if (!(fabs(got - want) <= bound))
			fail_msg("%s: %zu queries, %zu keys of %zu, query %zu, result %zu: got %.9g, expected %.9g within %.2g", name,
				 j->queries.count, j->keys, j->head_dim, i, d, got, want, bound);
	}
	assert_true(o->out[i][j->head_dim] == 77); /* nothing behind a row's results is written */
}

typedef void (*check_fn)(const char *name, attend_fn attend, attend_job *j);

static void every_kernel(attend_job *j, check_fn check)
{
	for (int i = 0; i < MAX_KEYS; i++)
		for (int d = 0; d < MAX_DIM + 3; d++)
			o->out[i][d] = 77;
	check("plain", attend_int8_plain, j);
	if (attend_int8())
		check("kernel", attend_int8(), j);
}

static void check_rows_in_order(const char *name, attend_fn attend, attend_job *j)
{
	attend(j);
	for (size_t i = 0; i < j->queries.count; i++)
		expect_row(name, j, i, j->queries.first + i);
}

static void *scratch_of(size_t keys, size_t d)
{
	void *p = aligned_alloc(64, (attend_scratch(keys, d) + 63) / 64 * 64);
	assert_non_null(p);
	memset(p, 0xff, attend_scratch(keys, d)); /* what is left of another call must not matter */
	return p;
}

static void shapes_of_all_sizes(void **state)
{
	static const size_t keys[] = {1, 3, 4, 15, 16, 17, 33, 64, 65, 96, 130, 257}, dims[] = {1, 3, 4, 8, 16, 24, 40, 63, 64, 65, 80, 128, 130};
	(void)state;
	for (size_t a = 0; a < sizeof keys / sizeof *keys; a++)
		for (size_t b = 0; b < sizeof dims / sizeof *dims; b++) {
			void *scratch = scratch_of(keys[a], dims[b]);
			attend_job j = job_of(keys[a] < 7 ? keys[a] : 7, keys[a], dims[b], scratch);
			j.queries.first = keys[a] - j.queries.count;
			every_kernel(&j, check_rows_in_order);
			j.causal = true;
			every_kernel(&j, check_rows_in_order);
			free(scratch);
		}
}

/* As text_layout.c makes it: a padded key gets the least float. Its probability must be exactly zero. */
static void masked_keys_count_nothing(void **state)
{
	enum { KEYS = 37, D = 24, PADDED = 9 };
	(void)state;
	for (int row = 0; row < KEYS; row++)
		for (int k = 0; k < KEYS; k++)
			o->mask[row * KEYS + k] = k < PADDED && row >= PADDED ? -3.4028235e38f : 0;
	void *scratch = scratch_of(KEYS, D);
	attend_job j = job_of(KEYS, KEYS, D, scratch);
	j.mask = o->mask;
	j.causal = true;
	for (int i = 0; i < PADDED; i++)
		o->v_scale[i][1] *= 1000; /* to be seen, were it counted */
	every_kernel(&j, check_rows_in_order);
	for (int i = 0; i < PADDED; i++)
		o->v_scale[i][1] /= 1000;
	free(scratch);
}

static void check_chosen_rows(const char *name, attend_fn attend, attend_job *j)
{
	attend(j);
	for (size_t i = 0; i < j->queries.count; i++)
		expect_row(name, j, i, (size_t)j->queries.rows[i] % j->queries.len);
}

/* Rows counted through samples of `len`: those of the third one. */
static void queries_may_be_any_rows(void **state)
{
	enum { KEYS = 41, D = 40 };
	static const int32_t rows[] = {82, 83, 90, 101, 117, 122};
	(void)state;
	void *scratch = scratch_of(KEYS, D);
	attend_job j = job_of(6, KEYS, D, scratch);
	j.causal = true;
	j.queries.rows = rows;
	every_kernel(&j, check_chosen_rows);
	free(scratch);
}

static void check_no_number(const char *name, attend_fn attend, attend_job *j)
{
	attend(j);
	for (size_t i = 0; i < j->queries.count; i++)
		for (size_t d = 0; d < j->head_dim; d++)
			if (!isnan(o->out[i][d]))
				fail_msg("%s: query %zu, result %zu is %g, a key or value is no number", name, i, d, o->out[i][d]);
}

/* Wherever it stands among the keys: an engine must not answer as if it were not there. */
static void a_nan_stays_one(void **state)
{
	enum { KEYS = 41, D = 24 };
	static const int at[] = {0, 3, 16, 40};
	(void)state;
	void *scratch = scratch_of(KEYS, D);
	attend_job j = job_of(5, KEYS, D, scratch);
	for (size_t i = 0; i < sizeof at / sizeof *at; i++)
		for (int values = 0; values < 2; values++) {
			float *scale = values ? &o->v_scale[at[i]][1] : &o->k_scale[at[i]][1], was = *scale;
			*scale = NAN;
			every_kernel(&j, check_no_number);
			*scale = was;
		}
	free(scratch);
}

static void nothing_but_zeros(void **state)
{
	enum { KEYS = 20, D = 16 };
	(void)state;
	void *scratch = scratch_of(KEYS, D);
	attend_job j = job_of(5, KEYS, D, scratch);
	float zero = 0;
	j.q.scale = j.k.scale = j.v.scale = &zero;
	j.q.scale_stride = j.k.scale_stride = j.v.scale_stride = 0;
	every_kernel(&j, check_rows_in_order);
	free(scratch);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shapes_of_all_sizes),
		cmocka_unit_test(masked_keys_count_nothing),
		cmocka_unit_test(queries_may_be_any_rows),
		cmocka_unit_test(a_nan_stays_one),
		cmocka_unit_test(nothing_but_zeros),
	};
	return cmocka_run_group_tests(tests, open_operands, close_operands);
}
