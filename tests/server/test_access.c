/* Rate limits, the access rules and the result cache: parts that need no server. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "server/access.h"
#include "server/result_cache.h"

#define SECOND ((int64_t)1000000000)

static void bucket_gives_a_burst_then_the_rate(void **state)
{
	rate_limit l = rate_limit_of(2, 3);
	rate_bucket b = 0;
	int64_t now = 100 * SECOND;
	for (int i = 0; i < 3; i++)
		assert_int_equal(rate_take(&b, &l, now), 0);
	assert_int_equal(rate_take(&b, &l, now), SECOND / 2);
	assert_int_equal(rate_take(&b, &l, now + SECOND / 4), SECOND / 4); /* a refusal costs nothing */
	assert_int_equal(rate_take(&b, &l, now + SECOND / 2), 0);
	assert_true(rate_take(&b, &l, now + SECOND / 2) > 0);
	now += 3600 * SECOND; /* full again, and no fuller */
	for (int i = 0; i < 3; i++)
		assert_int_equal(rate_take(&b, &l, now), 0);
	assert_true(rate_take(&b, &l, now) > 0);
	int taken = 0;
	for (int i = 0; i < 10000; i++) /* ten seconds, a thousand requests each */
		taken += rate_take(&b, &l, now += SECOND / 1000) == 0;
	assert_in_range(taken, 19, 20);
}

static void no_rate_is_no_limit(void **state)
{
	rate_limit l = rate_limit_of(0, 1);
	rate_bucket b = 0;
	for (int i = 0; i < 1000; i++)
		assert_int_equal(rate_take(&b, &l, SECOND), 0);
}

static wn_code check_config(const char *yaml, server_config *c, wn_error *err)
{
	*err = (wn_error){0};
	wn_code code = config_parse(&SERVER_CONFIG_SCHEMA, c, "t.yaml", yaml, strlen(yaml), err);
	return code == WN_OK ? server_config_check(c, err) : code;
}

/* Under the undefined-behaviour sanitizer these are about overflow too. */
static void extreme_rates_are_kept_or_refused(void **state)
{
	static const struct {
		const char *yaml, *message; /* NULL: accepted */
	} CASES[] = {
	    {"rates: {inference: 4e-8, burst: 1}", NULL},
	    {"rates: {admin: 0.032, burst: 1000000}", NULL},
	    {"rates: {metrics: 1e6, burst: 1000000}", NULL},
	    {"rates: {inference: 0, burst: 1000000}", NULL},
	    {"rates: {inference: 3e-8, burst: 1}", "rates.inference: found 3e-08, with rates.burst 1; expected 0 or at least 3.17098e-08, "
						   "so that the burst comes back within a year"},
	    {"rates: {admin: 0.03, burst: 1000000}", "rates.admin: found 0.03, with rates.burst 1000000"},
	    {"rates: {metrics: 1e-300, burst: 10}", "rates.metrics: found 1e-300"},
	    {"rates: {inference: 5e-324, burst: 10}", "rates.inference: found "},
	};
	for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
		server_config c;
		wn_error err;
		wn_code code = check_config(CASES[i].yaml, &c, &err);
		if (CASES[i].message) {
			assert_int_equal(code, WN_INVALID);
			if (strncmp(err.message, CASES[i].message, strlen(CASES[i].message)) != 0)
				fail_msg("%s: %s", CASES[i].yaml, err.message);
		} else {
			assert_int_equal(code, WN_OK);
			const double rates[] = {c.rate_inference, c.rate_metrics, c.rate_admin};
			for (int k = 0; k < 3; k++) {
				rate_limit l = rate_limit_of(rates[k], c.rate_burst);
				rate_bucket b = 0;
				int64_t now = 10 * 365 * 86400 * SECOND; /* up for ten years */
				for (int taken = 0; taken < c.rate_burst; taken++)
					if (rate_take(&b, &l, now) != 0)
						fail_msg("%s: %d tokens", CASES[i].yaml, taken);
				assert_true(rates[k] == 0 || rate_take(&b, &l, now) > 0);
			}
		}
		config_free(&SERVER_CONFIG_SCHEMA, &c);
	}
}

/* ---- access ---- */

static access_control *open_access(const char *yaml)
{
	server_config c;
	wn_error err = {0};
	access_control *a = NULL;
	access_rules *rules;
	if (config_parse(&SERVER_CONFIG_SCHEMA, &c, "t.yaml", yaml, strlen(yaml), &err) != WN_OK ||
	    access_rules_load(&rules, &c, &err) != WN_OK || access_open(&a, &rules, &err) != WN_OK)
		fail_msg("%s", err.message);
	config_free(&SERVER_CONFIG_SCHEMA, &c);
	return a;
}

static reason ask(access_control *a, access_question q, request *r)
{
	access_rules *rules = access_acquire(a);
	memset(r, 0, sizeof *r);
	q.now_ns = SECOND;
	reason why = access_check(rules, &q, r);
	access_release(&rules);
	assert_null(rules);
	return why;
}

static void roles_are_kept_apart(void **state)
{
	access_control *a = open_access("keys: {inference: inference-key-01, admin: administrator-01}");
	request *r = malloc(sizeof *r);
	assert_int_equal(ask(a, (access_question){.wanted = ROLE_INFERENCE}, r), REASON_UNAUTHORIZED);
	assert_int_equal(ask(a, (access_question){.wanted = ROLE_INFERENCE, .key = "inference-key-0"}, r), REASON_UNAUTHORIZED);
	assert_int_equal(ask(a, (access_question){.wanted = ROLE_INFERENCE, .key = "inference-key-01"}, r), REASON_OK);
	assert_string_equal(r->key_name, "configuration");
	assert_int_equal(ask(a, (access_question){.wanted = ROLE_INFERENCE, .key = "administrator-01"}, r), REASON_FORBIDDEN);
	assert_string_equal(r->detail, "this key is for admin");
	assert_int_equal(ask(a, (access_question){.wanted = ROLE_ADMIN, .key = "administrator-01"}, r), REASON_OK);
	assert_int_equal(ask(a, (access_question){.wanted = ROLE_METRICS}, r), REASON_FORBIDDEN); /* from outside */
	assert_int_equal(ask(a, (access_question){.wanted = ROLE_METRICS, .client_is_loopback = true}, r), REASON_OK);
	assert_int_equal(ask(a, (access_question){.wanted = ROLE_ANYBODY, .key = "nonsense"}, r), REASON_OK);
	free(r);
	access_close(&a);
	assert_null(a);
}

static void without_an_admin_key_only_loopback_administrates(void **state)
{
	access_control *a = open_access("{}");
	request *r = malloc(sizeof *r);
	access_question q = {.wanted = ROLE_ADMIN, .client_is_loopback = true};
	assert_int_equal(ask(a, q, r), REASON_OK);
	q.from_browser = true;
	assert_int_equal(ask(a, q, r), REASON_FORBIDDEN);
	q = (access_question){.wanted = ROLE_ADMIN, .client_is_loopback = true, .listener_is_public = true};
	assert_int_equal(ask(a, q, r), REASON_FORBIDDEN);
	assert_int_equal(ask(a, (access_question){.wanted = ROLE_ADMIN}, r), REASON_FORBIDDEN);
	free(r);
	access_close(&a);
}

static void each_key_has_its_own_bucket(void **state)
{
	access_control *a = open_access("rates: {inference: 0.1, burst: 2}\nkeys: {inference: inference-key-01}");
	request *r = malloc(sizeof *r);
	access_question q = {.wanted = ROLE_INFERENCE, .key = "inference-key-01"};
	assert_int_equal(ask(a, q, r), REASON_OK);
	assert_int_equal(ask(a, q, r), REASON_OK);
	assert_int_equal(ask(a, q, r), REASON_RATE_LIMITED);
	assert_int_equal(r->retry_after_s, 10);
	q.key = "another-key-0001";
	assert_int_equal(ask(a, q, r), REASON_UNAUTHORIZED); /* a wrong key spends nobody's tokens */
	free(r);
	access_close(&a);
}

static void failed_rules_replace_nothing(void **state)
{
	access_control *a = open_access("keys: {inference: inference-key-01}");
	request *r = malloc(sizeof *r);
	server_config c;
	wn_error err = {0};
	access_rules *rules;
	const char *bad = "keys: {inference: tiny}", *good = "keys: {inference: inference-key-02}";
	assert_int_equal(config_parse(&SERVER_CONFIG_SCHEMA, &c, "t", bad, strlen(bad), &err), WN_OK);
	assert_int_equal(access_rules_load(&rules, &c, &err), WN_INVALID);
	assert_null(rules);
	config_free(&SERVER_CONFIG_SCHEMA, &c);
	assert_int_equal(config_parse(&SERVER_CONFIG_SCHEMA, &c, "t", good, strlen(good), &err), WN_OK);
	err = (wn_error){0};
	assert_int_equal(access_rules_load(&rules, &c, &err), WN_OK);
	access_rules *held = access_acquire(a); /* a request that is being judged keeps its rules */
	access_replace(a, rules);
	assert_int_equal(key_set_find(&held->keys[ROLE_INFERENCE], "inference-key-01"), 0);
	access_release(&held);
	assert_int_equal(ask(a, (access_question){.wanted = ROLE_INFERENCE, .key = "inference-key-01"}, r), REASON_UNAUTHORIZED);
	assert_int_equal(ask(a, (access_question){.wanted = ROLE_INFERENCE, .key = "inference-key-02"}, r), REASON_OK);
	config_free(&SERVER_CONFIG_SCHEMA, &c);
	free(r);
	access_close(&a);
}

/* ---- the result cache ---- */

static void make_key(uint8_t key[RESULT_KEY_SIZE], int i)
{
	memset(key, 0, RESULT_KEY_SIZE);
	memcpy(key, &i, sizeof i);
}

static bool holds(result_cache *c, int i, int64_t now)
{
	uint8_t key[RESULT_KEY_SIZE];
	float probs[3];
	make_key(key, i);
	bool hit = result_cache_get(c, key, probs, 3, now);
	if (hit)
		assert_true(probs[0] == (float)i && probs[2] == (float)i + 2);
	return hit;
}

static void put(result_cache *c, int i, int64_t now)
{
	uint8_t key[RESULT_KEY_SIZE];
	const float probs[3] = {(float)i, (float)i + 1, (float)i + 2};
	make_key(key, i);
	result_cache_put(c, key, probs, 3, now);
}

static void cache_keeps_what_was_used_last_within_its_bytes(void **state)
{
	result_cache *c;
	wn_error err = {0};
	assert_int_equal(result_cache_open(&c, 2000, 10 * SECOND, &err), WN_OK);
	put(c, 0, 0);
	size_t each = result_cache_read(c).bytes;
	int room = (int)(2000 / each);
	assert_in_range(room, 3, 40);
	for (int i = 1; i < room; i++)
		put(c, i, 0);
	assert_int_equal(result_cache_read(c).entries, room);
	assert_true(holds(c, 0, 0)); /* now the most recently used */
	put(c, 100, 0);
	assert_true(holds(c, 0, 0));
	assert_false(holds(c, 1, 0));
	assert_true(holds(c, 100, 0));
	for (int i = 0; i < 1000; i++) {
		put(c, i, 0);
		assert_true(result_cache_read(c).bytes <= 2000);
	}
	result_cache_stats s = result_cache_read(c);
	assert_int_equal(s.entries, room);
	assert_int_equal(s.hits, 3);
	assert_int_equal(s.misses, 1);
	put(c, 999, 0); /* the same again is no second entry */
	assert_int_equal(result_cache_read(c).entries, room);
	result_cache_close(&c);
}

static void cache_forgets_with_age(void **state)
{
	result_cache *c;
	wn_error err = {0};
	assert_int_equal(result_cache_open(&c, 100000, 10 * SECOND, &err), WN_OK);
	put(c, 1, SECOND);
	assert_true(holds(c, 1, 11 * SECOND));
	assert_false(holds(c, 1, 11 * SECOND + 1));
	assert_int_equal(result_cache_read(c).bytes, 0);
	put(c, 1, 20 * SECOND);
	uint8_t key[RESULT_KEY_SIZE];
	float probs[4];
	make_key(key, 1);
	assert_false(result_cache_get(c, key, probs, 4, 20 * SECOND)); /* another number of labels */
	result_cache_close(&c);
	assert_int_equal(result_cache_open(&c, 0, SECOND, &err), WN_OK);
	assert_null(c);
	assert_false(result_cache_get(c, key, probs, 3, 0));
	result_cache_put(c, key, probs, 3, 0);
	assert_int_equal(result_cache_read(c).misses, 0);
	assert_int_equal(result_cache_open(&c, 64, SECOND, &err), WN_OK); /* not even one entry */
	put(c, 1, 0);
	assert_int_equal(result_cache_read(c).entries, 0);
	result_cache_close(&c);
}

static void cache_key_tells_everything_apart(void **state)
{
	/* image, text, assist, model name, version, digest, fingerprint: moving a byte from one to the next is another key; the same
	 * weights beside other labels are another model */
	static const char *const VARIANTS[][7] = {
	    {"ab", "c", "", "m", "1", "d", "7"}, {"a", "bc", "", "m", "1", "d", "7"}, {"ab", "", "c", "m", "1", "d", "7"},
	    {"ab", "c", "", "m1", "", "d", "7"}, {"ab", "c", "", "m", "2", "d", "7"}, {"ab", "c", "", "m", "1", "e", "7"},
	    {"abc", "", "", "m", "1", "d", "7"}, {"ab", "c", "", "m", "1", "d", "8"},
	};
	const size_t n = sizeof VARIANTS / sizeof VARIANTS[0];
	uint8_t keys[sizeof VARIANTS / sizeof VARIANTS[0]][RESULT_KEY_SIZE];
	request *r = calloc(1, sizeof *r);
	served_model *m = calloc(1, sizeof *m);
	r->model = m;
	for (size_t i = 0; i < n; i++) {
		r->image = (const unsigned char *)VARIANTS[i][0];
		r->image_len = strlen(VARIANTS[i][0]);
		r->text = (bytes){.data = (unsigned char *)VARIANTS[i][1], .len = strlen(VARIANTS[i][1])};
		r->assist = (bytes){.data = (unsigned char *)VARIANTS[i][2], .len = strlen(VARIANTS[i][2])};
		snprintf(m->name, sizeof m->name, "%s", VARIANTS[i][3]);
		snprintf(m->version, sizeof m->version, "%s", VARIANTS[i][4]);
		snprintf(m->digest, sizeof m->digest, "%s", VARIANTS[i][5]);
		m->fingerprint = strtoull(VARIANTS[i][6], NULL, 10);
		result_cache_key(keys[i], r);
		for (size_t k = 0; k < i; k++)
			assert_memory_not_equal(keys[i], keys[k], RESULT_KEY_SIZE);
	}
	free(m);
	free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(bucket_gives_a_burst_then_the_rate),
	    cmocka_unit_test(no_rate_is_no_limit),
	    cmocka_unit_test(extreme_rates_are_kept_or_refused),
	    cmocka_unit_test(roles_are_kept_apart),
	    cmocka_unit_test(without_an_admin_key_only_loopback_administrates),
	    cmocka_unit_test(each_key_has_its_own_bucket),
	    cmocka_unit_test(failed_rules_replace_nothing),
	    cmocka_unit_test(cache_keeps_what_was_used_last_within_its_bytes),
	    cmocka_unit_test(cache_forgets_with_age),
	    cmocka_unit_test(cache_key_tells_everything_apart),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
