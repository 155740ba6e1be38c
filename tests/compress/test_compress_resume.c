/* What a compression that is stopped, killed or resumed keeps, repeats and refuses. Calls that matter are counted, and Ctrl-C comes
 * at a chosen one: the linker puts the functions below in front of the real ones. */
#include "tests/compress/compress_fixture.h"

#include "prune/compress/compress_plan_print.h"
#include "prune/compress/distiller.h"
#include "prune/evaluate.h"

/* ---- in front of the real functions ---- */

static volatile sig_atomic_t stop;
static int scorings, evaluations, backwards;
static int stop_at_evaluation, stop_at_backward; /* which one is interrupted, from 1; 0: none */

static void start_counting(void)
{
	stop = 0;
	scorings = evaluations = backwards = stop_at_evaluation = stop_at_backward = 0;
}

wn_code __real_distiller_score(distiller *d, int batches, structure_scores *s, wn_error *err);
wn_code __wrap_distiller_score(distiller *d, int batches, structure_scores *s, wn_error *err);
wn_code __wrap_distiller_score(distiller *d, int batches, structure_scores *s, wn_error *err)
{
	scorings++;
	return __real_distiller_score(d, batches, s, err);
}

/* Accuracies that validations find, in this order; the same for the same weights again. */
static struct {
	const double *script; /* NULL: what they are */
	double fingerprint[32], given[32];
	int count;
} graded;

static double grade(const blip2 *m)
{
	const float *w = blip2_weights((blip2 *)(uintptr_t)m);
	double print = 0;
	for (size_t i = 0; i < blip2_weights_count(m); i++)
		print += w[i] * (double)(1 + i % 101);
	int i = 0;
	while (i < graded.count && graded.fingerprint[i] != print)
		i++;
	assert_true(i < 32);
	if (i == graded.count) {
		graded.fingerprint[i] = print;
		graded.given[i] = *graded.script++;
		graded.count++;
	}
	return graded.given[i];
}

wn_code __real_evaluate_audit(const eval_data *d, const classifier *c, metrics *out, wn_error *err);
wn_code __wrap_evaluate_audit(const eval_data *d, const classifier *c, metrics *out, wn_error *err);
wn_code __wrap_evaluate_audit(const eval_data *d, const classifier *c, metrics *out, wn_error *err)
{
	if (++evaluations == stop_at_evaluation)
		stop = 1;
	wn_code rc = __real_evaluate_audit(d, c, out, err);
	if (!rc && graded.script)
		out->accuracy = grade(classifier_checkpoint(c)->model);
	return rc;
}

wn_code __real_blip2_backward_loss(blip2_session *s, const blip2_batch *b, const blip2_loss *l, float *grads, wn_error *err);
wn_code __wrap_blip2_backward_loss(blip2_session *s, const blip2_batch *b, const blip2_loss *l, float *grads, wn_error *err);
wn_code __wrap_blip2_backward_loss(blip2_session *s, const blip2_batch *b, const blip2_loss *l, float *grads, wn_error *err)
{
	if (++backwards == stop_at_backward)
		stop = 1;
	return __real_blip2_backward_loss(s, b, l, grads, err);
}

static int die_at_best; /* behind the save of this RUN/best, from 1: nothing more is written, as after a kill */

wn_code __real_checkpoint_save(const char *path, const blip2 *m, const manifest *man, const image_processor *ip, const char *tokenizer_path,
			       dtype d, wn_error *err);
wn_code __wrap_checkpoint_save(const char *path, const blip2 *m, const manifest *man, const image_processor *ip, const char *tokenizer_path,
			       dtype d, wn_error *err);
wn_code __wrap_checkpoint_save(const char *path, const blip2 *m, const manifest *man, const image_processor *ip, const char *tokenizer_path,
			       dtype d, wn_error *err)
{
	const size_t len = strlen(path);
	wn_code rc = __real_checkpoint_save(path, m, man, ip, tokenizer_path, d, err);
	if (!rc && len > 5 && !strcmp(path + len - 5, "/best") && --die_at_best == 0)
		return wn_fail(err, WN_IO, "killed");
	return rc;
}

/* ---- the undisturbed run that the others are compared with ---- */

static int open_all(void **state)
{
	if (open_dir(state))
		return 1;
	compress_ok("whole", NULL, 0, false, 0);
	return 0;
}

static void assert_as_whole(const char *run)
{
	assert_same_file("whole", run, "export/model.safetensors");
	assert_same_file("whole", run, "iterations/005-finish/model.safetensors");
}

static wn_code compress_stoppable(const char *run, const char *const *sets, int num_sets, bool resume, wn_error *err)
{
	wn_code rc = compress(run, sets, num_sets, resume, 0, &stop, err);
	stop = 0;
	return rc;
}

/* ---- what was kept ---- */

/* The second iteration was begun: its structures were chosen once and for all. */
static void a_resumed_iteration_is_cut_as_it_was(void **state)
{
	static const char pruning[] = "iterations/002-inner.pruning.json";
	compress_ok("cut", NULL, 0, false, 4);
	json_t *j = json_in_run("cut", pruning), *damaged;
	assert_true(json_is_object(json_object_get(j, "keep")) && json_is_object(json_object_get(j, "teacher_map")));
	start_counting();
	compress_ok("cut", NULL, 0, true, 4); /* to where it was */
	assert_int_equal(scorings, 0);

	/* what is not what it was is refused, not made up for */
	damaged = json_deep_copy(j);
	json_array_set_new(json_object_get(json_object_get(damaged, "keep"), "queries"), 0, json_integer(7));
	write_in_run("cut", pruning, damaged);
	compress_refused("cut", NULL, true, "002-inner.pruning.json: keep: queries[0]: found 7");
	json_decref(damaged);
	char path[600];
	snprintf(path, sizeof path, "%s/cut/%s", dir, pruning);
	assert_int_equal(unlink(path), 0);
	compress_refused("cut", NULL, true, "002-inner.pruning.json");

	/* what it lost is told from there as well */
	json_object_set_new(json_object_get(j, "score_lost"), "vision", json_real(0.125));
	write_in_run("cut", pruning, j);
	start_counting();
	compress_ok("cut", NULL, 0, true, 0);
	assert_int_equal(scorings, 2); /* 003-inner, 004-hidden */
	assert_as_whole("cut");
	json_t *iterations = events_of("cut", "iteration");
	assert_true(num(json_object_get(json_array_get(iterations, 1), "score_lost"), "vision") == 0.125);
	json_decref(iterations);
	json_decref(j);
}

/* Everything is kept that other scores would have kept: the file decides, not the weights. */
static void a_choice_of_its_own_is_respected(void **state)
{
	static const char pruning[] = "iterations/001-blocks-queries.pruning.json";
	compress_ok("chosen", NULL, 0, false, 1);
	json_t *j = json_in_run("chosen", pruning), *kept = json_object_get(j, "keep"), *map = json_object_get(j, "teacher_map");
	json_t *queries = json_object_get(kept, "queries");
	assert_int_equal(json_array_size(queries), 2);
	const json_int_t first = json_integer_value(json_array_get(queries, 0)), last = json_integer_value(json_array_get(queries, 1));
	const bool low = first == 0 && last == 1; /* two others of the four */
	json_array_set_new(queries, 0, json_integer(low ? 2 : 0));
	json_array_set_new(queries, 1, json_integer(low ? 3 : 1));
	json_object_set_new(map, "queries", json_deep_copy(queries));
	write_in_run("chosen", pruning, j);
	compress_ok("chosen", NULL, 0, true, 0);
	json_t *next = json_in_run("chosen", "iterations/002-inner.pruning.json");
	assert_true(json_equal(queries, json_object_get(json_object_get(next, "teacher_map"), "queries")));
	json_decref(next);
	json_decref(j);
}

/* And so is the plan, with whatever else stands in its file. */
static void a_plan_is_decided_once(void **state)
{
	compress_ok("planned", NULL, 0, false, 4);
	json_t *plan = json_in_run("planned", "plan.json");
	json_object_set_new(plan, "note", json_string("by hand"));
	write_in_run("planned", "plan.json", plan);
	json_decref(plan);
	compress_ok("planned", NULL, 0, true, 5);
	plan = json_in_run("planned", "plan.json");
	assert_string_equal(json_string_value(json_object_get(plan, "note")), "by hand");
	json_decref(plan);
}

static void seconds_count_from_the_beginning(void **state)
{
	compress_ok("seconds", NULL, 0, false, 4);
	json_t *position = json_in_run("seconds", "state/step-000000004/state.json");
	assert_true(num(position, "phase_seconds") > 0);
	json_object_set_new(position, "phase_seconds", json_real(1000));
	write_in_run("seconds", "state/step-000000004/state.json", position);
	json_decref(position);
	compress_ok("seconds", NULL, 0, true, 0);
	json_t *iterations = events_of("seconds", "iteration");
	assert_true(num(json_array_get(iterations, 1), "seconds") > 1000);
	assert_true(num(json_array_get(iterations, 2), "seconds") < 1000);
	json_decref(iterations);
	/* a checkpoint of before does not know */
	compress_ok("before", NULL, 0, false, 4);
	position = json_in_run("before", "state/step-000000004/state.json");
	json_object_del(position, "phase_seconds");
	write_in_run("before", "state/step-000000004/state.json", position);
	json_decref(position);
	compress_ok("before", NULL, 0, true, 0);
	assert_as_whole("before");
}

/* ---- the best one ---- */

/* The step of the last validation that was the best, by the log, by RUN/best and by what is delivered; and where it was made. */
static void assert_one_best(const char *run, json_int_t expected, const char *key, const char *where)
{
	json_t *evals = events_of(run, "eval"), *e;
	json_int_t logged = 0;
	size_t i;
	json_array_foreach(evals, i, e)
		if (json_is_true(json_object_get(e, "best")))
			logged = json_integer_value(json_object_get(e, "step"));
	json_decref(evals);
	assert_int_equal(logged, expected);
	for (int k = 0; k < 2; k++) {
		json_t *m = json_in_run(run, k ? "export/winnow.json" : "best/winnow.json"), *lineage = json_object_get(m, "lineage");
		assert_int_equal(json_integer_value(json_object_get(lineage, "step")), expected);
		assert_string_equal(json_string_value(json_object_get(lineage, key)), where);
		json_decref(m);
	}
}

/* A best is saved at step 12 and the run dies of it; what goes on from there, with other settings, never gets as good. */
static void a_best_that_was_saved_before_a_kill_is_still_the_runs(void **state)
{
	static const char *const sets[] = {"eval.every=1", "checkpoint_every=1000", "distill.finish_learning_rate=2e-4"};
	static const double until_killed[] = {0.1, 0.99}, from_there[] = {0, 0, 0, 0, 0};
	wn_error err = {0};
	compress_ok("best", sets, 2, false, 11); /* the finish has four steps */
	graded.count = 0;
	graded.script = until_killed; /* as it was cut, and behind step 12 */
	die_at_best = 1;
	assert_int_equal(compress("best", sets, 2, true, 0, NULL, &err), WN_IO);
	graded.script = from_there;
	compress_ok("best", sets, 3, true, 0);
	graded.script = NULL;
	assert_one_best("best", 12, "iteration", "005-finish");
}

static void a_training_keeps_its_best_too(void **state)
{
	static const char *const sets[] = {"audit.validation=test", "audit.steps=6", "eval.every=2", "checkpoint_every=3",
					   "audit.learning_rate=1e-3"};
	static const double until_killed[] = {0.5, 0.99}, from_there[] = {0, 0, 0, 0};
	graded.count = 0;
	graded.script = until_killed; /* behind steps 2 and 4 */
	die_at_best = 2;
	assert_refused(WN_IO, "killed", train("best-trained", sets, 4, false, 0, err));
	graded.script = from_there;
	assert_ok(train("best-trained", sets, 5, true, 0, err));
	graded.script = NULL;
	assert_one_best("best-trained", 4, "phase", "audit");
}

/* ---- Ctrl-C ---- */

/* checkpoint_every is beyond everything: what a stop does not save is lost. */
static void a_stopped_validation_loses_no_step_and_is_owed(void **state)
{
	static const char *const sets[] = {"eval.every=1", "checkpoint_every=1000"};
	wn_error err = {0};
	compress_ok("validated", sets, 2, false, 0);
	start_counting();
	stop_at_evaluation = 4; /* the teacher's, before the first step, behind the first and behind the second of three */
	assert_int_equal(compress_stoppable("owed", sets, 2, false, &err), WN_CANCELLED);
	if (!strstr(err.message, "001-blocks-queries at step 2 of 3"))
		fail_msg("%s", err.message);
	json_t *position = json_in_run("owed", "state/step-000000002/state.json");
	assert_true(json_is_true(json_object_get(position, "eval_pending")));
	json_decref(position);
	start_counting();
	compress_ok("owed", sets, 2, true, 0);
	json_t *owed = events_of("owed", "eval"), *evals = events_of("validated", "eval");
	assert_true(json_equal(owed, evals)); /* each once, with the same figures, the same one best */
	assert_int_equal(json_array_size(owed), ALL_STEPS);
	json_decref(owed);
	json_decref(evals);
	assert_same_file("validated", "owed", "export/model.safetensors");
}

static void a_stop_is_heard_in_every_part(void **state)
{
	for (int k = 1; k <= 4; k++) { /* the teacher's; the first iteration's before and behind its steps; the next one's */
		wn_error err = {0};
		char run[32];
		snprintf(run, sizeof run, "part%d", k);
		start_counting();
		stop_at_evaluation = k;
		assert_int_equal(compress_stoppable(run, NULL, 0, false, &err), WN_CANCELLED);
		compress_ok(run, NULL, 0, true, 0);
		assert_as_whole(run);
	}
}

/* A batch is two micro-batches. */
static void scoring_stops_between_batches(void **state)
{
	static const char *const sets[] = {"importance.batches=50"};
	wn_error err = {0};
	start_counting();
	stop_at_backward = 3; /* in the second batch */
	assert_int_equal(compress_stoppable("scoring", sets, 1, false, &err), WN_CANCELLED);
	assert_int_equal(backwards, 4);
	if (!strstr(err.message, "scoring, behind 2 of 50 batches"))
		fail_msg("%s", err.message);
}

/* A workspace to ask things of. */
static void open_workspace(workspace *w, compress_config *c, const char *run, const char *const *sets, int num_sets, const workspace_options *o)
{
	load_config(c, run, sets, num_sets);
	omp_set_num_threads(c->threads);
	assert_ok(workspace_open(w, c, o, err));
}

static void planning_stops_too(void **state)
{
	static const char *const sets[] = {"importance.batches=50"};
	FILE *quiet = fopen("/dev/null", "w");
	const workspace_options o = {.out = quiet, .stop = &stop};
	compress_config c;
	workspace w;
	compress_cost cost;
	compress_plan *p = calloc(1, sizeof *p);
	double ms;
	start_counting();
	open_workspace(&w, &c, "planning", sets, 1, &o);
	assert_ok(compress_cost_open(&cost, &w, err));
	const blip2_config *shape = blip2_get_config(w.teacher.model);
	assert_ok(cost_latency(cost.model, shape, &ms, err));
	assert_true(ms > 0);
	stop = 1;
	assert_refused(WN_CANCELLED, "stopped", cost_latency(cost.model, shape, &ms, err));
	assert_refused(WN_CANCELLED, "stopped", cost_measure(cost.model, shape, 3, &ms, err));
	stop = 0;
	assert_ok(compress_plan_make(p, &w, false, cost.model, err));
	stop_at_backward = 4; /* while the estimate is made */
	assert_refused(WN_CANCELLED, "stopped", compress_plan_print(p, &w, cost.model, quiet, err));
	assert_true(backwards <= 4);
	stop = 0;
	compress_cost_close(&cost);
	workspace_close(&w);
	compress_config_free(&c);
	fclose(quiet);
	free(p);
}

/* Only a plan that was just made is timed; the teacher where it stands. */
static void a_resumed_plan_is_printed_without_timing(void **state)
{
	char *text = NULL;
	size_t len = 0;
	for (int resume = 0; resume < 2; resume++) {
		FILE *quiet = fopen("/dev/null", "w"), *f = open_memstream(&text, &len);
		const workspace_options o = {.resume = resume, .dry = true, .out = quiet};
		compress_config c;
		workspace w;
		compress_cost cost;
		compress_plan *p = calloc(1, sizeof *p);
		start_counting();
		open_workspace(&w, &c, "whole", NULL, 0, &o);
		assert_ok(compress_cost_open(&cost, &w, err));
		assert_ok(compress_plan_make(p, &w, resume, cost.model, err));
		assert_int_equal(p->read, resume);
		assert_ok(compress_plan_print(p, &w, cost.model, f, err));
		fclose(f);
		assert_int_equal(scorings, resume ? 0 : 4);
		assert_int_equal(strstr(text, "about") != NULL, !resume);
		assert_non_null(strstr(text, "004-hidden"));
		assert_non_null(strstr(text, "40 labelled ads, 60 items without a label"));
		compress_cost_close(&cost);
		workspace_close(&w);
		compress_config_free(&c);
		fclose(quiet);
		free(text);
		free(p);
	}
}

/* ---- what may change, and what may not ---- */

static void other_settings_are_recorded(void **state)
{
	static const char *const sets[] = {"distill.learning_rate=5e-4", "loss.kl=0.25"};
	char *first, *later;
	size_t len;
	compress_ok("changed", NULL, 0, false, 4);
	read_in_run("changed", "manifest.json", &first, &len);
	compress_ok("changed", NULL, 0, true, 5);
	json_t *events = events_of("changed", "resume");
	assert_int_equal(json_array_size(events), 0); /* nothing is otherwise */
	json_decref(events);
	compress_ok("changed", sets, 2, true, 6);
	compress_ok("changed", sets, 2, true, 7); /* as said before */
	compress_ok("changed", NULL, 0, true, 8); /* again as at the beginning */
	compress_ok("changed", NULL, 0, true, 9);
	compress_ok("changed", sets, 1, true, 0);
	read_in_run("changed", "manifest.json", &later, &len);
	assert_string_equal(first, later); /* how it began */
	events = events_of("changed", "resume");
	json_t *expected = json_pack("[{s:[f, f], s:[f, f]}, {}, {s:[f, f]}]", "distill.learning_rate", 1e-3, 5e-4, "loss.kl", 1.0, 0.25,
				     "distill.learning_rate", 1e-3, 5e-4);
	assert_int_equal(json_array_size(events), 3);
	for (size_t i = 0; i < 3; i++)
		assert_true(json_equal(json_object_get(json_array_get(events, i), "changed"), json_array_get(expected, i)));
	json_decref(expected);
	json_decref(events);
	free(first);
	free(later);
}

static void a_training_records_them_too(void **state)
{
	static const char *const sets[] = {"audit.learning_rate=1e-3", "threads=1", "log_every=20s", "augment.flip=0.5"};
	char *first, *later;
	size_t len;
	assert_ok(train("trained", NULL, 0, false, 2, err));
	read_in_run("trained", "manifest.json", &first, &len);
	assert_ok(train("trained", NULL, 0, true, 3, err));
	assert_ok(train("trained", sets, 4, true, 0, err));
	read_in_run("trained", "manifest.json", &later, &len);
	assert_string_equal(first, later);
	json_t *events = events_of("trained", "resume");
	assert_int_equal(json_array_size(events), 1);
	json_t *expected = json_pack("{s:[f, f], s:[i, i], s:[f, f], s:[f, f]}", "audit.learning_rate", 2e-3, 1e-3, "threads", 2, 1,
				     "log_every", 15.0, 20.0, "augment.flip", 0.0, 0.5);
	assert_true(json_equal(json_object_get(json_array_get(events, 0), "changed"), expected));
	json_decref(expected);
	json_decref(events);
	free(first);
	free(later);
}

static void another_run_is_refused_by_name(void **state)
{
	static const struct {
		const char *set, *words;
	} cases[] = {
		{"final.vision.hidden_size=20", "manifest.json: cannot resume: final.vision.hidden_size: found 20, expected 24"},
		{"limits.text.blocks=2", "limits.text.blocks: found 2, expected 1"},
		{"target.threads=1", "target.threads: found 1, expected 0"},
		{"width_multiple=8", "width_multiple: found 8, expected 4"},
		{"distill.finish_steps=5", "distill.finish_steps: found 5, expected 4"},
		{"stages=[blocks+queries+inner+hidden | iterations 1 | steps 3]", "stages: found"},
		{"importance.method=magnitude", "importance.method: found \"magnitude\", expected \"taylor\""},
		{"importance.batches=3", "importance.batches: found 3, expected 2"},
		{"importance.blocks=end", "importance.blocks: found \"end\""},
		{"precision=f32", "precision: found \"f32\", expected \"bf16\""},
		{"data.recombined=50", "data.recombined: found 50, expected 60"},
		{"distill.batch_size=5", "distill.batch_size: found 5, expected 6"},
		{"start=scratch", "start: found \"scratch\", expected \"pruned\""},
		{"data.samples=30", "\"data\" is not what"},
	};
	compress_ok("refused", NULL, 0, false, 4);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		compress_refused("refused", cases[i].set, true, cases[i].words);
}

/* A run that began when there was no such setting has not heard of it. */
static void unused_settings_of_later_versions_are_not_asked_of_a_run(void **state)
{
	json_t *m = json_in_run("whole", "manifest.json"), *identity = json_object_get(m, "identity");
	assert_non_null(json_object_get(identity, "batch_size"));
	assert_null(json_object_get(identity, "views"));
	json_decref(m);
}

/* The weights are the same, and what is asked of them is not. */
static void another_prompt_label_or_tokenizer_is_refused(void **state)
{
	static const struct {
		const char *file, *from, *to, *words;
	} cases[] = {
		{"winnow.json", "补充", "补加", "\"prompt\" is not what"},
		{"winnow.json", "违禁品", "违禁物", "\"labels\" is not what"},
		{"tokenizer.json", "{", "{ ", "\"tokenizer\" is not what"},
	};
	compress_ok("teacher2", NULL, 0, false, 4);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char *text, *at, path[600];
		size_t len;
		read_in_run("teacher/export", cases[i].file, &text, &len);
		assert_non_null(at = strstr(text, cases[i].from));
		char *changed = calloc(len + 16, 1);
		sprintf(changed, "%.*s%s%s", (int)(at - text), text, cases[i].to, at + strlen(cases[i].from));
		snprintf(path, sizeof path, "%s/teacher/export/%s", dir, cases[i].file);
		write_text(path, changed);
		compress_refused("teacher2", NULL, true, cases[i].words);
		write_file(path, text, len);
		free(changed);
		free(text);
	}
	compress_ok("teacher2", NULL, 0, true, 0);
	assert_as_whole("teacher2");
}

static void strange_manifests_are_named(void **state)
{
	char path[600];
	compress_ok("strange", NULL, 0, false, 4);
	snprintf(path, sizeof path, "%s/strange/manifest.json", dir);
	write_text(path, "{\"command\": \"compress\", \"config\": 5}");
	compress_refused("strange", NULL, true, "manifest.json: config: found nothing");
	write_text(path, "{");
	compress_refused("strange", NULL, true, "manifest.json: ");
	write_text(path, "{\"command\": \"compress\", \"config\": \"nonsense: 1\"}");
	compress_refused("strange", NULL, true, "manifest.json: cannot resume: this version does not read what the run began with: \"config\":1: nonsense");
}

static void a_run_of_another_command_is_refused_as_such(void **state)
{
	char path[600];
	compress_refused("teacher", NULL, true, "teacher holds a run of winnow-prune train, not of compress");
	assert_refused(WN_INVALID, "whole holds a run of winnow-prune compress, not of train", train("whole", NULL, 0, true, 0, err));
	snprintf(path, sizeof path, "%s/whole/tokenizer.json", dir);
	assert_int_equal(access(path, F_OK), -1); /* nothing of the stranger's was put there */
}

static void the_lock_says_what_it_means(void **state)
{
	FILE *quiet = fopen("/dev/null", "w");
	const workspace_options o = {.resume = true, .out = quiet};
	compress_config c;
	workspace w, second;
	open_workspace(&w, &c, "whole", NULL, 0, &o);
	assert_refused(WN_IO, "another process is working in this directory", workspace_open(&second, &c, &o, err));
	workspace_close(&w);
	compress_config_free(&c);
	fclose(quiet);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_resumed_iteration_is_cut_as_it_was),
		cmocka_unit_test(a_choice_of_its_own_is_respected),
		cmocka_unit_test(a_plan_is_decided_once),
		cmocka_unit_test(seconds_count_from_the_beginning),
		cmocka_unit_test(a_best_that_was_saved_before_a_kill_is_still_the_runs),
		cmocka_unit_test(a_training_keeps_its_best_too),
		cmocka_unit_test(a_stopped_validation_loses_no_step_and_is_owed),
		cmocka_unit_test(a_stop_is_heard_in_every_part),
		cmocka_unit_test(scoring_stops_between_batches),
		cmocka_unit_test(planning_stops_too),
		cmocka_unit_test(a_resumed_plan_is_printed_without_timing),
		cmocka_unit_test(other_settings_are_recorded),
		cmocka_unit_test(a_training_records_them_too),
		cmocka_unit_test(another_run_is_refused_by_name),
		cmocka_unit_test(unused_settings_of_later_versions_are_not_asked_of_a_run),
		cmocka_unit_test(another_prompt_label_or_tokenizer_is_refused),
		cmocka_unit_test(strange_manifests_are_named),
		cmocka_unit_test(a_run_of_another_command_is_refused_as_such),
		cmocka_unit_test(the_lock_says_what_it_means),
	};
	return cmocka_run_group_tests(tests, open_all, close_dir);
}
