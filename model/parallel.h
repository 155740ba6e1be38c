/* parallel.h: splitting [0, total) over the OpenMP team in contiguous ranges.
 *
 * Use: PARALLEL_RANGE(total, grain, begin, end) { …uses begin, end… } : the body runs once a thread with its own range.
 * Work below `grain` items a thread stays on the calling thread, where waking the team would cost more than it saves. */
#ifndef WINNOW_MODEL_PARALLEL_H
#define WINNOW_MODEL_PARALLEL_H

#include <stddef.h>

#include <omp.h>

static inline size_t parallel_bound(size_t total, int part, int parts)
{
	return total * (size_t)part / (size_t)parts;
}

#define PARALLEL_PRAGMA(x) _Pragma(#x)
#define PARALLEL_RANGE(total, grain, begin, end)                                                                           \
	PARALLEL_PRAGMA(omp parallel if ((size_t)(total) >= 2 * (size_t)(grain)))                                          \
	for (size_t begin = parallel_bound((total), omp_get_thread_num(), omp_get_num_threads()),                          \
	            end = parallel_bound((total), omp_get_thread_num() + 1, omp_get_num_threads()), once_##begin = 1;      \
	     once_##begin && begin < end; once_##begin = 0)

#endif
