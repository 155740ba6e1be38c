/* test_dnn.c: the matrix products of dnn.h against a plain triple loop in double: every transpose, odd sizes, strides,
 * accumulation, and the same shapes from several threads at once. */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "model/dnn.h"
#include "tests/ops/values.h"

static const int sizes[][3] = {{1, 1, 1}, {3, 5, 7}, {16, 16, 16}, {17, 33, 65}, {64, 1, 100}, {1, 64, 31}, {130, 47, 192}};
#define COUNT(a) (sizeof(a) / sizeof *(a))

/* One product in both precisions, all eight forms; returns the worst error over the largest possible sum. */
static double worst_error(int m, int n, int k, bool bf16)
{
	const int pad = 3; /* leading dimensions larger than the rows */
	double worst = 0;
	for (int form = 0; form < 8; form++) {
		const bool ta = form & 1, tb = form & 2, add = form & 4;
		const int lda = (ta ? m : k) + pad, ldb = (tb ? k : n) + pad, ldc = n + pad;
		const size_t na = (size_t)(ta ? k : m) * (size_t)lda, nb = (size_t)(tb ? n : k) * (size_t)ldb, nc = (size_t)m * (size_t)ldc;
		float *a = malloc((na + nb + nc) * sizeof *a), *b = a + na, *c = b + nb;
		uint16_t *a16 = malloc((na + nb) * sizeof *a16), *b16 = a16 + na;
		for (size_t i = 0; i < na; i++)
			a[i] = value(i, 1);
		for (size_t i = 0; i < nb; i++)
			b[i] = value(i, 2);
		for (size_t i = 0; i < nc; i++)
			c[i] = 0.5f;
		if (bf16) {
			ops->to_bf16(a16, a, na);
			ops->to_bf16(b16, b, nb);
			for (size_t i = 0; i < na; i++)
				a[i] = from_bf16(a16[i]);
			for (size_t i = 0; i < nb; i++)
				b[i] = from_bf16(b16[i]);
			dnn_gemm_bf16(ta, tb, m, n, k, a16, lda, b16, ldb, add ? 1 : 0, c, ldc);
		} else {
			dnn_sgemm(ta, tb, m, n, k, 1, a, lda, b, ldb, add ? 1 : 0, c, ldc);
		}
		for (int i = 0; i < m; i++)
			for (int j = 0; j < ldc; j++) {
				double want = j < n && !add ? 0 : 0.5; /* padding columns stay as they are */
				for (int x = 0; x < k && j < n; x++)
					want += (double)a[ta ? x * lda + i : i * lda + x] * b[tb ? j * ldb + x : x * ldb + j];
				worst = fmax(worst, fabs(c[(size_t)i * (size_t)ldc + (size_t)j] - want) / k);
			}
		free(a);
		free(a16);
	}
	return worst;
}

static void products_equal_the_triple_loop(void **state)
{
	(void)state;
	for (size_t s = 0; s < COUNT(sizes); s++) {
		assert_true(worst_error(sizes[s][0], sizes[s][1], sizes[s][2], false) < 1e-6);
		/* operands are exact in bf16 and sums are f32: as close as f32 itself */
		assert_true(worst_error(sizes[s][0], sizes[s][1], sizes[s][2], true) < 1e-6);
	}
}

static void *one_thread(void *out)
{
	double worst = 0;
	for (int round = 0; round < 3; round++)
		for (size_t s = 0; s < COUNT(sizes); s++)
			worst = fmax(worst, worst_error(sizes[s][0], sizes[s][1], sizes[s][2], true));
	*(double *)out = worst;
	return NULL;
}

static void threads_do_not_share_primitives(void **state)
{
	(void)state;
	pthread_t threads[3];
	double worst[3];
	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, one_thread, &worst[i]), 0);
	for (int i = 0; i < 3; i++) {
		pthread_join(threads[i], NULL);
		assert_true(worst[i] < 1e-6);
	}
}

/* More shapes than the table of primitives holds: it is emptied on the way and answers stay right. */
static void many_shapes(void **state)
{
	(void)state;
	for (int m = 1; m <= 300; m += 2)
		assert_true(worst_error(m, 3, 5, true) < 1e-6);
}

static void bf16_rounding(void **state)
{
	(void)state;
	static const struct {
		float in;
		uint16_t out;
	} cases[] = {{0.0f, 0}, {-0.0f, 0x8000}, {1.0f, 0x3f80}, {1.00390625f, 0x3f80}, {1.01171875f, 0x3f82}, {3.4e38f, 0x7f80},
	             {INFINITY, 0x7f80}, {-INFINITY, 0xff80}, {1e-45f, 0}};
	for (const ops_table *const *t = ops_all(); *t; t++) {
		for (size_t i = 0; i < COUNT(cases); i++) {
			uint16_t got;
			(*t)->to_bf16(&got, &cases[i].in, 1);
			assert_int_equal(got, cases[i].out);
		}
		float nan = NAN;
		uint16_t got;
		(*t)->to_bf16(&got, &nan, 1);
		assert_true(isnan(from_bf16(got)));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(products_equal_the_triple_loop),
		cmocka_unit_test(threads_do_not_share_primitives),
		cmocka_unit_test(many_shapes),
		cmocka_unit_test(bf16_rounding),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
