/* packed.h: Linear layers whose weights stay as they are, and attention's products, as oneDNN primitives that are made once.
 *
 * A `packed_linear` is one layer's weights in the layout that the kernels of its precision read; immutable, shared by threads. A
 * `packed_runner` owns primitives, one for every kind and number of rows that were asked of it, and belongs to one thread: what
 * was run once allocates nothing and creates nothing when it is run again. Source: torch.nn.Linear.
 *
 * int8 products are bare sums, s32: scales and bias belong to the kernel that reads them (ops.h). As oneDNN has a primitive for
 * every vector of scales otherwise, all layers of one kind share theirs, and activations may have a scale a row. */
#ifndef WINNOW_MODEL_PACKED_H
#define WINNOW_MODEL_PACKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "model/element.h"

typedef struct packed_spec {
	int64_t in, out;
	element src;               /* f32, bf16: weights alike; s8, u8: weights s8 */
	element dst;               /* f32, with bf16 f32 or bf16, with s8 and u8 s32 */
	bool accumulate;           /* dst += (dst f32): a residual */
	const float *weight;       /* [out][in]; NULL for s8, u8 */
	const int8_t *quantized;   /* [out][in], for s8, u8 */
	const float *bias;         /* [out] or NULL; none with s8, u8 */
} packed_spec;

typedef struct packed_linear packed_linear;

/* Copies what spec points to. WN_UNSUPPORTED when oneDNN has no kernel for it on this CPU, or an int8 one whose 16-bit sums overflow
 * (before VNNI). */
wn_code packed_open(packed_linear **out, const packed_spec *spec, wn_error *err);
void packed_close(packed_linear **l);
size_t packed_bytes(const packed_linear *l); /* of its weights */
/* oneDNN's name for what runs it: "brg:avx512_core_vnni", "gemm:jit" … */
const char *packed_kernel(const packed_linear *l);

typedef struct packed_runner packed_runner;
wn_code packed_runner_open(packed_runner **out, wn_error *err);
void packed_runner_close(packed_runner **r);
/* What ran since the last check did not run to its end when memory was short: then the results are nothing. The runner forgets it and
 * can be used again. Runs report late, because many of them stand in a parallel region that nobody may leave early. */
wn_code packed_runner_check(packed_runner *r, wn_error *err);
/* Primitives made so far. */
int packed_runner_created(const packed_runner *r);

/* dst [rows][out] = (or +=) src [rows][in] w^T + b. Uses the calling thread's OpenMP team. */
void packed_run(packed_runner *r, const packed_linear *l, int64_t rows, const void *src, void *dst);

/* c[i] = a[i] b[i] for a batch of `count` matrices; strides in elements, {matrix, row, column}. bf16 only where dnn_has_bf16. */
typedef struct packed_product {
	int64_t count, m, n, k;
	element src, dst; /* a and b; c */
	int64_t a[3], b[3], c[3];
} packed_product;
void packed_multiply(packed_runner *r, const packed_product *p, const void *a, const void *b, void *c);

#endif
