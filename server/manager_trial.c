/* manager_trial.c: a candidate comes beside the version that answers, and takes over or goes. The manager's thread. */
#include "server/manager_internal.h"

#include <stdio.h>

#include "server/log.h"

/* Any thread: there is a new result. */
static void changed(void *cls) { watch_wake(((manager *)cls)->watch); }

void manager_end_trial(manager *m, model_entry *e, bool promote, const char *why)
{
	char told[200];
	const int candidate = e->candidate;
	registry_set_trial(m->opt.registry, e->name, "", NULL);
	pthread_mutex_lock(&m->lock);
	e->candidate = 0;
	e->promoted += promote;
	e->rolled_back += !promote;
	version_entry *v = versions_find(e, candidate);
	snprintf(told, sizeof told, "tried and taken back: %s", why);
	if (v && !promote)
		version_set_reason(v, told);
	pthread_mutex_unlock(&m->lock);
	log_info("model %s version %d: trial ended, %s: %s", e->name, candidate, promote ? "promoted" : "taken back",
		 why);
}

void manager_judge_trial(manager *m, model_entry *e)
{
	char why[160];
	if (!e->candidate)
		return;
	trial_summary s = trial_read(e->trial);
	trial_verdict v = trial_judge(&s, m->opt.config, why);
	if (v == TRIAL_GOES_ON)
		return;
	if (v == TRIAL_PROMOTE)
		manager_hold(m, e, e->candidate, "a trial");
	manager_end_trial(m, e, v == TRIAL_PROMOTE, why);
	manager_update_primary(m, e);
}

/* A loaded version, whose trial's reference passes to the table. */
static void set_candidate(manager *m, model_entry *e, int number, trial *t)
{
	char version[MODEL_VERSION_SIZE];
	snprintf(version, sizeof version, "%d", number);
	trial_retain(t);
	registry_set_trial(m->opt.registry, e->name, version, t);
	pthread_mutex_lock(&m->lock);
	trial_release(&e->trial);
	e->trial = t;
	e->trial_number = e->candidate = number;
	version_set_reason(versions_find(e, number), "");
	pthread_mutex_unlock(&m->lock);
}

wn_code manager_start_trial(manager *m, model_entry *e, int number, trial_mode mode, int percent, wn_error *err)
{
	trial *t;
	const version_entry *v = versions_find(e, number);
	if (!v)
		return wn_fail(err, WN_NOT_FOUND, "model \"%s\" has no version %d in the registry", e->name, number);
	if (!e->primary || number == e->primary)
		return wn_fail(err, WN_INVALID, "model \"%s\": %s", e->name,
			       e->primary ? "this version is the one that answers"
					  : "no version answers that another could be tried beside");
	wn_code code = trial_open(&t, mode, percent, changed, m, err);
	if (code != WN_OK)
		return code;
	const bool current = version_is_current(v);
	if (!current)
		code = manager_load_version(m, e, number, err);
	const bool replaced = !current && code == WN_OK; /* in the registry, where that ended a trial of the old one */
	if (code == WN_OK)
		code = manager_reckon_trial(m, e, number, err);
	if (code != WN_OK) {
		if (replaced && e->candidate == number)
			manager_end_trial(m, e, false, "its files were replaced, and those could not be put on trial");
		manager_update_primary(m, e); /* which lets go of it again */
		trial_release(&t);
		return code;
	}
	if (e->candidate && (e->candidate != number || !current))
		manager_end_trial(m, e, false, "another trial was started");
	if (e->held != e->primary)
		manager_hold(m, e, e->primary, "a trial");
	set_candidate(m, e, number, t);
	log_info("model %s version %d: on trial beside version %d, %s of %d percent", e->name, number, e->primary,
		 trial_mode_name(mode), percent);
	manager_update_primary(m, e); /* which lets go of another candidate */
	return WN_OK;
}

static wn_code start_configured(manager *m, const char *text, wn_error *err)
{
	trial_spec spec;
	wn_error local = {0};
	wn_code code = trial_spec_parse(&spec, text, err);
	if (code != WN_OK)
		return code;
	model_entry *e = manager_find(m, spec.name);
	if (!e || !e->wanted)
		return wn_fail(err, WN_INVALID, "canary.start: %s: this model is not served", text);
	if (manager_start_trial(m, e, spec.version, spec.mode, spec.percent, &local) != WN_OK)
		log_error("canary.start: %s: %s", text, local.message);
	return WN_OK;
}

wn_code manager_start_configured_trials(manager *m, wn_error *err)
{
	const string_list *list = &m->opt.config->canaries;
	for (size_t i = 0; i < list->count; i++)
		if (start_configured(m, list->items[i], err) != WN_OK)
			return err->code;
	return WN_OK;
}
