/* progress.h: one line about now and then: what was asked, what came back, how late. Rewritten in place on a terminal,
 * a line each in a log.
 *
 * Latencies of the last interval are counted in a small logarithmic histogram (values within 3 %): sorting them in the
 * middle of a run would delay requests. The report's percentiles do not come from here. */
#ifndef WINNOW_LOAD_PROGRESS_H
#define WINNOW_LOAD_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define HISTOGRAM_SUB     32 /* per doubling */
#define HISTOGRAM_BUCKETS (HISTOGRAM_SUB * 60)

typedef struct histogram {
	uint64_t count;
	int64_t max;
	uint32_t buckets[HISTOGRAM_BUCKETS];
} histogram;

void histogram_clear(histogram *h);
void histogram_add(histogram *h, int64_t value); /* negative counts as 0 */
/* The percentile, at most 1 / HISTOGRAM_SUB above the true one; 0 when empty. */
int64_t histogram_percentile(const histogram *h, double p);

typedef struct progress {
	FILE *out;
	bool tty;
	int64_t every_ns, next_ns;
	int width;         /* of the line on screen */
	const char *label; /* of the run: "warm-up", "30/s" …; "" is none */
	int64_t last_ns;
	/* since the last line */
	uint64_t scheduled, ok, failed;
	histogram latency; /* ns; 2xx */
} progress;

void progress_start(progress *p, FILE *out, const char *label, int64_t now_ns);
void progress_answer(progress *p, bool ok, int64_t latency_ns);
/* Writes a line when it is time to. */
void progress_tick(progress *p, int64_t now_ns, int64_t since_start_ns, int under_way, size_t waiting);
/* Clears the line on a terminal, so that other text can follow. */
void progress_end(progress *p);

#endif
