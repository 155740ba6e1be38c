/* log.c: see log.h. */
#include "server/log.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "model/pretokenize.h"

#define PATIENCE_MS 100
#define MAX_LINE    1024 /* below PIPE_BUF: a pipe that is ready takes it whole, without blocking */

void format_timestamp(char out[TIMESTAMP_SIZE])
{
	struct timespec now;
	struct tm tm;
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	size_t n = strftime(out, TIMESTAMP_SIZE, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(out + n, TIMESTAMP_SIZE - n, ".%03dZ", (int)(now.tv_nsec / 1000000) % 1000);
}

static atomic_int least = LOG_INFO;

/* Under lock: between seeing that stderr is ready and writing to it nobody else of this process writes. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned long lost; /* lines since the last that got through */

void log_set_level(log_level l) { atomic_store(&least, (int)l); }

static bool stderr_ready(int wait_ms)
{
	struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};
	int n;
	do
		n = poll(&p, 1, wait_ms);
	while (n < 0 && errno == EINTR);
	return n > 0;
}

/* One write keeps lines apart from those of other processes. */
static bool write_line(const char *line, int len) { return write(STDERR_FILENO, line, (size_t)len) >= 0; }

static int begin_line(char line[MAX_LINE], log_level importance)
{
	static const char *const LEVELS[] = {"INFO", "WARNING", "ERROR"};
	char stamp[TIMESTAMP_SIZE];
	format_timestamp(stamp);
	return snprintf(line, MAX_LINE, "%s %s ", stamp, LEVELS[importance]);
}

static void tell_lost(void)
{
	char line[MAX_LINE];
	int n = begin_line(line, LOG_WARNING);
	n += snprintf(line + n, sizeof line - (size_t)n, "%lu lines before this one could not be written\n", lost);
	if (write_line(line, n))
		lost = 0;
}

static void log_line(log_level importance, const char *fmt, va_list ap)
{
	if ((int)importance < atomic_load(&least))
		return;
	char line[MAX_LINE];
	int n = begin_line(line, importance);
	int m = vsnprintf(line + n, sizeof line - (size_t)n - 1, fmt, ap);
	n = m < 0 ? n : n + m > MAX_LINE - 2 ? MAX_LINE - 2 : n + m;
	for (int i = 0; i < n; i++)
		if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
			line[i] = '?';
	utf8_repair(line); /* whose end vsnprintf marked */
	line[n++] = '\n';
	pthread_mutex_lock(&lock);
	if (lost && stderr_ready(0))
		tell_lost();
	if (!stderr_ready(lost ? 0 : PATIENCE_MS) || !write_line(line, n))
		lost++;
	pthread_mutex_unlock(&lock);
}

#define DEFINE_LOG(name, level)                                                                                        \
	void name(const char *fmt, ...)                                                                                \
	{                                                                                                              \
		va_list ap;                                                                                            \
		va_start(ap, fmt);                                                                                     \
		log_line(level, fmt, ap);                                                                              \
		va_end(ap);                                                                                            \
	}
DEFINE_LOG(log_info, LOG_INFO)
DEFINE_LOG(log_warning, LOG_WARNING)
DEFINE_LOG(log_error, LOG_ERROR)
