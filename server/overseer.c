/* overseer.c: see overseer.h. */
#include "server/overseer.h"

#include <unistd.h>

#include "base/thread.h"
#include "server/log.h"

static void *oversee(void *arg)
{
	overseer *o = arg;
	const struct timespec t = timespec_of_ns(o->until_ns);
	int e = 0;
	pthread_mutex_lock(&o->lock);
	while (!o->over && e == 0)
		e = pthread_cond_timedwait(&o->changed, &o->lock, &t);
	if (!o->over) {
		log_warning("something does not end, such as a load that gets no processor or no data: it is left undone");
		_exit(o->exit_code);
	}
	pthread_mutex_unlock(&o->lock);
	return NULL;
}

void overseer_start(overseer *o, int64_t until_ns, int exit_code)
{
	*o = (overseer){.until_ns = until_ns, .exit_code = exit_code};
	cond_init_monotonic(&o->changed);
	pthread_mutex_init(&o->lock, NULL);
	o->watching = thread_start(&o->thread, "overseer", oversee, o) == 0;
}

void overseer_stop(overseer *o)
{
	pthread_mutex_lock(&o->lock);
	o->over = true;
	pthread_cond_signal(&o->changed);
	pthread_mutex_unlock(&o->lock);
	if (o->watching)
		pthread_join(o->thread, NULL);
	pthread_cond_destroy(&o->changed);
	pthread_mutex_destroy(&o->lock);
}
