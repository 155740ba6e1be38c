/* omp_policy.c: libgomp reads OMP_WAIT_POLICY in a constructor, before main runs: setting the variable in main is too late,
 * only a new program image sees it. With the default policy a thread that waits at a barrier spins for milliseconds; on
 * cores shared with anything else (a server, a second run, a decoder) the spinner takes the time slice of the very thread
 * it waits for, and a step becomes several times slower. */
#include "prune/omp_policy.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_CMDLINE ((size_t)1 << 20)

void omp_wait_passively(void)
{
	if (getenv("OMP_WAIT_POLICY")) /* the user's choice, or the second time through */
		return;
	char *text = malloc(MAX_CMDLINE + 1);
	char **argv = NULL;
	size_t len = 0, count = 0;
	int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
	if (!text || fd < 0)
		goto done;
	for (ssize_t n; len < MAX_CMDLINE && (n = read(fd, text + len, MAX_CMDLINE - len)) > 0;)
		len += (size_t)n;
	if (len == 0 || len == MAX_CMDLINE)
		goto done;
	text[len] = 0;
	for (size_t i = 0; i < len; i += strlen(text + i) + 1)
		count++;
	argv = calloc(count + 1, sizeof *argv);
	if (!argv || setenv("OMP_WAIT_POLICY", "passive", 1))
		goto done;
	count = 0;
	for (size_t i = 0; i < len; i += strlen(text + i) + 1)
		argv[count++] = text + i;
	execv("/proc/self/exe", argv); /* returns only when it failed: spinning is slow, not wrong */
done:
	if (fd >= 0)
		close(fd);
	free(argv);
	free(text);
}
