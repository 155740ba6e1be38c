/* report_fixture.h: what the tests of reports share: run directories written by hand, the page that comes out of one, and what it says. */
#ifndef WINNOW_TESTS_REPORT_FIXTURE_H
#define WINNOW_TESTS_REPORT_FIXTURE_H

#include "tests/prune/support.h"

#include "prune/report/report.h"
#include "prune/report/run_parse.h"
#include "tests/base/page_check.h"

static char scratch[256], run_dir[300];

static inline int open_scratch(void **state)
{
	scratch_open(scratch, sizeof scratch);
	return 0;
}

static inline int remove_scratch(void **state)
{
	remove_tree(scratch);
	return 0;
}

/* ---- a run by hand: a compression in two iterations of three steps ---- */

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

static inline char *in_run(const char *name)
{
	static char buf[4][400];
	static unsigned next;
	char *p = buf[next++ % 4];
	snprintf(p, sizeof buf[0], "%s/%s", run_dir, name);
	return p;
}

/* A fresh run directory; NULL: no such file. */
static inline void make_run(const char *manifest, const char *plan, const char *log, const char *ablation)
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

/* The page of run_dir, checked; the caller frees. noinline: GCC 12 takes what is stored through &page for &page itself. */
static __attribute__((noinline)) char *page_of(void)
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

static inline void assert_says(const char *page, const char *what)
{
	if (!strstr(page, what))
		fail_msg("the page does not say \"%s\"", what);
}

static inline void assert_silent(const char *page, const char *what)
{
	if (strstr(page, what))
		fail_msg("the page says \"%s\": %.80s", what, strstr(page, what));
}

#endif
