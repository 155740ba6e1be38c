/* log.h: the server's own messages on stderr.
 *
 * Whoever reads stderr may stop reading, and then the pipe is full. That costs lines, not the server: a line waits a tenth
 * of a second, those after it not at all until one gets through again, which then tells how many were lost. */
#ifndef WINNOW_SERVER_LOG_H
#define WINNOW_SERVER_LOG_H

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

#endif
