/* plan_loss.c: see plan_loss.h. Everything lies in one arena, laid out twice: dry, to learn the size, then filled. */
#include "prune/compress/plan_loss.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"

#define NOTHING_LEFT 1e-9 /* share of a part that counts as none */

/* sums[k]: the k lowest scores together, k in [0, count] */
typedef struct attention_loss {
	int heads, head_dim;
	double *qk, *v; /* [heads][head_dim + 1] sums */
	int *rank;      /* [heads]: 0 goes first */
} attention_loss;

typedef struct block_loss {
	double total, parts; /* the block's score; that of all its neurons and heads */
	int ffn_dim;
	double *ffn;         /* [ffn_dim + 1] sums */
	attention_loss self, cross;
} block_loss;

typedef struct stack_loss {
	int blocks, hidden_size;
	double *hidden;    /* [hidden_size + 1] sums */
	block_loss *block; /* [blocks] */
	bool *stays;       /* [blocks + 1][blocks]: row n: which do when n blocks are left */
} stack_loss;

struct plan_loss {
	arena memory;
	stack_loss stacks[NUM_COMPONENTS];
	int num_queries;
	double *queries; /* [num_queries + 1] sums */
};

static int compare(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

/* sums [count + 1] of `scores` */
static void sum_lowest(double *sums, const double *scores, int count)
{
	sums[0] = 0;
	memcpy(sums + 1, scores, (size_t)count * sizeof *sums);
	qsort(sums + 1, (size_t)count, sizeof *sums, compare);
	for (int i = 1; i <= count; i++)
		sums[i] += sums[i - 1];
}

static bool lay_out_sums(arena *a, double **sums, const double *scores, int count)
{
	*sums = arena_alloc(a, ((size_t)count + 1) * sizeof **sums);
	if (*sums && a->base)
		sum_lowest(*sums, scores, count);
	return *sums != NULL;
}

static double head_total(const attention_loss *l, int head)
{
	const int last = head * (l->head_dim + 1) + l->head_dim;
	return l->qk[last] + l->v[last];
}

static bool lay_out_attention(arena *a, attention_loss *l, int heads, int head_dim, const double *qk, const double *v)
{
	const size_t sums = (size_t)heads * ((size_t)head_dim + 1);
	*l = (attention_loss){.heads = heads, .head_dim = head_dim};
	if (heads == 0)
		return true;
	l->qk = arena_alloc(a, sums * sizeof *l->qk);
	l->v = arena_alloc(a, sums * sizeof *l->v);
	l->rank = arena_alloc(a, (size_t)heads * sizeof *l->rank);
	if (!l->qk || !l->v || !l->rank)
		return false;
	if (!a->base)
		return true;
	for (int h = 0; h < heads; h++) {
		sum_lowest(l->qk + h * (head_dim + 1), qk + h * head_dim, head_dim);
		sum_lowest(l->v + h * (head_dim + 1), v + h * head_dim, head_dim);
	}
	for (int h = 0; h < heads; h++) {
		l->rank[h] = 0;
		for (int g = 0; g < heads; g++)
			l->rank[h] += head_total(l, g) < head_total(l, h) || (head_total(l, g) == head_total(l, h) && g > h);
	}
	return true;
}

static double attention_total(const attention_loss *l)
{
	double total = 0;
	for (int h = 0; h < l->heads; h++)
		total += head_total(l, h);
	return total;
}

static bool lay_out_block(arena *a, block_loss *l, const block_widths *w, const block_scores *s)
{
	block_loss b = {.total = s->total, .ffn_dim = w->ffn_dim};
	if (!lay_out_sums(a, &b.ffn, s->ffn, w->ffn_dim) ||
	    !lay_out_attention(a, &b.self, w->num_heads, w->head_dim, s->self_qk, s->self_v) ||
	    !lay_out_attention(a, &b.cross, w->cross_num_heads, w->cross_head_dim, s->cross_qk, s->cross_v))
		return false;
	if (a->base) {
		b.parts = b.ffn[b.ffn_dim] + attention_total(&b.self) + attention_total(&b.cross);
		*l = b;
	}
	return true;
}

/* Chosen as keep_choose does, for every number of blocks that a plan may have. */
static void choose_blocks(stack_loss *l, const stack_config *c, const block_scores *blocks, block_choice choice, bool loadable)
{
	const cross_pattern from = cross_pattern_of(c);
	cross_pattern to;
	double totals[MAX_BLOCKS];
	int sources[MAX_BLOCKS];
	for (int i = 0; i < l->blocks; i++)
		totals[i] = blocks[i].total;
	for (int left = 1; left <= l->blocks; left++)
		if (cross_pattern_plan(&to, &from, left, loadable) && !blocks_choose(sources, &from, &to, totals, choice, NULL))
			for (int i = 0; i < left; i++)
				l->stays[left * l->blocks + sources[i]] = true;
}

static bool lay_out_stack(arena *a, stack_loss *l, const stack_config *c, const double *hidden, const block_scores *blocks)
{
	const size_t flags = ((size_t)c->num_hidden_layers + 1) * (size_t)c->num_hidden_layers;
	*l = (stack_loss){.blocks = c->num_hidden_layers, .hidden_size = c->hidden_size};
	l->block = arena_alloc(a, (size_t)l->blocks * sizeof *l->block);
	l->stays = arena_alloc(a, flags * sizeof *l->stays);
	if (!l->block || !l->stays || !lay_out_sums(a, &l->hidden, hidden, c->hidden_size))
		return false;
	for (int i = 0; i < l->blocks; i++)
		if (!lay_out_block(a, a->base ? &l->block[i] : NULL, &c->blocks[i], &blocks[i]))
			return false;
	if (a->base)
		memset(l->stays, 0, flags * sizeof *l->stays);
	return true;
}

static bool lay_out(plan_loss *l, arena *a, const structure_scores *s)
{
	l->num_queries = s->shape.num_query_tokens;
	if (!lay_out_sums(a, &l->queries, s->queries, l->num_queries))
		return false;
	for (int c = 0; c < NUM_COMPONENTS; c++)
		if (!lay_out_stack(a, &l->stacks[c], shape_stack(&s->shape, (component)c), s->hidden[c], s->blocks[c]))
			return false;
	return true;
}

static wn_code check_scores(const structure_scores *s, wn_error *err)
{
	for (size_t i = 0; i < s->count; i++)
		if (!isfinite(s->memory[i]) || s->memory[i] < 0)
			return wn_fail(err, WN_INVALID, "scores[%zu]: found %g, expected a finite number from 0", i, s->memory[i]);
	for (int c = 0; c < NUM_COMPONENTS; c++)
		for (int i = 0; i < shape_stack(&s->shape, (component)c)->num_hidden_layers; i++)
			if (!isfinite(s->blocks[c][i].total) || s->blocks[c][i].total < 0)
				return wn_fail(err, WN_INVALID, "score of a block: found %g, expected a finite number from 0", s->blocks[c][i].total);
	return WN_OK;
}

wn_code plan_loss_open(plan_loss **out, const structure_scores *scores, block_choice choice, bool loadable, wn_error *err)
{
	*out = NULL;
	arena dry = {0};
	wn_code rc = check_scores(scores, err);
	if (rc)
		return rc;
	plan_loss *l = calloc(1, sizeof *l);
	if (!l)
		return wn_fail(err, WN_NOMEM, "no memory for sorted scores");
	lay_out(l, &dry, scores);
	rc = arena_open(&l->memory, dry.peak, err);
	if (!rc && !lay_out(l, &l->memory, scores))
		rc = wn_fail(err, WN_INTERNAL, "sorted scores: the layout changed between measuring and filling");
	for (int c = 0; c < NUM_COMPONENTS && !rc; c++)
		choose_blocks(&l->stacks[c], shape_stack(&scores->shape, (component)c), scores->blocks[c], choice, loadable);
	if (rc)
		plan_loss_close(&l);
	*out = l;
	return rc;
}

void plan_loss_close(plan_loss **l)
{
	if (!l || !*l)
		return;
	arena_close(&(*l)->memory);
	free(*l);
	*l = NULL;
}

static int smaller(int a, int b) { return a < b ? a : b; }

/* Heads that go as a whole, and what kept heads lose. */
static double attention_removed(const attention_loss *l, int heads, int head_dim)
{
	double removed = 0;
	heads = smaller(heads, l->heads);
	head_dim = smaller(head_dim, l->head_dim);
	for (int h = 0; h < l->heads; h++) {
		const int at = h * (l->head_dim + 1) + l->head_dim - head_dim;
		removed += l->rank[h] < l->heads - heads ? head_total(l, h) : l->qk[at] + l->v[at];
	}
	return removed;
}

static double block_removed(const block_loss *b, const plan_widths *w)
{
	const double removed = b->ffn[b->ffn_dim - w->ffn] + attention_removed(&b->self, w->heads, w->head_dim) +
	                       attention_removed(&b->cross, w->heads, w->head_dim);
	return b->parts > b->total ? removed * (b->total / b->parts) : removed;
}

/* What a part gives up that loses `removed` of its `total`: that much for little, and without end for all of it. */
static double given_up(double total, double removed)
{
	return total > 0 ? -total * log(fmax(1 - removed / total, NOTHING_LEFT)) : 0;
}

double plan_loss_of(const plan_loss *l, const plan_shape_widths *w)
{
	double loss = given_up(l->queries[l->num_queries], l->queries[l->num_queries - w->queries]);
	for (int c = 0; c < NUM_COMPONENTS; c++) {
		const stack_loss *s = &l->stacks[c];
		const bool *stays = s->stays + w->of[c].blocks * s->blocks;
		double total = 0, removed = 0;
		for (int i = 0; i < s->blocks; i++) {
			total += s->block[i].total;
			removed += stays[i] ? block_removed(&s->block[i], &w->of[c]) : s->block[i].total;
		}
		loss += given_up(total, removed) + given_up(s->hidden[s->hidden_size], s->hidden[s->hidden_size - w->of[c].hidden]);
	}
	return loss;
}
