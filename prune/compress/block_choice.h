/* block_choice.h: which blocks of a stack stay when it loses some.
 *
 * Some Q-Former blocks have cross-attention and others have not, and which of a smaller stack's do is part of its planned shape:
 * Hugging Face's config.json can only say "every so many-th" (cross_attention_frequency). So a pattern of cross-attention is
 * chosen first, and blocks are then chosen that have it. Stacks without cross-attention are the plain case: all blocks alike. */
#ifndef WINNOW_PRUNE_COMPRESS_BLOCK_CHOICE_H
#define WINNOW_PRUNE_COMPRESS_BLOCK_CHOICE_H

#include <stdbool.h>

#include "base/error.h"
#include "model/shape.h"

typedef enum block_choice {
	BLOCKS_BY_IMPORTANCE, /* the least important go */
	BLOCKS_FROM_END,      /* the last go, as in the paper */
} block_choice;

/* Which blocks of a stack have cross-attention. */
typedef struct cross_pattern {
	int count;
	bool has[MAX_BLOCKS];
} cross_pattern;

cross_pattern cross_pattern_of(const stack_config *s);

/* The blocks of `from` that stay: sources [to->count], ascending, with cross-attention exactly where `to` has it. Of all such
 * choices it is the one with the highest scores together, of equals that with the lower indices; or, from the end, the one
 * with the lowest indices, whatever the scores. scores [from->count] of the blocks; NULL with BLOCKS_FROM_END. WN_INVALID shows
 * both patterns when no blocks of `from` have `to`. */
wn_code blocks_choose(int *sources, const cross_pattern *from, const cross_pattern *to, const double *scores, block_choice choice,
                      wn_error *err);

/* The pattern that `count` blocks of `from` are planned to have: that of its first ones (but the last has cross-attention if none
 * of them has, and some block of `from` does). loadable: some cross_attention_frequency must say it; where the first ones' does
 * not, the smallest frequency that `from` has blocks for is taken, and false is returned when there is none. */
bool cross_pattern_plan(cross_pattern *out, const cross_pattern *from, int count, bool loadable);

/* The pattern of `count` blocks on the way from `from` to `to`, of which blocks_choose must have a choice: the blocks that lead
 * there from the end, and the first of the others. Every larger count's holds every smaller one's. When one frequency says both
 * ends it says all on the way. */
cross_pattern cross_pattern_between(const cross_pattern *from, const cross_pattern *to, int count);

#endif
