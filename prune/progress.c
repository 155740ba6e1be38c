/* progress.c: see progress.h. */
#include "prune/progress.h"

#include <stdarg.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define TTY_SECONDS 0.1

double monotonic_seconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void format_duration(char *buf, size_t size, double seconds)
{
	if (!(seconds >= 0)) {
		snprintf(buf, size, "?");
		return;
	}
	long s = (long)(seconds + 0.5);
	if (s >= 3600)
		snprintf(buf, size, "%ldh%02ldm", s / 3600, s / 60 % 60);
	else if (s >= 60)
		snprintf(buf, size, "%ldm%02lds", s / 60, s % 60);
	else
		snprintf(buf, size, "%lds", s);
}

void progress_start(progress *p, FILE *out, const char *label, int64_t first, int64_t total, double log_seconds)
{
	*p = (progress){.out = out, .total = total, .first = first, .log_seconds = log_seconds};
	snprintf(p->label, sizeof p->label, "%s", label);
	p->tty = isatty(fileno(out));
	p->started = monotonic_seconds();
	p->last_shown = p->started - p->log_seconds + 1; /* the first plain line after a second: it says that all is well */
}

/* Seconds; negative when unknown. */
static double progress_eta(const progress *p, int64_t done)
{
	double elapsed = monotonic_seconds() - p->started - p->paused;
	if (done <= p->first || elapsed <= 0)
		return -1;
	return elapsed / (double)(done - p->first) * (double)(p->total - done);
}

static void show(progress *p, int64_t done, const char *details, bool last)
{
	char eta[32], line[512];
	double now = monotonic_seconds();
	if (last)
		format_duration(eta, sizeof eta, now - p->started);
	else
		format_duration(eta, sizeof eta, progress_eta(p, done));
	int n = snprintf(line, sizeof line, "%s %lld/%lld%s%s  %s %s", p->label, (long long)done, (long long)p->total,
			 *details ? "  " : "", details, last ? "took" : "eta", eta);
	if (p->tty) {
		int pad = p->width > n ? p->width - n : 0;
		fprintf(p->out, "\r%s%*s%s", line, pad, "", last ? "\n" : "");
		p->width = last ? 0 : n;
	} else {
		fprintf(p->out, "%s\n", line);
	}
	fflush(p->out);
	p->last_shown = now;
}

void progress_update(progress *p, int64_t done, const char *details)
{
	if (monotonic_seconds() - p->last_shown >= (p->tty ? TTY_SECONDS : p->log_seconds))
		show(p, done, details, false);
}

void progress_finish(progress *p, int64_t done, const char *details) { show(p, done, details, true); }

void progress_note(progress *p, const char *fmt, ...)
{
	if (p->tty && p->width) {
		fprintf(p->out, "\r%*s\r", p->width, "");
		p->width = 0;
	}
	va_list ap;
	va_start(ap, fmt);
	vfprintf(p->out, fmt, ap);
	va_end(ap);
	fputc('\n', p->out);
	fflush(p->out);
}

void progress_exclude(progress *p, double seconds) { p->paused += seconds; }
