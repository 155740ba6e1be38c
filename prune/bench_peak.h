/* bench_peak.h: what this machine's matrix product reaches now. */
#ifndef WINNOW_PRUNE_BENCH_PEAK_H
#define WINNOW_PRUNE_BENCH_PEAK_H

#include "base/error.h"
#include "model/precision.h"

/* GFLOP/s (int8: GOP/s) of the best of repeated large products with packed weights, operands in p with f32 (int8: s32) sums, on the
 * calling thread's OpenMP team. Where the CPU has no kernel for p, of f32. Takes about a second. */
wn_code bench_peak(precision p, double *gflops, wn_error *err);

#endif
