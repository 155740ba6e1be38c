/* manager.c: see manager.h. The thread: when it wakes, and in which order it does what the other files do
 * (manager_internal.h); and the manager's beginning and end. */
#include "server/manager_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/thread.h"
#include "server/log.h"
#include "server/request.h"

/* ---- the thread ---- */

/* Sleeps until there may be something to do, and looks at the disk when that is why: because it changed, or it is time (for a look,
 * or for a version to settle). A trial's result and a model to free say nothing about the disk, and may come a thousand times a
 * second; commands look for themselves. */
static void wait_and_look(manager *m, int64_t *look_ns, int64_t again_ns)
{
	const int64_t now = monotonic_ns(), until = again_ns && again_ns < *look_ns ? again_ns : *look_ns;
	const bool changed = watch_wait(m->watch, until > now ? until - now : 0);
	manager_free_retired(m);
	if (!changed && monotonic_ns() < until)
		return;
	manager_scan(m);
	*look_ns = monotonic_ns() + m->opt.config->poll_interval_ns;
}

static void *manager_main(void *arg)
{
	manager *m = arg;
	int64_t again = 0, look = monotonic_ns() + m->opt.config->poll_interval_ns;
	for (bool stop = false; !stop;) {
		wait_and_look(m, &look, again);
		stop = !manager_execute_commands(m);
		again = 0;
		for (int i = 0; i < m->count && !stop; i++) {
			manager_tell_absent(m, m->models[i]);
			manager_judge_trial(m, m->models[i]);
			int64_t at = manager_reconcile(m, m->models[i], false, NULL);
			again = at && (!again || at < again) ? at : again;
		}
		manager_free_retired(m);
	}
	return NULL;
}

wn_code manager_start(manager *m, wn_error *err)
{
	wn_code code = loader_open(&m->loader, err);
	if (code != WN_OK)
		return code;
	m->running = true;
	const int e = thread_start(&m->thread, "models", manager_main, m);
	if (e != 0) {
		m->running = false;
		return wn_fail(err, WN_IO, "cannot start the model manager's thread: %s", strerror(e));
	}
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

/* Before anything is scanned: what else lies in the registry gets the room that these leave. */
static wn_code add_configured(manager *m, wn_error *err)
{
	const server_config *c = m->opt.config;
	model_spec spec;
	for (size_t i = 0; i < server_config_num_models(c); i++) {
		const wn_code code = server_config_model(c, i, &spec, err);
		if (code != WN_OK)
			return code;
		model_entry *e = manager_add(m, spec.name);
		if (!e)
			return wn_fail(err, WN_NOMEM, "out of memory for model %s", spec.name);
		e->wanted = true;
		e->policy = spec.policy;
	}
	return WN_OK;
}

static wn_code open_configured(manager *m, model_entry *e, wn_error *err)
{
	wn_error first = {0};
	(void)manager_reconcile(m, e, true, &first);
	if (e->primary && first.code != WN_OK)
		log_error("model %s: %s; version %d serves instead", e->name, first.message, e->primary);
	if (e->primary) {
		manager_tell_absent(m, e);
		return WN_OK;
	}
	return first.code != WN_OK ? wn_fail(err, first.code, "%s", first.message) : manager_explain_nothing(m, e, err);
}

wn_code manager_open(manager **out, const manager_options *opt, wn_error *err)
{
	const server_config *c = opt->config;
	manager *m = *out = calloc(1, sizeof *m);
	if (!m)
		return wn_fail(err, WN_NOMEM, "out of memory for the model manager");
	m->opt = *opt;
	pthread_mutex_init(&m->lock, NULL);
	wn_code code = watch_open(&m->watch, c->watch_registry && !*c->model_dir, err);
	if (code == WN_OK && c->watch_registry && !*c->model_dir && !watch_has_inotify(m->watch))
		log_warning("inotify is not available: the registry is looked at every model.poll_interval only");
	if (code == WN_OK && *c->model_dir) {
		code = manager_load_directory(m, err);
	} else if (code == WN_OK) {
		code = add_configured(m, err);
		const int configured = m->count;
		if (code == WN_OK)
			manager_scan(m);
		for (int i = 0; code == WN_OK && i < configured; i++)
			code = open_configured(m, m->models[i], err);
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
	manager_free_retired(m);
	loader_close(&m->loader);
	watch_close(&m->watch);
	for (int i = 0; i < m->count; i++)
		model_entry_free(m->models[i]);
	pthread_mutex_destroy(&m->lock);
	free(m);
}
