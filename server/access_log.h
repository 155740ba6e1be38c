/* access_log.h: a line for every request, which never makes one wait.
 *
 * One writer thread behind a bounded ring of finished lines: a full disk, a slow pipe or a stopped terminal costs lines
 * (counted), never latency. */
#ifndef WINNOW_SERVER_ACCESS_LOG_H
#define WINNOW_SERVER_ACCESS_LOG_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "server/request.h"

typedef struct access_log access_log;

/* path: "-" is stdout, "" no log at all (*out is NULL, which every function accepts), else a file to append to. */
wn_code access_log_open(access_log **out, const char *path, size_t buffer_lines, wn_error *err);
/* Whether it could be opened, as far as can be seen without opening it or making anything: WN_IO, WN_NOMEM. */
wn_code access_log_check(const char *path, wn_error *err);
/* Writes what is waiting, for at most a second. */
void access_log_close(access_log **log);
/* Opens a file anew before the next line: what log rotation asks for. */
void access_log_reopen(access_log *log);
/* Takes over a malloc'ed line that ends in '\n'; NULL, a line that there was no memory for, counts as dropped. */
void access_log_write(access_log *log, char *line);
uint64_t access_log_dropped(access_log *log);

/* The line of a finished request: malloc'ed JSON with '\n', every byte outside printable ASCII escaped; NULL on no
 * memory. */
char *access_log_line(const request *r);

#endif
