/* distiller.h: one student being taught: batches in, gradients and AdamW steps out.
 *
 * A step's batch, its augmentation and the teacher's answers are pure functions of the step's number, so that a run that was
 * killed and resumed ends with the same bits. One thread; the engine uses OpenMP inside. */
#ifndef WINNOW_PRUNE_COMPRESS_DISTILLER_H
#define WINNOW_PRUNE_COMPRESS_DISTILLER_H

#include "prune/adamw.h"
#include "prune/compress/keep.h"
#include "prune/compress/scores.h"
#include "prune/compress/teacher.h"
#include "prune/compress/workspace.h"

typedef struct distiller distiller;

/* student is trained in place. t: NULL when only scores are wanted. hidden: the weight of that term, in place of the configuration's;
 * above 0 it needs `map`, where the student's structures stand in the teacher, and a teacher opened with hidden. All borrowed. */
wn_code distiller_open(distiller **out, const workspace *w, teacher *t, blip2 *student, const teacher_map *map, double hidden,
                       wn_error *err);
void distiller_close(distiller **d);

typedef struct distill_result {
	distill_terms terms; /* of the whole batch */
	double grad_norm;
	bool skipped;        /* loss or gradient was not finite: nothing was learned */
} distill_result;

/* One optimiser step on the batch of (global) step `step`. */
wn_code distiller_step(distiller *d, int64_t step, double lr, distill_result *out, wn_error *err);
adamw *distiller_adamw(distiller *d);

/* The student's scores on the first `batches` batches of labelled ads, by the configured method; Taylor's gradient is that of
 * the label loss alone. s: open, of the student's shape. */
wn_code distiller_score(distiller *d, importance_method method, int batches, structure_scores *s, wn_error *err);

#endif
