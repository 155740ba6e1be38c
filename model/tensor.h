/* tensor.h: a typed view of memory with a shape, and the conversions between the dtypes that are stored on disk.
 *
 * Shapes are row-major, outermost dimension first, as PyTorch prints them. */
#ifndef WINNOW_MODEL_TENSOR_H
#define WINNOW_MODEL_TENSOR_H

#include <stddef.h>
#include <stdint.h>

#define TENSOR_MAX_RANK 8

typedef enum dtype { DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_I64, DTYPE_I32, DTYPE_I8, DTYPE_U8, DTYPE_BOOL } dtype;

typedef struct tensor {
	dtype dtype;
	int rank; /* 0 (a scalar) to TENSOR_MAX_RANK */
	int64_t shape[TENSOR_MAX_RANK];
	void *data; /* owned by whoever made the tensor; may be unaligned when it points into a file map */
} tensor;

/* Bytes of one element. */
size_t dtype_size(dtype d);
/* safetensors' spelling: "F32", "BF16", … */
const char *dtype_name(dtype d);

/* Elements of a shape; -1 when a dimension is negative or the product overflows 2^48. */
int64_t shape_count(int rank, const int64_t *shape);

/* Converts `count` elements of dtype d (F32, F16 or BF16; the source may be unaligned) to float. */
void dtype_to_f32(float *out, const void *in, dtype d, size_t count);
/* Rounds to nearest even into F32, F16 or BF16; NaN stays NaN. */
void dtype_from_f32(void *out, const float *in, dtype d, size_t count);

#endif
