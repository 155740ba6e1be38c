/* placement.h: how many instances run the model, with how many threads each, and on which processors.
 *
 *   latency      one instance, every processor works on one request
 *   throughput   as many instances as there are processors, each with a request of its own
 *
 * A request of a small model takes no longer on one thread than threads take to meet, and while it runs others can be decoded: unless
 * the configuration gives the threads, a model gets one, and one more for each tenth of a GFLOP.
 *
 * All of them share a model's packed weights; each has a session of its own (served_model.h). "Every processor" is what this
 * process may really use: affinity mask and cgroup quota (base/processors.h).
 *
 * Threads are pinned, one to a processor, when they are exactly as many as the processors in the mask: then nobody can be
 * moved to somebody else's place. With fewer or more the kernel knows better. Only threads that run the model are pinned,
 * never those of HTTP, decoding and loading.
 *
 * Decided once at the start, by the main thread, before any thread is pinned; constant from then on. */
#ifndef WINNOW_SERVER_PLACEMENT_H
#define WINNOW_SERVER_PLACEMENT_H

#include <stdbool.h>

#include "base/processors.h"
#include "server/config.h"

typedef struct placement {
	processors processors;
	const char *mode; /* "latency", "throughput" */
	int instances;    /* 1 to SERVER_MAX_INSTANCES */
	int threads;      /* of each, OpenMP's; the most that a model gets */
	double work_per_thread; /* floating-point operations of a request that are worth a thread; 0: a model gets all of them */
	bool pinned;
	bool oversubscribed; /* instances x threads are more than this process may use */
	char warning[640];   /* one line for the log: that, and settings of OpenMP that contradict; "": all is well */
} placement;

/* c has been checked. Reads OpenMP's environment variables too. */
void placement_decide(placement *out, const server_config *c, const processors *found);

/* How many of them run a model whose requests take `work` floating-point operations. */
int placement_threads(const placement *p, double work);

/* On inference thread `instance`: its OpenMP team gets its size and, when pinned, its places. At its start. */
void placement_start(const placement *p, int instance);
/* The same before a run on `threads` of them (classifier_session_threads): OpenMP ends and starts threads as it likes, and a new one
 * begins at its starter's place. Where that happens again and again, pinning does harm: then this thread's team is let go, for
 * good. */
void placement_keep(const placement *p, int instance, int threads);

#endif
