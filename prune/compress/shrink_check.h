/* shrink_check.h: can numbers of a shape become those of another by pruning? None may grow, and none may become 0. */
#ifndef WINNOW_PRUNE_COMPRESS_SHRINK_CHECK_H
#define WINNOW_PRUNE_COMPRESS_SHRINK_CHECK_H

#include "base/error.h"
#include "model/hf_config.h"

/* WN_INVALID: "vision.hidden_size: found 9, expected 1 to the source's 8"; where: "vision.", or "". */
wn_code shrink_check(const char *where, const char *name, int from, int to, wn_error *err);

#define MAX_WIDTHS 5
typedef struct width_pair {
	const char *name;
	int from, to;
} width_pair;

/* The widths of a block at both ends; those of cross-attention only where one of them has it. Returns how many. */
int width_pairs(width_pair out[MAX_WIDTHS], const block_widths *from, const block_widths *to);

#endif
