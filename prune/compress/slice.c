/* slice.c: see slice.h.
 *
 * A parameter of the result and its counterpart have the same axes. For every axis there is a list that says where in the
 * counterpart an index of the result comes from; the parameter is then gathered by four nested loops. */
#include "prune/compress/slice.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/embedding.h"

#define MAX_RANK 4

/* ---- where an axis comes from ---- */

static void copy_list(int *out, const int *list, int64_t count, int64_t first)
{
	for (int64_t i = 0; i < count; i++)
		out[i] = list[i] + (int)first;
}

/* What an axis of p, a parameter of the result, keeps; NULL: everything. AXIS_SELF_QKV is three lists, AXIS_POSITION follows the
 * queries: see axis_index. */
static const int *space(const keep *k, const param *p, axis a)
{
	const block_keep *b = p->block < 0 ? NULL : &k->blocks[p->component][p->block];
	switch (a) {
	case AXIS_VISION_HIDDEN:
		return k->hidden[COMPONENT_VISION];
	case AXIS_QFORMER_HIDDEN:
		return k->hidden[COMPONENT_QFORMER];
	case AXIS_TEXT_HIDDEN:
		return k->hidden[COMPONENT_TEXT];
	case AXIS_QUERY:
		return k->queries;
	case AXIS_FFN:
		return b->ffn;
	case AXIS_SELF_QK:
		return b->self.qk;
	case AXIS_SELF_V:
		return b->self.v;
	case AXIS_CROSS_QK:
		return b->cross.qk;
	case AXIS_CROSS_V:
		return b->cross.v;
	case AXIS_SELF_QKV:
	case AXIS_POSITION:
	case AXIS_FIXED:
		break;
	}
	return NULL;
}

/* out [count]: every row of the source's text positions once: the offset's, the kept queries', the text's, the other queries'. */
static void position_index(int *out, const keep *k, int count)
{
	const int queries = k->from.num_query_tokens, left = k->to.num_query_tokens;
	int next = 0, gone = count - (queries - left);
	while (next < POSITION_OFFSET)
		out[next] = next, next++;
	for (int q = 0, j = 0; q < queries; q++) {
		const bool stays = j < left && k->queries[j] == q;
		out[stays ? next++ : gone++] = POSITION_OFFSET + q;
		j += stays;
	}
	for (int row = POSITION_OFFSET + queries; row < count; row++)
		out[next++] = row;
}

/* out [p's length there]: where axis number a of p comes from in `from`, its counterpart. */
static void axis_index(int *out, const keep *k, const param *p, const param *from, int a)
{
	const int *list = space(k, p, p->axes[a]);
	if (p->axes[a] == AXIS_SELF_QKV) {
		const int64_t third = p->shape[a] / 3, from_third = from->shape[a] / 3;
		copy_list(out, space(k, p, AXIS_SELF_QK), third, 0);
		copy_list(out + third, space(k, p, AXIS_SELF_QK), third, from_third);
		copy_list(out + 2 * third, space(k, p, AXIS_SELF_V), third, 2 * from_third);
	} else if (p->axes[a] == AXIS_POSITION) {
		position_index(out, k, (int)p->shape[a]);
	} else if (list) {
		copy_list(out, list, p->shape[a], 0);
	} else {
		for (int i = 0; i < (int)p->shape[a]; i++)
			out[i] = i;
	}
}

/* ---- one parameter ---- */

static void gather(float *to, const float *from, const param *p, const param *source, int *const *index)
{
	int64_t n[MAX_RANK] = {1, 1, 1, 1}, size[MAX_RANK] = {1, 1, 1, 1};
	memcpy(n, p->shape, (size_t)p->rank * sizeof *n);
	memcpy(size, source->shape, (size_t)p->rank * sizeof *size);
	for (int64_t i = 0; i < n[0]; i++)
		for (int64_t j = 0; j < n[1]; j++)
			for (int64_t k = 0; k < n[2]; k++) {
				const float *row = from + ((index[0][i] * size[1] + index[1][j]) * size[2] + index[2][k]) * size[3];
				for (int64_t l = 0; l < n[3]; l++)
					*to++ = row[index[3][l]];
			}
}

/* Queries come before keys in memory, with biases as with weights: of the parameters of one rank that have the axis first,
 * the first is the query's. */
static bool is_query(const blip2 *m, const param *p)
{
	const axis a = p->axes[0];
	if (a != AXIS_SELF_QK && a != AXIS_CROSS_QK)
		return a == AXIS_SELF_QKV;
	for (int role = 0; role < p->role; role++) {
		const param *earlier = blip2_find_role(m, p->component, p->block, role);
		if (earlier->rank == p->rank && earlier->axes[0] == a)
			return false;
	}
	return true;
}

/* A query projection makes up for the engine's 1/sqrt(head_dim); of a fused one, that is the first third. */
static void scale_query(float *w, const keep *k, const param *p)
{
	const block_widths *to = &shape_stack(&k->to, p->component)->blocks[p->block];
	const block_widths *from = &shape_stack(&k->from, p->component)->blocks[k->blocks[p->component][p->block].source];
	const bool cross = p->axes[0] == AXIS_CROSS_QK;
	const int dim = cross ? to->cross_head_dim : to->head_dim, from_dim = cross ? from->cross_head_dim : from->head_dim;
	const size_t count = p->axes[0] == AXIS_SELF_QKV ? p->count / 3 : p->count;
	const float scale = (float)sqrt((double)dim / from_dim);
	if (dim == from_dim)
		return;
	for (size_t i = 0; i < count; i++)
		w[i] *= scale;
}

static wn_code slice_param(blip2 *to, const param *p, const blip2 *m, const keep *k, int *const *index, wn_error *err)
{
	const int block = p->block < 0 ? -1 : k->blocks[p->component][p->block].source;
	const param *source = blip2_find_role(m, p->component, block, p->role);
	if (!source || source->rank != p->rank || memcmp(source->axes, p->axes, sizeof p->axes))
		return wn_fail(err, WN_INTERNAL, "%s: has no counterpart in the larger model", p->name);
	for (int a = 0; a < MAX_RANK; a++) {
		index[a][0] = 0;
		if (a < p->rank)
			axis_index(index[a], k, p, source, a);
	}
	float *w = blip2_weights(to) + p->offset;
	gather(w, blip2_weights((blip2 *)m) + source->offset, p, source, index);
	if (is_query(to, p))
		scale_query(w, k, p);
	return WN_OK;
}

/* ---- the model ---- */

wn_code slice_model(blip2 **out, const blip2 *m, const keep *k, wn_error *err)
{
	blip2 *to = NULL;
	int *memory = NULL, *index[MAX_RANK];
	size_t longest = 1;
	*out = NULL;
	if (!shape_same(blip2_get_config(m), &k->from)) /* indices of another shape would lead anywhere */
		return wn_fail(err, WN_INVALID, "the model to slice has another shape than the one whose structures were chosen");
	wn_code rc = blip2_create(&to, &k->to, err);
	if (rc)
		return rc;
	for (size_t i = 0; i < blip2_num_params(to); i++)
		for (int a = 0; a < blip2_param(to, i)->rank; a++)
			longest = (size_t)blip2_param(to, i)->shape[a] > longest ? (size_t)blip2_param(to, i)->shape[a] : longest;
	memory = calloc(MAX_RANK * longest, sizeof *memory);
	if (!memory)
		rc = wn_fail(err, WN_NOMEM, "no memory to slice a model");
	for (int a = 0; a < MAX_RANK && memory; a++)
		index[a] = memory + (size_t)a * longest;
	for (size_t i = 0; i < blip2_num_params(to) && rc == WN_OK; i++)
		rc = slice_param(to, blip2_param(to, i), m, k, index, err);
	free(memory);
	if (rc)
		blip2_close(&to);
	else
		*out = to;
	return rc;
}
