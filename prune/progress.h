/* progress.h: how a long job shows that it lives: one rewritten line on a terminal, plain lines now and then in a log.
 *
 * Library code takes a progress_fn and never prints; the commands hand it a `progress`. Belongs to one thread. */
#ifndef WINNOW_PRUNE_PROGRESS_H
#define WINNOW_PRUNE_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef struct progress {
	FILE *out;
	bool tty;
	double log_seconds; /* between plain lines */
	char label[64];
	int64_t total;
	int64_t first;      /* value of `done` at the start (a resumed job) */
	double started;     /* monotonic seconds */
	double paused;      /* seconds not to be counted in the rate (evaluation) */
	double last_shown;
	int width;          /* characters of the line on screen */
} progress;

/* label, e.g. "audit"; first: how much is done already. */
void progress_start(progress *p, FILE *out, const char *label, int64_t first, int64_t total, double log_seconds);
/* Shows done/total, `details` and the ETA when it is time to (10 Hz on a terminal). */
void progress_update(progress *p, int64_t done, const char *details);
/* Shows the last state, whatever the time, and ends the line. */
void progress_finish(progress *p, int64_t done, const char *details);
/* Prints a whole line above the progress line. */
void progress_note(progress *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Seconds spent on something else than the counted work. */
void progress_exclude(progress *p, double seconds);

/* "1h02m", "3m20s", "45s" */
void format_duration(char *buf, size_t size, double seconds);
double monotonic_seconds(void);

#endif
