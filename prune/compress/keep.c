/* keep.c: see keep.h.
 *
 * First the shapes: what is fixed must agree, the blocks are chosen, and every width of a kept block is compared with its
 * source's; then the lists are laid out in one block of memory, and filled. */
#include "prune/compress/keep.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "prune/compress/json_lists.h"
#include "prune/compress/shrink_check.h"

/* ---- shapes ---- */

static wn_code check_widths(component which, int index, const block_widths *from, const block_widths *to, wn_error *err)
{
	char where[48];
	width_pair w[MAX_WIDTHS];
	wn_code rc = WN_OK;
	snprintf(where, sizeof where, "%s.blocks[%d].", shape_stack_name(which), index);
	for (int i = 0, n = width_pairs(w, from, to); !rc && i < n; i++)
		rc = shrink_check(where, w[i].name, w[i].from, w[i].to, err);
	return rc;
}

static wn_code check_stack(component which, const stack_config *from, const stack_config *to, wn_error *err)
{
	char where[24];
	snprintf(where, sizeof where, "%s.", shape_stack_name(which));
	wn_code rc = shrink_check(where, "hidden_size", from->hidden_size, to->hidden_size, err);
	return rc ? rc : shrink_check(where, "num_hidden_layers", from->num_hidden_layers, to->num_hidden_layers, err);
}

static wn_code check_numbers(const blip2_config *from, const blip2_config *to, wn_error *err)
{
	if (from->num_query_tokens > from->max_position_embeddings)
		return wn_fail(err, WN_INVALID, "source shape: num_query_tokens: found %d, expected at most max_position_embeddings %d",
		               from->num_query_tokens, from->max_position_embeddings);
	wn_code rc = shape_check_fixed(to, from, err);
	for (int c = 0; c < NUM_COMPONENTS && rc == WN_OK; c++)
		rc = check_stack((component)c, shape_stack(from, (component)c), shape_stack(to, (component)c), err);
	if (rc == WN_OK)
		rc = shrink_check("", "num_query_tokens", from->num_query_tokens, to->num_query_tokens, err);
	return rc ? wn_fail_prefix(err, "target shape") : WN_OK;
}

/* A score that is no number has no rank. */
static wn_code check_scores(const structure_scores *s, wn_error *err)
{
	bool finite = true;
	for (size_t i = 0; i < s->count; i++)
		finite = finite && isfinite(s->memory[i]);
	for (int c = 0; c < NUM_COMPONENTS; c++)
		for (int i = 0; i < shape_stack(&s->shape, (component)c)->num_hidden_layers; i++)
			finite = finite && isfinite(s->blocks[c][i].total);
	return finite ? WN_OK : wn_fail(err, WN_INVALID, "importance scores: found one that is not finite");
}

/* ---- blocks ---- */

static wn_code choose_blocks(keep *k, const structure_scores *s, component which, block_choice choice, wn_error *err)
{
	const cross_pattern from = cross_pattern_of(shape_stack(&k->from, which)), to = cross_pattern_of(shape_stack(&k->to, which));
	double totals[MAX_BLOCKS];
	int sources[MAX_BLOCKS], crossing = 0;
	for (int i = 0; i < to.count; i++)
		crossing += to.has[i];
	if (which == COMPONENT_QFORMER && !crossing)
		return wn_fail(err, WN_INVALID, "target shape: qformer: found no block with cross-attention, expected one at least");
	for (int i = 0; i < from.count; i++)
		totals[i] = s->blocks[which][i].total;
	if (blocks_choose(sources, &from, &to, totals, choice, err))
		return wn_fail_prefix(err, "target shape: %s", shape_stack_name(which));
	for (int i = 0; i < to.count; i++)
		k->blocks[which][i].source = sources[i];
	return WN_OK;
}

/* ---- lists ---- */

static int *take(int *memory, size_t *used, int count)
{
	int *at = memory ? memory + *used : NULL;
	*used += (size_t)count;
	return at;
}

/* Returns how many indices the target shape has; points to them when memory is there. */
static size_t lay_out(keep *k, int *memory)
{
	size_t used = 0;
	for (int c = 0; c < NUM_COMPONENTS; c++) {
		const stack_config *to = shape_stack(&k->to, (component)c);
		k->hidden[c] = take(memory, &used, to->hidden_size);
		for (int i = 0; i < to->num_hidden_layers; i++) {
			const block_widths *w = &to->blocks[i];
			const int self = w->num_heads * w->head_dim, cross = w->cross_num_heads * w->cross_head_dim;
			block_keep *b = &k->blocks[c][i];
			b->ffn = take(memory, &used, w->ffn_dim);
			b->self = (attention_keep){take(memory, &used, self), take(memory, &used, self)};
			if (cross)
				b->cross = (attention_keep){take(memory, &used, cross), take(memory, &used, cross)};
		}
	}
	k->queries = take(memory, &used, k->to.num_query_tokens);
	return used;
}

typedef struct ranked {
	double score;
	int index;
} ranked;

typedef struct chooser {
	ranked *order; /* [longest list of the source] */
	int *heads;    /* [the same] */
} chooser;

static int best_first(const void *a, const void *b)
{
	const ranked *x = a, *y = b;
	if (x->score != y->score)
		return x->score < y->score ? 1 : -1;
	return x->index - y->index;
}

static int ascending(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

/* out [left] = the indices of the best of order [count], ascending. */
static void take_best(int *out, int left, ranked *order, int count)
{
	qsort(order, (size_t)count, sizeof *order, best_first);
	for (int i = 0; i < left; i++)
		out[i] = order[i].index;
	qsort(out, (size_t)left, sizeof *out, ascending);
}

/* The same of scores[first .. first+count). */
static void choose(int *out, int left, const double *scores, int first, int count, chooser *c)
{
	for (int i = 0; i < count; i++)
		c->order[i] = (ranked){scores[first + i], first + i};
	take_best(out, left, c->order, count);
}

static void choose_attention(keep *k, const structure_scores *s, component which, int index, bool cross, chooser *c)
{
	block_keep *b = &k->blocks[which][index];
	const block_widths *from = &shape_stack(&k->from, which)->blocks[b->source],
	                   *to = &shape_stack(&k->to, which)->blocks[index];
	const block_scores *scores = &s->blocks[which][b->source];
	const int heads = cross ? from->cross_num_heads : from->num_heads, dim = cross ? from->cross_head_dim : from->head_dim;
	const int heads_left = cross ? to->cross_num_heads : to->num_heads, dim_left = cross ? to->cross_head_dim : to->head_dim;
	attention_keep *out = cross ? &b->cross : &b->self;
	for (int h = 0; h < heads; h++)
		c->order[h] = (ranked){head_score(s, which, b->source, cross, h), h};
	take_best(c->heads, heads_left, c->order, heads);
	for (int h = 0; h < heads_left; h++) {
		choose(out->qk + h * dim_left, dim_left, cross ? scores->cross_qk : scores->self_qk, c->heads[h] * dim, dim, c);
		choose(out->v + h * dim_left, dim_left, cross ? scores->cross_v : scores->self_v, c->heads[h] * dim, dim, c);
	}
}

static void choose_lists(keep *k, const structure_scores *s, chooser *c)
{
	for (int which = 0; which < NUM_COMPONENTS; which++) {
		const stack_config *from = shape_stack(&k->from, (component)which), *to = shape_stack(&k->to, (component)which);
		choose(k->hidden[which], to->hidden_size, s->hidden[which], 0, from->hidden_size, c);
		for (int i = 0; i < to->num_hidden_layers; i++) {
			block_keep *b = &k->blocks[which][i];
			choose(b->ffn, to->blocks[i].ffn_dim, s->blocks[which][b->source].ffn, 0,
			       from->blocks[b->source].ffn_dim, c);
			choose_attention(k, s, (component)which, i, false, c);
			if (to->blocks[i].cross_num_heads)
				choose_attention(k, s, (component)which, i, true, c);
		}
	}
	choose(k->queries, k->to.num_query_tokens, s->queries, 0, k->from.num_query_tokens, c);
}

static wn_code open_lists(keep *k, const structure_scores *s, wn_error *err)
{
	/* No list of the source is longer than all its lists together. */
	chooser c = {calloc(s->count, sizeof *c.order), calloc(s->count, sizeof *c.heads)};
	k->memory = calloc(lay_out(k, NULL), sizeof *k->memory);
	wn_code rc = c.order && c.heads && k->memory ? WN_OK : wn_fail(err, WN_NOMEM, "no memory to choose what a model keeps");
	if (rc == WN_OK) {
		lay_out(k, k->memory);
		choose_lists(k, s, &c);
	}
	free(c.order);
	free(c.heads);
	return rc;
}

wn_code keep_choose(keep *out, const structure_scores *scores, const blip2_config *to, block_choice choice, wn_error *err)
{
	memset(out, 0, sizeof *out);
	out->from = scores->shape;
	out->to = *to;
	wn_code rc = check_numbers(&out->from, &out->to, err);
	if (rc == WN_OK)
		rc = check_scores(scores, err);
	for (int c = 0; c < NUM_COMPONENTS && rc == WN_OK; c++)
		rc = choose_blocks(out, scores, (component)c, choice, err);
	for (int c = 0; c < NUM_COMPONENTS; c++) {
		const stack_config *f = shape_stack(&out->from, (component)c), *t = shape_stack(&out->to, (component)c);
		for (int i = 0; i < t->num_hidden_layers && rc == WN_OK; i++)
			if ((rc = check_widths((component)c, i, &f->blocks[out->blocks[c][i].source], &t->blocks[i], err)))
				wn_fail_prefix(err, "target shape");
	}
	if (rc == WN_OK)
		rc = open_lists(out, scores, err);
	if (rc)
		keep_close(out);
	return rc;
}

void keep_close(keep *k)
{
	free(k->memory);
	memset(k, 0, sizeof *k);
}

/* ---- what is given up ---- */

static double sum_of(const double *scores, int count)
{
	double sum = 0;
	for (int i = 0; i < count; i++)
		sum += scores[i];
	return sum;
}

static double sum_kept(const double *scores, const int *kept, int count)
{
	double sum = 0;
	for (int i = 0; i < count; i++)
		sum += scores[kept[i]];
	return sum;
}

/* Nothing of nothing is lost. Rounding must not lead out of [0, 1]. */
static double share(double kept, double all) { return all > 0 && kept < all ? kept / all : 1; }

/* The share of a source block's neurons, heads and dimensions that target block `index` keeps. */
static double block_share(const keep *k, const structure_scores *s, component which, int index)
{
	const block_keep *b = &k->blocks[which][index];
	const block_scores *x = &s->blocks[which][b->source];
	const block_widths *from = &shape_stack(&k->from, which)->blocks[b->source],
	                   *to = &shape_stack(&k->to, which)->blocks[index];
	const int self = from->num_heads * from->head_dim, self_left = to->num_heads * to->head_dim;
	const int cross = from->cross_num_heads * from->cross_head_dim, cross_left = to->cross_num_heads * to->cross_head_dim;
	double all = sum_of(x->ffn, from->ffn_dim) + sum_of(x->self_qk, self) + sum_of(x->self_v, self);
	double kept = sum_kept(x->ffn, b->ffn, to->ffn_dim) + sum_kept(x->self_qk, b->self.qk, self_left) +
	              sum_kept(x->self_v, b->self.v, self_left);
	if (cross) {
		all += sum_of(x->cross_qk, cross) + sum_of(x->cross_v, cross);
		kept += sum_kept(x->cross_qk, b->cross.qk, cross_left) + sum_kept(x->cross_v, b->cross.v, cross_left);
	}
	return share(kept, all);
}

static double total_of(const structure_scores *s, component which)
{
	double all = 0;
	for (int i = 0; i < shape_stack(&s->shape, which)->num_hidden_layers; i++)
		all += s->blocks[which][i].total;
	return all;
}

double keep_score_lost(const keep *k, const structure_scores *s, component which)
{
	const stack_config *from = shape_stack(&k->from, which), *to = shape_stack(&k->to, which);
	double blocks = 0;
	for (int i = 0; i < to->num_hidden_layers; i++)
		blocks += s->blocks[which][k->blocks[which][i].source].total * block_share(k, s, which, i);
	double kept = share(blocks, total_of(s, which));
	kept *= share(sum_kept(s->hidden[which], k->hidden[which], to->hidden_size), sum_of(s->hidden[which], from->hidden_size));
	if (which == COMPONENT_QFORMER)
		kept *= share(sum_kept(s->queries, k->queries, k->to.num_query_tokens),
		              sum_of(s->queries, k->from.num_query_tokens));
	return 1 - kept;
}

/* ---- JSON ---- */

static json_t *block_json(const block_keep *b, const block_widths *to)
{
	const size_t self = (size_t)to->num_heads * (size_t)to->head_dim,
	             cross = (size_t)to->cross_num_heads * (size_t)to->cross_head_dim;
	json_t *j = json_object();
	int failed = json_object_set_new(j, "source", json_integer(b->source));
	failed |= json_object_set_new(j, "ffn", json_ints(b->ffn, (size_t)to->ffn_dim));
	failed |= json_object_set_new(j, "self_qk", json_ints(b->self.qk, self));
	failed |= json_object_set_new(j, "self_v", json_ints(b->self.v, self));
	if (cross) {
		failed |= json_object_set_new(j, "cross_qk", json_ints(b->cross.qk, cross));
		failed |= json_object_set_new(j, "cross_v", json_ints(b->cross.v, cross));
	}
	return json_done(j, failed);
}

json_t *keep_json(const keep *k)
{
	json_t *j = json_object();
	int failed = json_object_set_new(j, "from", shape_json(&k->from));
	failed |= json_object_set_new(j, "to", shape_json(&k->to));
	for (int c = 0; c < NUM_COMPONENTS; c++) {
		const stack_config *to = shape_stack(&k->to, (component)c);
		json_t *one = json_object(), *blocks = json_array();
		for (int i = 0; i < to->num_hidden_layers; i++)
			failed |= json_array_append_new(blocks, block_json(&k->blocks[c][i], &to->blocks[i]));
		failed |= json_object_set_new(one, "hidden", json_ints(k->hidden[c], (size_t)to->hidden_size));
		failed |= json_object_set_new(one, "blocks", blocks);
		failed |= json_object_set_new(j, shape_stack_name((component)c), one);
	}
	failed |= json_object_set_new(j, "queries", json_ints(k->queries, (size_t)k->to.num_query_tokens));
	return json_done(j, failed);
}
