/* teacher_map.h: where the structures of a student that was pruned in several steps stand in its teacher: what hidden-state
 * matching needs (distill_loss.h, hidden_map).
 *
 * Heads and neurons are not in it: they are seen only through the hidden states. */
#ifndef WINNOW_PRUNE_COMPRESS_TEACHER_MAP_H
#define WINNOW_PRUNE_COMPRESS_TEACHER_MAP_H

#include <jansson.h>

#include "base/error.h"
#include "model/blip2.h"
#include "prune/compress/scores.h"

struct keep;

typedef struct teacher_map {
	int num_blocks[NUM_COMPONENTS], hidden_size[NUM_COMPONENTS], num_queries; /* the student's */
	int blocks[NUM_COMPONENTS][MAX_BLOCKS]; /* student block -> teacher block */
	int *hidden[NUM_COMPONENTS];            /* student dimension -> teacher dimension */
	int *queries;                           /* student query token -> teacher query token */
} teacher_map; /* every list ascends */

/* A student that is the teacher. */
wn_code teacher_map_identity(teacher_map *out, const blip2_config *teacher, wn_error *err);
/* m of k's source becomes that of k's result. */
void teacher_map_apply(teacher_map *m, const struct keep *k);
void teacher_map_close(teacher_map *m);

/* {"vision": {"blocks": […], "hidden": […]}, …, "queries": […]}; caller's reference, NULL on no memory. */
json_t *teacher_map_json(const teacher_map *m);
/* Reads it back, checked against both shapes: WN_INVALID names the list. *out is zeroed on failure. */
wn_code teacher_map_parse(teacher_map *out, const json_t *j, const blip2_config *teacher, const blip2_config *student,
                          wn_error *err);

#endif
