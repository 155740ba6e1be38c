/* attend.c: picks the kernel of attend.h; the plain one. */
#include "model/attend.h"

#include <math.h>
#include <string.h>

#include "model/attend_internal.h"
#include "model/ops.h"

void attend_int8_vnni(const attend_job *job);

attend_fn attend_int8(void)
{
	return strcmp(ops->name, "avx512") == 0 && __builtin_cpu_supports("avx512vnni") ? attend_int8_vnni : NULL;
}

size_t attend_scratch(size_t keys, size_t head_dim)
{
	attend_space s;
	return attend_lay_out(&s, NULL, keys, head_dim);
}

static float score(const attend_job *j, size_t row, size_t key)
{
	const int8_t *q = j->q.data + row * j->q.stride, *k = j->k.data + key * j->k.stride;
	int32_t sum = 0;
	for (size_t d = 0; d < j->head_dim; d++)
		sum += q[d] * k[d];
	return (float)sum * (j->q.scale[row * j->q.scale_stride] * j->scale) * j->k.scale[key * j->k.scale_stride] +
	       (j->mask ? j->mask[row * j->keys + key] : 0);
}

/* A row's probabilities times 255 over the largest; returns what a step of them is worth. */
static float soften(const attend_job *j, size_t row, float *p, uint8_t *probs)
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
		p[i] = e * j->v.scale[i * j->v.scale_stride];
		most = p[i] > most ? p[i] : most;
		poison += p[i] * 0;
	}
	const float inverse = most > 0 ? 255.0f / most : 0;
	for (size_t i = 0; i < valid; i++)
		probs[i] = isnan(p[i]) ? 0 : (uint8_t)lrintf(p[i] * inverse);
	return most / 255.0f / sum + poison;
}

void attend_int8_plain(const attend_job *j)
{
	attend_space s;
	attend_lay_out(&s, j->scratch, j->keys, j->head_dim);
	for (size_t i = 0; i < j->queries.count; i++) {
		const size_t row = attend_position(&j->queries, i);
		const float step = soften(j, row, s.scores, s.probs);
		for (size_t d = 0; d < j->head_dim; d++) {
			int32_t sum = 0;
			for (size_t k = 0; k < attend_valid(j, row); k++)
				sum += s.probs[k] * j->v.data[k * j->v.stride + d];
			j->out[i * j->out_stride + d] = (float)sum * step;
		}
	}
}
