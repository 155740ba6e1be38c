/* loader.c: see loader.h. */
#include "server/loader.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <omp.h>

#include "base/thread.h"
#include "server/background.h"

struct loader {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	void (*fn)(void *arg); /* NULL: nothing to do */
	void *arg;
	bool stop;
};

static void *loader_main(void *arg)
{
	loader *l = arg;
	background_thread();
	omp_set_num_threads(1);
	pthread_mutex_lock(&l->lock);
	for (;;) {
		while (!l->fn && !l->stop)
			pthread_cond_wait(&l->changed, &l->lock);
		if (!l->fn)
			break;
		pthread_mutex_unlock(&l->lock);
		l->fn(l->arg);
		pthread_mutex_lock(&l->lock);
		l->fn = NULL;
		pthread_cond_broadcast(&l->changed);
	}
	pthread_mutex_unlock(&l->lock);
	return NULL;
}

wn_code loader_open(loader **out, wn_error *err)
{
	loader *l = *out = calloc(1, sizeof *l);
	if (!l)
		return wn_fail(err, WN_NOMEM, "out of memory for the loader");
	pthread_mutex_init(&l->lock, NULL);
	pthread_cond_init(&l->changed, NULL);
	const int e = thread_start(&l->thread, "loader", loader_main, l);
	if (e == 0)
		return WN_OK;
	free(l);
	*out = NULL;
	return wn_fail(err, WN_IO, "cannot start the loader's thread: %s", strerror(e));
}

void loader_close(loader **lp)
{
	loader *l = *lp;
	if (!l)
		return;
	*lp = NULL;
	pthread_mutex_lock(&l->lock);
	l->stop = true;
	pthread_cond_broadcast(&l->changed);
	pthread_mutex_unlock(&l->lock);
	pthread_join(l->thread, NULL);
	pthread_cond_destroy(&l->changed);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

void loader_run(loader *l, void (*fn)(void *arg), void *arg)
{
	pthread_mutex_lock(&l->lock);
	l->fn = fn;
	l->arg = arg;
	pthread_cond_broadcast(&l->changed);
	while (l->fn)
		pthread_cond_wait(&l->changed, &l->lock);
	pthread_mutex_unlock(&l->lock);
}
