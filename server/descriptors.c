/* descriptors.c: see descriptors.h. */
#include "server/descriptors.h"

#include <sys/resource.h>

#include "server/log.h"

int descriptors_make_room(int connections, int others)
{
	const rlim_t needed = (rlim_t)connections + (rlim_t)others;
	struct rlimit l;
	if (getrlimit(RLIMIT_NOFILE, &l) != 0 || l.rlim_cur >= needed)
		return connections;
	struct rlimit raised = {.rlim_cur = l.rlim_max < needed ? l.rlim_max : needed, .rlim_max = l.rlim_max};
	if (setrlimit(RLIMIT_NOFILE, &raised) == 0)
		l = raised;
	if (l.rlim_cur >= needed)
		return connections;
	/* `others` is an upper bound: where there are hardly more than that, half of them is enough for a start. */
	int fit = (int)(l.rlim_cur > 2 * (rlim_t)others ? l.rlim_cur - (rlim_t)others : l.rlim_cur / 2);
	if (fit >= connections)
		return connections;
	fit = fit < 1 ? 1 : fit;
	log_warning("http.max_connections: %d connections need %llu open files with everything else, %llu are allowed (ulimit -Hn, "
		    "LimitNOFILE): at most %d connections are taken",
		    connections, (unsigned long long)needed, (unsigned long long)l.rlim_cur, fit);
	return fit;
}
