/* The request pool and its byte budget, identifiers, the routes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "server/request.h"
#include "server/routes.h"

static void budget_bounds_all_requests_together(void **state)
{
	request_pool *pool;
	wn_error err = {0};
	static char data[65536];
	assert_int_equal(request_pool_open(&pool, 4, 100000, &err), WN_OK);
	request *a = request_pool_get(pool), *b = request_pool_get(pool);
	assert_int_equal(bytes_append(&a->body, data, 60000, 80000, &err), WN_OK);
	assert_int_equal(bytes_append(&b->body, data, 60000, 80000, &err), WN_TOO_LARGE);
	assert_int_equal(b->body.len, 0);
	request_pool_put(pool, a);
	err = (wn_error){0};
	assert_int_equal(bytes_append(&b->body, data, 60000, 80000, &err), WN_OK);
	request_pool_put(pool, b);
	assert_in_range(request_pool_bytes(pool), 0, 50000);
	request_pool_close(&pool);
}

static void buffer_never_grows_beyond_its_limit(void **state)
{
	bytes b = {0};
	wn_error err = {0};
	for (int i = 0; i < 100; i++)
		assert_int_equal(bytes_append(&b, "0123456789", 10, 1000, &err), WN_OK);
	assert_int_equal(bytes_append(&b, "x", 1, 1000, &err), WN_TOO_LARGE);
	assert_int_equal(b.len, 1000);
	for (int i = 0; i < 100; i++)
		assert_memory_equal(b.data + 10 * i, "0123456789", 10);
	bytes_free(&b);
}

static void recycled_request_carries_nothing_over(void **state)
{
	request_pool *pool;
	wn_error err = {0};
	assert_int_equal(request_pool_open(&pool, 1, 1 << 20, &err), WN_OK);
	request *r = request_pool_get(pool);
	strcpy(r->data_id, "someone's");
	bytes_set_string(&r->text, "secret", 6, &err);
	bytes_append(&r->body, "secret", 6, 100, &err);
	r->image = r->body.data;
	r->image_len = 6;
	r->has_text = true;
	request_fail(r, REASON_INTERNAL, "x");
	request_pool_put(pool, r);
	request *again = request_pool_get(pool);
	assert_ptr_equal(again, r);
	assert_int_equal(again->outcome, REASON_OK);
	assert_string_equal(again->data_id, "");
	assert_int_equal(again->text.len, 0);
	assert_int_equal(again->body.len, 0);
	assert_null(again->image);
	assert_false(again->has_text);
	assert_string_equal(again->detail, "");
	request_pool_put(pool, again);
	request_pool_close(&pool);
}

static void first_failure_wins_and_details_are_utf8(void **state)
{
	request *r = calloc(1, sizeof *r);
	assert_int_equal(request_fail(r, REASON_BAD_JSON, "cut \"%.4s\" here", "\xe4\xbb\x8a\xe6\x97\xa5"),
			 REASON_BAD_JSON);
	assert_string_equal(r->detail, "cut \"\xe4\xbb\x8a?\" here");
	assert_int_equal(request_fail(r, REASON_INTERNAL, "later"), REASON_BAD_JSON);
	free(r);
}

static void request_ids_are_random_or_valid(void **state)
{
	char a[REQUEST_ID_SIZE], b[REQUEST_ID_SIZE];
	request_random_id(a);
	request_random_id(b);
	assert_int_equal(strlen(a), 32);
	assert_int_equal(strspn(a, "0123456789abcdef"), 32);
	assert_string_not_equal(a, b);
	assert_true(request_id_is_valid(a));
	assert_true(request_id_is_valid("Ad-7_x.2"));
	assert_false(request_id_is_valid(""));
	assert_false(request_id_is_valid("a b"));
	assert_false(request_id_is_valid("a\nb"));
	assert_false(request_id_is_valid("0123456789012345678901234567890123456789012345678901234567890123X"));
}

static void paths_lead_where_they_should(void **state)
{
	static const struct {
		const char *path;
		route_id id;
		const char *model, *version;
	} CASES[] = {
	    {"/v1/audit", ROUTE_AUDIT, "", ""},
	    {"/v1/audit/", ROUTE_NONE, "", ""},
	    {"/v1/auditx", ROUTE_NONE, "", ""},
	    {"/", ROUTE_NONE, "", ""},
	    {"", ROUTE_NONE, "", ""},
	    {"/v2", ROUTE_SERVER, "", ""},
	    {"/v2/health/live", ROUTE_LIVE, "", ""},
	    {"/v2/health/ready", ROUTE_READY, "", ""},
	    {"/metrics", ROUTE_METRICS, "", ""},
	    {"/v2/models/ad-audit", ROUTE_MODEL, "ad-audit", ""},
	    {"/v2/models/ad-audit/ready", ROUTE_MODEL_READY, "ad-audit", ""},
	    {"/v2/models/ad-audit/versions/3", ROUTE_MODEL, "ad-audit", "3"},
	    {"/v2/models/ad-audit/versions/3/ready", ROUTE_MODEL_READY, "ad-audit", "3"},
	    {"/v2/models/", ROUTE_NONE, NULL, NULL},
	    {"/v2/models/..", ROUTE_NONE, NULL, NULL},
	    {"/v2/models/a b", ROUTE_NONE, NULL, NULL},
	    {"/v2/models/x/versions/", ROUTE_NONE, NULL, NULL},
	    {"/v2/models/x/other", ROUTE_NONE, NULL, NULL},
	    {"/v2/models/x/versions/123456789012345678901234567890", ROUTE_NONE, NULL, NULL},
	};
	for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
		route r = route_of(CASES[i].path);
		if (r.id != CASES[i].id)
			fail_msg("%s: %d", CASES[i].path, r.id);
		if (CASES[i].model && r.id != ROUTE_NONE) {
			assert_string_equal(r.model, CASES[i].model);
			assert_string_equal(r.version, CASES[i].version);
		}
	}
	assert_true(route_allows(ROUTE_AUDIT, "POST"));
	assert_false(route_allows(ROUTE_AUDIT, "GET"));
	assert_true(route_allows(ROUTE_METRICS, "HEAD"));
	assert_false(route_allows(ROUTE_METRICS, "POST"));
}

static void requests_that_nobody_takes_are_given_back(void **state)
{
	request_pool *pool;
	request *r[4];
	wn_error err = {0};
	assert_int_equal(request_pool_open(&pool, 4, 1 << 20, &err), WN_OK);
	for (int i = 0; i < 4; i++) {
		r[i] = request_pool_get(pool);
		assert_int_equal(bytes_reserve(&r[i]->body, 1000, &err), WN_OK);
	}
	for (int i = 0; i < 4; i++)
		request_pool_put(pool, r[i]);
	const size_t burst = request_pool_bytes(pool);
	assert_int_equal(request_pool_shrink(pool), 0); /* all four were needed since it was opened */
	for (int k = 0; k < 10; k++) { /* now one at a time, and once two */
		r[0] = request_pool_get(pool);
		r[1] = k == 5 ? request_pool_get(pool) : NULL;
		request_pool_put(pool, r[0]);
		if (r[1])
			request_pool_put(pool, r[1]);
	}
	assert_int_equal(request_pool_shrink(pool), 2 * sizeof(request) + burst / 2);
	assert_int_equal(request_pool_bytes(pool), burst / 2);
	assert_int_equal(request_pool_shrink(pool), 2 * sizeof(request) + burst / 2); /* nobody came */
	assert_int_equal(request_pool_bytes(pool), 0);
	assert_int_equal(request_pool_shrink(pool), 0);
	assert_non_null(r[0] = request_pool_get(pool));
	request_pool_put(pool, r[0]);
	request_pool_close(&pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(budget_bounds_all_requests_together),
	    cmocka_unit_test(buffer_never_grows_beyond_its_limit),
	    cmocka_unit_test(recycled_request_carries_nothing_over),
	    cmocka_unit_test(requests_that_nobody_takes_are_given_back),
	    cmocka_unit_test(first_failure_wins_and_details_are_utf8),
	    cmocka_unit_test(request_ids_are_random_or_valid),
	    cmocka_unit_test(paths_lead_where_they_should),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
