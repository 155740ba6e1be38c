/* registry.c: see registry.h. */
#include "server/registry.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct slot {
	char name[MODEL_NAME_SIZE];
	served_model *versions[REGISTRY_MAX_VERSIONS]; /* one reference each; any order, no gaps */
	int count;
	served_model *primary;   /* one of them, or NULL */
	served_model *candidate; /* another of them, or NULL */
	trial *trial;            /* the candidate's; one reference */
} slot;

struct registry {
	pthread_mutex_t lock;
	slot slots[REGISTRY_MAX_MODELS];
	int count;
	char default_name[MODEL_NAME_SIZE];
};

wn_code registry_open(registry **out, const char *default_name, wn_error *err)
{
	registry *r = *out = calloc(1, sizeof *r);
	if (!r)
		return wn_fail(err, WN_NOMEM, "out of memory for the model registry");
	pthread_mutex_init(&r->lock, NULL);
	snprintf(r->default_name, sizeof r->default_name, "%s", default_name ? default_name : "");
	return WN_OK;
}

void registry_close(registry **rp)
{
	registry *r = *rp;
	if (!r)
		return;
	*rp = NULL;
	for (int i = 0; i < r->count; i++) {
		for (int v = 0; v < r->slots[i].count; v++)
			registry_release(&r->slots[i].versions[v]);
		trial_release(&r->slots[i].trial);
	}
	pthread_mutex_destroy(&r->lock);
	free(r);
}

/* ---- under the lock ---- */

static slot *find_slot(registry *r, const char *name)
{
	if (!*name)
		name = r->default_name;
	for (int i = 0; i < r->count; i++)
		if (strcmp(r->slots[i].name, name) == 0)
			return &r->slots[i];
	return NULL;
}

static int find_version(const slot *s, const char *version)
{
	for (int i = 0; s && i < s->count; i++)
		if (strcmp(s->versions[i]->version, version) == 0)
			return i;
	return -1;
}

/* Takes version i out; its reference passes to the caller. */
static served_model *take_out(slot *s, int i)
{
	served_model *m = s->versions[i];
	s->versions[i] = s->versions[--s->count];
	if (s->primary == m)
		s->primary = NULL;
	if (s->candidate == m)
		s->candidate = NULL; /* which ends the trial */
	return m;
}

/* ---- */

served_model *registry_find(registry *r, const char *name, const char *version)
{
	pthread_mutex_lock(&r->lock);
	slot *s = find_slot(r, name);
	int i = *version ? find_version(s, version) : -1;
	served_model *m = i >= 0 ? s->versions[i] : s && !*version ? s->primary : NULL;
	if (m)
		model_retain(m);
	pthread_mutex_unlock(&r->lock);
	return m;
}

registry_choice registry_choose(registry *r, const char *name, const char *version)
{
	registry_choice c = {0};
	pthread_mutex_lock(&r->lock);
	slot *s = find_slot(r, name);
	int i = *version ? find_version(s, version) : -1;
	c.model = i >= 0 ? s->versions[i] : s && !*version ? s->primary : NULL;
	if (c.model && !*version && s->candidate && s->candidate != s->primary && trial_selects(s->trial)) {
		const bool canary = trial_get_mode(s->trial) == TRIAL_CANARY;
		c.model = canary ? s->candidate : s->primary;
		c.other = canary ? s->primary : s->candidate;
		c.trial = s->trial;
		model_retain(c.other);
		trial_retain(c.trial);
	}
	if (c.model)
		model_retain(c.model);
	pthread_mutex_unlock(&r->lock);
	return c;
}

void registry_set_trial(registry *r, const char *name, const char *candidate, trial *t)
{
	pthread_mutex_lock(&r->lock);
	slot *s = find_slot(r, name);
	trial *old = s ? s->trial : t;
	if (s) {
		int i = t ? find_version(s, candidate) : -1;
		s->trial = t;
		s->candidate = i >= 0 ? s->versions[i] : NULL;
	}
	pthread_mutex_unlock(&r->lock);
	trial_release(&old);
}

served_model *registry_acquire(registry *r) { return registry_find(r, "", ""); }

bool registry_knows(registry *r, const char *name)
{
	pthread_mutex_lock(&r->lock);
	bool known = find_slot(r, name) != NULL;
	pthread_mutex_unlock(&r->lock);
	return known;
}

/* Under the lock. For a new name: a slot that never had one, or else one that nothing is loaded in; it is known no longer then. */
static slot *free_slot(registry *r)
{
	if (r->count < REGISTRY_MAX_MODELS)
		return &r->slots[r->count];
	for (int i = 0; i < r->count; i++)
		if (r->slots[i].count == 0 && strcmp(r->slots[i].name, r->default_name) != 0)
			return &r->slots[i];
	return NULL;
}

/* Under the lock. */
static wn_code check_room(registry *r, const slot *s, const char *version, wn_error *err)
{
	if (s ? s->count < REGISTRY_MAX_VERSIONS || find_version(s, version) >= 0 : free_slot(r) != NULL)
		return WN_OK;
	return wn_fail(err, WN_TOO_LARGE, "at most %d models with %d versions each can be loaded", REGISTRY_MAX_MODELS,
		       REGISTRY_MAX_VERSIONS);
}

wn_code registry_check_room(registry *r, const char *name, const char *version, wn_error *err)
{
	pthread_mutex_lock(&r->lock);
	wn_code code = check_room(r, find_slot(r, name), version, err);
	pthread_mutex_unlock(&r->lock);
	return code;
}

wn_code registry_put(registry *r, served_model *m, bool primary, wn_error *err)
{
	served_model *replaced = NULL;
	trial *old = NULL;
	pthread_mutex_lock(&r->lock);
	slot *s = find_slot(r, m->name);
	wn_code code = check_room(r, s, m->version, err);
	if (code != WN_OK)
		goto out;
	if (!s) {
		s = free_slot(r);
		r->count += s == &r->slots[r->count];
		old = s->trial; /* of the name before */
		s->trial = NULL;
		memcpy(s->name, m->name, sizeof s->name);
		if (!r->default_name[0])
			memcpy(r->default_name, m->name, sizeof r->default_name);
	}
	int same = find_version(s, m->version);
	if (same >= 0) {
		primary |= s->primary == s->versions[same];
		replaced = take_out(s, same);
	}
	s->versions[s->count++] = m;
	s->primary = primary ? m : s->primary;
out:
	pthread_mutex_unlock(&r->lock);
	registry_release(&replaced);
	trial_release(&old);
	return code;
}

bool registry_promote(registry *r, const char *name, const char *version)
{
	pthread_mutex_lock(&r->lock);
	slot *s = find_slot(r, name);
	int i = find_version(s, version);
	if (i >= 0)
		s->primary = s->versions[i];
	pthread_mutex_unlock(&r->lock);
	return i >= 0;
}

void registry_drop(registry *r, const char *name, const char *version)
{
	served_model *dropped[REGISTRY_MAX_VERSIONS];
	int count = 0;
	pthread_mutex_lock(&r->lock);
	slot *s = find_slot(r, name);
	for (int i = s ? s->count - 1 : -1; i >= 0; i--)
		if (!*version || strcmp(s->versions[i]->version, version) == 0)
			dropped[count++] = take_out(s, i);
	pthread_mutex_unlock(&r->lock);
	while (count > 0)
		registry_release(&dropped[--count]);
}

size_t registry_loaded(registry *r, served_model *out[REGISTRY_MAX_LOADED], bool primary[REGISTRY_MAX_LOADED])
{
	size_t n = 0;
	pthread_mutex_lock(&r->lock);
	for (int i = 0; i < r->count; i++)
		for (int v = 0; v < r->slots[i].count; v++, n++) {
			out[n] = r->slots[i].versions[v];
			primary[n] = out[n] == r->slots[i].primary;
			model_retain(out[n]);
		}
	pthread_mutex_unlock(&r->lock);
	return n;
}
