/* log.h: the server's own messages on stderr, and the access log that never makes a request wait.
 *
 * The access log has one writer thread behind a bounded ring of finished lines: a full disk, a slow pipe or a stopped
 * terminal costs lines (counted), never latency. */
#ifndef WINNOW_SERVER_LOG_H
#define WINNOW_SERVER_LOG_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "server/request.h"

/* One line: time, level, message. Any thread. */
void log_info(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_warning(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

typedef enum log_level { LOG_INFO, LOG_WARNING, LOG_ERROR } log_level;
/* Less important lines are not written from now on. */
void log_set_level(log_level l);

/* "2026-01-31T12:00:00.123Z" */
#define TIMESTAMP_SIZE 32
void format_timestamp(char out[TIMESTAMP_SIZE]);

typedef struct access_log access_log;

/* path: "-" is stdout, "" no log at all (*out is NULL, which every function accepts), else a file to append to. */
wn_code access_log_open(access_log **out, const char *path, size_t buffer_lines, wn_error *err);
/* Writes what is waiting, for at most a second. */
void access_log_close(access_log **log);
/* Opens a file anew before the next line: what log rotation asks for. */
void access_log_reopen(access_log *log);
/* Takes over a malloc'ed line that ends in '\n'. */
void access_log_write(access_log *log, char *line);
uint64_t access_log_dropped(access_log *log);

/* The line of a finished request: malloc'ed JSON with '\n', every byte outside printable ASCII escaped; NULL on no
 * memory. */
char *access_log_line(const request *r);

#endif
