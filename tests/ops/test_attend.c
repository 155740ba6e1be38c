/* test_attend.c: attention on operands of each type, plain and this CPU's kernel, against softmax(q k^T) v of what the operands mean, in
 * double precision: what is left is the rounding of probabilities (s8: to a 255th of the largest; bf16: by 2^-8) and of bf16 results. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "model/attend.h"
#include "model/ops.h"
#include "tests/ops/values.h"

enum { MAX_KEYS = 260, MAX_DIM = 130, HEADS = 2 };

/* The same rows three times. */
typedef struct rows {
	int8_t s8[MAX_KEYS][HEADS * MAX_DIM];
	uint16_t bf16[MAX_KEYS][HEADS * MAX_DIM];
	float f32[MAX_KEYS][HEADS * MAX_DIM];
	float scale[MAX_KEYS][HEADS]; /* of s8 */
} rows;

typedef struct operands {
	rows q, k, v;
	float mask[MAX_KEYS * MAX_KEYS];
	union {
		float f32[MAX_KEYS][MAX_DIM + 3];
		uint16_t bf16[MAX_KEYS][MAX_DIM + 3];
	} out;
} operands;

static operands *o;
static const element TYPES[] = {ELEMENT_S8, ELEMENT_BF16, ELEMENT_F32};
static const char *const NAMES[] = {[ELEMENT_S8] = "s8", [ELEMENT_BF16] = "bf16", [ELEMENT_F32] = "f32"};

static float uniform(float lo, float hi)
{
	static size_t drawn;
	return lo + (hi - lo) * 0.5f * (1 + value(drawn++, 5));
}

static uint16_t half(float x)
{
	uint16_t h;
	ops->to_bf16(&h, &x, 1);
	return h;
}

static float widened(uint16_t h)
{
	const uint32_t bits = (uint32_t)h << 16;
	float x;
	memcpy(&x, &bits, sizeof x);
	return x;
}

static void set(rows *r, int row, int column, float x)
{
	r->f32[row][column] = x;
	r->bf16[row][column] = half(x);
}

static void fill_rows(rows *r, float most)
{
	for (int i = 0; i < MAX_KEYS; i++) {
		for (int h = 0; h < HEADS; h++)
			r->scale[i][h] = uniform(0.1f, 1) * most;
		for (int d = 0; d < HEADS * MAX_DIM; d++) {
			r->s8[i][d] = (int8_t)(floor(uniform(-127, 127.99f)));
			set(r, i, d, r->s8[i][d] * r->scale[i][d / MAX_DIM]);
		}
	}
}

static int open_operands(void **state)
{
	(void)state;
	o = calloc(1, sizeof *o);
	assert_non_null(o);
	fill_rows(&o->q, 0.02f);
	fill_rows(&o->k, 0.02f);
	fill_rows(&o->v, 0.01f);
	return 0;
}

static int close_operands(void **state)
{
	(void)state;
	free(o);
	return 0;
}

/* Its second head. */
static attend_rows head(const rows *r, element type, size_t d)
{
	const size_t stride = HEADS * MAX_DIM;
	switch (type) {
	case ELEMENT_S8:
		return (attend_rows){r->s8[0] + d, stride, r->scale[0] + 1, HEADS};
	case ELEMENT_BF16:
		return (attend_rows){.data = r->bf16[0] + d, .stride = stride};
	default:
		return (attend_rows){.data = r->f32[0] + d, .stride = stride};
	}
}

/* Operands and scratch: every_kernel's. */
static attend_job job_of(size_t queries, size_t keys, size_t d)
{
	return (attend_job){.keys = keys, .head_dim = d, .scale = 1 / sqrtf((float)d), .queries = {.count = queries, .len = keys},
			    .out = &o->out, .out_stride = MAX_DIM + 3};
}

static double meant(const attend_job *j, const attend_rows *r, size_t row, size_t d)
{
	const size_t i = row * r->stride + d;
	return j->type == ELEMENT_S8 ? ((const int8_t *)r->data)[i] * (double)r->scale[row * r->scale_stride]
	     : j->type == ELEMENT_BF16 ? widened(((const uint16_t *)r->data)[i]) : ((const float *)r->data)[i];
}

static float result(const attend_job *j, size_t i, size_t d)
{
	return j->type == ELEMENT_BF16 ? widened(o->out.bf16[i][d]) : o->out.f32[i][d];
}

/* Of one result: p are its row's probabilities. */
static double tolerance(const attend_job *j, const double *p, size_t valid, size_t d, double want)
{
	double most = 0, noise = 0, bound = 1e-5;
	for (size_t k = 0; k < valid; k++) {
		const double scale = j->type == ELEMENT_S8 ? (double)j->v.scale[k * j->v.scale_stride] : 1;
		most = fmax(most, p[k] * scale);
		noise += j->type == ELEMENT_S8 ? (p[k] > 0 && scale > 0 ? fabs(meant(j, &j->v, k, d)) / scale : 0) : p[k] * fabs(meant(j, &j->v, k, d));
	}
	if (j->type == ELEMENT_S8)
		bound += noise * most / 255 * 0.51;
	else
		bound += noise * 1e-6; /* f32 sums */
	if (j->type == ELEMENT_BF16)
		bound += (noise + fabs(want)) / 256 * 1.02;
	return bound;
}

static void expect_row(const char *name, const attend_job *j, size_t i, size_t row)
{
	double p[MAX_KEYS], sum = 0, top = -INFINITY;
	const size_t valid = j->causal ? row + 1 : j->keys;
	for (size_t k = 0; k < valid; k++) {
		p[k] = j->mask ? j->mask[row * j->keys + k] : 0;
		for (size_t d = 0; d < j->head_dim; d++)
			p[k] += meant(j, &j->q, row, d) * meant(j, &j->k, k, d) * j->scale;
		top = fmax(top, p[k]);
	}
	for (size_t k = 0; k < valid; k++)
		sum += p[k] = exp(p[k] - top);
	for (size_t k = 0; k < valid; k++)
		p[k] /= sum;
	for (size_t d = 0; d < j->head_dim; d++) {
		double want = 0;
		for (size_t k = 0; k < valid; k++)
			want += p[k] * meant(j, &j->v, k, d);
		const double got = result(j, i, d), bound = tolerance(j, p, valid, d, want);
		if (!(fabs(got - want) <= bound))
			fail_msg("%s %s: %zu queries, %zu keys of %zu, query %zu, result %zu: got %.9g, expected %.9g within %.2g", NAMES[j->type], name,
				 j->queries.count, j->keys, j->head_dim, i, d, got, want, bound);
	}
	assert_true(result(j, i, j->head_dim) == 77); /* nothing behind a row's results is written */
}

typedef void (*check_fn)(const char *name, attend_fn attend, attend_job *j);

static void try_kernel(const char *name, attend_fn attend, attend_job *j, check_fn check)
{
	const size_t bytes = (attend_scratch(j->type, j->keys, j->head_dim) + 63) / 64 * 64;
	for (int i = 0; i < MAX_KEYS; i++)
		for (int d = 0; d < MAX_DIM + 3; d++)
			if (j->type == ELEMENT_BF16)
				o->out.bf16[i][d] = half(77);
			else
				o->out.f32[i][d] = 77;
	j->scratch = aligned_alloc(64, bytes);
	assert_non_null(j->scratch);
	memset(j->scratch, 0xff, bytes); /* what is left of another call must not matter */
	check(name, attend, j);
	free(j->scratch);
}

static void every_kernel(attend_job *j, check_fn check)
{
	for (size_t i = 0; i < sizeof TYPES / sizeof *TYPES; i++) {
		j->type = TYPES[i];
		j->q = head(&o->q, j->type, MAX_DIM);
		j->k = head(&o->k, j->type, MAX_DIM);
		j->v = head(&o->v, j->type, MAX_DIM);
		try_kernel("plain", attend_plain, j, check);
		if (attend_kernel(j->type))
			try_kernel("kernel", attend_kernel(j->type), j, check);
	}
}

static void check_rows_in_order(const char *name, attend_fn attend, attend_job *j)
{
	attend(j);
	for (size_t i = 0; i < j->queries.count; i++)
		expect_row(name, j, i, j->queries.first + i);
}

static void shapes_of_all_sizes(void **state)
{
	static const size_t keys[] = {1, 3, 4, 15, 16, 17, 33, 64, 65, 96, 130, 257}, dims[] = {1, 3, 4, 8, 16, 24, 40, 63, 64, 65, 80, 128, 130};
	(void)state;
	for (size_t a = 0; a < sizeof keys / sizeof *keys; a++)
		for (size_t b = 0; b < sizeof dims / sizeof *dims; b++) {
			attend_job j = job_of(keys[a] < 7 ? keys[a] : 7, keys[a], dims[b]);
			j.queries.first = keys[a] - j.queries.count;
			every_kernel(&j, check_rows_in_order);
			j.causal = true;
			every_kernel(&j, check_rows_in_order);
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
	attend_job j = job_of(KEYS, KEYS, D);
	j.mask = o->mask;
	j.causal = true;
	const rows was = o->v;
	for (int i = 0; i < PADDED; i++) { /* to be seen, were it counted */
		o->v.scale[i][1] *= 1000;
		for (int d = MAX_DIM; d < 2 * MAX_DIM; d++)
			set(&o->v, i, d, 1000 * o->v.f32[i][d]);
	}
	every_kernel(&j, check_rows_in_order);
	o->v = was;
}

/* Room that ends where memory does: a byte read behind it ends the test. */
static void *before_a_wall(size_t n, size_t bytes)
{
	enum { WALLS = 7, ROOM = 1 << 16 };
	static char *memory;
	const size_t page = (size_t)sysconf(_SC_PAGESIZE), part = ROOM + page;
	if (!memory) {
		memory = mmap(NULL, WALLS * part, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		assert_true(memory != MAP_FAILED);
		for (size_t i = 0; i < WALLS; i++)
			assert_int_equal(mprotect(memory + i * part + ROOM, page, PROT_NONE), 0);
	}
	assert_true(n < WALLS && bytes <= ROOM);
	return memory + n * part + ROOM - bytes;
}

static attend_rows rows_before_a_wall(const attend_job *j, const attend_rows *r, size_t n)
{
	const size_t size = element_size(j->type), width = j->head_dim * size;
	char *data = before_a_wall(n, j->keys * width);
	float *scale = before_a_wall(n + 1, j->keys * sizeof *scale);
	for (size_t i = 0; i < j->keys; i++) {
		memcpy(data + i * width, (const char *)r->data + i * r->stride * size, width);
		if (j->type == ELEMENT_S8)
			scale[i] = r->scale[i * r->scale_stride];
	}
	return (attend_rows){data, j->head_dim, scale, 1};
}

static void check_before_walls(const char *name, attend_fn attend, attend_job *j)
{
	float *mask = before_a_wall(6, j->keys * j->keys * sizeof *mask);
	for (size_t i = 0; i < j->keys * j->keys; i++)
		mask[i] = uniform(-1, 1);
	j->q = rows_before_a_wall(j, &j->q, 0);
	j->k = rows_before_a_wall(j, &j->k, 2);
	j->v = rows_before_a_wall(j, &j->v, 4);
	j->mask = mask;
	check_rows_in_order(name, attend, j);
}

static void nothing_behind_operands_is_read(void **state)
{
	static const size_t keys[] = {1, 3, 16, 17, 37}, dims[] = {1, 3, 8, 15, 16, 24, 40, 63, 65, 80};
	(void)state;
	for (size_t a = 0; a < sizeof keys / sizeof *keys; a++)
		for (size_t b = 0; b < sizeof dims / sizeof *dims; b++) {
			attend_job j = job_of(keys[a], keys[a], dims[b]);
			every_kernel(&j, check_before_walls);
		}
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
	static const int32_t chosen[] = {82, 83, 90, 101, 117, 122};
	(void)state;
	attend_job j = job_of(6, KEYS, D);
	j.causal = true;
	j.queries.rows = chosen;
	every_kernel(&j, check_chosen_rows);
}

static void check_no_number(const char *name, attend_fn attend, attend_job *j)
{
	attend(j);
	for (size_t i = 0; i < j->queries.count; i++)
		for (size_t d = 0; d < j->head_dim; d++)
			if (!isnan(result(j, i, d)))
				fail_msg("%s %s: query %zu, result %zu is %g, a key or value is no number", NAMES[j->type], name, i, d,
					 (double)result(j, i, d));
}

/* Wherever it stands among the keys: an engine must not answer as if it were not there. */
static void a_nan_stays_one(void **state)
{
	enum { KEYS = 41, D = 24 };
	static const int at[] = {0, 3, 16, 40};
	(void)state;
	attend_job j = job_of(5, KEYS, D);
	for (size_t i = 0; i < sizeof at / sizeof *at; i++)
		for (int values = 0; values < 2; values++) {
			rows *r = values ? &o->v : &o->k;
			const rows was = *r;
			r->scale[at[i]][1] = NAN;
			for (int d = MAX_DIM; d < 2 * MAX_DIM; d++)
				set(r, at[i], d, NAN);
			every_kernel(&j, check_no_number);
			*r = was;
		}
}

static void nothing_but_zeros(void **state)
{
	enum { KEYS = 20, D = 16 };
	(void)state;
	attend_job j = job_of(5, KEYS, D);
	const operands was = *o;
	memset(&o->q, 0, sizeof o->q);
	memset(&o->k, 0, sizeof o->k);
	memset(&o->v, 0, sizeof o->v);
	every_kernel(&j, check_rows_in_order);
	*o = was;
}

/* What the other tests try is what runs. */
static void a_cpu_that_has_the_instructions_has_a_kernel(void **state)
{
	const bool wide = strcmp(ops->name, "avx512") == 0;
	const bool has[] = {[ELEMENT_S8] = wide && __builtin_cpu_supports("avx512vnni"),
			    [ELEMENT_BF16] = wide && __builtin_cpu_supports("avx512bf16"), [ELEMENT_F32] = wide};
	(void)state;
	for (size_t i = 0; i < sizeof TYPES / sizeof *TYPES; i++) {
		assert_int_equal(attend_kernel(TYPES[i]) != NULL, has[TYPES[i]]);
		assert_int_equal(strstr(attend_describe(TYPES[i]), "avx512") != NULL, has[TYPES[i]] || TYPES[i] == ELEMENT_S8);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_cpu_that_has_the_instructions_has_a_kernel),
		cmocka_unit_test(shapes_of_all_sizes),
		cmocka_unit_test(masked_keys_count_nothing),
		cmocka_unit_test(nothing_behind_operands_is_read),
		cmocka_unit_test(queries_may_be_any_rows),
		cmocka_unit_test(a_nan_stays_one),
		cmocka_unit_test(nothing_but_zeros),
	};
	return cmocka_run_group_tests(tests, open_operands, close_operands);
}
