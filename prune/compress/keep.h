/* keep.h: which structures of a model survive one pruning step, chosen by score; and the smaller model they make (slice.h).
 *
 * Indices are the source model's, ascending. Everything is chosen independently given the target shape: blocks first, then
 * inside every kept block neurons, heads, and in each kept head its query-key dimensions and (separately) its value dimensions;
 * hidden dimensions a stack; query tokens. */
#ifndef WINNOW_PRUNE_COMPRESS_KEEP_H
#define WINNOW_PRUNE_COMPRESS_KEEP_H

#include <stdbool.h>

#include <jansson.h>

#include "base/error.h"
#include "model/blip2.h"
#include "prune/compress/scores.h"

typedef struct attention_keep {
	int *qk, *v; /* [num_heads * head_dim] of the target: indices into the source's heads*head_dim; the dims of one kept
	              * head stand together and all come from one source head */
} attention_keep;

typedef struct block_keep {
	int source; /* block of the source stack */
	attention_keep self, cross;
	int *ffn; /* [ffn_dim] of the target */
} block_keep;

typedef struct keep {
	blip2_config from, to;
	int *hidden[NUM_COMPONENTS]; /* [to's hidden_size] */
	int *queries;                /* [to's num_query_tokens] */
	block_keep blocks[NUM_COMPONENTS][MAX_BLOCKS]; /* to's blocks */
	int *memory;                 /* owns all of the above */
} keep;

typedef enum block_choice {
	BLOCKS_BY_IMPORTANCE, /* the least important go */
	BLOCKS_FROM_END,      /* the last go, as in the paper */
} block_choice;

/* The best-scored structures of `scores` that fit `to`. WN_INVALID names the first number of `to` that is larger than the
 * source's, or a component whose kept Q-Former blocks would have no cross-attention (the last one with it is always kept).
 * Where `to` has a Q-Former block with (or without) cross-attention is decided here: to's cross widths of kept blocks are
 * taken from the source (0 stays 0), cut to `to`'s. */
wn_code keep_choose(keep *out, const structure_scores *scores, const blip2_config *to, block_choice choice, wn_error *err);
void keep_close(keep *k);

/* How much of the total score `k` gives up, by component and altogether, each in [0, 1] of that component's sum. For logs. */
double keep_score_lost(const keep *k, const structure_scores *scores, component which);

/* {"from": {…widths}, "to": {…}, "vision": {"hidden": […], "blocks": [{"source": 0, "ffn": […], "self_qk": …}]}, …}. */
json_t *keep_json(const keep *k);

/* Where the structures of a student that was pruned in several steps stand in its teacher: what hidden-state matching needs. */
typedef struct teacher_map {
	int num_blocks[NUM_COMPONENTS], hidden_size[NUM_COMPONENTS], num_queries; /* the student's */
	int blocks[NUM_COMPONENTS][MAX_BLOCKS]; /* student block -> teacher block */
	int *hidden[NUM_COMPONENTS];            /* student dimension -> teacher dimension */
	int *queries;
} teacher_map;

wn_code teacher_map_identity(teacher_map *out, const blip2_config *teacher, wn_error *err);
/* m of k's source becomes that of k's result. */
void teacher_map_apply(teacher_map *m, const keep *k);
void teacher_map_close(teacher_map *m);
json_t *teacher_map_json(const teacher_map *m);
/* Reads it back, checked against both shapes. */
wn_code teacher_map_parse(teacher_map *out, const json_t *j, const blip2_config *teacher, const blip2_config *student, wn_error *err);

#endif
