/* weight_source.h: the weight files behind a model, read a layer at a time, or into its buffer at once.
 *
 * Whoever keeps weights in another form (engine.h) reads a layer, packs it, and releases it: no more than one layer stands in memory
 * twice. Tensors are F32, F16, BF16, or I8 with a scale
 * for each row in F32 under the tensor's name + "_scale" (symmetric: value = scale * q); a model with I8 tensors is quantised.
 * Belongs to one thread, but converts with its OpenMP team. */
#ifndef WINNOW_MODEL_WEIGHT_SOURCE_H
#define WINNOW_MODEL_WEIGHT_SOURCE_H

#include <stdbool.h>

#include "base/error.h"
#include "model/blip2.h"
#include "model/tensor.h"

#define WEIGHT_SCALE_SUFFIX "_scale"

typedef struct weight_source weight_source;

/* Opens DIR's weight files (read: into memory instead of mapped, safetensors.h), checks them against c before anything of the size that
 * c claims exists, and makes the model, still without weights. Every tensor that the shapes need must be there with its shape; an
 * extra one that is no known duplicate (lm_head, position_ids) is an error that names it. Borrows the model. */
wn_code weight_source_open(weight_source **out, blip2 **model, const blip2_config *c, const char *dir, bool read, wn_error *err);
void weight_source_close(weight_source **s);

/* Of the first matrix. */
dtype weight_source_dtype(const weight_source *s);
bool weight_source_is_quantized(const weight_source *s);

/* Everything, into the model's buffer. WN_INVALID names a tensor that is not finite. */
wn_code weight_source_fill(weight_source *s, wn_error *err);
/* Into the model's buffer what is no matrix of a Linear layer, patch embedding and no token table; the buffer's other pages stay
 * untouched. */
wn_code weight_source_fill_small(weight_source *s, wn_error *err);

/* The parameters that start in [first, first + count) floats of the model's buffer, `first` being the start of one: a layer's. */
wn_code weight_source_read(weight_source *s, size_t first, size_t count, float *out, wn_error *err);
/* Are all of them I8? Then as they are stored: q [count], scale [rows of all]. */
bool weight_source_is_int8(const weight_source *s, size_t first, size_t count);
void weight_source_read_int8(const weight_source *s, size_t first, size_t count, int8_t *q, float *scale);
/* They will not be read again: memory that holds the files' part of them goes back to the system. */
void weight_source_release(weight_source *s, size_t first, size_t count);

#endif
