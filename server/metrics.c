/* metrics.c: see metrics.h. */
#include "server/metrics.h"

#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

/* Seconds. 0.090 is the latency target: its bucket answers "how many met it" exactly. */
static const double EDGES[] = {0.001, 0.002, 0.005, 0.010, 0.020, 0.030, 0.045, 0.060, 0.075,
			       0.090, 0.120, 0.180, 0.250, 0.500, 1.0,   2.5,   10.0};
#define NUM_EDGES     (sizeof EDGES / sizeof EDGES[0])
#define MAX_STATUS    600
#define MAX_DECISIONS 256

typedef struct histogram {
	atomic_uint_fast64_t buckets[NUM_EDGES + 1]; /* not cumulative; the last is beyond every edge */
	atomic_uint_fast64_t sum_ns;
} histogram;

typedef struct decision {
	char label[64];
	char suggestion[8];
	uint64_t count;
} decision;

struct metrics {
	double start_time; /* seconds since the epoch */
	atomic_uint_fast64_t by_status[MAX_STATUS];
	atomic_uint_fast64_t by_reason[REASON_COUNT];
	histogram request, stages[STAGE_COUNT];
	atomic_uint_fast64_t batches, batched;
	pthread_mutex_t lock; /* decisions */
	decision decisions[MAX_DECISIONS + 1]; /* the last one, when there is no other room: whatever else is decided */
	int num_decisions;
};

/* Seconds since the epoch when this process started: now, less the time since field 22 of /proc/self/stat. */
static double process_start_time(void)
{
	struct timespec now, boot;
	clock_gettime(CLOCK_REALTIME, &now);
	clock_gettime(CLOCK_BOOTTIME, &boot);
	double start = (double)now.tv_sec + (double)now.tv_nsec / 1e9;
	char text[1024] = "";
	FILE *f = fopen("/proc/self/stat", "r");
	size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
	if (f)
		fclose(f);
	text[n] = 0;
	const char *p = strrchr(text, ')');
	for (int field = 2; p && field < 22; field++)
		p = strchr(p + 1, ' ');
	unsigned long long ticks;
	if (p && sscanf(p, "%llu", &ticks) == 1)
		start -=
		    (double)boot.tv_sec + (double)boot.tv_nsec / 1e9 - (double)ticks / (double)sysconf(_SC_CLK_TCK);
	return start;
}

/* Of the process, in bytes. */
static void memory_bytes(double *total, double *resident)
{
	unsigned long long pages[2] = {0};
	FILE *f = fopen("/proc/self/statm", "r");
	if (f) {
		if (fscanf(f, "%llu %llu", &pages[0], &pages[1]) != 2)
			pages[0] = pages[1] = 0;
		fclose(f);
	}
	*total = (double)pages[0] * (double)sysconf(_SC_PAGESIZE);
	*resident = (double)pages[1] * (double)sysconf(_SC_PAGESIZE);
}

/* Open descriptors, the directory's own excepted; 0 when nobody may know. */
static int open_descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;
	if (!d)
		return 0;
	for (struct dirent *e; (e = readdir(d));)
		n += e->d_name[0] != '.';
	closedir(d);
	return n - 1;
}

wn_code metrics_open(metrics **out, wn_error *err)
{
	metrics *m = *out = calloc(1, sizeof *m);
	if (!m)
		return wn_fail(err, WN_NOMEM, "out of memory for the metrics");
	pthread_mutex_init(&m->lock, NULL);
	m->start_time = process_start_time();
	return WN_OK;
}

void metrics_close(metrics **mp)
{
	metrics *m = *mp;
	if (!m)
		return;
	*mp = NULL;
	pthread_mutex_destroy(&m->lock);
	free(m);
}

static void observe(histogram *h, int64_t ns)
{
	double seconds = (double)ns / 1e9;
	size_t i = 0;
	while (i < NUM_EDGES && seconds > EDGES[i])
		i++;
	atomic_fetch_add_explicit(&h->sum_ns, (uint_fast64_t)(ns > 0 ? ns : 0), memory_order_relaxed);
	atomic_fetch_add_explicit(&h->buckets[i], 1, memory_order_relaxed);
}

void metrics_count_request(metrics *m, const request *r, int is_audit)
{
	atomic_fetch_add_explicit(&m->by_status[reason_status(r->outcome)], 1, memory_order_relaxed);
	if (!is_audit)
		return;
	atomic_fetch_add_explicit(&m->by_reason[r->outcome], 1, memory_order_relaxed);
	for (int s = 0; s < STAGE_COUNT; s++)
		if (r->stage_ns[s] > 0)
			observe(&m->stages[s], r->stage_ns[s]);
	if (r->outcome == REASON_OK)
		observe(&m->request, r->answered_ns - r->received_ns);
}

void metrics_count_unbegun(metrics *m, int is_audit)
{
	atomic_fetch_add_explicit(&m->by_status[reason_status(REASON_OUT_OF_MEMORY)], 1, memory_order_relaxed);
	if (is_audit)
		atomic_fetch_add_explicit(&m->by_reason[REASON_OUT_OF_MEMORY], 1, memory_order_relaxed);
}

void metrics_count_decision(metrics *m, const char *label, const char *suggestion)
{
	pthread_mutex_lock(&m->lock);
	int i = 0;
	while (i < m->num_decisions &&
	       (strcmp(m->decisions[i].label, label) != 0 || strcmp(m->decisions[i].suggestion, suggestion) != 0))
		i++;
	if (i > MAX_DECISIONS)
		i = MAX_DECISIONS;
	if (i == m->num_decisions) {
		const bool is_rest = i == MAX_DECISIONS;
		snprintf(m->decisions[i].label, sizeof m->decisions[i].label, "%s", is_rest ? "other" : label);
		snprintf(m->decisions[i].suggestion, sizeof m->decisions[i].suggestion, "%s", is_rest ? "other" : suggestion);
		m->num_decisions++;
	}
	m->decisions[i].count++;
	pthread_mutex_unlock(&m->lock);
}

void metrics_count_batch(metrics *m, int size)
{
	atomic_fetch_add_explicit(&m->batches, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&m->batched, (uint_fast64_t)size, memory_order_relaxed);
}

static unsigned long long get(atomic_uint_fast64_t *v) { return atomic_load_explicit(v, memory_order_relaxed); }

static void head(FILE *f, const char *name, const char *type, const char *help)
{
	fprintf(f, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void number(FILE *f, const char *name, const char *type, const char *help, double value)
{
	head(f, name, type, help);
	fprintf(f, "%s %.17g\n", name, value);
}

/* label is "" or stage="x" */
static void put_histogram(FILE *f, const char *name, const char *label, histogram *h)
{
	unsigned long long total = 0;
	const char *comma = *label ? "," : "";
	for (size_t i = 0; i < NUM_EDGES; i++) {
		total += get(&h->buckets[i]);
		fprintf(f, "%s_bucket{%s%sle=\"%g\"} %llu\n", name, label, comma, EDGES[i], total);
	}
	total += get(&h->buckets[NUM_EDGES]);
	fprintf(f, "%s_bucket{%s%sle=\"+Inf\"} %llu\n", name, label, comma, total);
	const char *open = *label ? "{" : "", *close = *label ? "}" : "";
	fprintf(f, "%s_sum%s%s%s %.9f\n", name, open, label, close, (double)get(&h->sum_ns) / 1e9);
	fprintf(f, "%s_count%s%s%s %llu\n", name, open, label, close, total);
}

/* A label value as the format wants it: \\, \" and \n escaped. */
static void put_label_value(FILE *f, const char *s)
{
	for (; *s; s++) {
		if (*s == '\\' || *s == '"')
			fputc('\\', f);
		if (*s == '\n')
			fputs("\\n", f);
		else
			fputc(*s, f);
	}
}

static int is_shed(reason r)
{
	switch (r) {
	case REASON_QUEUE_FULL:
	case REASON_RATE_LIMITED:
	case REASON_BODY_BUDGET:
	case REASON_CLIENT_CLOSED:
	case REASON_OUT_OF_MEMORY:
	case REASON_NO_MODEL:
	case REASON_DRAINING:
	case REASON_DEADLINE_EXCEEDED:
	case REASON_DEADLINE_UNREACHABLE:
	case REASON_RECEIVE_TIMEOUT:
		return 1;
	default:
		return 0;
	}
}

static void put_requests(FILE *f, metrics *m)
{
	head(f, "winnow_requests_total", "counter", "Finished requests by HTTP status; 499 is a client that hung up.");
	for (int code = 0; code < MAX_STATUS; code++)
		if (code == 200 || get(&m->by_status[code]) > 0)
			fprintf(f, "winnow_requests_total{code=\"%d\"} %llu\n", code, get(&m->by_status[code]));
	head(f, "winnow_sheds_total", "counter", "Audits refused or given up for lack of time or room, or because the client left, by reason.");
	for (int r = 0; r < REASON_COUNT; r++)
		if (is_shed((reason)r))
			fprintf(f, "winnow_sheds_total{reason=\"%s\"} %llu\n", reason_name((reason)r),
				get(&m->by_reason[r]));
	head(f, "winnow_decisions_total", "counter", "Answered audits by most probable label and suggestion.");
	pthread_mutex_lock(&m->lock);
	for (int i = 0; i < m->num_decisions; i++) {
		fputs("winnow_decisions_total{label=\"", f);
		put_label_value(f, m->decisions[i].label);
		fprintf(f, "\",suggestion=\"%s\"} %llu\n", m->decisions[i].suggestion,
			(unsigned long long)m->decisions[i].count);
	}
	pthread_mutex_unlock(&m->lock);
	head(f, "winnow_request_duration_seconds", "histogram",
	     "Time from the last byte of an answered audit to its answer.");
	put_histogram(f, "winnow_request_duration_seconds", "", &m->request);
	head(f, "winnow_stage_duration_seconds", "histogram", "Time an audit spent in each stage.");
	for (int s = 0; s < STAGE_COUNT; s++) {
		char label[40];
		snprintf(label, sizeof label, "stage=\"%s\"", stage_name((stage)s));
		put_histogram(f, "winnow_stage_duration_seconds", label, &m->stages[s]);
	}
	number(f, "winnow_batches_total", "counter", "Runs of the model.", (double)get(&m->batches));
	number(f, "winnow_batched_requests_total", "counter", "Audits in those runs.", (double)get(&m->batched));
}

static void put_placement(FILE *f, const placement *p)
{
	head(f, "winnow_inference_info", "gauge", "How the model runs.");
	fprintf(f, "winnow_inference_info{mode=\"%s\",pinned=\"%s\"} 1\n", p->mode, p->pinned ? "true" : "false");
	number(f, "winnow_inference_instances", "gauge", "Requests, or batches, worked on at the same time.", p->instances);
	number(f, "winnow_inference_threads", "gauge", "Threads of each, at most: a small model has fewer.", p->threads);
	number(f, "winnow_processors_usable", "gauge", "Processors this process may use: the smaller of affinity mask and cgroup quota.",
	       p->processors.usable);
	number(f, "winnow_oversubscribed", "gauge", "1 when there are more inference threads than that.", p->oversubscribed);
}

static void put_gauges(FILE *f, metrics *m, const metrics_gauges *g)
{
	number(f, "winnow_queue_depth", "gauge", "Audits waiting for decoding or inference.", (double)g->queue_depth);
	number(f, "winnow_queue_capacity", "gauge", "Audits that may wait.", (double)g->queue_capacity);
	number(f, "winnow_predicted_wait_seconds", "gauge", "Predicted wait for inference of an audit that came now.",
	       (double)g->predicted_wait_ns / 1e9);
	number(f, "winnow_requests_in_flight", "gauge", "Audits and commands to load or unload a model, begun and not yet answered.", (double)g->in_flight);
	number(f, "winnow_connections", "gauge", "Open client connections.", (double)g->connections);
	number(f, "winnow_connections_evicted_total", "counter", "Connections closed without a complete request because they ran out.",
	       (double)g->connections_evicted);
	number(f, "winnow_body_bytes", "gauge", "Bytes of request bodies held.", (double)g->body_bytes);
	number(f, "winnow_body_budget_bytes", "gauge", "Bytes of request bodies that may be held.",
	       (double)g->body_budget);
	number(f, "winnow_ready", "gauge", "1 while new audits are accepted.", g->ready);
	number(f, "winnow_access_log_dropped_total", "counter", "Access log lines lost to a slow sink, or for lack of memory.",
	       (double)g->access_log_dropped);
	if (g->placement)
		put_placement(f, g->placement);
	if (g->manager)
		manager_metrics(g->manager, f);
	number(f, "winnow_decoder_restarts_total", "counter",
	       "Image decoding helpers that crashed, hung, were cut off at a deadline or spoke out of turn, and were replaced.",
	       (double)g->decoder_restarts);
	number(f, "winnow_cache_hits_total", "counter", "Audits answered from the result cache.", (double)g->cache.hits);
	number(f, "winnow_cache_misses_total", "counter", "Audits that the result cache did not know.", (double)g->cache.misses);
	number(f, "winnow_cache_evictions_total", "counter", "Answers dropped from the result cache for room or age.",
	       (double)g->cache.evictions);
	number(f, "winnow_cache_entries", "gauge", "Answers in the result cache.", (double)g->cache.entries);
	number(f, "winnow_cache_bytes", "gauge", "Memory of the answers in the result cache.", (double)g->cache.bytes);
	number(f, "winnow_cache_max_bytes", "gauge", "Memory they may take; 0: no cache.", (double)g->cache.max_bytes);
	head(f, "winnow_build_info", "gauge", "This program.");
	fprintf(f, "winnow_build_info{version=\"%s\"} 1\n", WINNOW_VERSION);
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	number(f, "process_cpu_seconds_total", "counter", "User and system processor time.",
	       (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
		   (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6);
	double total, resident;
	memory_bytes(&total, &resident);
	number(f, "process_virtual_memory_bytes", "gauge", "Virtual memory.", total);
	number(f, "process_resident_memory_bytes", "gauge", "Resident memory.", resident);
	struct rlimit most;
	number(f, "process_open_fds", "gauge", "Open file descriptors.", open_descriptors());
	if (getrlimit(RLIMIT_NOFILE, &most) == 0)
		number(f, "process_max_fds", "gauge", "File descriptors that may be open.", (double)most.rlim_cur);
	number(f, "process_start_time_seconds", "gauge", "Start of the process since the epoch.", m->start_time);
}

char *metrics_text(metrics *m, const metrics_gauges *g)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	if (!f)
		return NULL;
	put_requests(f, m);
	put_gauges(f, m, g);
	int bad = ferror(f);
	if (fclose(f) != 0 || bad) {
		free(text);
		return NULL;
	}
	return text;
}
