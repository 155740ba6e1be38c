/* forecast.c: see forecast.h. */
#include "server/forecast.h"

/* Batches ahead that are handed out one by one; what lies beyond is averaged over the instances. */
#define EXACT_BATCHES 64

void forecast_decoded(forecast *f, int64_t took_ns, int64_t now_ns) { estimate_add(&f->decode, took_ns, now_ns); }

void forecast_decode_ended(forecast *f, bool refused, int64_t took_ns, int64_t now_ns)
{
	const int64_t expected_ns = estimate_get(&f->decode, ESTIMATE_TYPICAL, now_ns);
	took_ns = took_ns < FORECAST_LONGEST_CUT_NS ? took_ns : FORECAST_LONGEST_CUT_NS;
	if (took_ns > expected_ns && !(refused && expected_ns == 0))
		estimate_add(&f->decode, took_ns, now_ns);
}

void forecast_run_begins(forecast *f, int instance, int size, int64_t now_ns)
{
	atomic_store(&f->running[instance].size, size);
	atomic_store(&f->running[instance].since_ns, now_ns);
}

void forecast_run_ends(forecast *f, int instance, int64_t now_ns)
{
	int64_t since = atomic_exchange(&f->running[instance].since_ns, 0);
	int size = atomic_load(&f->running[instance].size);
	atomic_store(&f->running[instance].ended_ns, now_ns);
	if (since > 0 && size >= 1 && size <= SERVER_MAX_BATCH)
		estimate_add(&f->runs[size - 1], now_ns - since, now_ns);
}

bool forecast_waited(forecast *f, int instance, int64_t queued_ns)
{
	return queued_ns < atomic_load(&f->running[instance].ended_ns);
}

int64_t forecast_run(forecast *f, int n, estimate_kind kind, int64_t now_ns)
{
	for (int m = n; m >= 1; m--) {
		int64_t ns = estimate_get(&f->runs[m - 1], kind, now_ns);
		if (ns > 0)
			return ns / m * n; /* at most so much: a batch is never slower than its parts */
	}
	for (int m = n + 1; m <= f->max_batch; m++) {
		int64_t ns = estimate_get(&f->runs[m - 1], kind, now_ns);
		if (ns > 0)
			return ns;
	}
	return 0;
}

int forecast_full_batch(forecast *f, int64_t budget_ns, int64_t now_ns)
{
	int n = f->max_batch;
	int64_t most = budget_ns / (f->instances + 1) * f->instances;
	while (n > 1 && forecast_run(f, n, ESTIMATE_LIKELY, now_ns) > most)
		n--;
	return n;
}

/* How many instances are free, and when each will be, from now. */
static size_t free_times(forecast *f, int64_t free_ns[SERVER_MAX_INSTANCES], int64_t now_ns)
{
	size_t idle = 0;
	for (int i = 0; i < f->instances; i++) {
		int64_t since = atomic_load(&f->running[i].since_ns);
		int size = atomic_load(&f->running[i].size);
		free_ns[i] = 0;
		if (since > 0 && size >= 1) {
			/* What it will probably be done by, not what it usually takes: whoever is let in when that just fits
			 * is the one that will be late when it does not. */
			int64_t left = since + forecast_run(f, size, ESTIMATE_LIKELY, now_ns) - now_ns;
			free_ns[i] = left > 0 ? left : 0;
		} else {
			idle++;
		}
	}
	return idle;
}

static int earliest(const int64_t *free_ns, int n)
{
	int best = 0;
	for (int i = 1; i < n; i++)
		if (free_ns[i] < free_ns[best])
			best = i;
	return best;
}

int64_t forecast_wait(forecast *f, size_t ahead, int64_t budget_ns, int64_t now_ns)
{
	int64_t free_ns[SERVER_MAX_INSTANCES];
	free_times(f, free_ns, now_ns);
	int full = forecast_full_batch(f, budget_ns, now_ns);
	int64_t run = forecast_run(f, full, ESTIMATE_TYPICAL, now_ns);
	size_t batches = ahead / (size_t)full;
	size_t exact = batches < EXACT_BATCHES ? batches : EXACT_BATCHES;
	for (size_t i = 0; i < exact; i++)
		free_ns[earliest(free_ns, f->instances)] += run;
	return free_ns[earliest(free_ns, f->instances)] + (int64_t)(batches - exact) * run / f->instances;
}

/* The run that answers a request with so many ahead of it: a full one unless it finds an instance idle, for those that
 * arrive behind it join it. Let in for a small batch only, it would keep the batch small, and the server slow. */
static int64_t own_run(forecast *f, size_t ahead, int64_t budget_ns, int64_t now_ns)
{
	int64_t free_ns[SERVER_MAX_INSTANCES];
	if (ahead < free_times(f, free_ns, now_ns)) /* those ahead take the other free ones */
		return forecast_run(f, 1, ESTIMATE_FASTEST, now_ns);
	int full = forecast_full_batch(f, budget_ns, now_ns);
	return forecast_run(f, full, ESTIMATE_LIKELY, now_ns);
}

int64_t forecast_decoded_waiting(forecast *f, size_t ahead, int64_t budget_ns, int64_t now_ns)
{
	return forecast_wait(f, ahead, budget_ns, now_ns) + own_run(f, ahead, budget_ns, now_ns);
}

int64_t forecast_undecoded(forecast *f, forecast_ahead ahead, int64_t budget_ns, int64_t now_ns)
{
	estimate_kind kind = ahead.decode == 0 && ahead.infer == 0 ? ESTIMATE_FASTEST : ESTIMATE_TYPICAL;
	int64_t decode = estimate_get(&f->decode, kind, now_ns);
	int64_t decoded = decode * (int64_t)(ahead.decode / (size_t)f->decode_threads + 1);
	int64_t wait = forecast_wait(f, ahead.infer, budget_ns, now_ns);
	return (decoded > wait ? decoded : wait) + own_run(f, ahead.infer, budget_ns, now_ns);
}

int forecast_batch(forecast *f, const forecast_request *q, int n, bool contended, int64_t now_ns)
{
	if (n == 1 && !contended)
		return now_ns + forecast_run(f, 1, ESTIMATE_FASTEST, now_ns) <= q[0].deadline_ns;
	int64_t deadline = INT64_MAX, budget = INT64_MAX;
	int best = 0;
	for (int k = 1; k <= n; k++) {
		deadline = q[k - 1].deadline_ns < deadline ? q[k - 1].deadline_ns : deadline;
		budget = q[k - 1].budget_ns < budget ? q[k - 1].budget_ns : budget;
		if (k <= forecast_full_batch(f, budget, now_ns) &&
		    now_ns + forecast_run(f, k, ESTIMATE_LIKELY, now_ns) <= deadline)
			best = k;
	}
	return best;
}
