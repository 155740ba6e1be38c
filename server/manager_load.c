/* manager_load.c: versions come into memory, answer, and go.
 *
 *   disk -> bring_in (swap.h) -> registry, counted -> the primary, or beside it
 *   nobody's any more: retire -> `retired` -> manager_free_retired -> the loader's thread
 *
 * What stands in the registry is this file's doing, and what is to stand there the table's: versions.h decides, here it
 * is done. Whoever drops the last reference to a model may be an inference thread, which must not wait: it puts the
 * model on a lock-free list, and the manager's thread has it freed. Until then its memory counts. */
#include "server/manager_internal.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "server/heap.h"
#include "server/log.h"
#include "server/request.h"
#include "server/swap.h"

#define LEAVING_PATIENCE 2000000000 /* ns that a load waits for memory which requests still hold */

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

void manager_free_retired(manager *m)
{
	served_model *list = atomic_exchange(&m->retired, NULL);
	if (!list)
		return;
	size_t freed = 0;
	for (served_model *model = list; model; model = model->next_retired) {
		atomic_fetch_sub(&m->held_bytes, model->bytes + atomic_load(&model->aside_bytes));
		atomic_fetch_sub(&m->alive, 1);
		freed += model->bytes;
		if (m->running)
			log_info("model %s version %s: freed", model->name, model->version);
	}
	run_aside(m, free_list, list);
	heap_note_freed(freed);
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
	for (manager_free_retired(m); atomic_load(&m->alive) > count_loaded(m) && monotonic_ns() < until;
	     manager_free_retired(m))
		nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
	uint64_t held = atomic_load(&m->held_bytes);
	return held < budget ? budget - held : 0;
}

wn_code manager_reckon_trial(manager *m, const model_entry *e, int candidate, wn_error *err)
{
	const int numbers[2] = {e->primary, candidate};
	served_model *models[2];
	uint64_t need[2];
	for (int i = 0; i < 2; i++) {
		char version[MODEL_VERSION_SIZE];
		snprintf(version, sizeof version, "%d", numbers[i]);
		models[i] = registry_find(m->opt.registry, e->name, version);
		const bool reckoned = !models[i] || atomic_load(&models[i]->aside_bytes);
		need[i] = reckoned ? 0 : classifier_session_bytes(models[i]->sessions[0]);
	}
	wn_code code = WN_OK;
	if (need[0] + need[1] > 0)
		code = model_check_budget(need[0] + need[1], memory_left(m), "a trial's comparisons take", err);
	for (int i = 0; i < 2; i++) {
		if (code == WN_OK && need[i]) {
			atomic_store(&models[i]->aside_bytes, need[i]);
			atomic_fetch_add(&m->held_bytes, need[i]);
		}
		registry_release(&models[i]);
	}
	return code;
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

void manager_hold(manager *m, model_entry *e, int number, const char *by)
{
	if (number == e->held && strcmp(by, e->held_by) == 0)
		return;
	pthread_mutex_lock(&m->lock);
	e->held = number;
	e->held_by = by;
	pthread_mutex_unlock(&m->lock);
	log_info("model %s: held at version %d by %s", e->name, number, by);
}

static bool run_on(void *cls, int instance, void (*fn)(void *arg), void *arg)
{
	manager *m = cls;
	return m->opt.run_on(m->opt.cls, instance, fn, arg);
}

/* What is left to know of a version that is in the registry. */
typedef struct brought_in {
	uint64_t bytes;       /* that it takes */
	uint64_t fingerprint; /* of its files */
} brought_in;

/* From disk into the registry: a version, or, when name is NULL, the directory of the configuration, which answers
 * there and then. */
static wn_code bring_in(manager *m, const char *name, int number, brought_in *got, load_step *step, wn_error *err)
{
	const swap_options o = {.config = m->opt.config,
				.placement = m->opt.placement,
				.run_aside = run_aside,
				.run_on = run_on,
				.cls = m,
				.serving = m->running,
				.retire = retire};
	served_model *model;
	char version[MODEL_VERSION_SIZE];
	snprintf(version, sizeof version, "%d", number);
	*step = LOAD_ROOM; /* nobody else puts anything: what has room now has it afterwards */
	wn_code code = name ? registry_check_room(m->opt.registry, name, version, err) : WN_OK;
	if (code == WN_OK)
		code = swap_bring_in(&model, &o, name, number, memory_left(m), step, err);
	if (code != WN_OK)
		return code;
	*got = (brought_in){.bytes = model->bytes, .fingerprint = model->fingerprint};
	atomic_fetch_add(&m->held_bytes, got->bytes);
	atomic_fetch_add(&m->alive, 1);
	code = registry_put(m->opt.registry, model, !name, err);
	if (code != WN_OK)
		registry_release(&model);
	return code;
}

wn_code manager_load_directory(manager *m, wn_error *err)
{
	brought_in got;
	load_step step;
	return bring_in(m, NULL, 0, &got, &step, err);
}

/* The start tells of its failures itself. */
static void log_failure(const manager *m, const model_entry *e, const version_entry *v, load_step step, const char *why)
{
	char then[64] = "", again[64] = "";
	int64_t ignored;
	const int64_t now = monotonic_ns();
	const int next = versions_next(e, now, true, &ignored);
	if (next)
		snprintf(then, sizeof then, "; version %d is tried next", next);
	else if (e->primary)
		snprintf(then, sizeof then, "; version %d stays", e->primary);
	if (v->retry_ns)
		snprintf(again, sizeof again, "; tried again in %.1f s", (double)(v->retry_ns - now) / 1e9);
	if (m->running)
		log_error("model %s version %d: %s: %s%s%s", e->name, v->number, load_step_name(step), why, then, again);
}

wn_code manager_load_version(manager *m, model_entry *e, int number, wn_error *err)
{
	load_step step = LOAD_OPEN;
	brought_in got = {0};
	wn_error local = {0};
	const int64_t start = monotonic_ns();
	version_entry *v = versions_find(e, number);
	pthread_mutex_lock(&m->lock);
	v->loading = true;
	pthread_mutex_unlock(&m->lock);
	wn_code code = bring_in(m, e->name, number, &got, &step, &local);
	if (code == WN_OK && m->running)
		log_info("model %s version %d: loaded in %.3f s, about %llu MiB", e->name, number,
			 (double)(monotonic_ns() - start) / 1e9, (unsigned long long)(got.bytes >> 20));
	pthread_mutex_lock(&m->lock);
	v->loading = false;
	v->loaded |= code == WN_OK;
	if (code == WN_OK)
		v->loaded_fingerprint = got.fingerprint;
	if (code == WN_OK || code == WN_CANCELLED) {
		version_give_another_chance(v);
		version_set_reason(v, code == WN_OK ? "" : manager_for_clients(m, local.message));
	} else {
		const bool may_pass = code == WN_IO || code == WN_NOMEM || step == LOAD_BUDGET || step == LOAD_ROOM;
		version_set_failed(v, manager_for_clients(m, local.message), monotonic_ns(),
				   may_pass ? m->opt.config->poll_interval_ns : 0);
		e->failures[step]++;
	}
	pthread_mutex_unlock(&m->lock);
	if (v->failed)
		log_failure(m, e, v, step, local.message);
	return code == WN_OK ? WN_OK : wn_fail(err, code, "%s", local.message);
}

int64_t manager_reconcile(manager *m, model_entry *e, bool at_once, wn_error *first)
{
	int64_t again = 0;
	for (int number; (number = versions_next(e, monotonic_ns(), at_once, &again)) != 0;) {
		const wn_code code = manager_load_version(m, e, number, first);
		if (code == WN_CANCELLED)
			return 0;
		if (code == WN_OK)
			manager_update_primary(m, e);
	}
	if (e->wanted && versions_primary(e) != e->primary)
		manager_update_primary(m, e);
	drop_unwanted(m, e);
	return again;
}
