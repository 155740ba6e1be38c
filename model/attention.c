/* attention.c: one (sample, head) pair is one unit of work for one thread: its score matrix fits in the cache, and the
 * matrix products inside a parallel region stay on that thread. */
#include "model/attention.h"

#include <math.h>

#include <omp.h>

#include "model/dnn.h"
#include "model/ops.h"

/* Where a pair's head starts in a view. */
static float *head(attention_view v, int sample, int len, int h, int head_dim)
{
	return v.data + (size_t)sample * (size_t)len * v.stride + (size_t)h * (size_t)head_dim;
}

void attention_forward(attention_view out, float *probs, attention_view q, attention_view k, attention_view v,
                       const attention_shape *s)
{
	int m = s->q_len, n = s->kv_len, d = s->head_dim;
	const int64_t pairs = (int64_t)s->n * s->num_heads;
	float scale = 1.0f / sqrtf((float)d);
#pragma omp parallel for schedule(static)
	for (int64_t pair = 0; pair < pairs; pair++) {
		int i = (int)(pair / s->num_heads), h = (int)(pair % s->num_heads);
		float *p = probs + (size_t)pair * (size_t)m * (size_t)n;
		dnn_sgemm(false, true, m, n, d, 1, head(q, i, m, h, d), (int64_t)q.stride, head(k, i, n, h, d),
		          (int64_t)k.stride, 0, p, n);
		for (int r = 0; r < m; r++)
			ops->softmax(p + (size_t)r * (size_t)n, s->mask ? s->mask + ((size_t)i * (size_t)m + (size_t)r) * (size_t)n : NULL,
			             scale, s->causal ? (size_t)r + 1 : (size_t)n, (size_t)n);
		dnn_sgemm(false, false, m, d, n, 1, p, n, head(v, i, n, h, d), (int64_t)v.stride, 0, head(out, i, m, h, d),
		          (int64_t)out.stride);
	}
}

size_t attention_scratch(const attention_shape *s)
{
	return (size_t)omp_get_max_threads() * (size_t)s->q_len * (size_t)s->kv_len;
}

void attention_backward(attention_view dq, attention_view dk, attention_view dv, attention_view dout, const float *probs,
                        attention_view q, attention_view k, attention_view v, const attention_shape *s, float *scratch)
{
	int m = s->q_len, n = s->kv_len, d = s->head_dim;
	const int64_t pairs = (int64_t)s->n * s->num_heads;
	float scale = 1.0f / sqrtf((float)d);
#pragma omp parallel for schedule(static)
	for (int64_t pair = 0; pair < pairs; pair++) {
		int i = (int)(pair / s->num_heads), h = (int)(pair % s->num_heads);
		const float *p = probs + (size_t)pair * (size_t)m * (size_t)n;
		float *ds = scratch + (size_t)omp_get_thread_num() * (size_t)m * (size_t)n;
		const float *go = head(dout, i, m, h, d);
		/* out = P V  =>  dV = P^T dout, dP = dout V^T */
		dnn_sgemm(true, false, n, d, m, 1, p, n, go, (int64_t)dout.stride, 0, head(dv, i, n, h, d), (int64_t)dv.stride);
		dnn_sgemm(false, true, m, n, d, 1, go, (int64_t)dout.stride, head(v, i, n, h, d), (int64_t)v.stride, 0, ds, n);
		/* P = softmax(scale S + mask)  =>  dS; masked entries have P = 0 and so dS = 0 */
		for (int r = 0; r < m; r++)
			ops->softmax_backward(ds + (size_t)r * (size_t)n, p + (size_t)r * (size_t)n, scale, (size_t)n);
		/* S = Q K^T  =>  dQ = dS K, dK = dS^T Q */
		dnn_sgemm(false, false, m, d, n, 1, ds, n, head(k, i, n, h, d), (int64_t)k.stride, 0, head(dq, i, m, h, d),
		          (int64_t)dq.stride);
		dnn_sgemm(true, false, n, d, m, 1, ds, n, head(q, i, m, h, d), (int64_t)q.stride, 0, head(dk, i, n, h, d),
		          (int64_t)dk.stride);
	}
}
