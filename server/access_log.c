/* access_log.c: see access_log.h. */
#include "server/access_log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "base/json_text.h"
#include "base/thread.h"
#include "model/pretokenize.h"
#include "server/answers.h"
#include "server/log.h"

#define CLOSE_WAIT_NS 1000000000 /* access_log_close gives a stuck sink this long */

struct access_log {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	pthread_t thread;
	int fd;
	bool own_fd;
	bool stop;           /* under lock */
	atomic_bool give_up; /* stop waiting for the sink */
	atomic_bool reopen;  /* before the next line */
	size_t capacity, head, count;
	uint64_t dropped;
	char *path;   /* of own_fd */
	char *ring[]; /* [capacity] */
};

static int open_file(const char *path) { return open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640); }

/* The file was moved away by a log rotation: go on in a new one, or, when there can be none, in the old one. */
static void reopen_file(access_log *log)
{
	int fd = log->own_fd ? open_file(log->path) : -1;
	if (fd >= 0) {
		close(log->fd);
		log->fd = fd;
	} else if (log->own_fd) {
		log_error("log.access: cannot open %s again: %s", log->path, strerror(errno));
	}
}

/* False when the sink is broken or the log is being closed and it stays stuck. */
static bool write_line(access_log *log, const char *line)
{
	size_t len = strlen(line);
	while (len > 0) {
		struct pollfd p = {.fd = log->fd, .events = POLLOUT};
		int ready = poll(&p, 1, atomic_load(&log->give_up) ? 0 : 100);
		if (ready == 0 || (ready < 0 && errno == EINTR)) {
			if (atomic_load(&log->give_up))
				return false;
			continue;
		}
		/* A pipe that is ready takes PIPE_BUF bytes without blocking; lines are shorter than that. */
		ssize_t n = write(log->fd, line, len > 4096 ? 4096 : len);
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return false;
		if (n > 0) {
			line += n;
			len -= (size_t)n;
		}
	}
	return true;
}

static void *writer_main(void *arg)
{
	access_log *log = arg;
	pthread_mutex_lock(&log->lock);
	for (;;) {
		while (log->count == 0 && !log->stop)
			pthread_cond_wait(&log->changed, &log->lock);
		if (log->count == 0)
			break;
		char *line = log->ring[log->head];
		log->head = (log->head + 1) % log->capacity;
		log->count--;
		pthread_mutex_unlock(&log->lock);
		if (atomic_exchange(&log->reopen, false))
			reopen_file(log);
		bool written = write_line(log, line);
		free(line);
		pthread_mutex_lock(&log->lock);
		log->dropped += !written;
	}
	pthread_cond_broadcast(&log->changed); /* access_log_close waits for this */
	log->stop = false;
	pthread_mutex_unlock(&log->lock);
	return NULL;
}

static wn_code cannot_append(const char *path, int e, wn_error *err)
{
	return wn_fail(err, WN_IO, "log.access: cannot append to %s: %s", path, strerror(e));
}

/* Nothing is made: whoever asks may be another user than the server's. */
wn_code access_log_check(const char *path, wn_error *err)
{
	struct stat st;
	if (!*path || strcmp(path, "-") == 0)
		return WN_OK;
	if (stat(path, &st) == 0) {
		if (S_ISDIR(st.st_mode))
			return cannot_append(path, EISDIR, err);
		return faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) == 0 ? WN_OK : cannot_append(path, errno, err);
	}
	int e = errno;
	const char *slash = strrchr(path, '/');
	char *directory = slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
	if (!directory)
		return wn_fail(err, WN_NOMEM, "log.access: out of memory");
	if (e == ENOENT)
		e = faccessat(AT_FDCWD, directory, W_OK | X_OK, AT_EACCESS) == 0 ? 0 : errno;
	free(directory);
	return e == 0 ? WN_OK : cannot_append(path, e, err);
}

static void release(access_log *log)
{
	if (log->own_fd)
		close(log->fd);
	free(log->path);
	pthread_cond_destroy(&log->changed);
	pthread_mutex_destroy(&log->lock);
	free(log);
}

wn_code access_log_open(access_log **out, const char *path, size_t buffer_lines, wn_error *err)
{
	*out = NULL;
	if (!*path)
		return WN_OK;
	access_log *log = calloc(1, sizeof *log + buffer_lines * sizeof log->ring[0]);
	if (!log)
		return wn_fail(err, WN_NOMEM, "log.access: out of memory for %zu lines", buffer_lines);
	log->capacity = buffer_lines;
	log->fd = STDOUT_FILENO;
	if (strcmp(path, "-") != 0) {
		log->fd = open_file(path);
		log->own_fd = true;
		log->path = strdup(path);
		if (log->fd < 0 || !log->path) {
			int e = log->path ? errno : ENOMEM;
			if (log->fd >= 0)
				close(log->fd);
			free(log->path);
			free(log);
			return cannot_append(path, e, err);
		}
	}
	pthread_mutex_init(&log->lock, NULL);
	cond_init_monotonic(&log->changed);
	const int e = thread_start(&log->thread, "access log", writer_main, log);
	if (e != 0) {
		release(log);
		return wn_fail(err, WN_IO, "log.access: cannot start the writer thread: %s", strerror(e));
	}
	*out = log;
	return WN_OK;
}

void access_log_close(access_log **lp)
{
	access_log *log = *lp;
	if (!log)
		return;
	*lp = NULL;
	const struct timespec t = timespec_of_ns(monotonic_ns() + CLOSE_WAIT_NS);
	pthread_mutex_lock(&log->lock);
	log->stop = true;
	pthread_cond_broadcast(&log->changed);
	/* The writer clears stop when the ring is empty. */
	while (log->stop && pthread_cond_timedwait(&log->changed, &log->lock, &t) != ETIMEDOUT)
		;
	atomic_store(&log->give_up, true);
	pthread_mutex_unlock(&log->lock);
	pthread_join(log->thread, NULL);
	release(log);
}

void access_log_reopen(access_log *log)
{
	if (log)
		atomic_store(&log->reopen, true);
}

void access_log_write(access_log *log, char *line)
{
	if (!log) {
		free(line);
		return;
	}
	pthread_mutex_lock(&log->lock);
	bool fits = line && log->count < log->capacity;
	if (fits) {
		log->ring[(log->head + log->count) % log->capacity] = line;
		log->count++;
		pthread_cond_signal(&log->changed);
	} else {
		log->dropped++;
	}
	pthread_mutex_unlock(&log->lock);
	if (!fits)
		free(line);
}

uint64_t access_log_dropped(access_log *log)
{
	if (!log)
		return 0;
	pthread_mutex_lock(&log->lock);
	uint64_t n = log->dropped;
	pthread_mutex_unlock(&log->lock);
	return n;
}

/* A string for the log whatever its bytes: the writer escapes control and non-ASCII characters, and what is left that
 * could harm a terminal or break UTF-8 becomes '?'. */
static json_t *safe_string(const char *s)
{
	char copy[512];
	snprintf(copy, sizeof copy, "%s", s);
	for (char *p = copy; *p; p++)
		if (*p == 0x7f)
			*p = '?';
	utf8_repair(copy);
	return json_string(copy);
}

typedef struct members {
	json_t *object;
	bool whole; /* false, out of memory: no line, rather than one without a status */
} members;

static void put(members *m, const char *key, json_t *value) { m->whole &= json_object_set_new(m->object, key, value) == 0; }

char *access_log_line(const request *r)
{
	char stamp[TIMESTAMP_SIZE];
	format_timestamp(stamp);
	members m = {.object = json_object(), .whole = true};
	put(&m, "time", json_string(stamp));
	put(&m, "request_id", safe_string(r->id));
	if (r->data_id[0])
		put(&m, "data_id", safe_string(r->data_id));
	put(&m, "method", safe_string(r->method));
	put(&m, "path", safe_string(r->path));
	put(&m, "status", json_integer(reason_status(r->outcome)));
	put(&m, "reason", json_string(reason_name(r->outcome)));
	put(&m, "bytes_in", json_integer((json_int_t)r->bytes_in));
	put(&m, "bytes_out", json_integer((json_int_t)r->answer_len));
	put(&m, "duration_ms", json_milliseconds(monotonic_ns() - r->begun_ns));
	for (int s = 0; s < STAGE_COUNT; s++) {
		char key[24];
		snprintf(key, sizeof key, "%s_ms", stage_name((stage)s));
		if (r->stage_ns[s] > 0)
			put(&m, key, json_milliseconds(r->stage_ns[s]));
	}
	if (r->outcome == REASON_OK && r->label[0]) {
		put(&m, "label", safe_string(r->label));
		put(&m, "suggestion", json_string(action_name(r->verdict.suggestion)));
		put(&m, "score", json_real((double)r->verdict.score));
	}
	if (r->key_name[0])
		put(&m, "key", safe_string(r->key_name));
	if (r->cached)
		put(&m, "cached", json_true());
	if (r->served_name[0]) {
		put(&m, "model", safe_string(r->served_name));
		if (r->served_version[0])
			put(&m, "version", safe_string(r->served_version));
	}
	char *text = m.whole ? json_write(m.object, JSON_COMPACT | JSON_ENSURE_ASCII | JSON_REAL_PRECISION(7)) : NULL;
	json_decref(m.object);
	if (!text)
		return NULL;
	size_t len = strlen(text);
	char *line = realloc(text, len + 2);
	if (!line) {
		free(text);
		return NULL;
	}
	memcpy(line + len, "\n", 2);
	return line;
}
