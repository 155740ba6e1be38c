/* background.c: see background.h. */
#include "server/background.h"

#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

void background_thread(void)
{
	/* Linux takes both for one thread, not the process. */
	const struct sched_param none = {0};
	(void)setpriority(PRIO_PROCESS, (id_t)gettid(), 19);
	(void)sched_setscheduler(0, SCHED_IDLE, &none);
}
