/* progress.c: see progress.h. */
#include "load/progress.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

#define TTY_NS 1000000000
#define LOG_NS 5000000000

/* ---- histogram ---- */

/* Values below HISTOGRAM_SUB have a bucket each; beyond, every doubling has HISTOGRAM_SUB / 2 … halves of the
 * sub-buckets repeat the doubling before, as in HdrHistogram. */
static int bucket_of(uint64_t v)
{
	if (v < HISTOGRAM_SUB)
		return (int)v;
	const int shift = 63 - __builtin_clzll(v) - 5; /* HISTOGRAM_SUB is 2^5: v >> shift is in [32, 64) */
	return HISTOGRAM_SUB * (shift + 1) + (int)((v >> shift) - HISTOGRAM_SUB);
}

/* The largest value of a bucket. */
static int64_t upper_of(int b)
{
	if (b < HISTOGRAM_SUB)
		return b;
	const int shift = b / HISTOGRAM_SUB - 1;
	return (int64_t)((((uint64_t)(b % HISTOGRAM_SUB) + HISTOGRAM_SUB + 1) << shift) - 1);
}

void histogram_clear(histogram *h) { memset(h, 0, sizeof *h); }

void histogram_add(histogram *h, int64_t value)
{
	const uint64_t v = value < 0 ? 0 : (uint64_t)value;
	h->buckets[bucket_of(v)]++;
	h->count++;
	if ((int64_t)v > h->max)
		h->max = (int64_t)v;
}

int64_t histogram_percentile(const histogram *h, double p)
{
	const double rank = ceil(p / 100 * (double)h->count - 1e-6);
	uint64_t seen = 0;
	for (int b = 0; b < HISTOGRAM_BUCKETS; b++) {
		seen += h->buckets[b];
		if (seen && (double)seen >= rank)
			return upper_of(b) < h->max ? upper_of(b) : h->max;
	}
	return h->max;
}

/* ---- the line ---- */

static void forget(progress *p, int64_t now_ns)
{
	p->last_ns = now_ns;
	p->next_ns = now_ns + p->every_ns;
	p->scheduled = p->ok = p->failed = 0;
	histogram_clear(&p->latency);
}

void progress_start(progress *p, FILE *out, const char *label, int64_t now_ns)
{
	p->out = out;
	p->tty = isatty(fileno(out));
	p->every_ns = p->tty ? TTY_NS : LOG_NS;
	p->width = 0;
	p->label = label;
	forget(p, now_ns);
}

void progress_answer(progress *p, bool ok, int64_t latency_ns)
{
	if (!ok) {
		p->failed++;
		return;
	}
	p->ok++;
	histogram_add(&p->latency, latency_ns);
}

void progress_tick(progress *p, int64_t now_ns, int64_t since_start_ns, int under_way, size_t waiting)
{
	if (now_ns < p->next_ns)
		return;
	char line[240], waits[48] = "";
	const double s = (double)(now_ns - p->last_ns) / 1e9;
	if (waiting)
		snprintf(waits, sizeof waits, ", %zu waiting", waiting);
	const int n = snprintf(
	    line, sizeof line,
	    "%s%s%4.0f s  asked %.1f/s  answered %.1f/s  failed %llu  p50 %.1f  p99 %.1f  max %.1f ms  (%d under "
	    "way%s)",
	    p->label, *p->label ? "  " : "", (double)since_start_ns / 1e9, (double)p->scheduled / s, (double)p->ok / s,
	    (unsigned long long)p->failed, (double)histogram_percentile(&p->latency, 50) / 1e6,
	    (double)histogram_percentile(&p->latency, 99) / 1e6, (double)p->latency.max / 1e6, under_way, waits);
	if (p->tty)
		fprintf(p->out, "\r%s%*s", line, p->width > n ? p->width - n : 0, "");
	else
		fprintf(p->out, "%s\n", line);
	fflush(p->out);
	p->width = n;
	forget(p, now_ns);
}

void progress_end(progress *p)
{
	if (p->tty && p->width)
		fprintf(p->out, "\r%*s\r", p->width, "");
	fflush(p->out);
	p->width = 0;
}
