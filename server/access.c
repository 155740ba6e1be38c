/* access.c: see access.h. */
#include "server/access.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct access_control {
	pthread_mutex_t lock; /* guards current */
	access_rules *current;
};

static wn_code load_keys(access_rules *r, const server_config *c, wn_error *err)
{
	const struct {
		role role;
		const char *what, *value, *file, *env;
	} sources[] = {
	    {ROLE_INFERENCE, "keys.inference", c->inference_key, c->inference_key_file, "WINNOW_INFERENCE_KEY"},
	    {ROLE_METRICS, "keys.metrics", c->metrics_key, c->metrics_key_file, "WINNOW_METRICS_KEY"},
	    {ROLE_ADMIN, "keys.admin", c->admin_key, c->admin_key_file, "WINNOW_ADMIN_KEY"},
	};
	for (size_t i = 0; i < sizeof sources / sizeof sources[0]; i++)
		if (key_set_load(&r->keys[sources[i].role], sources[i].what, sources[i].value, sources[i].file,
				 sources[i].env, err) != WN_OK)
			return err ? err->code : WN_INVALID;
	return WN_OK;
}

/* One key with two roles would make the roles one. */
static wn_code check_roles_apart(const access_rules *r, wn_error *err)
{
	for (int a = 0; a < ROLE_COUNT; a++)
		for (int b = 0; b < a; b++)
			for (int i = 0; i < r->keys[a].count; i++)
				for (int k = 0; k < r->keys[b].count; k++)
					if (memcmp(r->keys[a].digests[i], r->keys[b].digests[k], 32) == 0)
						return wn_fail(err, WN_INVALID,
							       "keys.%s and keys.%s have a key in common, expected different ones",
							       role_name(b), role_name(a));
	return WN_OK;
}

static wn_code check_addresses(const access_rules *r, const server_config *c, wn_error *err)
{
	struct sockaddr_storage a;
	socklen_t len;
	if (server_config_address(c, &a, &len, err) != WN_OK)
		return err ? err->code : WN_INVALID;
	if (r->keys[ROLE_INFERENCE].count == 0 && !address_is_loopback((struct sockaddr *)&a))
		return wn_fail(err, WN_INVALID,
			       "listen.address: %s can be reached from outside, expected an inference key "
			       "(keys.inference_file or WINNOW_INFERENCE_KEY) or a loopback address",
			       c->listen_address);
	if (!*c->admin_address)
		return WN_OK;
	if (server_config_admin_address(c, &a, &len, err) != WN_OK)
		return err ? err->code : WN_INVALID;
	if (r->keys[ROLE_ADMIN].count == 0 && !address_is_loopback((struct sockaddr *)&a))
		return wn_fail(err, WN_INVALID,
			       "admin.address: %s can be reached from outside, expected an admin key "
			       "(keys.admin_file or WINNOW_ADMIN_KEY) or a loopback address",
			       c->admin_address);
	return WN_OK;
}

wn_code access_rules_load(access_rules **out, const server_config *c, wn_error *err)
{
	access_rules *r = *out = calloc(1, sizeof *r);
	if (!r)
		return wn_fail(err, WN_NOMEM, "out of memory for the access rules");
	atomic_init(&r->references, 1);
	r->limits[ROLE_INFERENCE] = rate_limit_of(c->rate_inference, c->rate_burst);
	r->limits[ROLE_METRICS] = rate_limit_of(c->rate_metrics, c->rate_burst);
	r->limits[ROLE_ADMIN] = rate_limit_of(c->rate_admin, c->rate_burst);
	r->deadline_ns = c->deadline_ns;
	r->max_deadline_ns = c->max_deadline_ns;
	wn_code code = load_keys(r, c, err);
	if (code == WN_OK)
		code = check_roles_apart(r, err);
	if (code == WN_OK)
		code = check_addresses(r, c, err);
	if (code != WN_OK)
		access_release(out);
	return code;
}

wn_code access_open(access_control **out, access_rules **rules, wn_error *err)
{
	access_control *a = *out = calloc(1, sizeof *a);
	if (!a) {
		access_release(rules);
		return wn_fail(err, WN_NOMEM, "out of memory for the access rules");
	}
	pthread_mutex_init(&a->lock, NULL);
	a->current = *rules;
	*rules = NULL;
	return WN_OK;
}

void access_close(access_control **ap)
{
	access_control *a = *ap;
	if (!a)
		return;
	*ap = NULL;
	access_release(&a->current);
	pthread_mutex_destroy(&a->lock);
	free(a);
}

void access_replace(access_control *a, access_rules *rules)
{
	pthread_mutex_lock(&a->lock);
	access_rules *old = a->current;
	a->current = rules;
	pthread_mutex_unlock(&a->lock);
	access_release(&old);
}

access_rules *access_acquire(access_control *a)
{
	pthread_mutex_lock(&a->lock);
	access_rules *r = a->current;
	atomic_fetch_add(&r->references, 1);
	pthread_mutex_unlock(&a->lock);
	return r;
}

void access_release(access_rules **rp)
{
	access_rules *r = *rp;
	*rp = NULL;
	if (r && atomic_fetch_sub(&r->references, 1) == 1)
		free(r);
}

static reason take_token(access_rules *rules, const access_question *q, int key, request *r)
{
	int64_t wait = rate_take(&rules->buckets[q->wanted][key], &rules->limits[q->wanted], q->now_ns);
	if (wait == 0)
		return REASON_OK;
	int64_t seconds = (wait + 999999999) / 1000000000;
	r->retry_after_s = seconds > 3600 ? 3600 : (int)seconds;
	return request_fail(r, REASON_RATE_LIMITED, "this key may send %.4g requests a second (%s)",
			    1e9 / (double)rules->limits[q->wanted].interval_ns,
			    key == KEYS_MAX ? "everybody without a key, together" : r->key_name);
}

static reason check_without_keys(const access_question *q, request *r)
{
	static const char *const PATHS[] = {
	    [ROLE_INFERENCE] = "/v1", [ROLE_METRICS] = "/metrics", [ROLE_ADMIN] = "/v2/repository"};
	if (q->wanted != ROLE_INFERENCE && !q->client_is_loopback)
		return request_fail(r, REASON_FORBIDDEN, "without a key for %s %s answers loopback clients only",
				    role_name(q->wanted), PATHS[q->wanted]);
	if (q->wanted == ROLE_ADMIN && q->listener_is_public)
		return request_fail(r, REASON_FORBIDDEN,
				    "without a key for admin /v2/repository is not served on an address that can be reached from "
				    "outside");
	if (q->wanted == ROLE_ADMIN && q->from_browser)
		return request_fail(r, REASON_FORBIDDEN, "without a key for admin /v2/repository does not answer web pages");
	return REASON_OK;
}

reason access_check(access_rules *rules, const access_question *q, request *r)
{
	if (q->wanted == ROLE_ANYBODY)
		return REASON_OK;
	const key_set *keys = &rules->keys[q->wanted];
	if (keys->count == 0) {
		reason why = check_without_keys(q, r);
		return why == REASON_OK ? take_token(rules, q, KEYS_MAX, r) : why;
	}
	if (!q->key)
		return request_fail(r, REASON_UNAUTHORIZED, "send Authorization: Bearer KEY or X-Api-Key: KEY");
	int found = key_set_find(keys, q->key);
	if (found >= 0) {
		memcpy(r->key_name, keys->names[found], sizeof r->key_name);
		return take_token(rules, q, found, r);
	}
	for (int i = 0; i < ROLE_COUNT; i++) {
		found = key_set_find(&rules->keys[i], q->key);
		if (found >= 0) {
			memcpy(r->key_name, rules->keys[i].names[found], sizeof r->key_name);
			return request_fail(r, REASON_FORBIDDEN, "this key is for %s", role_name((role)i));
		}
	}
	return request_fail(r, REASON_UNAUTHORIZED, "the key is not valid");
}
