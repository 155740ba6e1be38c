/* precision.h: the types that products of a model run in (engine.h). */
#ifndef WINNOW_MODEL_PRECISION_H
#define WINNOW_MODEL_PRECISION_H

typedef enum precision { PRECISION_F32, PRECISION_BF16, PRECISION_INT8 } precision;
extern const char *const PRECISION_NAMES[]; /* "f32", "bf16", "int8", NULL */

/* By name; -1 for another. */
int precision_of(const char *name);

#endif
