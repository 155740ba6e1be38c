/* Rate limits and the access rules: parts that need no server. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "server/access.h"

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

/* ---- access ---- */

static access_control *open_access(const char *yaml)
{
	server_config c;
	wn_error err = {0};
	access_control *a = NULL;
	if (config_parse(&SERVER_CONFIG_SCHEMA, &c, "t.yaml", yaml, strlen(yaml), &err) != WN_OK ||
	    access_open(&a, &c, &err) != WN_OK)
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

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(bucket_gives_a_burst_then_the_rate),
	    cmocka_unit_test(no_rate_is_no_limit),
	    cmocka_unit_test(roles_are_kept_apart),
	    cmocka_unit_test(without_an_admin_key_only_loopback_administrates),
	    cmocka_unit_test(each_key_has_its_own_bucket),
	    cmocka_unit_test(failed_rules_replace_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
