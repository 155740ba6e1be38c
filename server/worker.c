/* worker.c: see worker.h. The start hooks report through a small condition variable, so that a model that cannot be
 * warmed up is a start-up error and not a first-request error. */
#include "server/worker.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"

typedef struct worker {
	worker_pool *pool;
	int index;
	pthread_t thread;
	/* One chore; fn and arg are written before has_chore is set and read after it is seen, everything else is under the
	 * pool's lock. */
	atomic_bool has_chore;
	void (*fn)(void *arg);
	void *arg;
	bool chore_done, gone;
} worker;

struct worker_pool {
	worker_options opt;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int reported; /* start hooks that have returned */
	int running;  /* threads created */
	wn_error error;
	worker workers[];
};

static void do_chore(worker *w)
{
	w->fn(w->arg);
	pthread_mutex_lock(&w->pool->lock);
	atomic_store(&w->has_chore, false);
	w->chore_done = true;
	pthread_cond_broadcast(&w->pool->changed);
	pthread_mutex_unlock(&w->pool->lock);
}

static void work(worker *w)
{
	worker_pool *p = w->pool;
	void *items[WORKER_MAX_ITEMS];
	for (int since_chore = 0;;) {
		size_t n = queue_pop_unless(p->opt.in, items, p->opt.max_items, &w->has_chore);
		if (n > 0) {
			p->opt.run(p->opt.cls, w->index, items, n);
			since_chore += since_chore < WORKER_CHORE_EVERY;
		} else if (!atomic_load(&w->has_chore)) {
			return;
		}
		if (atomic_load(&w->has_chore) && (n == 0 || since_chore >= WORKER_CHORE_EVERY)) {
			do_chore(w);
			since_chore = 0;
		}
	}
}

static void *worker_main(void *arg)
{
	worker *w = arg;
	worker_pool *p = w->pool;
	wn_error err = {0};
	wn_code code = p->opt.start ? p->opt.start(p->opt.cls, w->index, &err) : WN_OK;
	pthread_mutex_lock(&p->lock);
	if (code != WN_OK)
		wn_fail(&p->error, code, "%s", err.message);
	p->reported++;
	pthread_cond_broadcast(&p->changed);
	pthread_mutex_unlock(&p->lock);
	if (code != WN_OK)
		return NULL;
	work(w);
	pthread_mutex_lock(&p->lock);
	w->gone = true; /* whoever waits for a chore now waits in vain */
	pthread_cond_broadcast(&p->changed);
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

static int create_thread(worker *w)
{
	char name[16];
	snprintf(name, sizeof name, "%.11s-%u", w->pool->opt.name, (unsigned)w->index % 100);
	return thread_start(&w->thread, name, worker_main, w);
}

wn_code worker_pool_open(worker_pool **out, const worker_options *opt, wn_error *err)
{
	*out = NULL;
	if (opt->threads < 1 || opt->max_items < 1 || opt->max_items > WORKER_MAX_ITEMS)
		return wn_fail(err, WN_INVALID, "%s: %d threads with %zu items per call is out of range", opt->name,
			       opt->threads, opt->max_items);
	worker_pool *p = calloc(1, sizeof *p + (size_t)opt->threads * sizeof p->workers[0]);
	if (!p)
		return wn_fail(err, WN_NOMEM, "%s: out of memory for %d threads", opt->name, opt->threads);
	p->opt = *opt;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->changed, NULL);
	int thread_error = 0;
	for (int i = 0; i < opt->threads && !thread_error; i++) {
		p->workers[i] = (worker){.pool = p, .index = i};
		thread_error = create_thread(&p->workers[i]);
		p->running += thread_error == 0;
	}
	pthread_mutex_lock(&p->lock);
	while (p->reported < p->running)
		pthread_cond_wait(&p->changed, &p->lock);
	if (thread_error)
		wn_fail(&p->error, WN_IO, "%s: cannot start a thread: %s", opt->name, strerror(thread_error));
	wn_error first = p->error;
	pthread_mutex_unlock(&p->lock);
	if (first.code != WN_OK) {
		worker_pool_close(&p);
		return wn_fail(err, first.code, "%s", first.message);
	}
	*out = p;
	return WN_OK;
}

bool worker_pool_run_on(worker_pool *p, int worker_index, void (*fn)(void *arg), void *arg)
{
	worker *w = &p->workers[worker_index];
	pthread_mutex_lock(&p->lock);
	bool accepted = !w->gone;
	if (accepted) {
		w->fn = fn;
		w->arg = arg;
		w->chore_done = false;
		atomic_store(&w->has_chore, true);
	}
	pthread_mutex_unlock(&p->lock);
	if (!accepted)
		return false;
	queue_interrupt(p->opt.in);
	pthread_mutex_lock(&p->lock);
	while (!w->chore_done && !w->gone)
		pthread_cond_wait(&p->changed, &p->lock);
	bool done = w->chore_done;
	pthread_mutex_unlock(&p->lock);
	return done;
}

void worker_pool_close(worker_pool **pp)
{
	worker_pool *p = *pp;
	if (!p)
		return;
	*pp = NULL;
	queue_shut(p->opt.in);
	for (int i = 0; i < p->running; i++)
		pthread_join(p->workers[i].thread, NULL);
	pthread_cond_destroy(&p->changed);
	pthread_mutex_destroy(&p->lock);
	free(p);
}
