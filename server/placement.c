/* placement.c: see placement.h.
 *
 * Why before every run: libgomp ends those threads of a team that the next parallel region does not need, and makes new ones for
 * a larger region after it. They inherit the mask of the thread that makes them, which is pinned: two of a team would share a
 * processor while another one idles. A region over the run's own team, in which each thread looks at a variable of its own, finds
 * them; its cost is waking the team, which the run would pay otherwise. A larger region would make the very threads anew that the
 * run of a small model, which has fewer threads, then ends. */
#include "server/placement.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <omp.h>

#include "server/log.h"

#define WORK_PER_THREAD 1e8 /* floating-point operations: about a millisecond of one processor in f32 (docs/results.md) */

/* Times that a team may turn out to be a new one, unless it stays as it is for a while in between: models that come and go are no
 * reason to give up. */
#define MOST_REBUILDS 8
#define QUIET_RUNS    64

/* ---- deciding ---- */

static int at_least_one(int n) { return n > 0 ? n : 1; }

static void warn(placement *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void warn(placement *p, const char *fmt, ...)
{
	va_list ap;
	const size_t n = strlen(p->warning);
	size_t at = n + (size_t)snprintf(p->warning + n, sizeof p->warning - n, "%s", n ? "; " : "");
	va_start(ap, fmt);
	if (at < sizeof p->warning)
		vsnprintf(p->warning + at, sizeof p->warning - at, fmt, ap);
	va_end(ap);
}

/* A whole number above 0 in the environment, else 0. OMP_NUM_THREADS may be a list: its first. */
static int number_from(const char *name)
{
	const char *text = getenv(name);
	const long n = text ? strtol(text, NULL, 10) : 0;
	return n > 0 && n < 1000000 ? (int)n : 0;
}

/* The variable by which libgomp was told to bind threads itself, or NULL. */
static const char *binding(void)
{
	const char *bind = getenv("OMP_PROC_BIND");
	if (bind && strcasecmp(bind, "false") == 0)
		return NULL;
	static const char *const NAMES[] = {"GOMP_CPU_AFFINITY", "OMP_PLACES", "OMP_PROC_BIND"};
	for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++)
		if (getenv(NAMES[i]))
			return NAMES[i];
	return NULL;
}

/* What the user tells OpenMP by its variables and the server by its keys must be the same thing. */
static void check_openmp(placement *p)
{
	const int wanted = number_from("OMP_NUM_THREADS"), limit = number_from("OMP_THREAD_LIMIT");
	const char *dynamic = getenv("OMP_DYNAMIC");
	if (wanted && wanted != p->threads)
		warn(p, "OMP_NUM_THREADS is %d and not followed: inference.threads decides, %d", wanted, p->threads);
	if (limit && limit < p->threads)
		warn(p, "OMP_THREAD_LIMIT is %d: an instance gets no more of its %d threads", limit, p->threads);
	if (dynamic && strcasecmp(dynamic, "true") == 0 && p->threads > 1)
		warn(p, "OMP_DYNAMIC is true: an instance may get fewer than its %d threads", p->threads);
	if (binding())
		warn(p, "%s binds threads, those of HTTP and decoding too: inference.affinity does not do that", binding());
}

int placement_threads(const placement *p, double work)
{
	const double most = p->work_per_thread > 0 ? 1 + work / p->work_per_thread : p->threads;
	return most < p->threads ? (int)most : p->threads;
}

void placement_decide(placement *out, const server_config *c, const processors *found)
{
	const bool throughput = c->inference_mode == MODE_THROUGHPUT;
	placement p = {.processors = *found, .mode = throughput ? "throughput" : "latency"};
	if (!throughput)
		p.instances = 1;
	else
		p.instances = c->instances ? c->instances : at_least_one(found->usable / at_least_one(c->threads));
	if (p.instances > SERVER_MAX_INSTANCES)
		p.instances = SERVER_MAX_INSTANCES;
	p.threads = c->threads ? c->threads : throughput && !c->instances ? 1 : at_least_one(found->usable / p.instances);
	p.work_per_thread = c->threads ? 0 : WORK_PER_THREAD;
	p.oversubscribed = p.instances * p.threads > found->usable;
	p.pinned = c->affinity == AFFINITY_AUTO && p.instances * p.threads == found->affinity && !binding();
	if (p.oversubscribed)
		warn(&p, "%d instance(s) of %d thread(s) are more than this process may use, %s: they will wait for each other", p.instances,
		     p.threads, found->reason);
	check_openmp(&p);
	*out = p;
}

/* ---- pinning ---- */

static _Thread_local int place = -1; /* this thread is pinned to the place-th processor of the mask */
static _Thread_local int rebuilds;   /* of the team this thread leads */
static _Thread_local int quiet;      /* runs since the last one */
static _Thread_local bool let_go;

/* Whether this thread was not there yet. A processor that was taken away meanwhile is the kernel's business: it runs us elsewhere. */
static int take_place(const placement *p, int n)
{
	if (place == n)
		return 0;
	place = n;
	processors_pin(processors_nth(&p->processors, n));
	return 1;
}

/* How many of a team were elsewhere. */
static int take_places(const placement *p, int instance, int threads)
{
	const int first = instance * p->threads;
	if (threads == 1)
		return take_place(p, first);
	int moved = 0;
#pragma omp parallel num_threads(threads) reduction(+ : moved)
	moved += take_place(p, first + omp_get_thread_num());
	return moved;
}

static void leave_places(const placement *p)
{
#pragma omp parallel num_threads(p->threads)
	{
		place = -1;
		processors_unpin(&p->processors);
	}
}

void placement_start(const placement *p, int instance)
{
	omp_set_num_threads(p->threads);
	if (p->pinned)
		take_places(p, instance, p->threads);
}

void placement_keep(const placement *p, int instance, int threads)
{
	if (!p->pinned || let_go)
		return;
	if (take_places(p, instance, threads) == 0) {
		quiet += quiet < QUIET_RUNS;
		return;
	}
	rebuilds = quiet < QUIET_RUNS ? rebuilds + 1 : 1;
	quiet = 0;
	if (rebuilds <= MOST_REBUILDS)
		return;
	let_go = true;
	leave_places(p);
	log_info("inference instance %d is not pinned any more: OpenMP keeps making its threads anew", instance);
}
