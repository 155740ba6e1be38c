/* The page that comes out of runs written by hand: whole, cut, hostile, half empty. Every page is checked where python3 is there. */
#include "tests/compress/report_fixture.h"

#include <fcntl.h>

#include "prune/commands.h"

/* ---- compressions ---- */

static void a_whole_run_becomes_a_page(void **state)
{
	make_run(MANIFEST, PLAN, ONE TWO FINAL, ABLATION);
	char *page = page_of();
	assert_says(page, "<b>18.0×</b><span>fewer parameters: 400 k instead of 7.20 M</span>");
	assert_says(page, "<b>9.00×</b><span>lower latency: 1.02 ms instead of 9.18 ms</span>");
	assert_says(page, "On test (1500 samples) the teacher is right in 94.0 % of the cases, the student in 93.2 %: −0.8 points.");
	assert_says(page, "Target: latency_ms = 1.00 ms; reached 1.02 ms (+2.0 %).");
	assert_says(page, "<tr><th>macro-F1</th><td>93.0 %</td><td>92.5 %</td><td>−0.5 points</td></tr>");
	assert_says(page, "<th>002-hidden</th><td>400 k</td><td>18.0×</td>");
	assert_says(page, "<td>11.0 %</td><td>94.0 %</td>"); /* cut, distilled */
	assert_says(page, "<td>1 · 64 · 2×32 · 160</td>");
	assert_says(page, "<th>gambling</th><td>800</td>");
	assert_says(page, "<td>−10.0 points</td>"); /* its F1: 0.90 to 0.80 */
	/* 0.02 s x 5 W = 0.1 J; x 1000 a second x 8760 h = 876 kWh; x 500 g = 438 kg. The student: a tenth. */
	assert_says(page, "<th>energy a request</th><td>100 mJ</td><td>10.0 mJ</td><td>90.0 mJ</td><td>10.0×</td>");
	assert_says(page, "<th>energy a year</th><td>876 kWh</td><td>87.6 kWh</td><td>788 kWh</td>");
	assert_says(page, "<th>CO₂ a year, kg</th><td>438</td><td>43.8</td><td>394</td>");
	assert_says(page, "CPU-seconds of a request × 5 W a busy core");
	/* 0.90, 0.92, 0.94 */
	assert_says(page, "<th>full method</th><td>3</td><td>92.00 ± 2.00</td>");
	assert_says(page, "<th>no distillation</th><td>2</td><td>71.00 ± 1.41</td><td>−21.00</td>");
	assert_says(page, "<td class=\"t\">worse</td>");
	assert_says(page, "<td class=\"t\">within the noise</td>");
	assert_says(page, "<td class=\"t\">too few seeds to tell</td>");
	assert_says(page, "<th>data.train.samples</th><td class=\"t\">2000</td>");
	assert_says(page, "seed: 7\n# &lt;b&gt;\n");
	assert_silent(page, "Hidden states</text>"); /* this run has no such term */
	assert_silent(page, "left out");
	assert_silent(page, ">nan<");
	char *again = page_of();
	assert_string_equal(page, again);
	free(again);
	free(page);
}

static void measured_joules_are_preferred_and_said(void **state)
{
	make_run(MANIFEST, PLAN,
		 ONE TWO "{\"event\":\"final\",\"parameters\":400000,\"joules_per_request\":0.05,\"teacher_joules_per_request\":0.5,"
			 "\"cpu_seconds_per_request\":0.002,\"teacher_cpu_seconds_per_request\":0.02}\n", NULL);
	char *page = page_of();
	assert_says(page, "<th>energy a request</th><td>500 mJ</td><td>50.0 mJ</td>");
	assert_says(page, "measured with RAPL");
	assert_silent(page, "W a busy core");
	free(page);
}

/* Of one model measured, of the other estimated: neither the page's head nor its table compares the two. */
static void energy_is_compared_by_one_method(void **state)
{
	make_run(MANIFEST, PLAN,
		 ONE TWO "{\"event\":\"final\",\"parameters\":400000,\"joules_per_request\":0.05,\"cpu_seconds_per_request\":0.002,"
			 "\"teacher_cpu_seconds_per_request\":0.02}\n", NULL);
	char *page = page_of();
	assert_says(page, "<b>10.0×</b><span>less energy a request: 10.0 mJ instead of 100 mJ</span>");
	assert_says(page, "<th>energy a request</th><td>100 mJ</td><td>10.0 mJ</td>");
	assert_says(page, "W a busy core");
	free(page);
	make_run(MANIFEST, PLAN,
		 ONE TWO "{\"event\":\"final\",\"parameters\":400000,\"cpu_seconds_per_request\":-0.002,"
			 "\"teacher_cpu_seconds_per_request\":0.02}\n", NULL);
	page = page_of(); /* nonsense is not shown in one place and left out in the other */
	assert_silent(page, "less energy");
	assert_says(page, "energy is left out");
	free(page);
}

static void a_killed_run_is_shown_as_far_as_it_came(void **state)
{
	static const char cut[] = "{\"event\":\"step\",\"iteration\":2,\"step\":7,\"lo";
	make_run(MANIFEST, PLAN, ONE STEP("2", "4", "6.0"), NULL);
	char *whole = page_of();
	assert_says(whole, "The run has not ended: the student here is its last finished iteration, 001-blocks.");
	assert_says(whole, "Target: latency_ms = 1.00 ms.");
	assert_silent(whole, "reached");
	assert_says(whole, "The run has not ended, and measures a request at its end: energy is left out.");
	assert_says(whole, "This run has no ablation.json.");
	assert_says(whole, "<th>student (planned)</th>");
	make_run(MANIFEST, PLAN, ONE STEP("2", "4", "6.0"), NULL);
	FILE *f = fopen(in_run("log.jsonl"), "a");
	fputs(cut, f);
	fclose(f);
	char *killed = page_of();
	assert_says(killed, "The log ends in the middle of a line");
	assert_says(killed, "4 steps.");
	free(whole);
	free(killed);
}

/* Of one session, or of none: the plan's 10 ms were measured hours before. */
static void latencies_of_different_hours_make_no_ratio(void **state)
{
	make_run(MANIFEST, PLAN, ONE TWO "{\"event\":\"final\",\"parameters\":400000,\"latency_ms\":1.02}\n", NULL);
	char *page = page_of();
	assert_says(page, "<tr><th>latency, median</th><td>10.0 ms</td><td>1.02 ms</td><td>–</td></tr>");
	assert_says(page, "measured at different times");
	assert_silent(page, "lower latency:");
	free(page);
	make_run(MANIFEST, PLAN, ONE TWO FINAL, NULL);
	page = page_of();
	assert_says(page, "<tr><th>latency, median</th><td>9.18 ms</td><td>1.02 ms</td><td>9.00×</td></tr>");
	assert_silent(page, "measured at different times");
	free(page);
	make_run(MANIFEST, PLAN, ONE, NULL); /* not ended */
	page = page_of();
	assert_says(page, "<tr><th>latency, median</th><td>10.0 ms</td><td>4.00 ms</td><td>–</td></tr>");
	free(page);
}

static void settings_that_changed_on_the_way_are_shown(void **state)
{
	make_run(MANIFEST, PLAN,
		 ONE "{\"event\":\"resume\",\"changed\":{\"loss.kl\":[1,0.25]}}\n" TWO
		     "{\"event\":\"resume\",\"changed\":{\"loss.kl\":[1,0.5],\"data.cache\":[\"\",\"<b>\"],\"x\":7}}\n" FINAL, NULL);
	char *page = page_of();
	assert_says(page, "<th>loss.kl</th><td class=\"t\">1</td><td class=\"t\">0.5</td>");
	assert_says(page, "<th>data.cache</th><td class=\"t\"></td><td class=\"t\">&lt;b&gt;</td>");
	assert_says(page, "<th>x</th>");
	free(page);
	make_run(MANIFEST, PLAN, ONE TWO FINAL, NULL);
	page = page_of();
	assert_silent(page, "resumed");
	free(page);
}

/* Lists as well; what is too long for a cell is cut between two characters. */
static void inputs_are_shown_in_full(void **state)
{
	char manifest[4096] = "{\"format\":1,\"command\":\"compress\",\"identity\":{\"stages\":[\"blocks | steps 3\",\"inner\"],\"share\":0.5,"
			      "\"none\":null,\"labels\":[[\"weapons\",\"违禁品\"]],\"many\":[\"x";
	for (int i = 0; i < 200; i++)
		strcat(manifest, "合");
	make_run(strcat(manifest, "\"]}}"), PLAN, ONE TWO FINAL, NULL);
	char *page = page_of();
	assert_says(page, "<th>stages</th><td class=\"t\">[&quot;blocks | steps 3&quot;, &quot;inner&quot;]</td>");
	assert_says(page, "<th>labels</th><td class=\"t\">[[&quot;weapons&quot;, &quot;违禁品&quot;]]</td>");
	assert_says(page, "<th>share</th><td class=\"t\">0.5</td>");
	assert_says(page, "<th>none</th><td class=\"t\">null</td>");
	assert_says(page, "合…</td>");
	assert_silent(page, "\uFFFD");
	free(page);
}

static void unknown_events_and_keys_change_nothing(void **state)
{
	make_run(MANIFEST, PLAN, ONE TWO FINAL, NULL);
	char *known = page_of();
	make_run(MANIFEST, PLAN,
		 "{\"event\":\"weather\",\"sun\":[1,2,{\"a\":null}]}\n" ONE "{}\n\n{\"event\":5}\n{\"note\":\"no event\"}\n" TWO
		 "{\"event\":\"checkpoint\",\"step\":6}\n" FINAL "{\"event\":\"after\"}\n", NULL);
	char *more = page_of();
	assert_string_equal(known, more);
	free(known);
	free(more);
}

static void what_is_missing_is_left_out_with_one_sentence(void **state)
{
	make_run("{\"format\":1,\"command\":\"compress\"}", NULL, "", NULL);
	char *page = page_of();
	assert_says(page, "The run has not finished an iteration yet");
	assert_says(page, "plan.json is missing");
	assert_says(page, "The log does not say what the teacher is");
	assert_says(page, "No iteration has finished yet.");
	assert_says(page, "The log has no steps yet.");
	assert_says(page, "There are no figures by class of the student.");
	assert_says(page, "widths are left out");
	assert_says(page, "Nothing was evaluated yet.");
	assert_says(page, "This run has no ablation.json.");
	assert_says(page, "energy is left out");
	assert_silent(page, "<svg");
	assert_silent(page, "class=\"card\"");
	free(page);
	/* evaluations on other samples are no difference */
	make_run(MANIFEST, PLAN, ONE TWO "{\"event\":\"final\",\"parameters\":400000,\"latency_ms\":null,\"eval\":"
		 E("test", "0.93", "0.92", "0.03", "0.8") "}\n", NULL);
	page = page_of();
	assert_says(page, "not the same samples, so no difference is shown");
	assert_says(page, "<tr><th>accuracy</th><td>95.0 %</td><td>93.0 %</td><td>–</td></tr>");
	assert_says(page, "The run measured neither joules nor CPU-seconds of a request: energy is left out.");
	free(page);
	/* no latency */
	make_run(MANIFEST, NULL, TEACHER ITERATION("1", "001-blocks", "3000000", "null", "0.4", "0.9"), "{\"rows\":[]}");
	page = page_of();
	assert_says(page, "Accuracy over parameters");
	assert_silent(page, "aria-label=\"Accuracy over latency\"");
	assert_says(page, "<td>–</td><td>–</td><td>40.0 %</td><td>90.0 %</td>"); /* no time, and so no ratio; quality is there */
	free(page);
	make_run(MANIFEST, NULL, "{\"event\":\"iteration\",\"iteration\":1,\"name\":\"001-x\"}\n", NULL);
	page = page_of();
	assert_says(page, "This run did not measure latency");
	free(page);
}

static void names_of_strangers_are_only_text(void **state)
{
	static const char evil[] = "<script>alert(1)</script>&\\\"' onload=x\\u0007\\u202e ]]>\\u0000";
	char log[8192], ablation[1024], label[256], plan[512];
	snprintf(label, sizeof label, "%.*s", (int)(strlen(evil) - 6), evil); /* without the NUL that jansson refuses */
	snprintf(log, sizeof log,
		 "{\"event\":\"step\",\"phase\":\"%s\",\"step\":1,\"loss\":1}\n"
		 "{\"event\":\"iteration\",\"iteration\":1,\"name\":\"%s\",\"parameters\":1e308,\"latency_ms\":-5,\"before\":{\"split\":\"%s\","
		 "\"samples\":\"many\",\"accuracy\":-3e300,\"classes\":7},\"after\":{\"split\":\"%s\",\"samples\":10,\"accuracy\":0.5,\"ece\":1e29,"
		 "\"classes\":[{\"label\":\"%s\",\"f1\":0.5},{\"label\":\"合规合规合规合规合规合规合规合规合规合规\",\"f1\":-1,\"support\":1e25},"
		 "{\"f1\":1}]}}\n", label, label, label, label, label);
	snprintf(ablation, sizeof ablation, "{\"rows\":[{\"name\":\"%s\",\"runs\":[{\"accuracy\":0.5},7]},{\"name\":\"b\",\"runs\":3}]}", label);
	snprintf(plan, sizeof plan, "{\"target\":{\"kind\":\"%s\",\"value\":3},\"teacher\":{\"parameters\":7e6,\"widths\":[]}}", label);
	make_run("{\"format\":1,\"command\":\"compress\",\"winnow\":\"<i>\",\"identity\":{\"<u>\":{\"&\":\"<s>\"}},\"config\":\"]]></pre><script>\"}",
		 plan, log, ablation);
	char *page = page_of();
	assert_silent(page, "<script");
	assert_silent(page, "<i>");
	assert_silent(page, "<u>");
	assert_silent(page, "<s>");
	assert_silent(page, "\a");
	assert_says(page, "&lt;script&gt;alert(1)&lt;/script&gt;&amp;&quot;&#39; onload=x\xEF\xBF\xBD");
	free(page);
	/* a directory may be called anything */
	char odd[400];
	snprintf(odd, sizeof odd, "%s/<img src=x>\xff\xed\xa0\x80&", scratch);
	assert_int_equal(rename(run_dir, odd), 0);
	strcpy(run_dir, odd);
	page = page_of();
	assert_silent(page, "<img");
	assert_says(page, "&lt;img src=x&gt;\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD&amp;");
	free(page);
	remove_tree(odd);
}

/* ---- a training ---- */

static void a_training_shows_its_curves(void **state)
{
	make_run("{\"format\":1,\"winnow\":\"0.1.0\",\"identity\":{\"parameters\":7760448,\"seed\":1},\"config\":\"name: x\"}", NULL,
		 "{\"event\":\"step\",\"phase\":\"caption\",\"step\":1,\"phase_step\":1,\"loss\":7.8,\"token_accuracy\":0.0,\"lr\":2e-6,\"grad_norm\":4.8,"
		 "\"samples_per_s\":52.1,\"skipped\":false}\n"
		 "{\"event\":\"step\",\"phase\":\"caption\",\"step\":2,\"phase_step\":2,\"loss\":null,\"token_accuracy\":0.5,\"lr\":5e-6,\"skipped\":true}\n"
		 "{\"event\":\"eval\",\"phase\":\"caption\",\"step\":2,\"best\":true,\"samples\":1000,\"loss\":0.57,\"token_accuracy\":0.82,\"exact_match\":0.7}\n"
		 "{\"event\":\"step\",\"phase\":\"audit\",\"step\":3,\"phase_step\":1,\"loss\":0.8,\"token_accuracy\":0.8,\"lr\":1e-5}\n"
		 "{\"event\":\"eval\",\"phase\":\"audit\",\"step\":3,\"best\":true,\"samples\":1500,\"loss\":0.27,\"accuracy\":0.8947,\"macro_f1\":0.909,"
		 "\"ece\":0.029}\n"
		 "{\"event\":\"step\",\"phase\":\"audit\",\"step\":4,\"phase_step\":2,\"loss\":0.7,\"token_accuracy\":0.8,\"lr\":1e-5}\n"
		 "{\"event\":\"eval\",\"phase\":\"audit\",\"step\":4,\"best\":false,\"samples\":1500,\"loss\":0.3,\"accuracy\":0.88,\"macro_f1\":0.9}\n", NULL);
	char *page = page_of();
	assert_says(page, "<h1>Training run run</h1>");
	assert_says(page, "<b>7.76 M</b>");
	assert_says(page, "<b>89.5 %</b><span>accuracy at step 3</span>");
	assert_says(page, "the best validation of the last phase, audit, 1500 samples");
	assert_says(page, ">Loss</text>");
	assert_says(page, "Token accuracy on training batches");
	assert_says(page, ">caption</text>");
	assert_says(page, ">audit</text>");
	assert_silent(page, "student");
	free(page);
}

/* ---- the command ---- */

/* Runs it, its stderr into err_text. */
static int command(char *err_text, size_t size, const char *const *arguments)
{
	char path[320], *argv[16] = {"report"};
	int argc = 1;
	for (; arguments[argc - 1]; argc++)
		argv[argc] = (char *)(uintptr_t)arguments[argc - 1];
	snprintf(path, sizeof path, "%s/stderr", scratch);
	fflush(stderr);
	const int old = dup(2), fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	dup2(fd, 2);
	const int rc = cmd_report(argc, argv);
	fflush(stderr);
	dup2(old, 2);
	close(old);
	const ssize_t n = pread(fd, err_text, size - 1, 0);
	close(fd);
	err_text[n < 0 ? 0 : n] = 0;
	return rc;
}
#define COMMAND(text, ...) command(text, sizeof text, (const char *const[]){__VA_ARGS__, NULL})

static void one_line(const char *text, const char *part)
{
	if (!strstr(text, part) || strchr(text, '\n') != text + strlen(text) - 1)
		fail_msg("expected one line with \"%s\", found: %s", part, text);
}

static void the_command_writes_a_page_or_one_line(void **state)
{
	char text[2048], elsewhere[320];
	make_run(MANIFEST, PLAN, ONE TWO FINAL, ABLATION);
	assert_int_equal(COMMAND(text, "--run", run_dir), 0);
	assert_string_equal(text, "");
	const bool python = page_checks(in_run("report.html"));
	snprintf(elsewhere, sizeof elsewhere, "%s/other.html", scratch);
	assert_int_equal(COMMAND(text, "--run", run_dir, "--out", elsewhere, "--rate", "2000", "--watts-per-core=10", "--co2", "100"), 0);
	json_error_t je;
	assert_null(json_load_file(elsewhere, 0, &je)); /* it is there, and no JSON */
	FILE *f = fopen(elsewhere, "r");
	assert_non_null(f);
	char *page = calloc(1, 1 << 20);
	assert_true(fread(page, 1, (1 << 20) - 1, f) > 1000);
	fclose(f);
	plain_spaces(page);
	assert_says(page, "<th>energy a request</th><td>200 mJ</td>"); /* 0.02 s x 10 W */
	assert_says(page, "<th>energy a year</th><td>3.50 MWh</td>");
	assert_says(page, "<th>CO₂ a year, kg</th><td>350</td>");
	free(page);

	assert_int_equal(COMMAND(text, "--out", elsewhere), 2);
	one_line(text, "--run DIR is required");
	assert_int_equal(COMMAND(text, "--run", run_dir, "--rate", "-1"), 2);
	one_line(text, "--rate");
	assert_int_equal(COMMAND(text, "--run", scratch), 1);
	one_line(text, "manifest.json");
	assert_int_equal(COMMAND(text, "--run", run_dir, "--out", "/nowhere/at/all.html"), 1);
	one_line(text, "/nowhere/at");
	assert_int_equal(unlink(in_run("log.jsonl")), 0);
	assert_int_equal(COMMAND(text, "--run", run_dir), 1);
	one_line(text, "log.jsonl: not found");
	if (!python)
		skip(); /* said at the end: the pages were not parsed */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_whole_run_becomes_a_page),
		cmocka_unit_test(measured_joules_are_preferred_and_said),
		cmocka_unit_test(energy_is_compared_by_one_method),
		cmocka_unit_test(a_killed_run_is_shown_as_far_as_it_came),
		cmocka_unit_test(latencies_of_different_hours_make_no_ratio),
		cmocka_unit_test(settings_that_changed_on_the_way_are_shown),
		cmocka_unit_test(inputs_are_shown_in_full),
		cmocka_unit_test(unknown_events_and_keys_change_nothing),
		cmocka_unit_test(what_is_missing_is_left_out_with_one_sentence),
		cmocka_unit_test(names_of_strangers_are_only_text),
		cmocka_unit_test(a_training_shows_its_curves),
		cmocka_unit_test(the_command_writes_a_page_or_one_line),
	};
	return cmocka_run_group_tests(tests, open_scratch, remove_scratch);
}
