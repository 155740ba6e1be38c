/* A run directory as the report reads it: what is in it, what occurs twice, what is damaged; and the figures made of it. */
#include "tests/compress/report_fixture.h"

#include "prune/report/curves.h"
#include "prune/report/energy.h"

static void the_reader_finds_what_is_in_a_run(void **state)
{
	run r;
	make_run(MANIFEST, PLAN, ONE TWO FINAL, ABLATION);
	assert_ok(run_open(&r, run_dir, err));
	assert_true(r.compression);
	assert_string_equal(r.winnow, "0.1.0");
	assert_string_equal(r.target_kind, "latency_ms");
	assert_int_equal(r.num_steps, 6);
	assert_int_equal(r.num_segments, 2);
	assert_string_equal(r.segments[1].name, "2");
	assert_int_equal(r.segments[1].first_step, 4);
	assert_true(r.steps[5].segment == 1 && r.steps[5].terms[TERM_LOSS] == 4.5 && r.steps[5].terms[TERM_KL] == 0.25);
	assert_true(isnan(r.steps[5].terms[TERM_RELATION]) && isnan(r.steps[5].terms[TERM_HIDDEN])); /* null, absent */
	assert_int_equal(r.num_iterations, 2);
	assert_true(r.iterations[1].number == 2 && r.iterations[1].latency_ms == 1.0 && r.iterations[1].score_lost[RUN_VISION] == 1.5);
	assert_true(r.iterations[1].before.accuracy == 0.11 && r.iterations[1].after.accuracy == 0.94);
	assert_int_equal(r.iterations[0].widths.stacks[RUN_VISION].num_blocks, 2);
	assert_int_equal(r.iterations[1].widths.stacks[RUN_TEXT].blocks[0].ffn_dim, 160);
	assert_int_equal(r.student_widths.stacks[RUN_QFORMER].blocks[0].cross_num_heads, 2);
	assert_int_equal(r.student_widths.num_query_tokens, 8);
	assert_true(r.teacher.present && r.teacher.eval.num_classes == 2 && r.teacher.cpu_seconds == 0.02);
	assert_true(r.final.present && r.final.eval.accuracy == 0.9321 && r.final.cpu_seconds == 0.002 && isnan(r.final.joules));
	assert_string_equal(r.final.eval.classes[1].label, "gambling");
	assert_int_equal(r.num_ablation, 4);
	assert_false(r.cut_line);
	run_close(&r);
}

static void what_a_resumed_run_did_twice_counts_once(void **state)
{
	run r;
	make_run(MANIFEST, PLAN, ONE TWO STEP("2", "5", "5.5") STEP("2", "6", "4.4") ITERATION("2", "002-hidden", "400000", "1.0", "0.1", "0.93"),
		 NULL);
	assert_ok(run_open(&r, run_dir, err));
	assert_int_equal(r.num_steps, 6);
	assert_true(r.steps[4].terms[TERM_LOSS] == 5.5 && r.steps[5].terms[TERM_LOSS] == 4.4);
	assert_int_equal(r.num_segments, 2);
	assert_int_equal(r.num_iterations, 2);
	assert_true(r.iterations[1].after.accuracy == 0.93);
	run_close(&r);
}

/* A stage may have no steps: its iteration ends where the one before it did. */
static void iterations_without_steps_have_their_own_validation(void **state)
{
#define VALIDATION(i, step, accuracy) \
	"{\"event\":\"eval\",\"iteration\":" i ",\"step\":" step ",\"best\":true,\"eval\":" E("validation", accuracy, "0.9", "0.1", "0.9") "}\n"
	run r;
	make_run(MANIFEST, PLAN, ONE VALIDATION("1", "3", "0.5") VALIDATION("2", "3", "0.4") VALIDATION("3", "6", "0.3") VALIDATION("3", "6", "0.2"), NULL);
	assert_ok(run_open(&r, run_dir, err));
	assert_int_equal(r.num_validations, 3);
	for (int i = 0; i < 3; i++)
		assert_int_equal(r.validations[i].iteration, i + 1);
	assert_true(r.validations[0].accuracy == 0.5 && r.validations[1].accuracy == 0.4 && r.validations[2].accuracy == 0.2);
	run_close(&r);
	/* taken back to the first */
	make_run(MANIFEST, PLAN, ONE VALIDATION("1", "3", "0.5") VALIDATION("2", "3", "0.4") VALIDATION("1", "3", "0.6"), NULL);
	assert_ok(run_open(&r, run_dir, err));
	assert_int_equal(r.num_validations, 1);
	assert_true(r.validations[0].accuracy == 0.6);
	run_close(&r);
	/* nobody looked */
	make_run(MANIFEST, PLAN, ONE "{\"event\":\"eval\",\"iteration\":1,\"step\":3,\"best\":true,\"eval\":null}\n", NULL);
	char *page = page_of();
	assert_silent(page, "best so far");
	free(page);
}

static void refuse_run(wn_code code, const char *part)
{
	run r;
	assert_refused(code, part, run_open(&r, run_dir, err));
}

static void damage_is_named(void **state)
{
	make_run(NULL, PLAN, ONE, NULL);
	refuse_run(WN_NOT_FOUND, "manifest.json");
	make_run(MANIFEST, PLAN, NULL, NULL);
	refuse_run(WN_NOT_FOUND, "log.jsonl: not found");
	make_run("{\"format\":2}", NULL, "", NULL);
	refuse_run(WN_UNSUPPORTED, "\"format\" is 2, expected 1");
	make_run("{\"format\":1,\"command\":\"cook\"}", NULL, "", NULL);
	refuse_run(WN_UNSUPPORTED, "\"command\" is \"cook\"");
	make_run("[1]", NULL, "", NULL);
	refuse_run(WN_INVALID, "manifest.json: expected a JSON object");
	make_run("{\"format\":1,", NULL, "", NULL);
	refuse_run(WN_INVALID, "manifest.json line 1");
	make_run(MANIFEST, PLAN, TEACHER STEP("1", "1", "4.0") "{\"event\":\"step\",\"lo\n" STEP("1", "3", "2.0"), NULL);
	refuse_run(WN_INVALID, "log.jsonl line 3");
	make_run(MANIFEST, PLAN, TEACHER "[]\n", NULL);
	refuse_run(WN_INVALID, "log.jsonl line 2: expected a JSON object");
	make_run(MANIFEST, "{\"format\":1", ONE, NULL);
	refuse_run(WN_INVALID, "plan.json line 1");
	make_run(MANIFEST, PLAN, ONE, "{\"rows\":");
	refuse_run(WN_INVALID, "ablation.json line 1");
	make_run(MANIFEST, PLAN, NULL, NULL);
	assert_int_equal(mkdir(in_run("log.jsonl"), 0755), 0);
	refuse_run(WN_INVALID, "log.jsonl: not a regular file");
}

static void curves_are_smooth_thin_and_keep_jumps(void **state)
{
	enum { N = 5000 };
	static double x[N], y[N];
	static int segment[N];
	curve c;
	for (int i = 0; i < N; i++) {
		x[i] = i + 1;
		y[i] = i < 2000 ? 3 : 10;
		segment[i] = i >= 2000;
	}
	y[100] = NAN;
	assert_ok(curve_make(&c, x, y, segment, N, 0.02, 600, err));
	assert_true(c.count <= 600 && c.count >= 590);
	for (size_t i = 0; i < c.count; i++) { /* a constant stays one, the jump is between two points */
		assert_close(c.y[i], c.x[i] <= 2000 ? 3 : 10, 1e-9, "y", i);
		assert_true(i == 0 || c.x[i] > c.x[i - 1]);
	}
	curve_close(&c);
	/* an exponential mean over 5: weights 0.2, 0.2 * 0.8 …, over their sum */
	const double few[] = {1, 2, 4, NAN, 8};
	const int one[] = {0, 0, 0, 0, 0};
	assert_ok(curve_make(&c, x, few, one, 5, 0.02, 600, err));
	assert_int_equal(c.count, 4);
	const double expected[] = {1, (1 * 0.8 + 2) / 1.8, (1 * 0.64 + 2 * 0.8 + 4) / 2.44, (1 * 0.512 + 2 * 0.64 + 4 * 0.8 + 8) / 2.952};
	for (size_t i = 0; i < 4; i++)
		assert_close(c.y[i], expected[i], 1e-12, "mean", i);
	assert_true(c.x[3] == 5);
	curve_close(&c);
	assert_ok(curve_make(&c, x, few, one, 5, 0, 2, err)); /* 1 2 | 4 - 8, unsmoothed */
	assert_int_equal(c.count, 2);
	assert_true(c.y[0] == 1.5 && c.y[1] == 6);
	curve_close(&c);
	/* many short segments: a point each */
	for (int i = 0; i < N; i++)
		segment[i] = i / 5;
	assert_ok(curve_make(&c, x, y, segment, N, 0, 600, err));
	assert_int_equal(c.count, N / 5);
	curve_close(&c);
	assert_ok(curve_make(&c, x, y, segment, 0, 0, 600, err));
	assert_int_equal(c.count, 0);
	curve_close(&c);
}

static void energy_of_a_year(void **state)
{
	const energy_assumptions a = {.requests_per_s = 100, .watts_per_core = 4, .co2_g_per_kwh = 250};
	energy_use u = energy_of(0.05, NAN, &a);
	assert_close(u.joules, 0.2, 1e-12, "joules", 0);
	assert_close(u.busy_cores, 5, 1e-12, "cores", 0);
	assert_close(u.kwh_year, 0.2 * 100 * 8760 / 1000, 1e-9, "kWh", 0); /* 20 W for 8760 h */
	assert_close(u.co2_kg_year, 43.8, 1e-9, "kg", 0);
	u = energy_of(NAN, 2, &a);
	assert_close(u.kwh_year, 1752, 1e-9, "kWh", 1);
	assert_true(isnan(u.busy_cores));
	assert_true(isnan(energy_of(NAN, NAN, &a).kwh_year));
}

/* Every length of a log is a state that a kill may leave: all readable. */
static void a_log_may_end_anywhere(void **state)
{
	static const char log[] = ONE TWO FINAL;
	make_run(MANIFEST, PLAN, "", NULL);
	for (size_t len = 0; len <= strlen(log); len += 37) {
		run r;
		write_file(in_run("log.jsonl"), log, len);
		assert_ok(run_open(&r, run_dir, err));
		assert_int_equal(r.cut_line, len > 0 && log[len - 1] != '\n' && log[len] != '\n');
		run_close(&r);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_reader_finds_what_is_in_a_run),
		cmocka_unit_test(what_a_resumed_run_did_twice_counts_once),
		cmocka_unit_test(iterations_without_steps_have_their_own_validation),
		cmocka_unit_test(damage_is_named),
		cmocka_unit_test(a_log_may_end_anywhere),
		cmocka_unit_test(curves_are_smooth_thin_and_keep_jumps),
		cmocka_unit_test(energy_of_a_year),
	};
	return cmocka_run_group_tests(tests, open_scratch, remove_scratch);
}
