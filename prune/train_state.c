/* train_state.c: see train_state.h. */
#include "prune/train_state.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json_text.h"
#include "model/safetensors.h"

#define KEEP 2
#define PREFIX "step-"

static const char *const FILES[] = {"state.json", "state.safetensors"};

/* "step-000000123" -> 123; -1 for anything else (a temporary, a stray file). */
static int64_t parse_name(const char *name)
{
	if (strncmp(name, PREFIX, strlen(PREFIX)) != 0)
		return -1;
	char *end;
	errno = 0;
	long long v = strtoll(name + strlen(PREFIX), &end, 10);
	return end == name + strlen(PREFIX) || *end || errno || v < 0 ? -1 : v;
}

/* Not one whose removal a kill cut short. */
static bool is_whole(int dir, const char *name)
{
	char path[NAME_MAX + 32];
	bool whole = true;
	for (size_t i = 0; i < sizeof FILES / sizeof *FILES; i++) {
		snprintf(path, sizeof path, "%s/%s", name, FILES[i]);
		whole &= faccessat(dir, path, F_OK, 0) == 0;
	}
	return whole;
}

static int compare_descending(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
	return (x < y) - (x > y);
}

/* Steps of the whole checkpoints in dir, newest first, at most max. */
static int list_steps(const char *dir, int64_t *steps, int max)
{
	int n = 0;
	DIR *d = opendir(dir);
	if (!d)
		return 0;
	for (struct dirent *e; (e = readdir(d));) {
		int64_t s = parse_name(e->d_name);
		if (s < 0 || !is_whole(dirfd(d), e->d_name))
			continue;
		if (n < max) {
			steps[n++] = s;
		} else { /* keep the newest `max` */
			int oldest = 0;
			for (int i = 1; i < n; i++)
				if (steps[i] < steps[oldest])
					oldest = i;
			if (s > steps[oldest])
				steps[oldest] = s;
		}
	}
	closedir(d);
	qsort(steps, (size_t)n, sizeof *steps, compare_descending);
	return n;
}

/* All but the newest; also what a kill left of one that was being removed. */
static void remove_old(const char *dir)
{
	int64_t kept[KEEP];
	const int n = list_steps(dir, kept, KEEP);
	DIR *d = opendir(dir);
	if (!d)
		return;
	for (struct dirent *e; (e = readdir(d));) {
		const int64_t s = parse_name(e->d_name);
		bool keep = s < 0;
		for (int i = 0; i < n; i++)
			keep |= s == kept[i];
		if (!keep)
			file_remove_dir(dirfd(d), e->d_name);
	}
	closedir(d);
}

static json_t *position_to_json(const train_position *p)
{
	return json_pack("{s:i, s:i, s:I, s:I, s:b, s:f, s:f, s:I, s:I, s:b, s:i, s:f, s:f, s:s}", "format", 1, "phase", p->phase, "phase_step",
			 (json_int_t)p->phase_step, "step", (json_int_t)p->step, "has_best", (int)p->has_best, "best_metric",
			 p->best_metric, "best_loss", p->best_loss, "best_step", (json_int_t)p->best_step, "log_bytes",
			 (json_int_t)p->log_bytes, "eval_pending", (int)p->eval_pending, "skipped_in_a_row", p->skipped_in_a_row, "smooth_loss", p->smooth_loss, "phase_seconds",
			 p->phase_seconds, "identity",
			 p->identity);
}

static wn_code write_json(const char *path, const train_position *p, int64_t opt_step, wn_error *err)
{
	json_t *j = position_to_json(p);
	if (j && json_object_set_new(j, "adamw_step", json_integer(opt_step))) {
		json_decref(j);
		j = NULL;
	}
	char *text = j ? json_write(j, JSON_INDENT(2) | JSON_REAL_PRECISION(17)) : NULL;
	wn_code rc = text ? file_write_atomic(path, text, strlen(text), err) : wn_fail(err, WN_NOMEM, "%s: no memory", path);
	free(text);
	json_decref(j);
	return rc;
}

static tensor flat(const float *data, size_t count)
{
	return (tensor){.dtype = DTYPE_F32, .rank = 1, .shape = {(int64_t)count}, .data = (float *)(uintptr_t)data};
}

/* RUN/state, for good: a checkpoint in a directory that a power cut takes away would be none. */
static wn_code make_state_dir(const char *dir, wn_error *err)
{
	if (mkdir(dir, 0755) == 0)
		return file_sync_parent(dir, err);
	return errno == EEXIST ? WN_OK : wn_fail(err, WN_IO, "%s: %s", dir, strerror(errno));
}

/* The writers sync file and directory, each. */
static wn_code write_files(const char *dir, const train_position *p, const float *weights, const adamw *opt, wn_error *err)
{
	char path[PATH_MAX + 32];
	const safetensors_entry entries[] = {{"exp_avg", flat(opt->exp_avg, opt->count)},
					     {"exp_avg_sq", flat(opt->exp_avg_sq, opt->count)},
					     {"weights", flat(weights, opt->count)}};
	snprintf(path, sizeof path, "%s/%s", dir, FILES[1]);
	wn_code rc = safetensors_write(path, entries, sizeof entries / sizeof *entries, err);
	snprintf(path, sizeof path, "%s/%s", dir, FILES[0]);
	return rc ? rc : write_json(path, p, opt->step, err);
}

wn_code train_state_save(const char *run_dir, const train_position *p, const float *weights, const adamw *opt, wn_error *err)
{
	char dir[PATH_MAX / 2], final[PATH_MAX / 2 + 64], temporary[PATH_MAX];
	if (snprintf(dir, sizeof dir, "%s/state", run_dir) >= (int)sizeof dir)
		return wn_fail(err, WN_TOO_LARGE, "run_dir: path too long");
	snprintf(final, sizeof final, "%s/" PREFIX "%09lld", dir, (long long)p->step);
	wn_code rc = make_state_dir(dir, err);
	if (!rc)
		rc = file_temporary_dir(final, temporary, err);
	if (rc)
		return rc;
	rc = write_files(temporary, p, weights, opt, err);
	if (!rc) /* the same step may be there (a phase's end): the new one replaces it */
		rc = file_replace_dir(temporary, final, err);
	if (rc)
		file_remove_dir(AT_FDCWD, temporary);
	else
		remove_old(dir);
	return rc;
}

bool train_state_exists(const char *run_dir)
{
	char dir[PATH_MAX];
	int64_t step;
	return snprintf(dir, sizeof dir, "%s/state", run_dir) < (int)sizeof dir && list_steps(dir, &step, 1) > 0;
}

static wn_code read_json(const char *path, train_position *p, int64_t *opt_step, wn_error *err)
{
	char *text = NULL;
	size_t len = 0;
	wn_code rc = file_read(path, 1 << 20, &text, &len, err);
	if (rc)
		return rc;
	json_error_t je;
	json_t *j = json_read(text, len, JSON_REJECT_DUPLICATES, &je);
	free(text);
	json_int_t phase_step, step, best_step, log_bytes, adamw_step;
	p->phase_seconds = 0;
	int format, has_best, eval_pending;
	const char *identity;
	if (!j || json_unpack_ex(j, &je, 0, "{s:i, s:i, s:I, s:I, s:b, s:F, s:F, s:I, s:I, s:b, s:i, s:F, s?F, s:s, s:I}", "format", &format,
				 "phase", &p->phase, "phase_step", &phase_step, "step", &step, "has_best", &has_best, "best_metric",
				 &p->best_metric, "best_loss", &p->best_loss, "best_step", &best_step, "log_bytes", &log_bytes,
				 "eval_pending", &eval_pending, "skipped_in_a_row", &p->skipped_in_a_row, "smooth_loss", &p->smooth_loss, "phase_seconds",
				 &p->phase_seconds, "identity", &identity,
				 "adamw_step", &adamw_step))
		rc = wn_fail(err, j ? WN_INVALID : json_read_code(&je), "%s: %s", path, je.text);
	else if (format != 1)
		rc = wn_fail(err, WN_UNSUPPORTED, "%s: format: found %d, expected 1", path, format);
	else if (p->phase < 0 || phase_step < 0 || step < 0 || log_bytes < 0 || adamw_step < 0 || strlen(identity) >= sizeof p->identity)
		rc = wn_fail(err, WN_INVALID, "%s: a counter is negative or the identity too long", path);
	if (!rc) {
		p->phase_step = phase_step;
		p->step = step;
		p->best_step = best_step;
		p->log_bytes = log_bytes;
		p->has_best = has_best;
		p->eval_pending = eval_pending;
		*opt_step = adamw_step;
		snprintf(p->identity, sizeof p->identity, "%s", identity);
	}
	json_decref(j);
	return rc;
}

static wn_code read_flat(const safetensors *st, const char *path, const char *name, float *out, size_t count, wn_error *err)
{
	const tensor *t = safetensors_find(st, name);
	if (!t)
		return wn_fail(err, WN_NOT_FOUND, "%s: %s is missing", path, name);
	if (t->dtype != DTYPE_F32 || t->rank != 1 || t->shape[0] != (int64_t)count)
		return wn_fail(err, WN_INVALID, "%s: %s: found %s of %lld, expected F32 of %zu (another model's run?)", path, name,
			       dtype_name(t->dtype), t->rank ? (long long)t->shape[0] : 1LL, count);
	memcpy(out, t->data, count * sizeof(float));
	return WN_OK;
}

/* Paths of the newest checkpoint's files. */
static wn_code newest(const char *run_dir, char json[PATH_MAX], char tensors[PATH_MAX], wn_error *err)
{
	char dir[PATH_MAX / 2];
	int64_t step = 0;
	if (snprintf(dir, sizeof dir, "%s/state", run_dir) >= (int)sizeof dir)
		return wn_fail(err, WN_TOO_LARGE, "run_dir: path too long");
	if (list_steps(dir, &step, 1) == 0)
		return wn_fail(err, WN_NOT_FOUND, "%s: no checkpoint", dir);
	snprintf(json, PATH_MAX, "%s/" PREFIX "%09lld/%s", dir, (long long)step, FILES[0]);
	snprintf(tensors, PATH_MAX, "%s/" PREFIX "%09lld/%s", dir, (long long)step, FILES[1]);
	return WN_OK;
}

wn_code train_state_position(const char *run_dir, train_position *p, wn_error *err)
{
	char json[PATH_MAX], tensors[PATH_MAX];
	int64_t opt_step;
	wn_code rc = newest(run_dir, json, tensors, err);
	return rc ? rc : read_json(json, p, &opt_step, err);
}

wn_code train_state_load(const char *run_dir, train_position *p, float *weights, adamw *opt, wn_error *err)
{
	char json[PATH_MAX], path[PATH_MAX];
	int64_t opt_step = 0;
	safetensors *st = NULL;
	wn_code rc = newest(run_dir, json, path, err);
	if (!rc)
		rc = read_json(json, p, &opt_step, err);
	if (!rc)
		rc = safetensors_open(&st, path, err);
	if (!rc)
		rc = read_flat(st, path, "weights", weights, opt->count, err);
	if (!rc)
		rc = read_flat(st, path, "exp_avg", opt->exp_avg, opt->count, err);
	if (!rc)
		rc = read_flat(st, path, "exp_avg_sq", opt->exp_avg_sq, opt->count, err);
	if (!rc)
		opt->step = opt_step;
	safetensors_close(&st);
	return rc;
}
