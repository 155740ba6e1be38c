/* versions.c: see versions.h. */
#include "server/versions.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/pretokenize.h"

void model_entry_free(model_entry *e)
{
	trial_release(&e->trial);
	free(e->versions);
	free(e);
}

void version_set_reason(version_entry *v, const char *text)
{
	snprintf(v->reason, sizeof v->reason, "%s", text);
	utf8_repair(v->reason);
}

version_entry *versions_find(const model_entry *e, int number)
{
	for (size_t i = 0; i < e->count; i++)
		if (e->versions[i].number == number)
			return &e->versions[i];
	return NULL;
}

static version_entry *insert(model_entry *e, int number)
{
	if (e->count == e->room) {
		size_t room = e->room ? 2 * e->room : 8;
		version_entry *more = realloc(e->versions, room * sizeof *more);
		if (!more)
			return NULL;
		e->versions = more;
		e->room = room;
	}
	size_t at = e->count++;
	for (; at > 0 && e->versions[at - 1].number > number; at--)
		e->versions[at] = e->versions[at - 1];
	e->versions[at] = (version_entry){.number = number};
	return &e->versions[at];
}

void version_met(version_entry *v)
{
	v->on_disk = true;
	v->unmet = false;
}

version_entry *versions_seen(model_entry *e, int number, const disk_state *disk, int64_t now_ns)
{
	version_entry *v = versions_find(e, number);
	bool is_new = !v;
	if (is_new && !(v = insert(e, number)))
		return NULL;
	version_met(v);
	if (is_new || v->disk.fingerprint != disk->fingerprint) {
		v->disk = *disk;
		v->seen_ns = now_ns;
		v->reason[0] = 0;
		version_give_another_chance(v);
	}
	return v;
}

void version_set_failed(version_entry *v, const char *why, int64_t now_ns, int64_t retry_after_ns)
{
	int64_t delay = retry_after_ns < VERSION_MAX_RETRY_NS ? retry_after_ns : VERSION_MAX_RETRY_NS;
	for (int i = 0; i < v->retries && delay < VERSION_MAX_RETRY_NS; i++)
		delay = delay > VERSION_MAX_RETRY_NS / 2 ? VERSION_MAX_RETRY_NS : 2 * delay;
	v->failed = true;
	v->retry_ns = delay ? now_ns + delay : 0;
	v->retries += delay > 0;
	version_set_reason(v, why);
}

void version_give_another_chance(version_entry *v)
{
	v->failed = v->unloaded = false;
	v->retry_ns = v->retries = 0;
}

bool version_is_current(const version_entry *v)
{
	return v->loaded && (!v->on_disk || v->loaded_fingerprint == v->disk.fingerprint);
}

void versions_begin_scan(model_entry *e)
{
	for (size_t i = 0; i < e->count; i++)
		e->versions[i].unmet = true;
}

void versions_end_scan(model_entry *e)
{
	size_t kept = 0;
	for (size_t i = 0; i < e->count; i++) {
		e->versions[i].on_disk &= !e->versions[i].unmet;
		if (e->versions[i].on_disk || e->versions[i].loaded || e->versions[i].loading)
			e->versions[kept++] = e->versions[i];
	}
	e->count = kept;
}

/* From when on v can be tried; INT64_MAX: as things are it cannot. */
static int64_t ready_at(const version_entry *v, bool at_once)
{
	if (!v->on_disk || v->loaded || v->unloaded || !v->disk.has_manifest)
		return INT64_MAX;
	if (v->failed)
		return v->retry_ns ? v->retry_ns : INT64_MAX;
	return at_once ? 0 : v->seen_ns + VERSION_SETTLE_NS;
}

int versions_next(const model_entry *e, int64_t now_ns, bool at_once, int64_t *again_ns)
{
	*again_ns = 0;
	if (!e->wanted)
		return 0;
	for (size_t i = e->count; i-- > 0;) { /* the largest first */
		const version_entry *v = &e->versions[i];
		if (e->held || e->policy.count > 0) {
			if (v->number != e->held && !policy_lists(&e->policy, v->number))
				continue;
		} else if (v->number <= e->primary) {
			break; /* `latest` never goes back by itself */
		}
		const int64_t at = ready_at(v, at_once);
		if (now_ns >= at)
			return v->number;
		if (at != INT64_MAX && (*again_ns == 0 || at < *again_ns))
			*again_ns = at;
		if (at != INT64_MAX && !v->failed && e->policy.count == 0 && e->primary)
			return 0; /* no detour over an older version while the newest settles */
	}
	return 0;
}

int versions_primary(const model_entry *e)
{
	if (!e->wanted)
		return 0;
	int best = 0;
	for (size_t i = 0; i < e->count; i++) {
		const version_entry *v = &e->versions[i];
		if (!v->loaded || v->number == e->candidate)
			continue;
		if (v->number == e->held)
			return v->number;
		if (e->policy.count == 0 || policy_lists(&e->policy, v->number))
			best = v->number;
	}
	/* A version chosen by command stays until the policy's own is there. */
	return best ? best : e->primary;
}

bool versions_absent(const model_entry *e, int i)
{
	return e->wanted && i < e->policy.count && !versions_find(e, e->policy.numbers[i]);
}

bool versions_satisfy_policy(const model_entry *e)
{
	for (size_t i = 0; i < e->count; i++)
		if (e->versions[i].loaded && (e->policy.count == 0 || policy_lists(&e->policy, e->versions[i].number)))
			return true;
	return false;
}

bool versions_stay(const model_entry *e, int number)
{
	return e->wanted && (number == e->primary || number == e->candidate || policy_lists(&e->policy, number));
}
