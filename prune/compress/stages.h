/* stages.h: from the teacher's shape to the student's in stages and iterations.
 *
 * A stage shrinks some kinds of structure of some components: blocks, inner (FFN and attention widths), hidden, queries, in
 * `iterations` steps, each followed by `steps` of distillation. The paper's order: blocks, then inner, then hidden.
 * As text, one line a stage: "blocks vision+text | iterations 2 | steps 300"; components left out: all; kinds join with +
 * ("blocks+inner+hidden | iterations 1 | steps 900" is one shot of everything). */
#ifndef WINNOW_PRUNE_COMPRESS_STAGES_H
#define WINNOW_PRUNE_COMPRESS_STAGES_H

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
	int stage;         /* index */
	int index;         /* in its stage, from 0 */
	blip2_config shape; /* after it */
	int64_t steps;
} iteration;

wn_code stage_parse(stage *out, const char *line, wn_error *err);
/* "blocks vision+text" into buf, for logs and directory names ('-' for ' ' and '+' when dashes). */
void stage_name(const stage *s, bool dashes, char *buf, size_t size);

/* The shapes in between. Widths go down by equal factors, block and query counts by equal differences; widths are rounded to
 * `multiple` (head_dim and queries to what divides evenly is not asked for), never below the end's; the last iteration of the
 * last stage that may touch a number has exactly `to`'s. An iteration that changes nothing is left out. WN_INVALID names a
 * number that differs between from and to and that no stage may touch, or one that grows. *count iterations into out
 * [MAX_ITERATIONS]. */
wn_code stages_path(iteration *out, int *count, const blip2_config *from, const blip2_config *to, const stage *stages, int num_stages,
                    int multiple, wn_error *err);

#endif
