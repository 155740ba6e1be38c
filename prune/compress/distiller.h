/* distiller.h: one student being taught: batches in, gradients and AdamW steps out; or a model being scored, on the same batches.
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

/* Whether a student learns anything from the teacher: no term of the loss but nll may have a weight. hidden: the weight of that term,
 * in place of the configuration's. */
bool distiller_needs_teacher(const compress_config *c, double hidden);

/* For steps: student is trained in place. t: NULL when it is not needed. hidden: as above; above 0 it needs `map`, where the
 * student's structures stand in the teacher, and a teacher opened with hidden. All borrowed. WN_TOO_LARGE when student and
 * optimiser do not fit the machine's memory. */
wn_code distiller_open(distiller **out, const workspace *w, teacher *t, blip2 *student, const teacher_map *map, double hidden,
                       wn_error *err);
/* For distiller_score alone: opens what the method computes with (no optimiser; for MAGNITUDE and RANDOM nothing). The model is only
 * read. */
wn_code distiller_open_scores(distiller **out, const workspace *w, blip2 *model, importance_method method, wn_error *err);
void distiller_close(distiller **d);

typedef struct distill_result {
	distill_terms terms; /* of the whole batch */
	double grad_norm;
	bool skipped;        /* loss or gradient was not finite: nothing was learned */
} distill_result;

/* One optimiser step on the batch of (global) step `step`. */
wn_code distiller_step(distiller *d, int64_t step, double lr, distill_result *out, wn_error *err);
adamw *distiller_adamw(distiller *d);

/* The model's scores, by the method given at open, on the first `batches` batches of labelled ads; Taylor's gradient is that of
 * the label loss alone. s: open, of the model's shape. WN_CANCELLED when stopped, between two batches. */
wn_code distiller_score(distiller *d, int batches, structure_scores *s, wn_error *err);

#endif
