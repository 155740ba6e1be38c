/* manager_command.c: what clients want loaded and unloaded.
 *
 * Commands wait in a list, first in first out, under the manager's lock; its thread executes one after the other and
 * looks at the disk again after each, so that every command finds the table as the one before it left it. Once the
 * manager is to stop, those that wait and those that still come are refused: nobody's request is left without an
 * answer. */
#include "server/manager_internal.h"

#include <stdarg.h>
#include <stdio.h>

#include "server/log.h"

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
	finish(c, err->code == WN_CANCELLED ? REASON_DRAINING : REASON_LOAD_FAILED, "%s",
	       manager_for_clients(m, err->message));
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
	(void)manager_reconcile(m, e, true, &err);
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
			version_set_reason(&e->versions[i], "unloaded by command");
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

bool manager_execute_commands(manager *m)
{
	bool stop;
	for (model_command *c; (c = take_command(m, &stop));) {
		if (stop)
			finish(c, REASON_DRAINING, "the server is shutting down");
		else
			execute(m, c);
		c->done(c);
		manager_scan(m);
	}
	return !stop;
}
