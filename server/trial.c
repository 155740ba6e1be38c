/* trial.c: see trial.h. */
#include "server/trial.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/manifest.h"
#include "server/registry_disk.h"

#define KEPT 256 /* durations that the medians are of */

struct trial {
	atomic_int references;
	trial_mode mode;
	int percent;
	void (*changed)(void *cls);
	void *cls;
	atomic_uint_fast64_t seen, selected, dropped, failed;
	pthread_mutex_t lock;      /* the comparisons, which are read as a whole: */
	uint64_t compared, agreed; /* a rate is never above 1 */
	int64_t candidate_ns[KEPT], primary_ns[KEPT];
	size_t kept, next;
};

const char *trial_mode_name(trial_mode m) { return m == TRIAL_SHADOW ? "shadow" : "canary"; }

wn_code trial_open(trial **out, trial_mode mode, int percent, void (*changed)(void *cls), void *cls, wn_error *err)
{
	*out = NULL;
	if (percent < 1 || percent > 100)
		return wn_fail(err, WN_INVALID, "percent: found %d, expected 1 to 100", percent);
	trial *t = *out = calloc(1, sizeof *t);
	if (!t)
		return wn_fail(err, WN_NOMEM, "out of memory for a %s", trial_mode_name(mode));
	atomic_init(&t->references, 1);
	pthread_mutex_init(&t->lock, NULL);
	t->mode = mode;
	t->percent = percent;
	t->changed = changed;
	t->cls = cls;
	return WN_OK;
}

void trial_retain(trial *t) { atomic_fetch_add(&t->references, 1); }

void trial_release(trial **tp)
{
	trial *t = *tp;
	*tp = NULL;
	if (!t || atomic_fetch_sub(&t->references, 1) != 1)
		return;
	pthread_mutex_destroy(&t->lock);
	free(t);
}

trial_mode trial_get_mode(const trial *t) { return t->mode; }

bool trial_selects(trial *t)
{
	uint64_t n = atomic_fetch_add(&t->seen, 1), percent = (uint64_t)t->percent;
	bool selected = (n + 1) * percent / 100 > n * percent / 100;
	if (selected)
		atomic_fetch_add(&t->selected, 1);
	return selected;
}

static void tell(trial *t)
{
	if (t->changed)
		t->changed(t->cls);
}

void trial_compared(trial *t, bool agreed, int64_t candidate_ns, int64_t primary_ns)
{
	pthread_mutex_lock(&t->lock);
	t->candidate_ns[t->next] = candidate_ns;
	t->primary_ns[t->next] = primary_ns;
	t->next = (t->next + 1) % KEPT;
	t->kept += t->kept < KEPT;
	t->agreed += agreed;
	t->compared++;
	pthread_mutex_unlock(&t->lock);
	tell(t);
}

void trial_dropped(trial *t) { atomic_fetch_add(&t->dropped, 1); }

void trial_failed(trial *t)
{
	atomic_fetch_add(&t->failed, 1);
	tell(t);
}

static int by_value(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
	return (x > y) - (x < y);
}

static int64_t median(const int64_t *values, size_t n)
{
	int64_t sorted[KEPT];
	if (n == 0)
		return 0;
	memcpy(sorted, values, n * sizeof *values);
	qsort(sorted, n, sizeof *sorted, by_value);
	return sorted[n / 2];
}

trial_summary trial_read(trial *t)
{
	trial_summary s = {.mode = t->mode, .percent = t->percent};
	s.selected = atomic_load(&t->selected);
	s.dropped = atomic_load(&t->dropped);
	s.failed = atomic_load(&t->failed);
	pthread_mutex_lock(&t->lock);
	s.agreed = t->agreed;
	s.compared = t->compared;
	s.candidate_ns = median(t->candidate_ns, t->kept);
	s.primary_ns = median(t->primary_ns, t->kept);
	pthread_mutex_unlock(&t->lock);
	return s;
}

trial_verdict trial_judge(const trial_summary *s, const server_config *c, char why[160])
{
	char ignored[160];
	why = why ? why : ignored;
	why[0] = 0;
	if (c->canary_automatic == CANARY_OFF)
		return TRIAL_GOES_ON;
	if (c->canary_max_errors > 0 && s->failed >= (uint64_t)c->canary_max_errors) {
		snprintf(why, 160, "%llu requests failed", (unsigned long long)s->failed);
		return TRIAL_ROLL_BACK;
	}
	if (s->compared < (uint64_t)c->canary_min_requests)
		return TRIAL_GOES_ON;
	double agreement = (double)s->agreed / (double)s->compared;
	double ratio = s->primary_ns > 0 ? (double)s->candidate_ns / (double)s->primary_ns : 0;
	const bool disagrees = agreement < c->canary_min_agreement;
	const bool slow = c->canary_max_latency_ratio > 0 && ratio > c->canary_max_latency_ratio;
	snprintf(why, 160, "%s%sagreement %.4f in %llu requests, latency %.3f ms beside %.3f ms", disagrees ? "below canary.min_agreement: " : "",
		 slow ? "above canary.max_latency_ratio: " : "", agreement, (unsigned long long)s->compared, (double)s->candidate_ns / 1e6,
		 (double)s->primary_ns / 1e6);
	if (disagrees || slow)
		return TRIAL_ROLL_BACK;
	return c->canary_automatic == CANARY_BOTH ? TRIAL_PROMOTE : TRIAL_GOES_ON;
}

wn_code trial_spec_parse(trial_spec *out, const char *text, wn_error *err)
{
	char version[16], mode[16] = "canary";
	int used = 0;
	*out = (trial_spec){0};
	/* The widths are the buffers'; what is longer does not match. */
	int fields = sscanf(text, "%64[^/]/%15[0-9]:%3d%n:%15s", out->name, version, &out->percent, &used, mode);
	out->version = fields >= 2 ? disk_version_number(version) : 0;
	out->mode = strcmp(mode, "shadow") == 0 ? TRIAL_SHADOW : TRIAL_CANARY;
	if (fields < 3 || !manifest_name_is_valid(out->name) || out->version == 0 || out->percent < 1 ||
	    out->percent > 100 ||
	    (text[used] && strcmp(text + used, ":canary") != 0 && strcmp(text + used, ":shadow") != 0))
		return wn_fail(
		    err, WN_INVALID,
		    "canary.start: found \"%.64s\", expected NAME/VERSION:PERCENT or NAME/VERSION:PERCENT:shadow",
		    text);
	return WN_OK;
}
