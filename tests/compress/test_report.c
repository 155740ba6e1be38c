/* test_report.c: run directories written by hand (whole, cut, damaged, hostile, half empty), and the page that comes out. Every page is
 * given to check_report.py (well-formed XML, no overlapping text, nothing drawn outside of its plot) where python3 is there. */
#include "tests/prune/support.h"

#include <fcntl.h>
#include <sys/wait.h>

#include "base/energy_meter.h"
#include "base/html.h"
#include "base/svg_axis.h"
#include "base/svg_plot.h"
#include "prune/commands.h"
#include "prune/report/curves.h"
#include "prune/report/report.h"
#include "prune/report/run_parse.h"

static char scratch[256], run_dir[300];

/* ---- a run by hand ---- */

#define W(v, q, t, n)                                                                                                     \
	"{\"vision\":" v ",\"qformer\":" q ",\"text\":" t ",\"num_query_tokens\":" n "}"
#define BLOCK(h, d, f) "{\"num_heads\":" h ",\"head_dim\":" d ",\"cross_num_heads\":0,\"cross_head_dim\":0,\"ffn_dim\":" f "}"
#define CROSS(h, d, f) "{\"num_heads\":" h ",\"head_dim\":" d ",\"cross_num_heads\":" h ",\"cross_head_dim\":" d ",\"ffn_dim\":" f "}"
#define STACK(hidden, ...) "{\"hidden_size\":" hidden ",\"blocks\":[" __VA_ARGS__ "]}"
#define TEACHER_WIDTHS                                                                                                             \
	W(STACK("192", BLOCK("3", "64", "768") "," BLOCK("3", "64", "768")), STACK("192", CROSS("3", "64", "768")),                 \
	  STACK("256", BLOCK("4", "64", "1024")), "16")
#define STUDENT_WIDTHS                                                                                                              \
	W(STACK("64", BLOCK("2", "32", "96")), STACK("64", CROSS("2", "32", "128")), STACK("64", BLOCK("2", "32", "160")), "8")

#define E(split, accuracy, f1, ece, gambling)                                                                                  \
	"{\"split\":\"" split "\",\"samples\":1500,\"accuracy\":" accuracy ",\"macro_f1\":" f1 ",\"ece\":" ece ",\"nll\":0.4,"        \
	"\"classes\":[{\"label\":\"compliant\",\"precision\":0.9,\"recall\":0.8,\"f1\":0.847,\"support\":700},"                       \
	"{\"label\":\"gambling\",\"precision\":0.9,\"recall\":0.8,\"f1\":" gambling ",\"support\":800}]}"

static const char MANIFEST[] = "{\"format\":1,\"command\":\"compress\",\"winnow\":\"0.1.0\",\"identity\":{\"teacher\":\"sha256:abc\","
			       "\"data\":{\"train\":{\"samples\":2000}},\"seed\":7},\"config\":\"seed: 7\\n# <b>\\n\"}";
static const char PLAN[] =
	"{\"format\":1,\"teacher\":{\"parameters\":7200000,\"flops\":1200000000,\"latency_ms\":10.0,\"widths\":" TEACHER_WIDTHS "},"
	"\"target\":{\"kind\":\"latency_ms\",\"value\":1.0},\"final\":{\"parameters\":400000,\"flops\":60000000,\"predicted_ms\":1.1,"
	"\"measured_ms\":0.98,\"widths\":" STUDENT_WIDTHS "},\"iterations\":[{\"name\":\"001-blocks\",\"stage\":0,\"parameters\":3000000,"
	"\"flops\":1,\"steps\":3,\"widths\":" TEACHER_WIDTHS "},{\"name\":\"002-hidden\",\"stage\":1,\"parameters\":400000,\"flops\":1,"
	"\"steps\":3,\"widths\":" STUDENT_WIDTHS "}]}";

#define TEACHER                                                                                                        \
	"{\"event\":\"teacher\",\"parameters\":7200000,\"flops\":1200000000,\"latency_ms\":10.0,\"eval\":"                 \
	E("validation", "0.95", "0.94", "0.02", "0.91") "}\n"
#define STEP(i, n, loss)                                                                                                             \
	"{\"event\":\"step\",\"iteration\":" i ",\"step\":" n ",\"iteration_step\":1,\"loss\":" loss ",\"nll\":0.5,\"kl\":0.25,\"pair\":0.1," \
	"\"relation\":null,\"accuracy\":0.75,\"lr\":1e-4,\"grad_norm\":2.5,\"samples_per_s\":99.5}\n"
#define ITERATION(i, name, parameters, ms, before, after)                                                                         \
	"{\"event\":\"iteration\",\"iteration\":" i ",\"name\":\"" name "\",\"parameters\":" parameters ",\"flops\":60000000,"           \
	"\"latency_ms\":" ms ",\"score_lost\":{\"vision\":1.5,\"qformer\":0.25,\"text\":0},\"before\":"                                 \
	E("validation", before, before, "0.2", "0.5") ",\"after\":" E("validation", after, after, "0.03", "0.9") ",\"seconds\":90}\n"
#define FINAL                                                                                                            \
	"{\"event\":\"final\",\"parameters\":400000,\"flops\":60000000,\"latency_ms\":1.02,\"eval\":"                        \
	E("test", "0.9321", "0.925", "0.031", "0.80") ",\"teacher_eval\":" E("test", "0.94", "0.93", "0.025", "0.90")         \
	",\"teacher_latency_ms\":9.18,\"cpu_seconds_per_request\":0.002,\"teacher_cpu_seconds_per_request\":0.02}\n"
#define ONE TEACHER STEP("1", "1", "4.0") STEP("1", "2", "3.0") STEP("1", "3", "2.0") ITERATION("1", "001-blocks", "3000000", "4.0", "0.40", "0.945")
#define TWO STEP("2", "4", "6.0") STEP("2", "5", "5.0") STEP("2", "6", "4.5") ITERATION("2", "002-hidden", "400000", "1.0", "0.11", "0.94")

static const char ABLATION[] =
	"{\"rows\":[{\"name\":\"full method\",\"runs\":[{\"seed\":1,\"accuracy\":0.90,\"macro_f1\":0.89},{\"seed\":2,\"accuracy\":0.92,"
	"\"macro_f1\":0.91},{\"seed\":3,\"accuracy\":0.94,\"macro_f1\":0.93}]},"
	"{\"name\":\"no distillation\",\"runs\":[{\"seed\":1,\"accuracy\":0.70,\"macro_f1\":0.6},{\"seed\":2,\"accuracy\":0.72,\"macro_f1\":0.6}]},"
	"{\"name\":\"no pairwise term\",\"runs\":[{\"seed\":1,\"accuracy\":0.91,\"macro_f1\":0.9},{\"seed\":2,\"accuracy\":0.93,\"macro_f1\":0.9}]},"
	"{\"name\":\"one seed\",\"runs\":[{\"seed\":1,\"accuracy\":0.5,\"macro_f1\":0.5}]}]}";

static char *in_run(const char *name)
{
	static char buf[4][400];
	static unsigned next;
	char *p = buf[next++ % 4];
	snprintf(p, sizeof buf[0], "%s/%s", run_dir, name);
	return p;
}

/* A fresh run directory; NULL: no such file. */
static void make_run(const char *manifest, const char *plan, const char *log, const char *ablation)
{
	snprintf(run_dir, sizeof run_dir, "%s/run", scratch);
	remove_tree(run_dir);
	assert_int_equal(mkdir(run_dir, 0755), 0);
	if (manifest)
		write_text(in_run("manifest.json"), manifest);
	if (plan)
		write_text(in_run("plan.json"), plan);
	if (log)
		write_text(in_run("log.jsonl"), log);
	if (ablation)
		write_text(in_run("ablation.json"), ablation);
}

/* False where there is no python3. */
static bool page_checks(const char *path)
{
	fflush(NULL);
	const pid_t child = fork();
	if (child == 0) {
		dup2(2, 1);
		execlp("python3", "python3", CHECK_REPORT, path, (char *)NULL);
		_exit(127);
	}
	int status = 0;
	assert_int_equal(waitpid(child, &status, 0), child);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
		return false;
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		fail_msg("%s was refused by check_report.py", path);
	return true;
}

/* No-break spaces become spaces: expectations below shall be readable. */
static char *plain_spaces(char *text)
{
	char *to = text;
	for (const char *from = text; *from;) {
		const bool special = !strncmp(from, "\u00A0", 2);
		*to++ = special ? ' ' : *from;
		from += special ? 2 : 1;
	}
	*to = 0;
	return text;
}

/* The page of run_dir, checked; the caller frees. */
static char *page_of(void)
{
	run r;
	char *page = NULL, path[320];
	size_t len = 0;
	const energy_assumptions energy = {.requests_per_s = 1000, .watts_per_core = 5, .co2_g_per_kwh = 500};
	assert_ok(run_open(&r, run_dir, err));
	assert_ok(report_make(&page, &len, &r, &energy, err));
	run_close(&r);
	assert_int_equal(strlen(page), len);
	snprintf(path, sizeof path, "%s/page.html", scratch);
	write_text(path, page);
	page_checks(path);
	return plain_spaces(page);
}

static void assert_says(const char *page, const char *what)
{
	if (!strstr(page, what))
		fail_msg("the page does not say \"%s\"", what);
}

static void assert_silent(const char *page, const char *what)
{
	const char *at = strstr(page, what);
	if (at)
		fail_msg("the page says \"%s\": %.80s", what, at);
}

/* ---- compressions ---- */

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
	/* every length of a log is a state a kill may leave: all readable */
	static const char log[] = ONE TWO FINAL;
	for (size_t len = 0; len <= strlen(log); len += 37) {
		run r;
		write_file(in_run("log.jsonl"), log, len);
		assert_ok(run_open(&r, run_dir, err));
		assert_int_equal(r.cut_line, len > 0 && log[len - 1] != '\n' && log[len] != '\n');
		run_close(&r);
	}
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

/* ---- pieces ---- */

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

static void axes_have_ticks_people_read(void **state)
{
	static const struct { double lo, hi; bool log; int max; const char *expected; } cases[] = {
		{0, 100, false, 6, "0 20 40 60 80 100 "},
		{0.871, 0.899, false, 6, "0.87 0.88 0.89 0.90 "},
		{0, 12800, false, 5, "0 5 k 10 k "},
		{-3, 3, false, 5, "−2 0 2 "},
		{1, 4, false, 5, "1 2 3 4 "},
		{7.5, 7.5, false, 4, "7.0 7.5 8.0 "},
		{0, 0, false, 4, "0 0.5 1.0 "},
		{400000, 7.2e6, true, 6, "500 k 1 M 2 M 5 M "},
		{0.9, 10.2, true, 5, "1 2 5 10 "},
		{4.1, 5.2, true, 5, "4.25 4.50 4.75 5.00 5.25 "},
		{1e-6, 1e-3, true, 4, "1e-6 1e-5 1e-4 0.001 "},
		{1e-12, 1e12, true, 5, "1e-10 1e-5 1 100 k 10 G "},
		{0, 1e-4, false, 5, "0 2.5e-5 5e-5 7.5e-5 1e-4 "},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		axis a;
		char text[256] = "";
		axis_fit(&a, cases[i].lo, cases[i].hi, cases[i].log, 0, 100, cases[i].max);
		for (int k = 0; k < a.num_ticks; k++) {
			assert_true(axis_at(&a, a.ticks[k]) >= -1e-6 && axis_at(&a, a.ticks[k]) <= 100 + 1e-6);
			strcat(strcat(text, axis_label(&a, a.ticks[k]).s), " ");
		}
		if (strcmp(text, cases[i].expected) != 0)
			fail_msg("axis %zu: ticks \"%s\", expected \"%s\"", i, text, cases[i].expected);
		assert_true(a.num_ticks <= cases[i].max);
	}
	assert_false(axis_takes(true, 0));
	assert_false(axis_takes(false, NAN));
	assert_false(axis_takes(false, INFINITY));
	assert_true(axis_takes(false, -1));
}

static void numbers_are_written_for_people(void **state)
{
	struct { number_text got; const char *expected; } cases[] = {
		{text_si(7760448, ""), "7.76 M"}, {text_si(16, ""), "16"}, {text_si(999.6, ""), "1.00 k"}, {text_si(0.0031, "J"), "3.10 mJ"},
		{text_si(1234567890, "FLOP"), "1.23 GFLOP"}, {text_si(-2500, ""), "−2.50 k"}, {text_si(NAN, ""), "–"}, {text_si(0, ""), "0"},
		{text_si(0.25, ""), "0.25"}, {text_si(0.002, ""), "2.00e-03"}, {text_si(1e20, ""), "1.00e+20"}, {text_ms(12.345), "12.3 ms"},
		{text_share(0.88123), "88.1 %"}, {text_points(-0.0079), "−0.8 points"}, {text_points(0.0001), "±0.0 points"},
		{text_points(NAN), "–"}, {text_ratio(18.04), "18.0×"}, {text_ratio(1.004), "1.00×"}, {text_ratio(INFINITY), "–"},
		{text_fixed(0.0312, 3), "0.031"}, {text_fixed(-1.5, 1), "−1.5"}, {text_fixed(0.0001, 2), "1.00e-04"},
		{text_seconds(45), "45 s"}, {text_seconds(150), "2.5 min"}, {text_seconds(9000), "2.5 h"},
		{text_mean_sd(92, 2, 2), "92.00 ± 2.00"}, {text_mean_sd(92, NAN, 2), "92.00"}, {text_mean_sd(NAN, NAN, 2), "–"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		if (strcmp(plain_spaces(cases[i].got.s), cases[i].expected) != 0)
			fail_msg("number %zu: \"%s\", expected \"%s\"", i, cases[i].got.s, cases[i].expected);
}

static void text_is_escaped_cut_and_always_utf8(void **state)
{
	static const struct { const char *text; int columns; const char *expected; } cases[] = {
		{"a<b>&\"'", 0, "a&lt;b&gt;&amp;&quot;&#39;"},
		{"\x80\xC0\xAF\xC2", 0, "\uFFFD\uFFFD\uFFFD\uFFFD"},      /* stray, overlong, cut by the end */
		{"\xE0\x80\x80", 0, "\uFFFD\uFFFD\uFFFD"},                /* overlong */
		{"\xED\xA0\x80", 0, "\uFFFD\uFFFD\uFFFD"},                /* surrogate */
		{"\xF4\x90\x80\x80", 0, "\uFFFD\uFFFD\uFFFD\uFFFD"},      /* beyond Unicode */
		{"\xEF\xBF\xBF\x01\t\x7F", 0, "\uFFFD\uFFFD\t\uFFFD"},    /* not in XML */
		{"合规 ok 🎲", 0, "合规 ok 🎲"},
		{"合规合规", 8, "合规合规"},
		{"合规合规", 7, "合规合…"},
		{"abcdef", 4, "abc…"},
		{"<<<<<", 3, "&lt;&lt;…"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char *out = NULL;
		size_t len;
		FILE *f = open_memstream(&out, &len);
		if (cases[i].columns)
			html_text_fit(f, cases[i].text, cases[i].columns);
		else
			html_text(f, cases[i].text);
		fclose(f);
		if (strcmp(out, cases[i].expected) != 0)
			fail_msg("text %zu: \"%s\", expected \"%s\"", i, out, cases[i].expected);
		free(out);
	}
	assert_int_equal(text_columns("合规 ok"), 7);
}

/* Crowded and odd data: what fits is drawn, no text covers another (the checker says so), nothing is NaN. */
static void plots_stand_crowded_data(void **state)
{
	enum { N = 60 };
	double x[N], y[N];
	const char *labels[N];
	char names[N][24], path[320];
	snprintf(path, sizeof path, "%s/plots.html", scratch);
	FILE *f = fopen(path, "w");
	html_page_open(f, "plots");
	for (int scene = 0; scene < 6; scene++) {
		for (int i = 0; i < N; i++) {
			snprintf(names[i], sizeof names[i], "%03d-合规 name", i);
			labels[i] = names[i];
			x[i] = scene == 1 ? 5 : scene == 2 ? pow(10, i / 4.0 - 6) : scene == 3 ? 1e-9 * i : i * 0.01;
			y[i] = scene == 1 ? -7 : scene == 2 ? pow(2, -i) : scene == 4 && i % 3 ? NAN : sin(i);
		}
		plot_mark marks[N];
		for (int i = 0; i < N; i++)
			marks[i] = (plot_mark){.at = x[i], .label = names[i]};
		const plot_mark level = {.at = scene == 2 ? 1e-4 : 0.5, .label = "teacher", .in_range = true};
		const plot_series series[] = {
			{.name = "a rather long name of a series that stands in the legend", .colour = 0, .count = N, .x = x, .y = y, .labels = labels,
			 .dots = true, .line = true},
			{.name = "another one that does not fit beside it", .colour = 1, .count = 1, .x = x, .y = y, .dots = true, .hollow = true},
			{.name = "and a third", .colour = 2, .count = 0},
		};
		const plot p = {.title = "crowded", .x_label = "x", .y_label = "y", .width = scene == 5 ? 300 : 470, .height = 300,
				.log_x = scene == 2, .log_y = scene == 2, .series = series, .num_series = 3, .vertical = marks, .num_vertical = N,
				.horizontal = &level, .num_horizontal = 1};
		assert_true(svg_plot(f, &p));
	}
	/* nothing to draw, nothing drawn */
	const double bad[] = {NAN, INFINITY, -1, 0};
	const plot_series nothing = {.colour = 0, .count = 4, .x = bad, .y = bad, .line = true, .dots = true};
	const plot empty = {.title = "empty", .x_label = "x", .y_label = "y", .width = 470, .height = 300, .log_x = true, .series = &nothing,
			    .num_series = 1};
	const long before = ftell(f);
	assert_false(svg_plot(f, &empty));
	assert_int_equal(ftell(f), before);
	html_page_close(f);
	fclose(f);
	page_checks(path);
}

/* ---- energy ---- */

static void domain(const char *root, const char *dir, const char *name, const char *uj, const char *range)
{
	char path[400];
	snprintf(path, sizeof path, "%s/%s", root, dir);
	mkdir(path, 0755);
	snprintf(path, sizeof path, "%s/%s/name", root, dir);
	write_text(path, name);
	snprintf(path, sizeof path, "%s/%s/max_energy_range_uj", root, dir);
	write_text(path, range);
	snprintf(path, sizeof path, "%s/%s/energy_uj", root, dir);
	unlink(path);
	if (uj)
		write_text(path, uj);
}

static void joules_come_from_the_counters(void **state)
{
	char root[300];
	energy_meter m;
	double joules = -1;
	snprintf(root, sizeof root, "%s/powercap", scratch);
	assert_false(energy_meter_open(&m, root)); /* no such machine */
	assert_int_equal(mkdir(root, 0755), 0);
	assert_false(energy_meter_open(&m, root)); /* no domain */
	domain(root, "intel-rapl:0", "package-0\n", "1000000\n", "262143328850\n");
	domain(root, "intel-rapl:0:0", "core\n", "900000\n", "262143328850\n");
	domain(root, "intel-rapl:0:2", "dram\n", "5000000\n", "65712999613\n");
	domain(root, "intel-rapl:1", "package-1\n", "262143000000\n", "262143328850\n");
	domain(root, "intel-rapl:2", "psys\n", "77\n", "262143328850\n");
	domain(root, "intel-rapl-mmio:0", "package-0\n", "1\n", "262143328850\n");
	assert_true(energy_meter_open(&m, root));
	assert_int_equal(m.count, 3);
	assert_true(energy_meter_read(&m, &joules));
	assert_true(joules == 0);
	domain(root, "intel-rapl:0", "package-0\n", "3500000\n", "262143328850\n");  /* 2.5 J */
	domain(root, "intel-rapl:0:2", "dram\n", "5250000\n", "65712999613\n");      /* 0.25 J */
	domain(root, "intel-rapl:1", "package-1\n", "671150\n", "262143328850\n");   /* round its end: 1 J */
	domain(root, "intel-rapl:2", "psys\n", "99999999\n", "262143328850\n");      /* holds the packages: not counted */
	assert_true(energy_meter_read(&m, &joules));
	assert_close(joules, 3.75, 1e-9, "joules", 0);
	domain(root, "intel-rapl:0", "package-0\n", "3600000\n", "262143328850\n");
	assert_true(energy_meter_read(&m, &joules));
	assert_close(joules, 3.85, 1e-9, "joules", 1); /* they add up */
	domain(root, "intel-rapl:1", "package-1\n", NULL, "262143328850\n");
	assert_false(energy_meter_read(&m, &joules));
	assert_false(energy_meter_open(&m, root)); /* half a machine is none */
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

static int open_scratch(void **state)
{
	scratch_open(scratch, sizeof scratch);
	return 0;
}

static int remove_scratch(void **state)
{
	remove_tree(scratch);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_reader_finds_what_is_in_a_run),
		cmocka_unit_test(a_whole_run_becomes_a_page),
		cmocka_unit_test(measured_joules_are_preferred_and_said),
		cmocka_unit_test(energy_is_compared_by_one_method),
		cmocka_unit_test(a_killed_run_is_shown_as_far_as_it_came),
		cmocka_unit_test(what_a_resumed_run_did_twice_counts_once),
		cmocka_unit_test(iterations_without_steps_have_their_own_validation),
		cmocka_unit_test(latencies_of_different_hours_make_no_ratio),
		cmocka_unit_test(settings_that_changed_on_the_way_are_shown),
		cmocka_unit_test(inputs_are_shown_in_full),
		cmocka_unit_test(unknown_events_and_keys_change_nothing),
		cmocka_unit_test(what_is_missing_is_left_out_with_one_sentence),
		cmocka_unit_test(names_of_strangers_are_only_text),
		cmocka_unit_test(damage_is_named),
		cmocka_unit_test(a_training_shows_its_curves),
		cmocka_unit_test(the_command_writes_a_page_or_one_line),
		cmocka_unit_test(curves_are_smooth_thin_and_keep_jumps),
		cmocka_unit_test(axes_have_ticks_people_read),
		cmocka_unit_test(numbers_are_written_for_people),
		cmocka_unit_test(text_is_escaped_cut_and_always_utf8),
		cmocka_unit_test(plots_stand_crowded_data),
		cmocka_unit_test(joules_come_from_the_counters),
		cmocka_unit_test(energy_of_a_year),
	};
	return cmocka_run_group_tests(tests, open_scratch, remove_scratch);
}
