/* scores.c: see scores.h.
 *
 * The scores of a shape are one block of doubles, laid out twice by the same code: first without memory, to count them.
 * Which scores an axis of a parameter belongs to is said once, in space(); sums run in the order of the parameters on one
 * thread, so that they do not depend on the number of threads. */
#include "prune/compress/scores.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/embedding.h"
#include "model/parallel.h"
#include "prune/compress/json_lists.h"
#include "prune/rng.h"

const char *const IMPORTANCE_NAMES[] = {"taylor", "magnitude", "activation", "random", NULL};

static double *take(double *memory, size_t *used, int count)
{
	double *at = memory ? memory + *used : NULL;
	*used += (size_t)count;
	return at;
}

/* Returns how many doubles the shape has; points to them when memory is there. */
static size_t lay_out(structure_scores *s, double *memory)
{
	size_t used = 0;
	for (int c = 0; c < NUM_COMPONENTS; c++) {
		const stack_config *stack = shape_stack(&s->shape, (component)c);
		s->hidden[c] = take(memory, &used, stack->hidden_size);
		for (int i = 0; i < stack->num_hidden_layers; i++) {
			const block_widths *w = &stack->blocks[i];
			const int self = w->num_heads * w->head_dim, cross = w->cross_num_heads * w->cross_head_dim;
			block_scores *b = &s->blocks[c][i];
			b->ffn = take(memory, &used, w->ffn_dim);
			b->self_qk = take(memory, &used, self);
			b->self_v = take(memory, &used, self);
			b->cross_qk = cross ? take(memory, &used, cross) : NULL;
			b->cross_v = cross ? take(memory, &used, cross) : NULL;
		}
	}
	s->queries = take(memory, &used, s->shape.num_query_tokens);
	return used;
}

wn_code structure_scores_open(structure_scores *out, const blip2_config *shape, wn_error *err)
{
	memset(out, 0, sizeof *out);
	out->shape = *shape;
	out->count = lay_out(out, NULL);
	out->memory = calloc(out->count, sizeof *out->memory);
	if (!out->memory) {
		memset(out, 0, sizeof *out);
		return wn_fail(err, WN_NOMEM, "no memory for the scores of a model");
	}
	lay_out(out, out->memory);
	return WN_OK;
}

void structure_scores_close(structure_scores *s)
{
	free(s->memory);
	memset(s, 0, sizeof *s);
}

/* ---- sums of elements ---- */

void taylor_add(float *elements, const float *weights, const float *grads, size_t count)
{
	PARALLEL_RANGE(count, 65536, i0, i1)
	for (size_t i = i0; i < i1; i++)
		elements[i] += fabsf(weights[i] * grads[i]);
}

/* The scores of what an axis of p runs over; NULL when that is no structure. AXIS_SELF_QKV is two spaces, AXIS_POSITION is one in
 * part: see add_axis. */
static double *space(const structure_scores *s, const param *p, axis a)
{
	const block_scores *b = p->block < 0 ? NULL : &s->blocks[p->component][p->block];
	switch (a) {
	case AXIS_VISION_HIDDEN:
		return s->hidden[COMPONENT_VISION];
	case AXIS_QFORMER_HIDDEN:
		return s->hidden[COMPONENT_QFORMER];
	case AXIS_TEXT_HIDDEN:
		return s->hidden[COMPONENT_TEXT];
	case AXIS_QUERY:
		return s->queries;
	case AXIS_FFN:
		return b->ffn;
	case AXIS_SELF_QK:
		return b->self_qk;
	case AXIS_SELF_V:
		return b->self_v;
	case AXIS_CROSS_QK:
		return b->cross_qk;
	case AXIS_CROSS_V:
		return b->cross_v;
	case AXIS_SELF_QKV:
	case AXIS_POSITION:
	case AXIS_FIXED:
		break;
	}
	return NULL;
}

static double sum_of_sizes(const float *x, size_t count)
{
	double sum = 0;
	for (size_t i = 0; i < count; i++)
		sum += fabsf(x[i]);
	return sum;
}

/* to [count] += what lies in the slices first .. first+count of p's axis number a. x: p's elements; their sizes are summed
 * (scores are not negative, so that this is their sum). */
static void add_slices(double *to, const float *x, const param *p, int a, size_t first, size_t count)
{
	const size_t length = (size_t)p->shape[a];
	size_t outer = 1, inner = 1;
	for (int i = 0; i < p->rank; i++)
		*(i < a ? &outer : &inner) *= i == a ? 1 : (size_t)p->shape[i];
	for (size_t o = 0; o < outer; o++)
		for (size_t i = 0; i < count; i++)
			to[i] += sum_of_sizes(x + (o * length + first + i) * inner, inner);
}

static void add_axis(structure_scores *s, const float *x, const param *p, int a)
{
	const size_t length = (size_t)p->shape[a];
	if (p->axes[a] == AXIS_SELF_QKV) {
		const size_t third = length / 3;
		add_slices(space(s, p, AXIS_SELF_QK), x, p, a, 0, third);
		add_slices(space(s, p, AXIS_SELF_QK), x, p, a, third, third);
		add_slices(space(s, p, AXIS_SELF_V), x, p, a, 2 * third, third);
		return;
	}
	if (p->axes[a] == AXIS_POSITION) { /* the queries' rows go with them */
		const size_t queries = (size_t)s->shape.num_query_tokens, positions = length - POSITION_OFFSET;
		add_slices(s->queries, x, p, a, POSITION_OFFSET, queries < positions ? queries : positions);
		return;
	}
	double *to = space(s, p, p->axes[a]);
	if (to)
		add_slices(to, x, p, a, 0, length);
}

void structure_scores_from_elements(structure_scores *s, const blip2 *m, const float *elements)
{
	const float *x = elements ? elements : blip2_weights((blip2 *)m);
	memset(s->memory, 0, s->count * sizeof *s->memory);
	for (int c = 0; c < NUM_COMPONENTS; c++)
		for (int i = 0; i < shape_stack(&s->shape, (component)c)->num_hidden_layers; i++)
			s->blocks[c][i].total = 0;
	for (size_t i = 0; i < blip2_num_params(m); i++) {
		const param *p = blip2_param(m, i);
		if (p->block >= 0)
			s->blocks[p->component][p->block].total += sum_of_sizes(x + p->offset, p->count);
		for (int a = 0; a < p->rank; a++)
			add_axis(s, x + p->offset, p, a);
	}
}

/* ---- activations ---- */

/* Columns of a matrix of activations. */
typedef struct columns {
	const float *data;
	size_t rows, stride;
} columns;

static double mean_size(columns x, size_t column)
{
	double sum = 0;
	for (size_t r = 0; r < x.rows; r++)
		sum += fabsf(x.data[r * x.stride + column]);
	return sum / (double)x.rows;
}

static void add_attention(double *qk, double *v, columns q, columns k, columns context)
{
	for (size_t i = 0; i < context.stride; i++) {
		qk[i] += mean_size(q, i) * mean_size(k, i);
		v[i] += mean_size(context, i);
	}
}

/* How much a block changes the stream: sum |output - input| over sum |input|. */
static double change(const blip2_block_view *v, size_t hidden)
{
	double changed = 0, size = 0;
	for (size_t i = 0; i < v->rows * hidden; i++) {
		changed += fabs((double)v->output[i] - v->input[i]);
		size += fabsf(v->input[i]);
	}
	return size > 0 ? changed / size : 0;
}

static void add_block(block_scores *b, const blip2_block_view *v, const block_widths *w, size_t hidden)
{
	const size_t self = (size_t)w->num_heads * (size_t)w->head_dim,
	             cross = (size_t)w->cross_num_heads * (size_t)w->cross_head_dim;
	const columns neurons = {v->ffn, v->rows, (size_t)w->ffn_dim};
	b->total += change(v, hidden);
	for (size_t i = 0; i < neurons.stride; i++)
		b->ffn[i] += mean_size(neurons, i);
	add_attention(b->self_qk, b->self_v, (columns){v->self_qkv, v->rows, 3 * self},
	              (columns){v->self_qkv + self, v->rows, 3 * self}, (columns){v->self_context, v->rows, self});
	if (cross)
		add_attention(b->cross_qk, b->cross_v, (columns){v->cross_q, v->rows, cross},
		              (columns){v->cross_kv, v->encoder_rows, 2 * cross}, (columns){v->cross_context, v->rows, cross});
}

/* Row r of the Q-Former is query r % num_query_tokens of a sample. */
static void add_queries(structure_scores *s, const blip2_block_view *v)
{
	const size_t queries = (size_t)s->shape.num_query_tokens, hidden = (size_t)s->shape.qformer.hidden_size;
	const double weight = 1.0 / ((double)v->rows / (double)queries * (double)hidden * s->shape.qformer.num_hidden_layers);
	for (size_t r = 0; r < v->rows; r++)
		s->queries[r % queries] += weight * sum_of_sizes(v->output + r * hidden, hidden);
}

void structure_scores_add_activations(structure_scores *s, const blip2 *m, const blip2_session *session)
{
	for (int c = 0; c < NUM_COMPONENTS; c++) {
		const stack_config *stack = shape_stack(blip2_get_config(m), (component)c);
		const size_t hidden = (size_t)stack->hidden_size;
		for (int i = 0; i < stack->num_hidden_layers; i++) {
			const blip2_block_view v = blip2_view_block(session, (component)c, i);
			if (!v.input)
				break;
			add_block(&s->blocks[c][i], &v, &stack->blocks[i], hidden);
			for (size_t d = 0; d < hidden; d++)
				s->hidden[c][d] += mean_size((columns){v.output, v.rows, hidden}, d) / stack->num_hidden_layers;
			if (c == COMPONENT_QFORMER)
				add_queries(s, &v);
		}
	}
}

/* ---- random, heads, JSON ---- */

/* (0, 1): the middles of 2^52 equal steps (of 2^53, the last would be rounded to 1). */
static double draw(rng *r) { return ((double)(rng_next(r) >> 12) + 0.5) * 0x1p-52; }

void structure_scores_random(structure_scores *s, uint64_t seed)
{
	rng r = rng_open(seed, 0x73636f726573u, 0, 0);
	for (size_t i = 0; i < s->count; i++)
		s->memory[i] = draw(&r);
	for (int c = 0; c < NUM_COMPONENTS; c++)
		for (int i = 0; i < shape_stack(&s->shape, (component)c)->num_hidden_layers; i++)
			s->blocks[c][i].total = draw(&r);
}

double head_score(const structure_scores *s, component which, int block, bool cross, int head)
{
	const block_widths *w = &shape_stack(&s->shape, which)->blocks[block];
	const block_scores *b = &s->blocks[which][block];
	const double *qk = cross ? b->cross_qk : b->self_qk, *v = cross ? b->cross_v : b->self_v;
	const int dim = cross ? w->cross_head_dim : w->head_dim;
	double sum = 0;
	for (int i = head * dim; i < (head + 1) * dim; i++)
		sum += qk[i] + v[i];
	return sum;
}

static json_t *block_json(const block_scores *b, const block_widths *w)
{
	const size_t self = (size_t)w->num_heads * (size_t)w->head_dim,
	             cross = (size_t)w->cross_num_heads * (size_t)w->cross_head_dim;
	json_t *j = json_object();
	int failed = json_object_set_new(j, "total", json_real(b->total));
	failed |= json_object_set_new(j, "ffn", json_doubles(b->ffn, (size_t)w->ffn_dim));
	failed |= json_object_set_new(j, "self_qk", json_doubles(b->self_qk, self));
	failed |= json_object_set_new(j, "self_v", json_doubles(b->self_v, self));
	if (cross) {
		failed |= json_object_set_new(j, "cross_qk", json_doubles(b->cross_qk, cross));
		failed |= json_object_set_new(j, "cross_v", json_doubles(b->cross_v, cross));
	}
	return json_done(j, failed);
}

static json_t *stack_json(const structure_scores *s, component which)
{
	const stack_config *stack = shape_stack(&s->shape, which);
	json_t *j = json_object(), *blocks = json_array();
	int failed = 0;
	for (int i = 0; i < stack->num_hidden_layers; i++)
		failed |= json_array_append_new(blocks, block_json(&s->blocks[which][i], &stack->blocks[i]));
	failed |= json_object_set_new(j, "hidden", json_doubles(s->hidden[which], (size_t)stack->hidden_size));
	failed |= json_object_set_new(j, "blocks", blocks);
	return json_done(j, failed);
}

json_t *structure_scores_json(const structure_scores *s)
{
	json_t *j = json_object();
	int failed = 0;
	for (int c = 0; c < NUM_COMPONENTS; c++)
		failed |= json_object_set_new(j, shape_stack_name((component)c), stack_json(s, (component)c));
	failed |= json_object_set_new(j, "queries", json_doubles(s->queries, (size_t)s->shape.num_query_tokens));
	return json_done(j, failed);
}
