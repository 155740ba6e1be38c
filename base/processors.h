/* processors.h: how many of the machine's processors this process may really use.
 *
 *   those it may run on (sched_getaffinity: taskset, cpusets)
 *   the time it may use (a cgroup's quota: docker run --cpus, a Kubernetes CPU limit)       the smaller of the two, at least 1
 *
 * Threads beyond a quota do not run later but all at once, until the period's time is gone and every one of them stands still:
 * hence a quota counts like a smaller machine. It is the smallest of the process's own group and of those above it, as far up as
 * they can be seen; cgroups v2 (cpu.max), v1 (cpu.cfs_quota_us) and both at once.
 *
 * Stateless. Look before the thread that looks, or the one that made it, is pinned: the mask is the calling thread's. */
#ifndef WINNOW_BASE_PROCESSORS_H
#define WINNOW_BASE_PROCESSORS_H

#include <stdbool.h>

#define PROCESSORS_MOST 8192 /* as many as Linux can be built for */

typedef struct processors {
	unsigned long allowed[PROCESSORS_MOST / (8 * sizeof(unsigned long))]; /* the mask: bit i is processor i */
	int affinity;     /* bits of it, at least 1 */
	double quota;     /* processors' worth of time; 0: no quota */
	int usable;       /* the smaller of affinity and quota, rounded up; at least 1 */
	char reason[256]; /* "2 of 8 processors: cgroup quota 1.5 (/sys/fs/cgroup/a/cpu.max)" */
} processors;

/* root stands for "/" in front of /proc and of what is mounted (tests); NULL: the real one. What cannot be read sets no limit. */
void processors_look(processors *out, const char *root);
/* The same without a file: what follows from a mask and a quota, to `usable` and `reason`. source: the quota's file. */
void processors_judge(processors *p, int online, const char *source);

/* Number of the n-th processor (from 0) of the mask; -1: it has no more than n. */
int processors_nth(const processors *p, int n);

/* The calling thread runs there only, or again wherever p->allowed says; threads that it makes start out alike. What the system
 * refuses is left as it was: a place is a matter of speed. */
void processors_pin(int processor);
void processors_unpin(const processors *p);

/* processors_look()'s `usable`. */
int processors_usable(void);

#endif
