/* manager.c: see manager.h.
 *
 * Threads: everything here runs on the manager's thread (or, before it exists, on the one that opens), but for the
 * functions that say otherwise. The table of models is written under `lock` and by that thread only, so it reads
 * without. Models that nobody uses any more arrive on a lock-free list, because the one who drops the last reference
 * may be an inference thread. */
#include "server/manager_internal.h"

#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "server/log.h"
#include "server/registry_disk.h"
#include "server/request.h"
#include "server/swap.h"

#define LEAVING_PATIENCE 2000000000 /* ns that a load waits for memory which requests still hold */

/* ---- the table ---- */

model_entry *manager_find(manager *m, const char *name)
{
	for (int i = 0; i < m->count; i++)
		if (strcmp(m->models[i]->name, name) == 0)
			return m->models[i];
	return NULL;
}

static model_entry *add_model(manager *m, const char *name)
{
	model_entry *e = manager_find(m, name);
	if (e || m->count == MAX_KNOWN || !(e = calloc(1, sizeof *e)))
		return e;
	snprintf(e->name, sizeof e->name, "%s", name);
	pthread_mutex_lock(&m->lock);
	m->models[m->count++] = e;
	pthread_mutex_unlock(&m->lock);
	return e;
}

/* ---- looking at the disk ---- */

/* Messages for a client name the version, not where it lies. */
static const char *for_clients(const manager *m, const char *text)
{
	size_t n = strlen(m->opt.config->registry_root);
	return strncmp(text, m->opt.config->registry_root, n) == 0 && text[n] == '/' ? text + n + 1 : text;
}

static void scan_version(manager *m, model_entry *e, int model_fd, int number)
{
	char shown[1024];
	disk_state disk = {0}; /* of what cannot be opened: it is there, and that is all that is known of it */
	wn_error err = {0};
	const char *root = m->opt.config->registry_root;
	snprintf(shown, sizeof shown, "%s/%s/%d", root, e->name, number);
	int fd = disk_open_version(model_fd, root, e->name, number, &err);
	if (fd >= 0) {
		watch_add(m->watch, fd);
		(void)disk_look(&disk, fd, shown, false, &err);
		close(fd);
	} else if (err.code == WN_NOT_FOUND) {
		return; /* removed since it was listed */
	}
	pthread_mutex_lock(&m->lock);
	version_entry *v = fd < 0 ? versions_find(e, number) : NULL;
	if (v)
		v->on_disk = true; /* what is known of it stays: it may be this process that has no descriptor left */
	else
		v = versions_seen(e, number, &disk, monotonic_ns());
	/* What has no winnow.json, as far as one can see, is not even tried: nobody else would tell. */
	const bool tell = v && err.code != WN_OK && !disk.has_manifest && !v->loaded && !v->reason[0];
	if (tell)
		snprintf(v->reason, sizeof v->reason, "%s", for_clients(m, err.message));
	pthread_mutex_unlock(&m->lock);
	if (tell && m->running)
		log_error("model %s version %d: %s", e->name, number, err.message);
}

static void scan_model(manager *m, model_entry *e, int root_fd)
{
	int *numbers = NULL;
	size_t count = 0;
	wn_error ignored = {0};
	pthread_mutex_lock(&m->lock);
	for (size_t i = 0; i < e->count; i++)
		e->versions[i].on_disk = false;
	pthread_mutex_unlock(&m->lock);
	int fd = disk_open_model(root_fd, m->opt.config->registry_root, e->name, &ignored);
	if (fd >= 0) {
		watch_add(m->watch, fd); /* before the listing: what comes in between is an event */
		(void)disk_list_versions(fd, &numbers, &count, &ignored);
		for (size_t i = 0; i < count; i++)
			scan_version(m, e, fd, numbers[i]);
		close(fd);
	}
	free(numbers);
	pthread_mutex_lock(&m->lock);
	versions_forget_gone(e);
	pthread_mutex_unlock(&m->lock);
}

static void scan(manager *m)
{
	char **names = NULL;
	size_t count = 0;
	wn_error err = {0};
	if (*m->opt.config->model_dir)
		return;
	int root_fd = disk_open_root(m->opt.config->registry_root, &err);
	if (root_fd >= 0) {
		watch_add(m->watch, root_fd);
		(void)disk_list_names(root_fd, &names, &count, &err);
	}
	if (err.code != WN_OK && !m->scan_failed && m->running)
		log_error("%s; what is loaded stays", err.message);
	m->scan_failed = err.code != WN_OK;
	for (size_t i = 0; i < count; i++) {
		(void)add_model(m, names[i]);
		free(names[i]);
	}
	free(names);
	for (int i = 0; i < m->count && err.code == WN_OK; i++)
		scan_model(m, m->models[i], root_fd);
	if (root_fd >= 0)
		close(root_fd);
}

/* ---- freeing ---- */

/* Any thread. */
static void retire(served_model *model, void *cls)
{
	manager *m = cls;
	model->next_retired = atomic_load(&m->retired);
	while (!atomic_compare_exchange_weak(&m->retired, &model->next_retired, model))
		;
	watch_wake(m->watch);
}

static void free_list(void *arg)
{
	for (served_model *model = arg, *next; model; model = next) {
		next = model->next_retired;
		model_free(model);
	}
}

static void run_aside(void *cls, void (*fn)(void *arg), void *arg)
{
	manager *m = cls;
	if (m->running)
		loader_run(m->loader, fn, arg);
	else
		fn(arg); /* nobody is served yet, or any more */
}

static void free_retired(manager *m)
{
	served_model *list = atomic_exchange(&m->retired, NULL);
	if (!list)
		return;
	for (served_model *model = list; model; model = model->next_retired) {
		atomic_fetch_sub(&m->held_bytes, model->bytes);
		atomic_fetch_sub(&m->alive, 1);
		if (m->running)
			log_info("model %s version %s: freed", model->name, model->version);
	}
	run_aside(m, free_list, list);
	malloc_trim(0); /* what was freed in small pieces stays with the process otherwise */
}

static bool run_on(void *cls, int instance, void (*fn)(void *arg), void *arg)
{
	manager *m = cls;
	return m->opt.run_on(m->opt.cls, instance, fn, arg);
}

/* ---- loading ---- */

static int count_loaded(const manager *m)
{
	int n = 0;
	for (int i = 0; i < m->count; i++)
		for (size_t v = 0; v < m->models[i]->count; v++)
			n += m->models[i]->versions[v].loaded;
	return n;
}

/* Memory that a budget still has. A version that was let go of may be in the hands of its last requests: they are
 * short. */
static uint64_t memory_left(manager *m)
{
	const uint64_t budget = m->opt.config->memory_budget;
	if (budget == 0)
		return UINT64_MAX;
	const int64_t until = monotonic_ns() + LEAVING_PATIENCE;
	for (free_retired(m); atomic_load(&m->alive) > count_loaded(m) && monotonic_ns() < until; free_retired(m))
		nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
	uint64_t held = atomic_load(&m->held_bytes);
	return held < budget ? budget - held : 0;
}

/* Lets go of what neither answers nor is wanted beside what answers. */
static void drop_unwanted(manager *m, model_entry *e)
{
	for (size_t i = 0; i < e->count; i++) {
		char version[MODEL_VERSION_SIZE];
		version_entry *v = &e->versions[i];
		if (!v->loaded || versions_stay(e, v->number))
			continue;
		snprintf(version, sizeof version, "%d", v->number);
		registry_drop(m->opt.registry, e->name, version);
		pthread_mutex_lock(&m->lock);
		v->loaded = false;
		pthread_mutex_unlock(&m->lock);
	}
}

/* Makes the loaded version that should answer the one that does. */
void manager_update_primary(manager *m, model_entry *e)
{
	char version[MODEL_VERSION_SIZE];
	int before = e->primary, now = versions_primary(e);
	if (now != before && now > 0) {
		snprintf(version, sizeof version, "%d", now);
		registry_promote(m->opt.registry, e->name, version);
		if (before)
			log_info("model %s: version %d answers in place of version %d", e->name, now, before);
		else if (m->running)
			log_info("model %s: version %d answers", e->name, now);
	}
	pthread_mutex_lock(&m->lock);
	e->swaps += before && now && now != before;
	e->primary = now;
	pthread_mutex_unlock(&m->lock);
	drop_unwanted(m, e);
}

wn_code manager_load_version(manager *m, model_entry *e, int number, wn_error *err)
{
	swap_options o = {
	    .config = m->opt.config, .placement = m->opt.placement, .run_aside = run_aside, .run_on = run_on, .cls = m, .retire = retire};
	const bool from_registry = !*m->opt.config->model_dir;
	served_model *model = NULL;
	load_step step = LOAD_OPEN;
	wn_error local = {0};
	const int64_t start = monotonic_ns();
	version_entry *v = versions_find(e, number);
	pthread_mutex_lock(&m->lock);
	v->loading = true;
	pthread_mutex_unlock(&m->lock);
	wn_code code = swap_bring_in(&model, &o, from_registry ? e->name : NULL, number, memory_left(m), &step, &local);
	if (code == WN_OK) {
		atomic_fetch_add(&m->held_bytes, model->bytes);
		atomic_fetch_add(&m->alive, 1);
		uint64_t mib = model->bytes >> 20;
		code = registry_put(m->opt.registry, model, false, &local);
		if (code == WN_OK && m->running)
			log_info("model %s version %d: loaded in %.3f s, about %llu MiB", e->name, number,
				 (double)(monotonic_ns() - start) / 1e9, (unsigned long long)mib);
		else if (code != WN_OK)
			registry_release(&model);
	}
	pthread_mutex_lock(&m->lock);
	v->loading = false;
	v->loaded |= code == WN_OK;
	v->failed = code != WN_OK && code != WN_CANCELLED;
	snprintf(v->reason, sizeof v->reason, "%s", code == WN_OK ? "" : for_clients(m, local.message));
	e->failures[step] += v->failed;
	pthread_mutex_unlock(&m->lock);
	if (code == WN_OK) {
		manager_update_primary(m, e);
		return WN_OK;
	}
	if (m->running && e->primary)
		log_error("model %s version %d: %s: %s; version %d stays", e->name, number, load_step_name(step),
			  local.message, e->primary);
	else if (m->running)
		log_error("model %s version %d: %s: %s", e->name, number, load_step_name(step), local.message);
	return wn_fail(err, code, "%s", local.message);
}

/* Loads what the policy wants, one after the other. Returns when to look again, 0: when something changes. *first gets
 * the first failure. */
static int64_t reconcile(manager *m, model_entry *e, bool at_once, wn_error *first)
{
	int64_t again = 0;
	for (int number; (number = versions_next(e, monotonic_ns(), at_once, &again)) != 0;)
		if (manager_load_version(m, e, number, first) == WN_CANCELLED)
			return 0;
	if (e->wanted && versions_primary(e) != e->primary)
		manager_update_primary(m, e);
	drop_unwanted(m, e);
	return again;
}

/* ---- commands ---- */

static void finish(model_command *c, reason outcome, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void finish(model_command *c, reason outcome, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	c->outcome = outcome;
	vsnprintf(c->detail, sizeof c->detail, fmt, ap);
	va_end(ap);
}

static void finish_failed(manager *m, model_command *c, const wn_error *err)
{
	finish(c, err->code == WN_CANCELLED ? REASON_DRAINING : REASON_LOAD_FAILED, "%s", for_clients(m, err->message));
}

bool manager_is_current(manager *m, const model_entry *e, const version_entry *v)
{
	char version[MODEL_VERSION_SIZE];
	snprintf(version, sizeof version, "%d", v->number);
	served_model *loaded = registry_find(m->opt.registry, e->name, version);
	const bool current = loaded && (!v->on_disk || loaded->fingerprint == v->disk.fingerprint);
	registry_release(&loaded);
	return current;
}

/* A share of the requests for a version. */
static void start_trial(manager *m, model_entry *e, model_command *c)
{
	wn_error err = {0};
	if (!versions_find(e, c->version))
		finish(c, REASON_UNKNOWN_MODEL, "model \"%s\" has no version %d in the registry", e->name, c->version);
	else if (manager_start_trial(m, e, c->version, c->mode, c->percent, &err) != WN_OK)
		finish_failed(m, c, &err);
}

/* A version by number: held from now on. */
static void load_held(manager *m, model_entry *e, model_command *c)
{
	version_entry *v = versions_find(e, c->version);
	wn_error err = {0};
	if (!v) {
		finish(c, REASON_UNKNOWN_MODEL, "model \"%s\" has no version %d in the registry", e->name, c->version);
		return;
	}
	const bool current = manager_is_current(m, e, v);
	if (e->candidate) {
		manager_end_trial(m, e, current && c->version == e->candidate, "by command");
		v = versions_find(e, c->version);
	}
	const bool was_wanted = e->wanted;
	const int was_held = e->held;
	pthread_mutex_lock(&m->lock);
	e->wanted = true;
	e->held = c->version;
	pthread_mutex_unlock(&m->lock);
	if (current && v->loaded) {
		manager_update_primary(m, e);
	} else if (manager_load_version(m, e, c->version, &err) != WN_OK) {
		pthread_mutex_lock(&m->lock);
		e->wanted = was_wanted;
		e->held = was_held;
		pthread_mutex_unlock(&m->lock);
		finish_failed(m, c, &err);
	}
}

/* No number: the policy decides again, and what failed gets another chance. */
static void load_by_policy(manager *m, model_entry *e, model_command *c)
{
	wn_error err = {0};
	if (e->candidate)
		manager_end_trial(m, e, false, "by command");
	pthread_mutex_lock(&m->lock);
	e->wanted = true;
	e->held = 0;
	for (size_t i = 0; i < e->count; i++)
		e->versions[i].failed = false;
	pthread_mutex_unlock(&m->lock);
	(void)reconcile(m, e, true, &err);
	if (err.code != WN_OK)
		finish_failed(m, c, &err);
	else if (!e->primary)
		finish(c, REASON_UNKNOWN_MODEL, "model \"%s\" has no version in the registry that its policy wants",
		       e->name);
}

static void unload(manager *m, model_entry *e, model_command *c)
{
	version_entry *v = c->version ? versions_find(e, c->version) : NULL;
	if (c->version && (!v || !v->loaded)) {
		finish(c, REASON_UNKNOWN_MODEL, "model \"%s\" version %d is not loaded", e->name, c->version);
		return;
	}
	if (v && v->number == e->primary) {
		finish(c, REASON_LOAD_FAILED,
		       "model \"%s\" version %d is the one that answers: load another, or unload the model", e->name,
		       c->version);
		return;
	}
	if (e->candidate && (!v || v->number == e->candidate)) {
		manager_end_trial(m, e, false, "by command");
		if (v)
			return;
	}
	char version[MODEL_VERSION_SIZE] = "";
	if (v)
		snprintf(version, sizeof version, "%d", c->version);
	registry_drop(m->opt.registry, e->name, version);
	pthread_mutex_lock(&m->lock);
	for (size_t i = 0; i < e->count; i++)
		if (e->versions[i].loaded && (!v || v == &e->versions[i])) {
			e->versions[i].loaded = false;
			e->versions[i].failed = v != NULL; /* a list would bring it back at once */
			snprintf(e->versions[i].reason, sizeof e->versions[i].reason, "unloaded by command");
		}
	if (!v) {
		e->wanted = false;
		e->held = e->primary = 0;
	}
	pthread_mutex_unlock(&m->lock);
	log_info("model %s%s%s: unloaded by command", e->name, v ? " version " : "", version);
}

static void execute(manager *m, model_command *c)
{
	model_entry *e = manager_find(m, c->name);
	c->outcome = REASON_OK;
	if (*m->opt.config->model_dir)
		finish(c, REASON_LOAD_FAILED, "this server serves one directory (model.dir): there is no registry");
	else if (!e)
		finish(c, REASON_UNKNOWN_MODEL, "model \"%s\" is not in the registry", c->name);
	else if (c->kind == COMMAND_UNLOAD)
		unload(m, e, c);
	else if (c->percent)
		start_trial(m, e, c);
	else if (c->version)
		load_held(m, e, c);
	else
		load_by_policy(m, e, c);
	c->answers = e ? e->primary : 0;
}

/* Any thread. */
void manager_submit(manager *m, model_command *c)
{
	c->next = NULL;
	pthread_mutex_lock(&m->lock);
	bool refused = m->stop;
	if (!refused && m->last)
		m->last->next = c;
	else if (!refused)
		m->first = c;
	if (!refused)
		m->last = c;
	pthread_mutex_unlock(&m->lock);
	if (refused) {
		finish(c, REASON_DRAINING, "the server is shutting down");
		c->done(c);
	} else {
		watch_wake(m->watch);
	}
}

static model_command *take_command(manager *m, bool *stop)
{
	pthread_mutex_lock(&m->lock);
	model_command *c = m->first;
	if (c)
		m->first = c->next;
	if (!m->first)
		m->last = NULL;
	*stop = m->stop;
	pthread_mutex_unlock(&m->lock);
	return c;
}

/* ---- the thread ---- */

static void *manager_main(void *arg)
{
	manager *m = arg;
	int64_t again = 0;
	for (bool stop = false; !stop;) {
		int64_t now = monotonic_ns(), sleep = m->opt.config->poll_interval_ns;
		if (again && again - now < sleep)
			sleep = again > now ? again - now : 0;
		watch_wait(m->watch, sleep);
		free_retired(m);
		scan(m);
		for (model_command *c; (c = take_command(m, &stop));) {
			if (stop)
				finish(c, REASON_DRAINING, "the server is shutting down");
			else
				execute(m, c);
			c->done(c);
			scan(m);
		}
		again = 0;
		for (int i = 0; i < m->count && !stop; i++) {
			manager_judge_trial(m, m->models[i]);
			int64_t at = reconcile(m, m->models[i], false, NULL);
			again = at && (!again || at < again) ? at : again;
		}
		free_retired(m);
	}
	return NULL;
}

wn_code manager_start(manager *m, wn_error *err)
{
	wn_code code = loader_open(&m->loader, err);
	if (code != WN_OK)
		return code;
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	m->running = true;
	int e = pthread_create(&m->thread, NULL, manager_main, m);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (e != 0) {
		m->running = false;
		return wn_fail(err, WN_IO, "cannot start the model manager's thread: %s", strerror(e));
	}
	pthread_setname_np(m->thread, "models");
	return WN_OK;
}

void manager_stop(manager *m)
{
	if (!m)
		return;
	pthread_mutex_lock(&m->lock);
	m->stop = true;
	pthread_mutex_unlock(&m->lock);
	if (!m->running)
		return;
	watch_wake(m->watch);
	pthread_join(m->thread, NULL);
	m->running = false;
}

/* ---- opening and closing ---- */

/* Why nothing of a model could even be tried. */
static wn_code explain_nothing(manager *m, const model_entry *e, wn_error *err)
{
	char shown[1024];
	disk_state disk;
	const char *root = m->opt.config->registry_root;
	int number = e->policy.count > 0 ? e->policy.numbers[e->policy.count - 1]
		     : e->count > 0      ? e->versions[e->count - 1].number
					 : 0;
	snprintf(shown, sizeof shown, "%s/%s/%d", root, e->name, number);
	int version_fd = -1, root_fd = disk_open_root(root, err);
	int model_fd = root_fd >= 0 ? disk_open_model(root_fd, root, e->name, err) : -1;
	if (model_fd >= 0 && number == 0)
		wn_fail(err, WN_NOT_FOUND, "%s/%s: found no version directory, expected names such as 1 or 2", root,
			e->name);
	else if (model_fd >= 0)
		version_fd = disk_open_version(model_fd, root, e->name, number, err);
	if (version_fd >= 0 && disk_look(&disk, version_fd, shown, false, err) == WN_OK)
		wn_fail(err, WN_NOT_FOUND, "%s/winnow.json: found no such file, the version is not complete", shown);
	const int fds[] = {version_fd, model_fd, root_fd};
	for (int i = 0; i < 3; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	return err->code;
}

static wn_code open_configured(manager *m, const model_spec *spec, wn_error *err)
{
	wn_error first = {0};
	model_entry *e = add_model(m, spec->name);
	if (!e)
		return wn_fail(err, WN_NOMEM, "out of memory for model %s", spec->name);
	e->wanted = true;
	e->policy = spec->policy;
	scan(m);
	(void)reconcile(m, e, true, &first);
	if (e->primary && first.code != WN_OK)
		log_error("model %s: %s; version %d serves instead", e->name, first.message, e->primary);
	if (e->primary)
		return WN_OK;
	return first.code != WN_OK ? wn_fail(err, first.code, "%s", first.message) : explain_nothing(m, e, err);
}

static wn_code open_directory(manager *m, wn_error *err)
{
	swap_options o = {
	    .config = m->opt.config, .placement = m->opt.placement, .run_aside = run_aside, .run_on = run_on, .cls = m, .retire = retire};
	const uint64_t budget = m->opt.config->memory_budget;
	served_model *model;
	load_step step;
	wn_code code = swap_bring_in(&model, &o, NULL, 0, budget ? budget : UINT64_MAX, &step, err);
	if (code != WN_OK)
		return code;
	atomic_fetch_add(&m->held_bytes, model->bytes);
	atomic_fetch_add(&m->alive, 1);
	return registry_put(m->opt.registry, model, true, err);
}

wn_code manager_open(manager **out, const manager_options *opt, wn_error *err)
{
	const server_config *c = opt->config;
	model_spec spec;
	manager *m = *out = calloc(1, sizeof *m);
	if (!m)
		return wn_fail(err, WN_NOMEM, "out of memory for the model manager");
	m->opt = *opt;
	pthread_mutex_init(&m->lock, NULL);
	wn_code code = watch_open(&m->watch, c->watch_registry && !*c->model_dir, err);
	if (code == WN_OK && c->watch_registry && !*c->model_dir && !watch_has_inotify(m->watch))
		log_warning("inotify is not available: the registry is looked at every model.poll_interval only");
	if (code == WN_OK && *c->model_dir) {
		code = open_directory(m, err);
	} else if (code == WN_OK) {
		for (size_t i = 0; code == WN_OK && i < server_config_num_models(c); i++) {
			code = server_config_model(c, i, &spec, err);
			if (code == WN_OK)
				code = open_configured(m, &spec, err);
		}
		if (code == WN_OK)
			code = manager_start_configured_trials(m, err);
	}
	if (code != WN_OK)
		manager_close(out);
	return code;
}

void manager_close(manager **mp)
{
	manager *m = *mp;
	if (!m)
		return;
	*mp = NULL;
	manager_stop(m);
	for (int i = 0; i < m->count; i++)
		registry_drop(m->opt.registry, m->models[i]->name, "");
	/* The registry may hold one that no table knows (model.dir). */
	served_model *loaded[REGISTRY_MAX_LOADED];
	bool primary[REGISTRY_MAX_LOADED];
	for (size_t n = registry_loaded(m->opt.registry, loaded, primary); n > 0; registry_release(&loaded[n]))
		registry_drop(m->opt.registry, loaded[--n]->name, "");
	free_list(atomic_exchange(&m->retired, NULL));
	loader_close(&m->loader);
	watch_close(&m->watch);
	for (int i = 0; i < m->count; i++)
		model_entry_free(m->models[i]);
	pthread_mutex_destroy(&m->lock);
	free(m);
}
