/* manager_command.c: what clients want loaded and unloaded.
 *
 * Commands wait in a list, first in first out, under the manager's lock; its thread executes one after the other and
 * looks at the disk before each, so that every command finds what is there when it comes, and after the last. Once the
 * manager is to stop, those that wait and those that still come are refused: nobody's request is left without an
 * answer. */
#include "server/manager_internal.h"

#include <stdarg.h>
#include <stdio.h>

#include "model/pretokenize.h"
#include "server/log.h"

static void finish(model_command *c, reason outcome, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void finish(model_command *c, reason outcome, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	c->outcome = outcome;
	vsnprintf(c->detail, sizeof c->detail, fmt, ap);
	va_end(ap);
	utf8_repair(c->detail);
}

static void finish_failed(manager *m, model_command *c, const wn_error *err)
{
	finish(c, err->code == WN_CANCELLED ? REASON_DRAINING : REASON_LOAD_FAILED, "%s",
	       manager_for_clients(m, err->message));
}

/* "", or why a version or a model may be there and not be known. */
static const char *blind(const manager *m, const model_entry *e, char text[220])
{
	const char *why = e && e->unseen[0] ? e->unseen : m->unread;
	if (!e && !*why && m->count == MAX_KNOWN)
		snprintf(text, 220, "; there are more models than the %d that are known", MAX_KNOWN);
	else
		snprintf(text, 220, "%s%s", *why ? "; " : "", why);
	return text;
}

static void finish_no_version(const manager *m, const model_entry *e, model_command *c)
{
	char why[220];
	finish(c, REASON_UNKNOWN_MODEL, "model \"%s\" has no version %d in the registry%s", e->name, c->version,
	       blind(m, e, why));
}

/* A share of the requests for a version. */
static void start_trial(manager *m, model_entry *e, model_command *c)
{
	wn_error err = {0};
	if (!versions_find(e, c->version))
		finish_no_version(m, e, c);
	else if (manager_start_trial(m, e, c->version, c->mode, c->percent, &err) != WN_OK)
		finish_failed(m, c, &err);
}

/* A version by number: held from now on. It is loaded before anything else is touched. */
static void load_held(manager *m, model_entry *e, model_command *c)
{
	version_entry *v = versions_find(e, c->version);
	wn_error err = {0};
	if (!v) {
		finish_no_version(m, e, c);
		return;
	}
	const bool current = version_is_current(v);
	if (!current && manager_load_version(m, e, c->version, &err) != WN_OK) {
		finish_failed(m, c, &err);
		return;
	}
	pthread_mutex_lock(&m->lock);
	for (size_t i = 0; i < e->count && !e->wanted; i++) /* with the model, what its policy lists comes back */
		e->versions[i].unloaded = false;
	e->wanted = true;
	pthread_mutex_unlock(&m->lock);
	manager_hold(m, e, c->version, "command");
	if (e->candidate)
		manager_end_trial(m, e, current && c->version == e->candidate, "by command");
	pthread_mutex_lock(&m->lock);
	version_set_reason(v, "");
	pthread_mutex_unlock(&m->lock);
	manager_update_primary(m, e);
}

static size_t count_loaded(const model_entry *e)
{
	size_t n = 0;
	for (size_t i = 0; i < e->count; i++)
		n += e->versions[i].loaded;
	return n;
}

/* What the policy may take from now on: whatever was said of it. */
static void give_all_another_chance(model_entry *e)
{
	for (size_t i = 0; i < e->count; i++) {
		e->versions[i].was_unloaded = e->versions[i].unloaded;
		version_give_another_chance(&e->versions[i]);
	}
}

/* A command that fails brings nothing back later either: what was unloaded before it, and is not loaded now, stays so. */
static void stay_unloaded(model_entry *e)
{
	for (size_t i = 0; i < e->count; i++) {
		version_entry *v = &e->versions[i];
		v->unloaded = v->was_unloaded && !v->loaded;
		if (v->unloaded && v->retry_ns)
			log_info("model %s version %d: stays unloaded by command, and is not tried again", e->name, v->number);
	}
}

/* Nothing that the policy wants could be loaded: it is as it was. */
static void stay_held(manager *m, model_entry *e, const model_entry *before)
{
	pthread_mutex_lock(&m->lock);
	stay_unloaded(e);
	e->wanted = before->wanted;
	e->held = before->held;
	pthread_mutex_unlock(&m->lock);
	manager_update_primary(m, e);
}

/* The policy has what it wants, or the next best: a trial ends, and with it what held the model. */
static void give_back(manager *m, model_entry *e, int held)
{
	if (e->candidate) {
		model_entry without = *e;
		without.candidate = 0;
		manager_end_trial(m, e, versions_primary(&without) == e->candidate, "by command");
	}
	if (held)
		log_info("model %s: given back to its policy", e->name);
	manager_update_primary(m, e);
}

/* No number: the policy decides again, and what failed gets another chance. */
static void load_by_policy(manager *m, model_entry *e, model_command *c)
{
	char why[220];
	wn_error err = {0};
	const model_entry before = *e; /* but for the versions, which are the same ones */
	const size_t loaded = count_loaded(e);
	pthread_mutex_lock(&m->lock);
	e->wanted = true;
	e->held = 0;
	give_all_another_chance(e);
	pthread_mutex_unlock(&m->lock);
	(void)manager_reconcile(m, e, true, &err);
	const bool changed = before.held || before.candidate || !before.wanted || e->primary != before.primary ||
			     count_loaded(e) != loaded;
	if (!versions_satisfy_policy(e) || err.code == WN_CANCELLED) {
		stay_held(m, e, &before);
		if (err.code != WN_OK)
			finish_failed(m, c, &err);
		else
			finish(c, REASON_UNKNOWN_MODEL,
			       "model \"%s\" has no version in the registry that its policy wants%s", e->name,
			       blind(m, e, why));
		return;
	}
	give_back(m, e, before.held);
	if (err.code != WN_OK && changed) {
		finish(c, REASON_OK, "%s", manager_for_clients(m, err.message));
	} else if (err.code != WN_OK) {
		pthread_mutex_lock(&m->lock);
		stay_unloaded(e);
		pthread_mutex_unlock(&m->lock);
		finish_failed(m, c, &err);
	}
}

/* Lets go of v, NULL: of all. */
static void drop(manager *m, model_entry *e, version_entry *v)
{
	char version[MODEL_VERSION_SIZE] = "";
	if (v)
		snprintf(version, sizeof version, "%d", v->number);
	registry_drop(m->opt.registry, e->name, version);
	pthread_mutex_lock(&m->lock);
	for (size_t i = 0; i < e->count; i++)
		if (e->versions[i].loaded && (!v || v == &e->versions[i])) {
			e->versions[i].loaded = false;
			e->versions[i].unloaded = true; /* a list would bring it back at once */
		}
	if (!v) {
		e->wanted = false;
		e->held = e->primary = 0;
	}
	pthread_mutex_unlock(&m->lock);
	log_info("model %s%s%s: unloaded by command", e->name, v ? " version " : "", version);
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
	const bool on_trial = v && v->number == e->candidate;
	if (e->candidate && (!v || on_trial))
		manager_end_trial(m, e, false, "by command");
	if (on_trial)
		manager_update_primary(m, e);
	else
		drop(m, e, v);
}

static void execute(manager *m, model_command *c)
{
	char why[220];
	model_entry *e = manager_find(m, c->name);
	c->outcome = REASON_OK;
	if (*m->opt.config->model_dir)
		finish(c, REASON_LOAD_FAILED, "this server serves one directory (model.dir): there is no registry");
	else if (!e)
		finish(c, REASON_UNKNOWN_MODEL, "model \"%s\" is not in the registry%s", c->name, blind(m, NULL, why));
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
	bool stop, any = false;
	for (model_command *c; (c = take_command(m, &stop)); any = true) {
		if (stop) {
			finish(c, REASON_DRAINING, "the server is shutting down");
		} else {
			manager_scan(m);
			execute(m, c);
		}
		c->done(c);
	}
	if (any && !stop)
		manager_scan(m);
	return !stop;
}
