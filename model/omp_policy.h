/* omp_policy.h: how long OpenMP's threads spin while they wait for each other, and how many there are unless somebody says.
 *
 * libgomp reads its variables in a constructor, before main: only a new program image sees a change. So the functions that spin
 * put the variable into the environment and execute this program again, once: same process id, same arguments, same open
 * files. Call them first thing in main's work, before anything is read (a pipe cannot be read twice) and before any thread
 * or parallel region. They return when the user has chosen (OMP_WAIT_POLICY or GOMP_SPINCOUNT is
 * set), when it is done, or when there is no way to do it. */
#ifndef WINNOW_MODEL_OMP_POLICY_H
#define WINNOW_MODEL_OMP_POLICY_H

/* GOMP_SPINCOUNT: about a millisecond, then sleep. For training, compressing, benching and evaluating: regions follow each other within
 * microseconds for hours (15 % faster than sleeping at once, on a machine that others use too), and what compress measures of a
 * shape is what bench measures: waking a thread for every region would make a small model look five times as slow. */
void omp_spin_long(void);

/* GOMP_SPINCOUNT: waiting threads spin for about 0.1 ms, then sleep. For short runs: the parallel regions of one run
 * follow each other within microseconds and meet threads that are awake, while a thread whose processor somebody else
 * holds costs its waiting team little. libgomp's own default is milliseconds. */
void omp_spin_briefly(void);

/* From here on the calling thread's teams have as many threads as this process may use (base/processors.h). libgomp counts the
 * affinity mask and knows no cgroup quota. The user's OMP_NUM_THREADS stays. */
void omp_take_processors(void);

#endif
