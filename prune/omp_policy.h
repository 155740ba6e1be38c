/* omp_policy.h: keeps libgomp's idle threads from burning the cores that others need. */
#ifndef WINNOW_PRUNE_OMP_POLICY_H
#define WINNOW_PRUNE_OMP_POLICY_H

/* Makes OpenMP's waiting threads sleep instead of spin, by setting OMP_WAIT_POLICY=passive and starting this program again
 * (once). Call it before any parallel region; returns when there is nothing to do or no way to do it. */
void omp_wait_passively(void);

#endif
