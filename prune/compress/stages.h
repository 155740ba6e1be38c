/* stages.h: from the teacher's shape to the student's in stages and iterations.
 *
 * A stage shrinks some kinds of structure of some components: blocks, inner (FFN and attention widths), hidden, queries, in
 * `iterations` steps, each followed by `steps` of distillation. As text, one line a stage:
 *
 *	blocks vision+text | iterations 2 | steps 300
 *
 * Components left out: all; kinds join with + ("blocks+inner+hidden | iterations 1 | steps 900" is one shot of everything);
 * `iterations` may be left out (1), `steps` may not. The queries belong to the Q-Former.
 *
 * The paper's order (arXiv 2312.05795, section 3) is blocks, then inner, then hidden; queries, of which it says nothing,
 * are as few and as coarse as blocks and go with them:
 *
 *	blocks+queries | iterations 3 | steps 300
 *	inner | iterations 3 | steps 300
 *	hidden | iterations 3 | steps 300 */
#ifndef WINNOW_PRUNE_COMPRESS_STAGES_H
#define WINNOW_PRUNE_COMPRESS_STAGES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/yaml_config.h"
#include "model/hf_config.h"

enum { STAGE_BLOCKS = 1, STAGE_INNER = 2, STAGE_HIDDEN = 4, STAGE_QUERIES = 8 };
#define MAX_STAGES     32
#define MAX_ITERATIONS 256

typedef struct stage {
	unsigned kinds;      /* STAGE_… */
	unsigned components; /* 1 << component */
	int iterations;
	int64_t steps;       /* of distillation after each iteration */
} stage;

typedef struct iteration {
	int stage;          /* index */
	blip2_config shape; /* after it */
	int64_t steps;
} iteration;

/* WN_INVALID names the word that was found and what was expected. */
wn_code stage_parse(stage *out, const char *line, wn_error *err);
/* "blocks vision+text" into buf, for logs and directory names ('-' for ' ' and '+' when dashes). */
void stage_name(const stage *s, bool dashes, char *buf, size_t size);

/* The shapes in between. Widths go down by equal factors, block and query counts by equal differences; widths are rounded to
 * `multiple` (head_dim and queries to what divides evenly is not asked for), never below the end's; the last iteration of the
 * last stage that may touch a number has exactly `to`'s. An iteration that changes nothing is left out. WN_INVALID names a
 * number that differs between from and to and that no stage may touch, or one that grows. *count iterations into out
 * [MAX_ITERATIONS].
 *
 * A number that several stages may touch goes down over the iterations of all of them. Where a stack loses blocks, which ones
 * is chosen later (keep.h): a shape on the way lists the widths of as many as remain, and where they have cross-attention: it can
 * be had from the shape before, and the end's from it (block_choice.h; when one cross_attention_frequency says both ends it says
 * every shape on the way). WN_INVALID shows an end's that cannot be had from the source's. Losing blocks needs one set of widths
 * for all blocks of the stack, in from and in to: WN_UNSUPPORTED otherwise. */
wn_code stages_path(iteration *out, int *count, const blip2_config *from, const blip2_config *to, const stage *stages, int num_stages,
                    int multiple, wn_error *err);

#endif
