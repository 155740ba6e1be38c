/* manager_report.c: what is told of the manager's state: in messages, as JSON and as metrics. Any thread; the lock is
 * held while the table is read. */
#include "server/manager_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *manager_for_clients(const manager *m, const char *text)
{
	const size_t n = strlen(m->opt.config->registry_root);
	if (strncmp(text, m->opt.config->registry_root, n) != 0)
		return text;
	return text[n] == '/' ? text + n + 1 : strncmp(text + n, ": ", 2) == 0 ? text + n + 2 : text;
}

static const char *state_of(const version_entry *v)
{
	return v->loaded ? "READY" : v->loading ? "LOADING" : "UNAVAILABLE";
}

#define REASON_TEXT 240

/* v's own, or made of what is known, in `text` if need be. */
static const char *reason_of(const model_entry *e, const version_entry *v, char text[REASON_TEXT])
{
	if (v->reason[0] || v->loading)
		return v->reason;
	if (v->unloaded)
		return "unloaded by command";
	if (e->unseen[0]) {
		snprintf(text, REASON_TEXT, "%s%s", e->unseen, v->loaded ? "; what is loaded stays" : "");
		return text;
	}
	const char *trying = v->loaded && v->number == e->candidate ? "on trial beside the version that answers" : "";
	if (v->loaded && !version_is_current(v)) {
		snprintf(text, REASON_TEXT, "%s%sits files are others now; what is loaded stays, a load of this version takes the new ones",
			 trying, *trying ? "; " : "");
		return text;
	}
	if (*trying)
		return trying;
	if (v->loaded)
		return v->on_disk ? "" : "removed from the registry; what is loaded stays";
	if (!v->disk.has_manifest)
		return "winnow.json is missing: not complete yet";
	int64_t again;
	if (versions_next(e, 0, true, &again) == v->number || (e->wanted && policy_lists(&e->policy, v->number)))
		return "about to be loaded";
	if (e->held && e->policy.count == 0) {
		snprintf(text, REASON_TEXT,
			 "the model is held at version %d by %s: a load without a version gives it back to its policy", e->held,
			 e->held_by);
		return text;
	}
	return e->wanted ? "not wanted by the version policy" : "not loaded";
}

/* False on no memory: no list, rather than one without a version. */
static bool append(json_t *list, const char *name, const char *version, const char *state, const char *why)
{
	return json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s}", "name", name, "version", version, "state",
						     state, "reason", why)) == 0;
}

/* What is known to be there, and what should be and is not. */
static bool append_versions(json_t *list, const model_entry *e, bool ready_only)
{
	char version[MODEL_VERSION_SIZE], text[REASON_TEXT];
	bool whole = true;
	for (size_t i = 0; i < e->count; i++) {
		const version_entry *v = &e->versions[i];
		snprintf(version, sizeof version, "%d", v->number);
		if (v->loaded || !ready_only)
			whole &= append(list, e->name, version, state_of(v), reason_of(e, v, text));
	}
	for (int i = 0; i < e->policy.count && !ready_only; i++) {
		snprintf(version, sizeof version, "%d", e->policy.numbers[i]);
		if (versions_absent(e, i))
			whole &= append(list, e->name, version, "UNAVAILABLE",
					e->unseen[0] ? e->unseen : "wanted by the version policy, and not in the registry");
	}
	if (e->count == 0 && e->policy.count == 0 && e->unseen[0] && !ready_only)
		whole &= append(list, e->name, "", "UNAVAILABLE", e->unseen);
	return whole;
}

json_t *manager_index(manager *m, bool ready_only)
{
	json_t *list = json_array();
	bool whole = true;
	pthread_mutex_lock(&m->lock);
	for (int i = 0; i < m->count; i++)
		whole &= append_versions(list, m->models[i], ready_only);
	pthread_mutex_unlock(&m->lock);
	served_model *loaded[REGISTRY_MAX_LOADED];
	bool primary[REGISTRY_MAX_LOADED];
	size_t n = *m->opt.config->model_dir ? registry_loaded(m->opt.registry, loaded, primary) : 0;
	for (; n > 0; registry_release(&loaded[n])) {
		n--;
		whole &= append(list, loaded[n]->name, loaded[n]->version, "READY", "");
	}
	if (whole)
		return list;
	json_decref(list);
	return NULL;
}

/* ---- metrics ---- */

static void head(FILE *f, const char *name, const char *type, const char *help)
{
	fprintf(f, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void put_loaded(FILE *f, registry *r)
{
	served_model *loaded[REGISTRY_MAX_LOADED];
	bool primary[REGISTRY_MAX_LOADED];
	size_t n = registry_loaded(r, loaded, primary);
	head(f, "winnow_model_info", "gauge", "The versions that are loaded; role says which one answers.");
	for (size_t i = 0; i < n; i++)
		fprintf(f, "winnow_model_info{name=\"%s\",version=\"%s\",digest=\"%s\",role=\"%s\"} 1\n",
			loaded[i]->name, loaded[i]->version, loaded[i]->digest, primary[i] ? "primary" : "loaded");
	head(f, "winnow_model_bytes", "gauge", "Memory that a loaded version is reckoned to take.");
	for (size_t i = 0; i < n; i++) {
		fprintf(f, "winnow_model_bytes{name=\"%s\",version=\"%s\"} %llu\n", loaded[i]->name, loaded[i]->version,
			(unsigned long long)(loaded[i]->bytes + atomic_load(&loaded[i]->aside_bytes)));
		registry_release(&loaded[i]);
	}
}

/* As far as anybody wants to read it. */
static void put_readable(FILE *f, const manager *m)
{
	bool readable = !m->unread[0];
	for (int i = 0; i < m->count; i++)
		readable &= !m->models[i]->wanted || !m->models[i]->unseen[0];
	head(f, "winnow_registry_readable", "gauge",
	     "1 when the last look at the registry and at the directories of the models that are served succeeded.");
	fprintf(f, "winnow_registry_readable %d\n", readable);
}

static void put_held(FILE *f, const manager *m)
{
	head(f, "winnow_model_held", "gauge", "1: the version that a command or a trial holds the model at.");
	for (int i = 0; i < m->count; i++)
		if (m->models[i]->held)
			fprintf(f, "winnow_model_held{name=\"%s\",version=\"%d\"} 1\n", m->models[i]->name,
				m->models[i]->held);
}

/* A sample's name and labels; key may be NULL. */
static void put_trial(FILE *f, const char *metric, const model_entry *e, const char *key, const char *value)
{
	fprintf(f, "%s{name=\"%s\",version=\"%d\"", metric, e->name, e->trial_number);
	if (key)
		fprintf(f, ",%s=\"%s\"", key, value);
	fputs("} ", f);
}

/* Of the trials that run, and of the last one that ended. */
static void put_trials(FILE *f, const manager *m)
{
	const model_entry *tried[MAX_KNOWN];
	trial_summary s[MAX_KNOWN];
	int n = 0;
	for (int i = 0; i < m->count; i++)
		if (m->models[i]->trial) {
			tried[n] = m->models[i];
			s[n++] = trial_read(m->models[i]->trial);
		}
	head(f, "winnow_canary_percent", "gauge", "Share of the requests on trial; 0: the trial is over.");
	for (int i = 0; i < n; i++) {
		put_trial(f, "winnow_canary_percent", tried[i], "mode", trial_mode_name(s[i].mode));
		fprintf(f, "%d\n", tried[i]->candidate ? s[i].percent : 0);
	}
	head(f, "winnow_canary_requests", "gauge",
	     "Requests of the trial: in its share, compared with which result, not compared "
	     "for lack of time, not answered by the candidate.");
	for (int i = 0; i < n; i++) {
		const struct {
			const char *result;
			uint64_t count;
		} rows[] = {{"selected", s[i].selected},
			    {"agreed", s[i].agreed},
			    {"disagreed", s[i].compared - s[i].agreed},
			    {"not_compared", s[i].dropped},
			    {"failed", s[i].failed}};
		for (size_t k = 0; k < sizeof rows / sizeof rows[0]; k++) {
			put_trial(f, "winnow_canary_requests", tried[i], "result", rows[k].result);
			fprintf(f, "%llu\n", (unsigned long long)rows[k].count);
		}
	}
	head(f, "winnow_canary_agreement", "gauge",
	     "Share of the compared requests with the same label and suggestion.");
	for (int i = 0; i < n; i++)
		if (s[i].compared > 0) {
			put_trial(f, "winnow_canary_agreement", tried[i], NULL, NULL);
			fprintf(f, "%.6f\n", (double)s[i].agreed / (double)s[i].compared);
		}
	head(f, "winnow_canary_median_seconds", "gauge", "Median time of the last comparisons, of either version.");
	for (int i = 0; i < n; i++)
		if (s[i].compared > 0) {
			put_trial(f, "winnow_canary_median_seconds", tried[i], "of", "candidate");
			fprintf(f, "%.9f\n", (double)s[i].candidate_ns / 1e9);
			put_trial(f, "winnow_canary_median_seconds", tried[i], "of", "primary");
			fprintf(f, "%.9f\n", (double)s[i].primary_ns / 1e9);
		}
	head(f, "winnow_canary_ended_total", "counter", "Trials that ended, by how.");
	for (int i = 0; i < n; i++) {
		fprintf(f, "winnow_canary_ended_total{name=\"%s\",result=\"promoted\"} %llu\n", tried[i]->name,
			(unsigned long long)tried[i]->promoted);
		fprintf(f, "winnow_canary_ended_total{name=\"%s\",result=\"taken_back\"} %llu\n", tried[i]->name,
			(unsigned long long)tried[i]->rolled_back);
	}
}

void manager_metrics(manager *m, FILE *f)
{
	put_loaded(f, m->opt.registry);
	head(f, "winnow_models_memory_bytes", "gauge", "The same, of every version that is not freed yet.");
	fprintf(f, "winnow_models_memory_bytes %llu\n", (unsigned long long)atomic_load(&m->held_bytes));
	head(f, "winnow_models_memory_budget_bytes", "gauge", "model.memory_budget; 0 is no limit.");
	fprintf(f, "winnow_models_memory_budget_bytes %llu\n", (unsigned long long)m->opt.config->memory_budget);
	pthread_mutex_lock(&m->lock);
	if (!*m->opt.config->model_dir)
		put_readable(f, m);
	put_held(f, m);
	head(f, "winnow_model_swaps_total", "counter",
	     "done: times that another version took over; failed: loads that failed, every try of them.");
	for (int i = 0; i < m->count; i++) {
		const model_entry *e = m->models[i];
		uint64_t failed = 0;
		for (int s = 0; s < LOAD_STEP_COUNT; s++)
			failed += e->failures[s];
		if (!e->wanted && !e->swaps && !failed)
			continue;
		fprintf(f, "winnow_model_swaps_total{name=\"%s\",result=\"done\"} %llu\n", e->name,
			(unsigned long long)e->swaps);
		fprintf(f, "winnow_model_swaps_total{name=\"%s\",result=\"failed\"} %llu\n", e->name,
			(unsigned long long)failed);
	}
	head(f, "winnow_model_load_failures_total", "counter",
	     "Versions that could not be loaded, by the step that failed.");
	for (int i = 0; i < m->count; i++)
		for (int s = 0; s < LOAD_STEP_COUNT; s++)
			if (m->models[i]->wanted || m->models[i]->failures[s])
				fprintf(f, "winnow_model_load_failures_total{name=\"%s\",reason=\"%s\"} %llu\n",
					m->models[i]->name, load_step_name((load_step)s),
					(unsigned long long)m->models[i]->failures[s]);
	put_trials(f, m);
	pthread_mutex_unlock(&m->lock);
}
