/* test_packed.c: packed.h against plain sums in double: every type, odd widths, bias, zero points, residuals; products with
 * strides; and that nothing is made twice. */
#define GOLDEN_DIR "" /* there are none */
#include "tests/prune/support.h"

#include "model/dnn.h"
#include "model/packed.h"
#include "tests/ops/values.h"

static float rounded(float x)
{
	uint16_t v;
	ops->to_bf16(&v, &x, 1);
	return from_bf16(v);
}

/* One layer's operands, and what they mean in floats. */
typedef struct layer {
	int64_t in, out, rows;
	element src;
	void *x;          /* as src */
	float *x_value, *w_value;
	float *w;         /* as given, for f32 and bf16 */
	int8_t *quantized;
	float *bias;
} layer;

static void layer_open(layer *l, element src, int64_t rows, int64_t in, int64_t out)
{
	const size_t nx = (size_t)(rows * in), nw = (size_t)(in * out);
	*l = (layer){.in = in, .out = out, .rows = rows, .src = src};
	l->x = calloc(nx, 4);
	l->x_value = calloc(nx, 4);
	l->w = calloc(nw, 4);
	l->w_value = calloc(nw, 4);
	l->quantized = calloc(nw, 1);
	l->bias = calloc((size_t)out, 4);
	for (int64_t j = 0; j < out; j++)
		l->bias[j] = value((size_t)j, 7);
	for (size_t i = 0; i < nx; i++) {
		const float v = value(i, 1);
		switch (src) {
		case ELEMENT_F32: l->x_value[i] = ((float *)l->x)[i] = v; break;
		case ELEMENT_BF16: l->x_value[i] = rounded(v), ops->to_bf16((uint16_t *)l->x + i, &v, 1); break;
		case ELEMENT_S8: l->x_value[i] = ((int8_t *)l->x)[i] = (int8_t)lrintf(v * 127); break;
		default: l->x_value[i] = ((uint8_t *)l->x)[i] = (uint8_t)lrintf((v + 1) * 127.5f);
		}
	}
	for (size_t i = 0; i < nw; i++) {
		l->w[i] = value(i, 3);
		l->quantized[i] = (int8_t)lrintf(l->w[i] * 127);
		l->w_value[i] = src == ELEMENT_F32    ? l->w[i]
		                : src == ELEMENT_BF16 ? rounded(l->w[i])
		                                      : (float)l->quantized[i];
	}
}

static void layer_close(layer *l)
{
	void *all[] = {l->x, l->x_value, l->w, l->w_value, l->quantized, l->bias};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		free(all[i]);
}

static packed_spec spec_of(const layer *l, element dst, bool accumulate, bool bias)
{
	const bool int8 = l->src == ELEMENT_S8 || l->src == ELEMENT_U8;
	return (packed_spec){.in = l->in, .out = l->out, .src = l->src, .dst = dst, .accumulate = accumulate, .weight = int8 ? NULL : l->w,
			     .quantized = int8 ? l->quantized : NULL, .bias = bias ? l->bias : NULL};
}

static void compare(const layer *l, const void *y, element dst, bool accumulate, bool bias)
{
	for (int64_t r = 0; r < l->rows; r++)
		for (int64_t j = 0; j < l->out; j++) {
			const size_t at = (size_t)(r * l->out + j);
			double want = (bias ? l->bias[j] : 0) + (accumulate ? value(at, 9) : 0), size = fabs(want);
			for (int64_t i = 0; i < l->in; i++) {
				const double part = (double)l->x_value[r * l->in + i] * l->w_value[j * l->in + i];
				want += part;
				size += fabs(part);
			}
			const double got = dst == ELEMENT_F32   ? ((const float *)y)[at]
			                   : dst == ELEMENT_S32 ? ((const int32_t *)y)[at]
			                                        : from_bf16(((const uint16_t *)y)[at]);
			assert_close(got, want, dst == ELEMENT_S32 ? 0 : 3e-6 * size + (dst == ELEMENT_BF16 ? fabs(want) / 250 : 0), "y", at);
		}
}

static void layers_are_what_they_say(void **state)
{
	static const int64_t sizes[][3] = {{1, 1, 1}, {5, 3, 7}, {65, 80, 112}, {17, 64, 50}, {33, 112, 1000}, {130, 48, 144}};
	packed_runner *r;
	assert_ok(packed_runner_open(&r, err));
	for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
		for (int src = ELEMENT_F32; src <= ELEMENT_U8; src++)
			for (int form = 0; form < 6; form++) {
				const bool int8 = src == ELEMENT_S8 || src == ELEMENT_U8;
				const element dst = int8 ? ELEMENT_S32 : form % 3 == 2 ? ELEMENT_BF16 : ELEMENT_F32;
				const bool accumulate = form % 3 == 1, bias = form >= 3;
				layer l;
				packed_linear *p;
				if ((src == ELEMENT_F32 && dst == ELEMENT_BF16) || (int8 && form > 0))
					continue;
				layer_open(&l, (element)src, sizes[s][0], sizes[s][1], sizes[s][2]);
				const packed_spec spec = spec_of(&l, dst, accumulate, bias);
				wn_error e = {0};
				const wn_code rc = packed_open(&p, &spec, &e);
				if (rc == WN_UNSUPPORTED && src != ELEMENT_F32) { /* an older CPU */
					layer_close(&l);
					continue;
				}
				if (rc)
					fail_msg("%d x %d x %d src %d dst %d form %d: %s", (int)l.rows, (int)l.in, (int)l.out, src, dst, form, e.message);
				assert_true(packed_bytes(p) >= (size_t)(l.in * l.out) * element_size(src == ELEMENT_U8 ? ELEMENT_S8 : (element)src));
				assert_true(*packed_kernel(p));
				const size_t ny = (size_t)(l.rows * l.out);
				float *y = calloc(ny, sizeof *y);
				for (int again = 0; again < 2; again++) {
					for (size_t i = 0; i < ny; i++)
						y[i] = value(i, 9);
					packed_run(r, p, l.rows, l.x, y);
					compare(&l, y, dst, accumulate, bias);
				}
				free(y);
				packed_close(&p);
				layer_close(&l);
			}
	packed_runner_close(&r);
}

/* Layers of one kind share a primitive; another number of rows has its own; nothing is made twice. */
static void primitives_are_made_once(void **state)
{
	packed_runner *r;
	layer a, b;
	packed_linear *pa, *pb;
	float y[40 * 24];
	assert_ok(packed_runner_open(&r, err));
	layer_open(&a, ELEMENT_F32, 40, 32, 24);
	layer_open(&b, ELEMENT_F32, 40, 32, 24);
	for (int64_t i = 0; i < b.in * b.out; i++)
		b.w_value[i] = b.w[i] *= 3;
	packed_spec sa = spec_of(&a, ELEMENT_F32, false, true), sb = spec_of(&b, ELEMENT_F32, false, true);
	assert_ok(packed_open(&pa, &sa, err));
	assert_ok(packed_open(&pb, &sb, err));
	for (int round = 0; round < 3; round++) {
		packed_run(r, pa, 40, a.x, y);
		compare(&a, y, ELEMENT_F32, false, true);
		packed_run(r, pb, 40, b.x, y);
		compare(&b, y, ELEMENT_F32, false, true);
		assert_int_equal(packed_runner_created(r), round ? 2 : 1);
		packed_run(r, pa, 39, a.x, y);
		assert_int_equal(packed_runner_created(r), 2);
	}
	/* enough kinds to make the table grow */
	for (int64_t rows = 1; rows <= 40; rows++)
		for (int i = 0; i < 4; i++) {
			const packed_product p = {.count = 1 + i, .m = 1, .n = 2, .k = rows, .src = ELEMENT_F32, .dst = ELEMENT_F32,
						  .a = {rows, rows, 1}, .b = {2 * rows, 2, 1}, .c = {2, 2, 1}};
			packed_multiply(r, &p, a.x_value, a.x_value, y);
		}
	assert_int_equal(packed_runner_created(r), 2 + 160);
	packed_run(r, pa, 40, a.x, y);
	compare(&a, y, ELEMENT_F32, false, true);
	assert_int_equal(packed_runner_created(r), 2 + 160);
	packed_close(&pa);
	packed_close(&pb);
	layer_close(&a);
	layer_close(&b);
	packed_runner_close(&r);
}

/* Scores and contexts of attention, as they lie in a fused projection. */
static void products_take_strides(void **state)
{
	enum { HEADS = 3, M = 13, N = 17, D = 8, W = 3 * HEADS * D };
	packed_runner *r;
	assert_ok(packed_runner_open(&r, err));
	for (int bf16 = 0; bf16 <= dnn_has_bf16(); bf16++) {
		const element e = bf16 ? ELEMENT_BF16 : ELEMENT_F32;
		const size_t nq = (size_t)M * W, nk = (size_t)N * W;
		float *q = calloc(nq, 4), *k = calloc(nk, 4), *c = calloc((size_t)HEADS * M * N, 4);
		uint16_t *q16 = calloc(nq, 2), *k16 = calloc(nk, 2);
		for (size_t i = 0; i < nq; i++)
			q[i] = bf16 ? rounded(value(i, 1)) : value(i, 1);
		for (size_t i = 0; i < nk; i++)
			k[i] = bf16 ? rounded(value(i, 2)) : value(i, 2);
		ops->to_bf16(q16, q, nq);
		ops->to_bf16(k16, k, nk);
		const packed_product p = {.count = HEADS, .m = M, .n = N, .k = D, .src = e, .dst = ELEMENT_F32,
					  .a = {D, W, 1}, .b = {D, 1, W}, .c = {M * N, N, 1}};
		packed_multiply(r, &p, bf16 ? (void *)q16 : (void *)q, bf16 ? (void *)k16 : (void *)k, c);
		for (int h = 0; h < HEADS; h++)
			for (int i = 0; i < M; i++)
				for (int j = 0; j < N; j++) {
					double want = 0;
					for (int d = 0; d < D; d++)
						want += (double)q[i * W + h * D + d] * k[j * W + h * D + d];
					assert_close(c[(h * M + i) * N + j], want, 1e-5, "score", (size_t)(i * N + j));
				}
		free(q), free(k), free(c), free(q16), free(k16);
	}
	packed_runner_close(&r);
}

static void what_does_not_fit_is_refused(void **state)
{
	layer l;
	packed_linear *p;
	layer_open(&l, ELEMENT_S8, 1, 4, 4);
	const packed_spec good = spec_of(&l, ELEMENT_S32, false, false);
	packed_spec bad[6];
	for (int i = 0; i < 6; i++)
		bad[i] = good;
	bad[0].dst = ELEMENT_F32;
	bad[1].accumulate = true;
	bad[2].bias = l.bias;
	bad[3].quantized = NULL;
	bad[4].out = 0;
	bad[5].src = ELEMENT_F32, bad[5].dst = ELEMENT_BF16, bad[5].weight = l.w;
	for (int i = 0; i < 6; i++) {
		assert_refused(WN_INTERNAL, "does not fit its types", packed_open(&p, &bad[i], err));
		assert_null(p);
	}
	layer_close(&l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(layers_are_what_they_say),
		cmocka_unit_test(primitives_are_made_once),
		cmocka_unit_test(products_take_strides),
		cmocka_unit_test(what_does_not_fit_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
