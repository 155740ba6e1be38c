/* manager_report.c: the manager's state as JSON and as metrics. Any thread; the lock is held while the table is read.
 */
#include "server/manager_internal.h"

#include <stdlib.h>
#include <string.h>

static const char *state_of(const version_entry *v)
{
	return v->loaded ? "READY" : v->loading ? "LOADING" : "UNAVAILABLE";
}

static const char *reason_of(const model_entry *e, const version_entry *v)
{
	if (v->reason[0] || v->loading)
		return v->reason;
	if (v->loaded)
		return v->on_disk ? "" : "removed from the registry; what is loaded stays";
	if (!v->disk.has_manifest)
		return "winnow.json is missing: not complete yet";
	int64_t again;
	if (versions_next(e, 0, true, &again) == v->number)
		return "about to be loaded";
	return e->wanted ? "not wanted by the version policy" : "not loaded";
}

static void append(json_t *list, const char *name, const char *version, const char *state, const char *why)
{
	json_array_append_new(
	    list, json_pack("{s:s, s:s, s:s, s:s}", "name", name, "version", version, "state", state, "reason", why));
}

json_t *manager_index(manager *m, bool ready_only)
{
	json_t *list = json_array();
	pthread_mutex_lock(&m->lock);
	for (int i = 0; i < m->count; i++)
		for (size_t v = 0; v < m->models[i]->count; v++) {
			char version[MODEL_VERSION_SIZE];
			const version_entry *entry = &m->models[i]->versions[v];
			snprintf(version, sizeof version, "%d", entry->number);
			if (entry->loaded || !ready_only)
				append(list, m->models[i]->name, version, state_of(entry),
				       reason_of(m->models[i], entry));
		}
	pthread_mutex_unlock(&m->lock);
	if (!*m->opt.config->model_dir)
		return list;
	served_model *loaded[REGISTRY_MAX_LOADED];
	bool primary[REGISTRY_MAX_LOADED];
	for (size_t n = registry_loaded(m->opt.registry, loaded, primary); n > 0; registry_release(&loaded[n])) {
		n--;
		append(list, loaded[n]->name, loaded[n]->version, "READY", "");
	}
	return list;
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
			(unsigned long long)loaded[i]->bytes);
		registry_release(&loaded[i]);
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
	head(f, "winnow_model_swaps_total", "counter",
	     "Times that another version took over, or should have and did not.");
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
	pthread_mutex_unlock(&m->lock);
}
