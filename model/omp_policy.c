/* omp_policy.c: see omp_policy.h. Why spinning hurts: with libgomp's default a thread that waits at a barrier spins for
 * milliseconds; on processors shared with anything else (a decoder, a second run, a neighbour) the spinner takes the time
 * slice of the very thread it waits for, and inside a container's processor quota it eats the quota. */
#include "model/omp_policy.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <omp.h>

#include "base/processors.h"

#define MAX_CMDLINE ((size_t)1 << 20)

/* One pause instruction takes 40 to 140 cycles, as the processor's generation has it: 0.03 to 0.1 ms in all. */
#define BRIEF_SPINS "2000"
#define LONG_SPINS  "30000"

/* The program's own path rather than /proc/self/exe: the kernel names the process after the last part of what it executes,
 * and people look for winnow-serve, not for exe. After an upgrade in place the path is another file, and the link is right. */
static const char *program_path(char *path, size_t size)
{
	struct stat by_name, running;
	ssize_t n = readlink("/proc/self/exe", path, size - 1);
	if (n <= 0 || (size_t)n >= size - 1)
		return "/proc/self/exe";
	path[n] = 0;
	if (stat(path, &by_name) != 0 || stat("/proc/self/exe", &running) != 0 || by_name.st_dev != running.st_dev ||
	    by_name.st_ino != running.st_ino)
		return "/proc/self/exe";
	return path;
}

static void restart_with(const char *name, const char *value)
{
	if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT")) /* the user's choice, or the second time through */
		return;
	char *text = malloc(MAX_CMDLINE + 1), path[4096];
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
	if (!argv || setenv(name, value, 1))
		goto done;
	count = 0;
	for (size_t i = 0; i < len; i += strlen(text + i) + 1)
		argv[count++] = text + i;
	execv(program_path(path, sizeof path), argv); /* returns only when it failed: spinning is slow, not wrong */
done:
	if (fd >= 0)
		close(fd);
	free(argv);
	free(text);
}

void omp_spin_long(void) { restart_with("GOMP_SPINCOUNT", LONG_SPINS); }

void omp_spin_briefly(void) { restart_with("GOMP_SPINCOUNT", BRIEF_SPINS); }

void omp_take_processors(void)
{
	if (!getenv("OMP_NUM_THREADS"))
		omp_set_num_threads(processors_usable());
}
