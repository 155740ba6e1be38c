/* random_scores.h: importance that a planner weighs, random and of a chosen size for every kind of structure. */
#ifndef WINNOW_TESTS_COMPRESS_RANDOM_SCORES_H
#define WINNOW_TESTS_COMPRESS_RANDOM_SCORES_H

#include "tests/compress/shapes.h"

#include "prune/compress/scores.h"
#include "prune/rng.h"

typedef struct score_sizes {
	double ffn[NUM_COMPONENTS], attention[NUM_COMPONENTS], hidden[NUM_COMPONENTS], queries;
} score_sizes;

static const score_sizes EQUAL = {{1, 1, 1}, {1, 1, 1}, {1, 1, 1}, 1};

static inline double fill(double *scores, int count, double size, rng *r)
{
	double sum = 0;
	for (int i = 0; i < count; i++)
		sum += scores[i] = size * rng_double(r);
	return sum;
}

/* Random scores of these sizes; a block has the sum of its parts. */
static inline void scores_open(structure_scores *s, const blip2_config *c, score_sizes size, uint64_t seed)
{
	rng r = rng_open(seed, 0, 0, 0);
	assert_ok(structure_scores_open(s, c, err));
	fill(s->queries, c->num_query_tokens, size.queries, &r);
	for (int i = 0; i < NUM_COMPONENTS; i++) {
		const stack_config *stack = shape_stack(c, (component)i);
		fill(s->hidden[i], stack->hidden_size, size.hidden[i], &r);
		for (int b = 0; b < stack->num_hidden_layers; b++) {
			const block_widths *w = &stack->blocks[b];
			block_scores *k = &s->blocks[i][b];
			const int self = w->num_heads * w->head_dim, cross = w->cross_num_heads * w->cross_head_dim;
			k->total = fill(k->ffn, w->ffn_dim, size.ffn[i], &r) + fill(k->self_qk, self, size.attention[i], &r) +
			           fill(k->self_v, self, size.attention[i], &r);
			if (cross)
				k->total += fill(k->cross_qk, cross, size.attention[i], &r) + fill(k->cross_v, cross, size.attention[i], &r);
		}
	}
}

#endif
