/* attend.c: picks the kernel of attend.h; the plain one. */
#include "model/attend.h"

#include <math.h>
#include <string.h>

#include "model/attend_internal.h"
#include "model/ops.h"

void attend_s8_vnni(const attend_job *job);
void attend_bf16_avx512(const attend_job *job);
void attend_f32_avx512(const attend_job *job);

attend_fn attend_kernel(element type)
{
	if (strcmp(ops->name, "avx512") != 0)
		return NULL;
	switch (type) {
	case ELEMENT_S8:
		return __builtin_cpu_supports("avx512vnni") ? attend_s8_vnni : NULL;
	case ELEMENT_BF16:
		return __builtin_cpu_supports("avx512bf16") ? attend_bf16_avx512 : NULL;
	case ELEMENT_F32:
		return attend_f32_avx512;
	default:
		return NULL;
	}
}

const char *attend_describe(element type)
{
	switch (type) {
	case ELEMENT_S8:
		return "s8 avx512_vnni"; /* nothing else takes these two */
	case ELEMENT_BF16:
		return "bf16 avx512_bf16";
	default:
		return attend_kernel(type) ? "f32 avx512" : "f32 oneDNN";
	}
}

size_t attend_scratch(element type, size_t keys, size_t head_dim)
{
	attend_space s;
	return attend_lay_out(&s, NULL, type, keys, head_dim);
}

static float widened(uint16_t half)
{
	const uint32_t bits = (uint32_t)half << 16;
	float x;
	memcpy(&x, &bits, sizeof x);
	return x;
}

/* Column d of a row; of s8 before its scale. */
static float at(const attend_job *j, const attend_rows *r, size_t row, size_t d)
{
	const size_t i = row * r->stride + d;
	return j->type == ELEMENT_S8 ? (float)((const int8_t *)r->data)[i]
	     : j->type == ELEMENT_BF16 ? widened(((const uint16_t *)r->data)[i]) : ((const float *)r->data)[i];
}

static float scale_of(const attend_job *j, const attend_rows *r, size_t row) { return j->type == ELEMENT_S8 ? r->scale[row * r->scale_stride] : 1; }

static float score(const attend_job *j, size_t row, size_t key)
{
	float sum = 0; /* of s8 exact for 1,000 columns */
	for (size_t d = 0; d < j->head_dim; d++)
		sum += at(j, &j->q, row, d) * at(j, &j->k, key, d);
	return sum * (scale_of(j, &j->q, row) * j->scale) * scale_of(j, &j->k, key) + (j->mask ? j->mask[row * j->keys + key] : 0);
}

/* What kernels multiply values with instead of p, of which the row's largest is `most`. */
static float rounded(const attend_job *j, float p, float most)
{
	uint16_t half;
	switch (j->type) {
	case ELEMENT_S8:
		return isnan(p) || most <= 0 ? 0 : rintf(p * (255.0f / most));
	case ELEMENT_BF16:
		ops->to_bf16(&half, &p, 1);
		return widened(half);
	default:
		return p;
	}
}

/* A row's weights, rounded; returns what their products with values are to be multiplied with. */
static float soften(const attend_job *j, size_t row, float *p)
{
	const size_t valid = attend_valid(j, row);
	float top = -3.0e38f, sum = 0, most = 0, poison = 0; /* a maximum forgets a NaN */
	for (size_t i = 0; i < valid; i++) {
		p[i] = score(j, row, i);
		top = p[i] > top ? p[i] : top;
	}
	for (size_t i = 0; i < valid; i++) {
		const float e = expf(p[i] - top);
		sum += e;
		p[i] = e * scale_of(j, &j->v, i);
		most = p[i] > most ? p[i] : most;
		poison += p[i] * 0;
	}
	for (size_t i = 0; i < valid; i++)
		p[i] = rounded(j, p[i], most);
	return (j->type == ELEMENT_S8 ? most / 255.0f : 1) / sum + poison;
}

void attend_plain(const attend_job *j)
{
	attend_space s;
	attend_lay_out(&s, j->scratch, j->type, j->keys, j->head_dim);
	for (size_t i = 0; i < j->queries.count; i++) {
		const size_t row = attend_position(&j->queries, i), valid = attend_valid(j, row);
		const float step = soften(j, row, s.scores);
		for (size_t d = 0; d < j->head_dim; d++) {
			float sum = 0;
			for (size_t k = 0; k < valid; k++)
				sum += s.scores[k] * at(j, &j->v, k, d);
			sum *= step;
			if (j->type == ELEMENT_BF16)
				ops->to_bf16((uint16_t *)j->out + i * j->out_stride + d, &sum, 1);
			else
				((float *)j->out)[i * j->out_stride + d] = sum;
		}
	}
}
