/* image_resize.c: Pillow's antialiased bicubic resize for RGB, bit for bit, and quick.
 *
 * The arithmetic (Pillow's libImaging/Resample.c defines it; models are trained behind it): each output sample is a
 * weighted sum of the input samples within two filter widths of its centre, the filter widened by the scale when
 * shrinking. Weights are computed in double, normalised to sum 1, rounded to 22-bit fixed point; a sum is rounded and
 * clamped to 8 bits. One pass along the rows, one down the columns, the first one's 8-bit results feeding the other (which
 * is first: columns_first below); a direction whose size stays is skipped.
 *
 * The speed: both passes are the same kernel, 24 neighbouring bytes of output at once, each tap one fused row of
 * multiplies. Down the columns neighbours lie side by side anyway; for the rows, eight rows are first interleaved so
 * that the same pixel of all eight (8 x RGB = 24 bytes) lies side by side. The kernel has a plain and an AVX2 form,
 * chosen at run time; integers only, so both give the same bytes. Stateless; the caller's thread does it all. */
#include "model/image_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { PRECISION_BITS = 32 - 8 - 2, LANES = 24, ROWS = LANES / 3 };
static const double BICUBIC_SUPPORT = 2.0;

/* What one output position is made of. */
typedef struct span {
	int first, count; /* input positions */
} span;

typedef struct taps {
	int n, stride; /* outputs; weights reserved for each */
	span *spans;   /* [n] */
	int32_t *weight; /* [n][stride] */
} taps;

static double bicubic(double x)
{
	const double a = -0.5;
	x = fabs(x);
	if (x < 1.0)
		return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
	if (x < 2.0)
		return (((x - 5) * x + 8) * x - 4) * a;
	return 0.0;
}

static void taps_free(taps *t)
{
	free(t->spans);
	free(t->weight);
	*t = (taps){0};
}

static wn_code taps_make(taps *t, int in_size, int out_size, wn_error *err)
{
	const double scale = (double)in_size / out_size, widen = scale < 1.0 ? 1.0 : scale;
	const double support = BICUBIC_SUPPORT * widen, inverse = 1.0 / widen;
	int most = (int)ceil(support) * 2 + 1;
	*t = (taps){.n = out_size, .stride = most < in_size ? most : in_size};
	t->spans = malloc((size_t)out_size * sizeof *t->spans);
	t->weight = malloc((size_t)out_size * (size_t)t->stride * sizeof *t->weight);
	double *w = malloc((size_t)t->stride * sizeof *w);
	wn_code rc = WN_OK;
	if (!t->spans || !t->weight || !w) {
		taps_free(t);
		rc = wn_fail(err, WN_NOMEM, "out of memory for the weights of a resize from %d to %d", in_size, out_size);
		goto out;
	}
	for (int i = 0; i < out_size; i++) {
		double centre = (i + 0.5) * scale, sum = 0.0;
		int first = (int)(centre - support + 0.5), last = (int)(centre + support + 0.5);
		first = first < 0 ? 0 : first;
		last = last > in_size ? in_size : last;
		for (int k = 0; k < last - first; k++) {
			w[k] = bicubic((k + first - centre + 0.5) * inverse);
			sum += w[k];
		}
		int32_t *fixed = t->weight + (size_t)i * (size_t)t->stride;
		for (int k = 0; k < last - first; k++) {
			double v = sum != 0.0 ? w[k] / sum : w[k];
			fixed[k] = (int32_t)((v < 0 ? -0.5 : 0.5) + v * (1 << PRECISION_BITS));
		}
		t->spans[i] = (span){first, last - first};
	}
out:
	free(w);
	return rc;
}

/* out[i] = clamp(round(sum over k of weight[k] * in[k * stride + i])), i < LANES. The sum of the weights' absolute values
 * stays below 1.5, so 255 times it fits 32 bits. */
typedef void weigh_fn(uint8_t *out, const uint8_t *in, size_t stride, const int32_t *weight, int count);

static void weigh_plain(uint8_t *out, const uint8_t *in, size_t stride, const int32_t *weight, int count)
{
	int32_t sums[LANES];
	for (int i = 0; i < LANES; i++)
		sums[i] = 1 << (PRECISION_BITS - 1);
	for (int k = 0; k < count; k++, in += stride)
		for (int i = 0; i < LANES; i++)
			sums[i] += in[i] * weight[k];
	for (int i = 0; i < LANES; i++) {
		int32_t v = sums[i] >> PRECISION_BITS;
		out[i] = (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
	}
}

#if defined(__x86_64__)
/* By hand: gcc 12 takes the widening of eight bytes apart lane by lane, which costs four times the arithmetic. */
__attribute__((target("avx2"))) static void weigh_avx2(uint8_t *out, const uint8_t *in, size_t stride,
						       const int32_t *weight, int count)
{
	__m256i a = _mm256_set1_epi32(1 << (PRECISION_BITS - 1)), b = a, c = a;
	for (int k = 0; k < count; k++, in += stride) {
		__m256i w = _mm256_set1_epi32(weight[k]);
		__m256i x = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)in));
		__m256i y = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(in + 8)));
		__m256i z = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(in + 16)));
		a = _mm256_add_epi32(a, _mm256_mullo_epi32(x, w));
		b = _mm256_add_epi32(b, _mm256_mullo_epi32(y, w));
		c = _mm256_add_epi32(c, _mm256_mullo_epi32(z, w));
	}
	/* The packs clamp: to 16 bits without loss (the sums lie within +-512 here), then to 0..255. They work on 128-bit
	 * halves, hence the permutation. */
	a = _mm256_srai_epi32(a, PRECISION_BITS);
	b = _mm256_srai_epi32(b, PRECISION_BITS);
	c = _mm256_srai_epi32(c, PRECISION_BITS);
	__m256i ab = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xD8);
	__m256i cc = _mm256_permute4x64_epi64(_mm256_packs_epi32(c, c), 0xD8);
	_mm_storeu_si128((__m128i *)out, _mm_packus_epi16(_mm256_castsi256_si128(ab), _mm256_extracti128_si256(ab, 1)));
	_mm_storel_epi64((__m128i *)(out + 16),
			 _mm_packus_epi16(_mm256_castsi256_si128(cc), _mm256_castsi256_si128(cc)));
}
#endif

static weigh_fn *best_weigh(void)
{
#if defined(__x86_64__)
	if (__builtin_cpu_supports("avx2"))
		return weigh_avx2;
#endif
	return weigh_plain;
}

/* lanes: [width + 1][ROWS][3] from `rows` (at most ROWS) rows of an image; the lanes of absent rows keep what they had.
 * Pixels go over four bytes at a time: the fourth lands where the next lane's first is written afterwards. */
static void interleave(uint8_t *lanes, const uint8_t *in, int rows, int width)
{
	const size_t row = (size_t)width * 3;
	for (int x = 0; x < width - 1; x++)
		for (int r = 0; r < rows; r++)
			memcpy(lanes + (size_t)x * LANES + 3 * r, in + (size_t)r * row + 3 * (size_t)x, 4);
	for (int r = 0; r < rows; r++)
		memcpy(lanes + (size_t)(width - 1) * LANES + 3 * r, in + (size_t)r * row + row - 3, 3);
}

/* Up to ROWS rows of out, each t->n pixels, from the interleaved ones. */
static void resize_rows(uint8_t *out, const uint8_t *lanes, int rows, const taps *t, weigh_fn *weigh)
{
	const size_t row = (size_t)t->n * 3;
	for (int x = 0; x < t->n; x++) {
		uint8_t o[LANES];
		weigh(o, lanes + (size_t)t->spans[x].first * LANES, LANES, t->weight + (size_t)x * (size_t)t->stride,
		      t->spans[x].count);
		for (int r = 0; r < rows; r++)
			memcpy(out + (size_t)r * row + 3 * (size_t)x, o + 3 * r, 3);
	}
}

/* One row of out, `row` bytes, from `count` rows. The last block overlaps the one before it instead of ending in a
 * scalar loop; only a row shorter than a block needs one. */
static void resize_columns(uint8_t *out, const uint8_t *in, size_t row, const int32_t *weight, int count, weigh_fn *weigh)
{
	size_t at = 0;
	for (; at + LANES <= row; at += LANES)
		weigh(out + at, in + at, row, weight, count);
	if (at < row && row >= LANES) {
		at = row - LANES;
		weigh(out + at, in + at, row, weight, count);
		return;
	}
	for (; at < row; at++) {
		int32_t v = 1 << (PRECISION_BITS - 1);
		for (int k = 0; k < count; k++)
			v += in[(size_t)k * row + at] * weight[k];
		v >>= PRECISION_BITS;
		out[at] = (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
	}
}

/* Pillow 13 resizes down the columns first when that saves enough (found by comparing its output with both orders: the
 * rule below explains all of 2926 random shapes); before 13 it never did. The rounding between the passes makes the
 * order visible, by a level or two. */
static int columns_first(int in_width, int in_height, int out_width, int out_height)
{
	return out_height < in_height && in_height - out_height > 2 * (in_width - out_width);
}

static wn_code all_rows(uint8_t *out, const uint8_t *in, int in_width, int out_width, int height, weigh_fn *weigh,
			wn_error *err)
{
	taps t = {0};
	wn_code rc = taps_make(&t, in_width, out_width, err);
	if (rc)
		return rc;
	uint8_t *lanes = calloc((size_t)in_width + 1, LANES);
	if (!lanes)
		rc = wn_fail(err, WN_NOMEM, "out of memory resizing rows from %d to %d pixels", in_width, out_width);
	for (int y = 0; rc == WN_OK && y < height; y += ROWS) {
		int rows = height - y < ROWS ? height - y : ROWS;
		interleave(lanes, in + (size_t)y * (size_t)in_width * 3, rows, in_width);
		resize_rows(out + (size_t)y * (size_t)out_width * 3, lanes, rows, &t, weigh);
	}
	free(lanes);
	taps_free(&t);
	return rc;
}

static wn_code all_columns(uint8_t *out, const uint8_t *in, int width, int in_height, int out_height, weigh_fn *weigh,
			   wn_error *err)
{
	taps t = {0};
	const size_t row = (size_t)width * 3;
	wn_code rc = taps_make(&t, in_height, out_height, err);
	for (int y = 0; rc == WN_OK && y < out_height; y++)
		resize_columns(out + (size_t)y * row, in + (size_t)t.spans[y].first * row, row,
			       t.weight + (size_t)y * (size_t)t.stride, t.spans[y].count, weigh);
	taps_free(&t);
	return rc;
}

static wn_code resize_with(uint8_t *out, int out_width, int out_height, const image *in, weigh_fn *weigh, wn_error *err)
{
	const int w = in->width, h = in->height;
	if (out_width < 1 || out_height < 1 || w < 1 || h < 1 || out_width > 65535 || out_height > 65535 || w > 65535 ||
	    h > 65535)
		return wn_fail(err, WN_INVALID, "cannot resize %dx%d to %dx%d; sides are 1 to 65535", w, h, out_width,
			       out_height);
	if (out_width == w && out_height == h) {
		memcpy(out, in->rgb, (size_t)w * (size_t)h * 3);
		return WN_OK;
	}
	if (out_height == h)
		return all_rows(out, in->rgb, w, out_width, h, weigh, err);
	if (out_width == w)
		return all_columns(out, in->rgb, w, h, out_height, weigh, err);
	const int down = columns_first(w, h, out_width, out_height);
	uint8_t *middle = malloc(3 * (down ? (size_t)w * (size_t)out_height : (size_t)out_width * (size_t)h));
	wn_code rc;
	if (!middle)
		return wn_fail(err, WN_NOMEM, "out of memory resizing %dx%d to %dx%d", w, h, out_width, out_height);
	if (down) {
		rc = all_columns(middle, in->rgb, w, h, out_height, weigh, err);
		rc = rc ? rc : all_rows(out, middle, w, out_width, out_height, weigh, err);
	} else {
		rc = all_rows(middle, in->rgb, w, out_width, h, weigh, err);
		rc = rc ? rc : all_columns(out, middle, out_width, h, out_height, weigh, err);
	}
	free(middle);
	return rc;
}

wn_code image_resize(uint8_t *out, int out_width, int out_height, const image *in, wn_error *err)
{
	return resize_with(out, out_width, out_height, in, best_weigh(), err);
}

wn_code image_resize_plain(uint8_t *out, int out_width, int out_height, const image *in, wn_error *err)
{
	return resize_with(out, out_width, out_height, in, weigh_plain, err);
}
