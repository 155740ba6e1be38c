/* swap.c: see swap.h. */
#include "server/swap.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "model/self_test.h"
#include "server/heap.h"

/* The last number in a path such as registry/ad-audit/3/, else 0. */
static int version_of_path(const char *path)
{
	char last[16];
	size_t n = strlen(path);
	while (n > 0 && path[n - 1] == '/')
		n--;
	size_t start = n;
	while (start > 0 && path[start - 1] != '/')
		start--;
	snprintf(last, sizeof last, "%.*s", n - start < sizeof last ? (int)(n - start) : 0, path + start);
	return disk_version_number(last);
}

static int open_again(const server_config *c, const char *name, int version, wn_error *err)
{
	if (!name) {
		int fd = open(c->model_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd < 0)
			wn_fail(err, errno == ENOENT ? WN_NOT_FOUND : WN_IO, "%s: cannot open the model directory: %s",
				c->model_dir, strerror(errno));
		return fd;
	}
	int fd = -1, root_fd = disk_open_root(c->registry_root, err);
	int model_fd = root_fd >= 0 ? disk_open_model(root_fd, c->registry_root, name, err) : -1;
	if (model_fd >= 0) {
		fd = disk_open_version(model_fd, c->registry_root, name, version, err);
		close(model_fd);
	}
	if (root_fd >= 0)
		close(root_fd);
	return fd;
}

/* ---- aside ---- */

typedef struct load_job {
	load_request q;
	served_model *model;
	load_step *step;
	wn_error *err;
	wn_code code;
} load_job;

static void run_load(void *arg)
{
	load_job *j = arg;
	j->code = model_load(&j->model, &j->q, j->step, j->err);
}

static void run_free(void *arg) { model_free(arg); }

/* ---- first runs ---- */

/* They create primitives and touch memory, the session's own, so it does not matter whose thread does it; on one that answers
 * requests they would be a dozen runs that live ones wait for. That one makes the last: the whole way, with an answer to hold it to. */
typedef struct first_runs {
	const served_model *model;
	int instance;
	wn_error *err;
	wn_code code;
} first_runs;

static void run_every_shape(void *arg)
{
	first_runs *r = arg;
	r->code = classifier_warm(r->model->sessions[r->instance], r->err);
}

static void run_longest_shape(void *arg)
{
	first_runs *r = arg;
	classifier_session *s = r->model->sessions[r->instance];
	r->code = classifier_warm_shape(s, classifier_warm_count(s) - 1, r->err);
}

static void run_self_test(void *arg)
{
	first_runs *r = arg;
	const classifier *c = r->model->classifier;
	r->code = self_test_run(c, r->model->sessions[r->instance], &classifier_checkpoint(c)->manifest, r->err);
}

static wn_code try_out(const served_model *m, const swap_options *o, load_step *step, wn_error *err)
{
	const bool has_sample = classifier_checkpoint(m->classifier)->manifest.self_test;
	first_runs r = {.model = m, .err = err};
	for (; r.instance < m->instances; r.instance++) {
		bool done = true;
		*step = LOAD_WARM_UP;
		if (o->serving)
			o->run_aside(o->cls, run_every_shape, &r);
		else
			done = o->run_on(o->cls, r.instance, run_every_shape, &r);
		if (r.code != WN_OK)
			return wn_fail_prefix(err, "warm-up");
		if (has_sample)
			*step = LOAD_SELF_TEST;
		if (!done || !o->run_on(o->cls, r.instance, has_sample ? run_self_test : run_longest_shape, &r))
			return wn_fail(err, WN_CANCELLED, "the server is shutting down");
		if (r.code != WN_OK)
			return has_sample ? r.code : wn_fail_prefix(err, "warm-up");
	}
	return WN_OK;
}

/* ---- */

/* A verdict only on what was seen: a descriptor or memory that was missing says nothing of the files. */
static wn_code check_unchanged(const disk_state *before, const server_config *c, const char *name, int version,
			       const char *shown, wn_error *err)
{
	disk_state now = {0};
	wn_error local = {0};
	int fd = open_again(c, name, version, &local);
	if (fd >= 0) {
		(void)disk_look(&now, fd, shown, !name, &local);
		close(fd);
	}
	if (local.code == WN_IO || local.code == WN_NOMEM)
		return wn_fail(err, local.code, "%s", local.message);
	if (local.code == WN_OK && now.fingerprint == before->fingerprint)
		return WN_OK;
	return wn_fail(err, WN_INVALID, "%s: %s while it was loaded", shown,
		       local.code == WN_NOT_FOUND ? "removed" : "replaced or edited");
}

wn_code swap_bring_in(served_model **out, const swap_options *o, const char *name, int version, uint64_t memory_left,
		      load_step *step, wn_error *err)
{
	const server_config *c = o->config;
	wn_error local = {0};
	char shown[1024];
	disk_state disk = {0};
	*out = NULL;
	*step = LOAD_OPEN;
	if (name)
		snprintf(shown, sizeof shown, "%s/%s/%d", c->registry_root, name, version);
	else
		snprintf(shown, sizeof shown, "%s", c->model_dir);
	int fd = open_again(c, name, version, &local);
	/* In an operator's own directory a link that nobody reads does no harm; what is read is looked at there (manifest.h,
	 * safetensors.h). Under the registry root nothing may be one. */
	wn_code code = fd < 0 ? local.code : disk_look(&disk, fd, shown, !name, &local);
	load_job j = {.step = step, .err = &local};
	if (code == WN_OK) {
		j.q = (load_request){.dir_fd = fd,
				     .shown = shown,
				     .name = name ? name : "",
				     .version = name ? version : version_of_path(c->model_dir),
				     .placement = o->placement,
				     .max_batch = c->max_batch,
				     .precision = c->precision,
				     .verify_digests = c->verify_digests,
				     .file_bytes = disk.bytes,
				     .memory_left = memory_left};
		o->run_aside(o->cls, run_load, &j);
		code = j.code;
	}
	if (code == WN_OK) {
		j.model->fingerprint = disk.fingerprint;
		code = try_out(j.model, o, step, &local);
		if (code != WN_OK)
			wn_fail_prefix(&local, "%s", shown);
	}
	if (code == WN_OK) {
		*step = LOAD_CHANGED;
		code = check_unchanged(&disk, c, name, version, shown, &local);
	}
	if (fd >= 0)
		close(fd);
	if (code == WN_OK) {
		j.model->retire = o->retire;
		j.model->retire_cls = o->cls;
		*out = j.model;
	} else if (j.model) {
		o->run_aside(o->cls, run_free, j.model);
	}
	heap_note_freed(disk.bytes); /* what reading them took, or the model */
	return code == WN_OK ? WN_OK : wn_fail(err, code, "%s", local.message);
}
