/* dnn.h: matrix products by oneDNN, of weights as they lie in memory; packed.h has those of weights that stay as they are. The two
 * are all that winnow asks of oneDNN; both build against 2.6 (Debian 12) and 3.x (Debian 13). */
#ifndef WINNOW_MODEL_DNN_H
#define WINNOW_MODEL_DNN_H

#include <stdbool.h>
#include <stdint.h>

/* C[m][n] = alpha * op(A)[m][k] * op(B)[k][n] + beta * C, row-major, leading dimensions in elements. op is a transpose when
 * trans_* is set: A is then stored [k][m], B [n][k] (the layout of a PyTorch Linear weight [out][in]).
 * Uses the calling thread's OpenMP team; called inside a parallel region it stays on its own thread. Shapes must be
 * positive (the callers' configs are checked when loaded); a failure of the library aborts, since it can only be a bug. */
void dnn_sgemm(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda,
               const float *b, int64_t ldb, float beta, float *c, int64_t ldc);

/* The same with A and B in bf16 (raw 16-bit patterns), products summed in f32, C f32; beta is 0 or 1. The primitive for a
 * shape is created on a thread's first use of it and kept until the thread ends (the main thread's until the process does).
 * Without bf16 instructions (dnn_has_bf16) it still computes, slower than f32. */
void dnn_gemm_bf16(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, const uint16_t *a, int64_t lda, const uint16_t *b,
                   int64_t ldb, float beta, float *c, int64_t ldc);
bool dnn_has_bf16(void);

/* "2.6.3": the library loaded at run time. */
const char *dnn_version(void);
/* The instruction set oneDNN dispatches to: "avx512_core_bf16", "avx2", … */
const char *dnn_isa(void);

#endif
