/* Single promises of a compression run: what it opens and asks for, what it exports and says about it, which settings it takes. What
 * it opens is counted: the linker puts the functions below in front of the real ones. */
#include "tests/compress/compress_fixture.h"

#include <dirent.h>
#include <time.h>

#include "prune/adamw_model.h"
#include "prune/compress/compress_plan_print.h"
#include "prune/compress/distiller.h"
#include "prune/compress/side_by_side.h"
#include "prune/bench_request.h"
#include "prune/memory_check.h"

/* ---- in front of the real functions ---- */

static struct {
	int sessions, training_sessions, optimisers, teachers;
} opened;

wn_code __real_blip2_session_open(blip2_session **out, const blip2 *m, const blip2_session_options *opt, wn_error *err);
wn_code __wrap_blip2_session_open(blip2_session **out, const blip2 *m, const blip2_session_options *opt, wn_error *err);
wn_code __wrap_blip2_session_open(blip2_session **out, const blip2 *m, const blip2_session_options *opt, wn_error *err)
{
	opened.sessions++;
	opened.training_sessions += opt->training;
	return __real_blip2_session_open(out, m, opt, err);
}

wn_code __real_adamw_open_model(adamw *a, float **grads, const adamw_options *opt, const blip2 *m, wn_error *err);
wn_code __wrap_adamw_open_model(adamw *a, float **grads, const adamw_options *opt, const blip2 *m, wn_error *err);
wn_code __wrap_adamw_open_model(adamw *a, float **grads, const adamw_options *opt, const blip2 *m, wn_error *err)
{
	opened.optimisers++;
	return __real_adamw_open_model(a, grads, opt, m, err);
}

wn_code __real_teacher_open(teacher **out, const teacher_options *o, wn_error *err);
wn_code __wrap_teacher_open(teacher **out, const teacher_options *o, wn_error *err);
wn_code __wrap_teacher_open(teacher **out, const teacher_options *o, wn_error *err)
{
	opened.teachers++;
	return __real_teacher_open(out, o, err);
}

static bool memory_is_small; /* then nothing fits */

wn_code __real_memory_check(const char *what, size_t floats, int copies, size_t beside, wn_error *err);
wn_code __wrap_memory_check(const char *what, size_t floats, int copies, size_t beside, wn_error *err);
wn_code __wrap_memory_check(const char *what, size_t floats, int copies, size_t beside, wn_error *err)
{
	return __real_memory_check(what, memory_is_small ? (size_t)1e15 : floats, copies, beside, err);
}

/* Models in the order in which they were timed, and the times they are given: bench_request itself is not called while this is on. */
static struct {
	bool on;
	const blip2 *models[16];
	int threads[16];
	int count;
	volatile sig_atomic_t *stop; /* set at the third */
	const blip2 *heavy;
} timed;

/* A request of one model takes three times the processor of the other's. */
static void work(const blip2 *m)
{
	struct timespec now, start;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &start);
	do
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	while ((double)(now.tv_sec - start.tv_sec) + 1e-9 * (double)(now.tv_nsec - start.tv_nsec) < (m == timed.heavy ? 0.03 : 0.01));
}

wn_code __real_bench_request(const blip2 *m, const bench_request_options *o, double *times, wn_error *err);
wn_code __wrap_bench_request(const blip2 *m, const bench_request_options *o, double *times, wn_error *err);
wn_code __wrap_bench_request(const blip2 *m, const bench_request_options *o, double *times, wn_error *err)
{
	if (!timed.on)
		return __real_bench_request(m, o, times, err);
	assert_true(timed.count < 16);
	timed.models[timed.count] = m;
	timed.threads[timed.count] = omp_get_max_threads();
	for (int i = 0; i < o->runs; i++) /* a machine that becomes slower: rounds of 10, 20, 30, … */
		times[i] = 10 * (timed.count + 1) + i;
	if (o->mark) {
		o->mark(o->ctx, true);
		work(m);
		o->mark(o->ctx, false);
	}
	if (++timed.count == 3 && timed.stop)
		*timed.stop = 1;
	return WN_OK;
}

/* ---- what is opened ---- */

static void open_workspace(workspace *w, compress_config *c, const char *run, const char *const *sets, int num_sets, bool dry, FILE *out)
{
	const workspace_options o = {.dry = dry, .out = out};
	load_config(c, run, sets, num_sets);
	omp_set_num_threads(c->threads);
	assert_ok(workspace_open(w, c, &o, err));
}

static void scoring_opens_only_what_it_needs(void **state)
{
	static const struct {
		importance_method method;
		int sessions, training_sessions;
	} cases[] = {{IMPORTANCE_TAYLOR, 1, 1}, {IMPORTANCE_ACTIVATION, 1, 0}, {IMPORTANCE_MAGNITUDE, 0, 0}, {IMPORTANCE_RANDOM, 0, 0}};
	FILE *quiet = fopen("/dev/null", "w");
	compress_config c;
	workspace w;
	open_workspace(&w, &c, "scored", NULL, 0, true, quiet);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		distiller *d;
		structure_scores s;
		double sum = 0;
		memset(&opened, 0, sizeof opened);
		assert_ok(structure_scores_open(&s, blip2_get_config(w.teacher.model), err));
		assert_ok(distiller_open_scores(&d, &w, w.teacher.model, cases[i].method, err));
		assert_ok(distiller_score(d, 2, &s, err));
		distiller_close(&d);
		for (size_t k = 0; k < s.count; k++)
			sum += s.memory[k];
		assert_true(sum > 0);
		structure_scores_close(&s);
		assert_int_equal(opened.sessions, cases[i].sessions);
		assert_int_equal(opened.training_sessions, cases[i].training_sessions);
		assert_int_equal(opened.optimisers, 0);
	}
	workspace_close(&w);
	compress_config_free(&c);
	fclose(quiet);
}

static bool cache_has(const char *run, const char *name)
{
	char path[600];
	snprintf(path, sizeof path, "%s/%s/cache", dir, run);
	bool found = false;
	DIR *d = opendir(path);
	for (struct dirent *e; d && (e = readdir(d));)
		found = found || !strncmp(e->d_name, name, strlen(name));
	if (d)
		closedir(d);
	return found;
}

/* Its own cache; validation is a whole split, training its first 40. */
static void a_dry_run_decodes_what_it_times_and_no_more(void **state)
{
	static const char *const sets[] = {"data.cache=", "data.test=test"};
	FILE *quiet = fopen("/dev/null", "w");
	char path[600];
	compress_config c;
	workspace w;
	open_workspace(&w, &c, "dry", sets, 2, true, quiet);
	assert_true(cache_has("dry", "test-56-first40.rgb"));
	assert_false(cache_has("dry", "test-56.rgb"));
	workspace_close(&w);
	compress_config_free(&c);
	snprintf(path, sizeof path, "%s/dry/manifest.json", dir);
	assert_int_equal(access(path, F_OK), -1);
	open_workspace(&w, &c, "dry", sets, 2, false, quiet);
	assert_true(cache_has("dry", "test-56.rgb"));
	workspace_close(&w);
	compress_config_free(&c);
	fclose(quiet);
}

static void no_teacher_is_asked_when_nothing_is_learned_from_it(void **state)
{
	static const char *const labels[] = {"loss.kl=0", "loss.pair=0", "loss.relation=0", "loss.hidden=0", "loss.finish_hidden=0", "loss.nll=1"};
	static const char *const until_finish[] = {"loss.kl=0", "loss.pair=0", "loss.relation=0", "loss.hidden=1", "loss.finish_hidden=0", "loss.nll=1"};
	memset(&opened, 0, sizeof opened);
	compress_ok("labels", labels, 6, false, 0);
	assert_int_equal(opened.teachers, 0);
	json_t *steps = events_of("labels", "step");
	assert_int_equal(json_array_size(steps), ALL_STEPS);
	for (size_t i = 0; i < json_array_size(steps); i++)
		assert_true(num(json_array_get(steps, i), "nll") > 0 && num(json_array_get(steps, i), "kl") == 0);
	json_decref(steps);
	memset(&opened, 0, sizeof opened);
	compress_ok("until", until_finish, 6, false, 0);
	assert_int_equal(opened.teachers, 1);
}

static void what_does_not_fit_the_memory_is_refused(void **state)
{
	assert_ok(memory_check("model", 1000, MEMORY_OF_STEPS, 1000, err));
	assert_refused(WN_TOO_LARGE, "student: 1000000000.0 M parameters take", memory_check("student", (size_t)1e15, MEMORY_OF_STEPS, 0, err));
	assert_refused(WN_TOO_LARGE, "student: 0.0 M parameters take", memory_check("student", 1000, MEMORY_OF_STEPS, (size_t)1e15, err));
	/* and it is asked before anything is opened */
	FILE *quiet = fopen("/dev/null", "w");
	compress_config c;
	workspace w;
	distiller *d;
	blip2 *student;
	open_workspace(&w, &c, "large", NULL, 0, true, quiet);
	assert_ok(blip2_create(&student, blip2_get_config(w.teacher.model), err));
	memset(&opened, 0, sizeof opened);
	memory_is_small = true;
	assert_refused(WN_TOO_LARGE, "student: ", distiller_open(&d, &w, NULL, student, NULL, 0, err));
	assert_refused(WN_TOO_LARGE, "teacher: ", distiller_open_scores(&d, &w, w.teacher.model, IMPORTANCE_TAYLOR, err));
	memory_is_small = false;
	assert_null(d);
	assert_int_equal(opened.sessions + opened.optimisers, 0);
	blip2_close(&student);
	workspace_close(&w);
	compress_config_free(&c);
	fclose(quiet);
}

/* ---- the best one ---- */

static void without_validation_the_last_one_is_the_best(void **state)
{
	static const char *const sets[] = {"data.validation=", "eval.every=1"};
	compress_ok("blind", sets, 2, false, 0);
	json_t *evals = events_of("blind", "eval"), *best_manifest = json_in_run("blind", "best/winnow.json");
	assert_int_equal(json_array_size(evals), ALL_STEPS);
	for (size_t i = 0; i < json_array_size(evals); i++)
		assert_true(json_is_true(json_object_get(json_array_get(evals, i), "best")));
	assert_int_equal(json_integer_value(json_object_get(json_object_get(best_manifest, "lineage"), "step")), ALL_STEPS);
	json_decref(evals);
	json_decref(best_manifest);
	char *last, *best;
	size_t n, m;
	read_in_run("blind", "iterations/005-finish/model.safetensors", &last, &n);
	read_in_run("blind", "best/model.safetensors", &best, &m);
	assert_true(n == m && !memcmp(last, best, n));
	free(last);
	free(best);
}

/* ---- the export ---- */

/* The figures of a directory on the split, computed here. */
static double nll_of(const char *run, const char *name)
{
	FILE *quiet = fopen("/dev/null", "w");
	const checkpoint_options co = {.skip_digest = true};
	char path[600];
	compress_config c;
	workspace w;
	checkpoint ck;
	metrics *m = calloc(1, sizeof *m);
	snprintf(path, sizeof path, "%s/%s/%s", dir, run, name);
	open_workspace(&w, &c, "asked", NULL, 0, false, quiet);
	assert_ok(checkpoint_load(&ck, path, &co, err));
	assert_ok(workspace_evaluate(&w, &w.validation, ck.model, m, err));
	const double nll = m->nll;
	checkpoint_close(&ck);
	workspace_close(&w);
	compress_config_free(&c);
	fclose(quiet);
	free(m);
	return nll;
}

static void the_final_figures_are_of_the_delivered_directory(void **state)
{
	static const char *const sets[] = {"export.dtype=bf16"};
	compress_ok("rounded", sets, 1, false, 0);
	json_t *finals = events_of("rounded", "final");
	const double logged = num(json_object_get(json_array_get(finals, 0), "eval"), "nll");
	json_decref(finals);
	const double exported = nll_of("rounded", "export"), best = nll_of("rounded", "best");
	assert_true(fabs(exported - best) > 1e-6); /* rounding shows */
	assert_close(logged, exported, 1e-8, "nll", 0);
}

/* What is unusable: tests/prune/test_export_dir.c. */
static void an_unusable_export_is_refused_at_once(void **state)
{
	char path[600], set[600];
	snprintf(set, sizeof set, "export.dir=%s/teacher/export/", dir);
	compress_refused("nowhere", set, false, "export/ is the teacher: it would be replaced");
	snprintf(path, sizeof path, "%s/nowhere/manifest.json", dir);
	assert_int_equal(access(path, F_OK), -1); /* nothing was begun */
	const char *sets[] = {set};
	snprintf(set, sizeof set, "export.dir=%s/given", dir);
	compress_ok("given-run", sets, 1, false, 0);
	json_decref(json_in_run("given", "winnow.json"));
}

/* ---- latency ---- */

static void student_and_teacher_are_timed_in_turns(void **state)
{
	FILE *quiet = fopen("/dev/null", "w");
	volatile sig_atomic_t stop = 0;
	compress_config c;
	workspace w;
	checkpoint other;
	const checkpoint_options co = {.skip_digest = true};
	char path[600];
	open_workspace(&w, &c, "turns", NULL, 0, true, quiet);
	snprintf(path, sizeof path, "%s/teacher/export", dir);
	assert_ok(checkpoint_load(&other, path, &co, err));
	const side_by_side_options o = {.tokens = 8, .threads = 1, .runs = 3, .stop = &stop};
	request_use a, b;
	omp_set_num_threads(2);
	memset(&timed, 0, sizeof timed);
	timed.on = true;
	timed.heavy = w.teacher.model;
	assert_ok(side_by_side_measure(&a, &b, other.model, w.teacher.model, &o, err));
	assert_int_equal(timed.count, 2 * SIDE_BY_SIDE_ROUNDS); /* all numbers are of the same requests */
	for (int i = 0; i < timed.count; i++)
		assert_ptr_equal(timed.models[i], i % 2 ? w.teacher.model : other.model);
	for (int i = 0; i < timed.count; i++)
		assert_int_equal(timed.threads[i], 1);
	assert_int_equal(omp_get_max_threads(), 2);
	assert_true(a.latency_ms == 31 && b.latency_ms == 41); /* medians of 11 31 51 and 21 41 61 */
	assert_close(a.cpu_seconds, 0.01 / 3, 0.002 / 3, "CPU seconds", 0); /* three runs a round */
	assert_close(b.cpu_seconds, 0.03 / 3, 0.002 / 3, "CPU seconds", 1);
	memset(&timed, 0, sizeof timed);
	timed.on = true;
	timed.stop = &stop;
	assert_refused(WN_CANCELLED, "stopped", side_by_side_measure(&a, &b, other.model, w.teacher.model, &o, err));
	assert_int_equal(timed.count, 3);
	timed.on = false;
	checkpoint_close(&other);
	workspace_close(&w);
	compress_config_free(&c);
	fclose(quiet);
}

/* Requests that were made when the marks came. */
static int requests, marked[2], marks;

wn_code __real_engine_run(engine_session *s, const blip2_batch *b, const int32_t *rows, size_t count, float *out, wn_error *err);
wn_code __wrap_engine_run(engine_session *s, const blip2_batch *b, const int32_t *rows, size_t count, float *out, wn_error *err);
wn_code __wrap_engine_run(engine_session *s, const blip2_batch *b, const int32_t *rows, size_t count, float *out, wn_error *err)
{
	requests++;
	return __real_engine_run(s, b, rows, count, out, err);
}

static void note_mark(void *ctx, bool begin)
{
	assert_int_equal(marks, !begin);
	marked[marks++] = requests;
}

static void a_request_is_marked_without_its_warm_up(void **state)
{
	double times[3];
	checkpoint ck;
	const checkpoint_options co = {.skip_digest = true};
	const bench_request_options o = {.tokens = 8, .logit_rows = 1, .runs = 3, .mark = note_mark};
	char path[600];
	snprintf(path, sizeof path, "%s/teacher/export", dir);
	assert_ok(checkpoint_load(&ck, path, &co, err));
	requests = marks = 0;
	assert_ok(bench_request(ck.model, &o, times, err));
	assert_int_equal(marks, 2);
	assert_int_equal(marked[0], BENCH_WARM_UP_RUNS);
	assert_int_equal(marked[1], BENCH_WARM_UP_RUNS + 3);
	request_use use;
	assert_ok(request_use_measure(&use, ck.model, 8, 3, err));
	assert_true(use.latency_ms > 0 && use.cpu_seconds > 0);
	assert_refused(WN_INVALID, "runs: found 0", request_use_measure(&use, ck.model, 8, 0, err));
	checkpoint_close(&ck);
}

static void the_final_event_has_both_latencies(void **state)
{
	static const char *const sets[] = {"eval.latency_runs=2", "target.threads=1", "stages=[blocks+queries+inner+hidden | iterations 1 | steps 1]",
					   "distill.finish_steps=1"};
	compress_ok("timed", sets, 4, false, 0);
	json_t *finals = events_of("timed", "final"), *last = json_array_get(finals, 0);
	assert_true(num(last, "latency_ms") > 0 && num(last, "teacher_latency_ms") > 0);
	assert_true(num(last, "cpu_seconds_per_request") > 0 && num(last, "teacher_cpu_seconds_per_request") > 0);
	json_decref(finals);
}

/* ---- settings ---- */

static void request_threads_are_the_runs_unless_given(void **state)
{
	static const char *const one[] = {"target.threads=1"};
	compress_config c;
	load_config(&c, "threads", NULL, 0);
	assert_int_equal(compress_request_threads(&c), 2);
	compress_config_free(&c);
	load_config(&c, "threads", one, 1);
	assert_int_equal(compress_request_threads(&c), 1);
	compress_config_free(&c);
	/* and the cost model takes them */
	FILE *quiet = fopen("/dev/null", "w");
	workspace w;
	compress_cost cost;
	double ms;
	open_workspace(&w, &c, "threads", one, 1, true, quiet);
	assert_ok(compress_cost_open(&cost, &w, err));
	memset(&timed, 0, sizeof timed);
	timed.on = true;
	assert_ok(cost_measure(cost.model, blip2_get_config(w.teacher.model), 2, &ms, err));
	timed.on = false;
	assert_true(timed.count > 1); /* times that grow: never two that agree */
	assert_true(ms >= 10 && ms < 20); /* the shortest counts */
	for (int i = 0; i < timed.count; i++)
		assert_int_equal(timed.threads[i], 1);
	compress_cost_close(&cost);
	workspace_close(&w);
	compress_config_free(&c);
	fclose(quiet);
}

static void a_baseline_from_scratch_needs_no_stages(void **state)
{
	static const char *const sets[] = {"start=scratch", "stages=[]", "loss.hidden=0"};
	compress_ok("scratch", sets, 3, false, 0);
	json_t *plan = json_in_run("scratch", "plan.json"), *all = json_object_get(plan, "iterations");
	assert_int_equal(json_array_size(all), 1);
	assert_string_equal(json_string_value(json_object_get(json_array_get(all, 0), "name")), "001-finish");
	assert_int_equal(json_integer_value(json_object_get(json_array_get(all, 0), "steps")), 4);
	json_decref(plan);
	/* with them: as many steps as the pruned student has */
	static const char *const staged[] = {"start=scratch"};
	compress_ok("scratch-staged", staged, 1, false, 2);
	plan = json_in_run("scratch-staged", "plan.json");
	all = json_object_get(plan, "iterations");
	assert_int_equal(json_integer_value(json_object_get(json_array_get(all, 0), "steps")), ALL_STEPS);
	json_decref(plan);
	compress_ok("scratch-staged", staged, 1, true, 0); /* and it can be continued */
}

static void a_name_that_cannot_be_saved_is_refused_at_once(void **state)
{
	char path[600];
	compress_refused("misnamed", "name=my student", false, "name: found \"my student\", expected 1 to 64 of");
	snprintf(path, sizeof path, "%s/misnamed/manifest.json", dir);
	assert_int_equal(access(path, F_OK), -1);
}

static void refuse_config(wn_code code, const char *words, const char *const *sets, int num_sets)
{
	compress_config c;
	char path[400];
	load_config(&c, "settings", NULL, 0);
	compress_config_free(&c);
	snprintf(path, sizeof path, "%s/settings.yaml", dir);
	assert_refused(code, words, compress_config_load(&c, path, sets, num_sets, err));
}

static void settings_that_make_no_sense_are_refused(void **state)
{
	static const char *const planned[] = {"target.kind=parameters", "target.value=1000"};
	static const char *const idle[] = {"start=scratch", "stages=[]", "distill.finish_steps=0"};
	refuse_config(WN_INVALID, "target.precision", (const char *const[]){"target.precision=fp8"}, 1);
	refuse_config(WN_INVALID, "final.vision.num_hidden_layers: found 1, expected nothing: with target.kind parameters", planned, 2);
	refuse_config(WN_INVALID, "distill.finish_steps: found 0", idle, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(scoring_opens_only_what_it_needs),
		cmocka_unit_test(a_dry_run_decodes_what_it_times_and_no_more),
		cmocka_unit_test(no_teacher_is_asked_when_nothing_is_learned_from_it),
		cmocka_unit_test(what_does_not_fit_the_memory_is_refused),
		cmocka_unit_test(without_validation_the_last_one_is_the_best),
		cmocka_unit_test(the_final_figures_are_of_the_delivered_directory),
		cmocka_unit_test(an_unusable_export_is_refused_at_once),
		cmocka_unit_test(student_and_teacher_are_timed_in_turns),
		cmocka_unit_test(a_request_is_marked_without_its_warm_up),
		cmocka_unit_test(the_final_event_has_both_latencies),
		cmocka_unit_test(request_threads_are_the_runs_unless_given),
		cmocka_unit_test(a_baseline_from_scratch_needs_no_stages),
		cmocka_unit_test(a_name_that_cannot_be_saved_is_refused_at_once),
		cmocka_unit_test(settings_that_make_no_sense_are_refused),
	};
	return cmocka_run_group_tests(tests, open_dir, close_dir);
}
