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
#include "prune/compress/block_choice.h"
#include "prune/compress/scores.h"
#include "prune/compress/teacher_map.h"

typedef struct attention_keep {
	int *qk, *v; /* [num_heads * head_dim] of the target: indices into the source's heads*head_dim; the dims of one kept
	              * head stand together and all come from one source head */
} attention_keep;

typedef struct block_keep {
	int source; /* block of the source stack */
	attention_keep self, cross;
	int *ffn; /* [ffn_dim] of the target */
} block_keep;

/* The shapes and every list agree: slice.h relies on it, and only keep_choose makes one. */
typedef struct keep {
	blip2_config from, to;
	int *hidden[NUM_COMPONENTS]; /* [to's hidden_size] */
	int *queries;                /* [to's num_query_tokens] */
	block_keep blocks[NUM_COMPONENTS][MAX_BLOCKS]; /* to's blocks */
	int *memory;                 /* owns all of the above */
} keep;

/* The best-scored structures of `scores` that fit `to`; of equals the one with the lower index. `to` is the result's shape to the
 * last number: blocks are chosen that have cross-attention where it has (block_choice.h). *out is zeroed on failure. WN_INVALID
 * names the first number of `to` that is larger than the source's (or differs, where pruning cannot change it: shape_check_fixed),
 * shows a pattern of cross-attention that no blocks have, or says that the Q-Former would have none, that the source has more
 * queries than positions, or that a score is not finite. */
wn_code keep_choose(keep *out, const structure_scores *scores, const blip2_config *to, block_choice choice, wn_error *err);
void keep_close(keep *k);

/* How much of the score of a component `k` gives up, in [0, 1], for logs. A weight survives when its block structure, its hidden
 * dimension and (Q-Former) its query do: the kept shares of the three are multiplied, as if they were independent. Inside the
 * stack, a block weighs its total. */
double keep_score_lost(const keep *k, const structure_scores *scores, component which);

/* {"from": shape_json, "to": shape_json,
 *  "vision": {"hidden": […], "blocks": [{"source": 0, "ffn": […], "self_qk": […], …}]}, …, "queries": […]}; caller's reference,
 * NULL on no memory. */
json_t *keep_json(const keep *k);

#endif
