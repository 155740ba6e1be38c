/* Which version is loaded next, which one answers and which one goes, for every policy. No disk, no models. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "server/versions.h"

#define SECOND ((int64_t)1000000000)

static model_entry *entry(const char *policy)
{
	wn_error err = {0};
	model_entry *e = calloc(1, sizeof *e);
	e->wanted = true;
	if (policy_parse(&e->policy, policy, "p", &err) != WN_OK)
		fail_msg("%s", err.message);
	return e;
}

static version_entry *see(model_entry *e, int number, uint64_t fingerprint, int64_t now_ns)
{
	disk_state d = {.fingerprint = fingerprint, .bytes = 1, .has_manifest = fingerprint != 0};
	return versions_seen(e, number, &d, now_ns);
}

static int next(const model_entry *e, int64_t now_ns)
{
	int64_t again;
	return versions_next(e, now_ns, false, &again);
}

static void load(model_entry *e, int number)
{
	versions_find(e, number)->loaded = true;
	e->primary = versions_primary(e);
}

static void latest_follows_the_largest_and_never_goes_back(void **state)
{
	model_entry *e = entry("latest");
	assert_int_equal(next(e, SECOND), 0);
	see(e, 10, 1, 0);
	see(e, 9, 1, 0);
	assert_int_equal(next(e, SECOND), 10);
	load(e, 10);
	assert_int_equal(e->primary, 10);
	assert_int_equal(next(e, SECOND), 0); /* 9 is not wanted */
	see(e, 11, 1, SECOND);
	assert_int_equal(next(e, 2 * SECOND), 11);
	versions_find(e, 11)->failed = true;
	assert_int_equal(next(e, 2 * SECOND), 0);
	see(e, 11, 1, 2 * SECOND); /* the same files: not again */
	assert_int_equal(next(e, 3 * SECOND), 0);
	see(e, 11, 2, 3 * SECOND); /* others: again, when they are at rest */
	assert_int_equal(next(e, 4 * SECOND), 11);
	load(e, 11);
	assert_int_equal(e->primary, 11);
	assert_true(versions_stay(e, 11));
	assert_false(versions_stay(e, 10));
	model_entry_free(e);
}

static void what_still_changes_is_left_alone(void **state)
{
	int64_t again;
	model_entry *e = entry("latest");
	see(e, 1, 1, 0);
	assert_int_equal(versions_next(e, 1000, false, &again), 0);
	assert_int_equal(again, VERSION_SETTLE_NS);
	assert_int_equal(versions_next(e, 1000, true, &again), 1); /* at the start nobody waits */
	load(e, 1);
	see(e, 2, 1, SECOND);
	see(e, 3, 1, 3 * SECOND);
	/* 3 is about to come: no detour over 2. */
	assert_int_equal(versions_next(e, 3 * SECOND + 1, false, &again), 0);
	assert_int_equal(again, 3 * SECOND + VERSION_SETTLE_NS);
	see(e, 3, 0, 4 * SECOND); /* without winnow.json it does not count */
	assert_int_equal(next(e, 5 * SECOND), 2);
	model_entry_free(e);
}

/* Memory, a disk that answers again: what a version lacked may be there later. */
static void what_may_pass_is_tried_again_ever_more_rarely(void **state)
{
	int64_t again;
	model_entry *e = entry("latest");
	see(e, 1, 1, 0);
	load(e, 1);
	see(e, 2, 1, 0);
	version_entry *v = see(e, 3, 1, 0);
	version_set_failed(v, "no memory", 10 * SECOND, 4 * SECOND);
	assert_string_equal(v->reason, "no memory");
	/* It holds nobody up meanwhile, and nothing hurries it. */
	assert_int_equal(versions_next(e, 13 * SECOND, true, &again), 2);
	versions_find(e, 2)->failed = true;
	assert_int_equal(versions_next(e, 13 * SECOND, true, &again), 0);
	assert_int_equal(again, 14 * SECOND);
	assert_int_equal(versions_next(e, 14 * SECOND, false, &again), 3);
	static const int DELAYS[] = {8, 16, 32, 64, 128, 256, 300, 300};
	for (size_t i = 0; i < sizeof DELAYS / sizeof DELAYS[0]; i++) {
		version_set_failed(v, "no memory", 0, 4 * SECOND);
		assert_int_equal(v->retry_ns, DELAYS[i] * SECOND);
	}
	version_set_failed(v, "bad", 0, 0); /* its own fault now */
	assert_int_equal(versions_next(e, 1000 * SECOND, true, &again), 0);
	assert_int_equal(again, 0);
	version_give_another_chance(v);
	version_set_failed(v, "no memory", 0, 4 * SECOND);
	assert_int_equal(v->retry_ns, 4 * SECOND);
	version_give_another_chance(v);
	version_set_failed(v, "no memory", 0, 1000 * SECOND); /* a longer poll_interval makes no difference */
	assert_int_equal(v->retry_ns, 300 * SECOND);
	see(e, 3, 2, 20 * SECOND); /* other files: a new version */
	assert_int_equal(next(e, 21 * SECOND), 3);
	model_entry_free(e);
}

static void a_list_is_loaded_side_by_side(void **state)
{
	model_entry *e = entry("2, 7,5");
	for (int v = 1; v <= 9; v++)
		see(e, v, 1, 0);
	int order[] = {7, 5, 2};
	for (int i = 0; i < 3; i++) {
		assert_int_equal(next(e, SECOND), order[i]);
		load(e, order[i]);
		assert_int_equal(e->primary, 7);
	}
	assert_int_equal(next(e, SECOND), 0);
	for (int v = 1; v <= 9; v++)
		assert_int_equal(versions_stay(e, v), v == 2 || v == 5 || v == 7);
	model_entry_free(e);
}

static void a_held_version_stays(void **state)
{
	model_entry *e = entry("latest");
	see(e, 1, 1, 0);
	see(e, 2, 1, 0);
	load(e, 2);
	e->held = 1;
	assert_int_equal(next(e, SECOND), 1);
	load(e, 1);
	assert_int_equal(e->primary, 1);
	versions_find(e, 2)->loaded = false;
	see(e, 3, 1, 0);
	assert_int_equal(next(e, SECOND), 0);
	e->held = 0;
	assert_int_equal(next(e, SECOND), 3);
	/* Chosen by command beside a list: it answers, the list stays loaded. */
	model_entry *l = entry("1");
	see(l, 1, 1, 0);
	see(l, 4, 1, 0);
	load(l, 1);
	l->held = 4;
	assert_int_equal(next(l, SECOND), 4);
	load(l, 4);
	assert_int_equal(l->primary, 4);
	assert_true(versions_stay(l, 1));
	l->held = 0;
	assert_int_equal(versions_primary(l), 1);
	model_entry_free(l);
	model_entry_free(e);
}

static void nothing_is_done_for_what_nobody_wants(void **state)
{
	model_entry *e = entry("latest");
	e->wanted = false;
	see(e, 1, 1, 0);
	assert_int_equal(next(e, SECOND), 0);
	versions_find(e, 1)->loaded = true;
	assert_int_equal(versions_primary(e), 0);
	assert_false(versions_stay(e, 1));
	model_entry_free(e);
}

static void what_is_gone_is_forgotten_unless_it_serves(void **state)
{
	model_entry *e = entry("latest");
	for (int v = 1; v <= 40; v++)
		see(e, v, 1, 0);
	load(e, 17);
	versions_begin_scan(e);
	see(e, 3, 1, 0);
	version_met(versions_find(e, 5));
	assert_true(versions_find(e, 17)->on_disk); /* who looks meanwhile finds it as it was */
	versions_end_scan(e);
	assert_int_equal(e->count, 3);
	assert_non_null(versions_find(e, 5));
	assert_false(versions_find(e, 17)->on_disk);
	assert_non_null(versions_find(e, 3));
	assert_non_null(versions_find(e, 17));
	assert_int_equal(e->primary, 17);
	model_entry_free(e);
}

/* Messages quote what lay on disk, and are cut at a byte. */
static void reasons_are_utf8_and_fit(void **state)
{
	model_entry *e = entry("latest");
	version_entry *v = see(e, 1, 1, 0);
	version_set_reason(v, "label \xe8\xbf\x9d\xe8\xbf \xff");
	assert_string_equal(v->reason, "label \xe8\xbf\x9d?? ?");
	char lots[600] = "x";
	for (size_t i = 1; i + 3 < sizeof lots; i += 3)
		memcpy(lots + i, "\xe8\xbf\x9d", 4);
	version_set_reason(v, lots);
	assert_int_equal(strlen(v->reason), sizeof v->reason - 1);
	assert_string_equal(v->reason + sizeof v->reason - 5, "\xe8\xbf\x9d?");
	model_entry_free(e);
}

static void policies_are_read_strictly(void **state)
{
	static const char *const BAD[] = {"",
					  "0",
					  "01",
					  "1,",
					  ",1",
					  "1,,2",
					  "1,1",
					  "1 2",
					  "-1",
					  "1.5",
					  "newest",
					  "1;2",
					  "1,2,3,4,5,6,7,8,9",
					  "9999999999",
					  "1,latest"};
	version_policy p;
	model_spec s;
	for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
		wn_error err = {0};
		if (policy_parse(&p, BAD[i], "p", &err) != WN_INVALID)
			fail_msg("accepted \"%s\"", BAD[i]);
	}
	wn_error err = {0};
	assert_int_equal(policy_parse(&p, " 3 , 1,999999999", "p", &err), WN_OK);
	assert_int_equal(p.count, 3);
	assert_int_equal(p.numbers[0], 1);
	assert_int_equal(p.numbers[2], 999999999);
	assert_int_equal(model_spec_parse(&s, "b", "p", &err), WN_OK);
	assert_int_equal(s.policy.count, 0);
	assert_int_equal(model_spec_parse(&s, "b-2.x=4,2", "p", &err), WN_OK);
	assert_string_equal(s.name, "b-2.x");
	assert_int_equal(s.policy.numbers[1], 4);
	static const char *const BAD_SPECS[] = {"", "=1", "a=", "../a", ".a", "a/1", "a=b"};
	for (size_t i = 0; i < sizeof BAD_SPECS / sizeof BAD_SPECS[0]; i++)
		if (model_spec_parse(&s, BAD_SPECS[i], "p", NULL) == WN_OK)
			fail_msg("accepted \"%s\"", BAD_SPECS[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(latest_follows_the_largest_and_never_goes_back),
	    cmocka_unit_test(what_still_changes_is_left_alone),
	    cmocka_unit_test(what_may_pass_is_tried_again_ever_more_rarely),
	    cmocka_unit_test(a_list_is_loaded_side_by_side),
	    cmocka_unit_test(a_held_version_stays),
	    cmocka_unit_test(nothing_is_done_for_what_nobody_wants),
	    cmocka_unit_test(what_is_gone_is_forgotten_unless_it_serves),
	    cmocka_unit_test(reasons_are_utf8_and_fit),
	    cmocka_unit_test(policies_are_read_strictly),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
