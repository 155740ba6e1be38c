/* Whole compression runs of a tiny teacher on the sample ads.
 *
 * Resume: one process runs undisturbed; others are killed with SIGKILL at random moments and resumed until done; the student's
 * bytes must agree. Every iteration is a model directory that loads and gives the same logits bit for bit. A student learns:
 * more of the teacher's answers are right after distillation than before. */
#define TEACHER_STEPS 150
#include "tests/compress/compress_fixture.h"

static const char *const NAMES[NUM_ITERATIONS] = {"001-blocks-queries", "002-inner", "003-inner", "004-hidden", "005-finish"};

static wn_code compress_plainly(const char *run, bool resume, wn_error *err) { return compress(run, NULL, 0, resume, 0, NULL, err); }

static void assert_same_run(void)
{
	assert_same_file("whole", "killed", "export/model.safetensors");
	assert_same_file("whole", "killed", "best/model.safetensors");
	for (int i = 0; i < NUM_ITERATIONS; i++) {
		char name[128];
		snprintf(name, sizeof name, "iterations/%s/model.safetensors", NAMES[i]);
		assert_same_file("whole", "killed", name);
		snprintf(name, sizeof name, "iterations/%s.pruning.json", NAMES[i]);
		assert_same_file("whole", "killed", name);
	}
}

static void killed_and_resumed_equals_undisturbed(void **state)
{
	assert_true(run_in_child(compress_plainly, "warm", false, 0)); /* fills the caches */
	const long whole_ms = time_in_child(compress_plainly, "whole");
	const char *wanted = getenv("WINNOW_KILLS"); /* more than CI has time for */
	const int most = wanted ? atoi(wanted) : 6;
	int kills = 0, runs = 0;
	do { /* a run that came through before it was killed often enough is compared, and another one takes its place */
		char path[400];
		snprintf(path, sizeof path, "%s/killed", dir);
		remove_tree(path);
		runs++;
		while (kills < most && !run_in_child(compress_plainly, "killed", true, random_moment(whole_ms * 2 / 3)))
			kills++;
		snprintf(path, sizeof path, "%s/killed/iterations/002-inner.tmp-Ab12Cd", dir); /* as a kill amid its save leaves it */
		mkdir(path, 0755);
		assert_true(run_in_child(compress_plainly, "killed", true, 0)); /* also: resuming a finished run is harmless */
		assert_int_equal(access(path, F_OK), -1);
		assert_same_run();
	} while (kills < most);
	print_message("killed %d times in %d runs; undisturbed %ld ms\n", kills, runs, whole_ms);
}

/* Every line is an object; events come in order; the shapes are the plan's. */
static void the_log_tells_the_story(void **state)
{
	char *text;
	size_t len;
	wn_error err = {0};
	if (compress("story", NULL, 0, false, 0, NULL, &err))
		fail_msg("%s", err.message);
	read_in_run("story", "log.jsonl", &text, &len);
	int steps = 0, iterations = 0, teachers = 0, finals = 0;
	char *save = NULL;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		json_t *j = json_loads(line, 0, NULL);
		assert_non_null(j);
		const char *event = json_string_value(json_object_get(j, "event"));
		assert_non_null(event);
		if (!strcmp(event, "step")) {
			assert_int_equal(json_integer_value(json_object_get(j, "step")), ++steps);
			assert_true(num(j, "loss") > 0);
			assert_true(num(j, "hidden") > 0 || iterations == NUM_ITERATIONS - 1); /* not in the finish */
		} else if (!strcmp(event, "iteration")) {
			assert_string_equal(json_string_value(json_object_get(j, "name")), NAMES[iterations++]);
			assert_true(json_is_object(json_object_get(j, "before")) && json_is_object(json_object_get(j, "after")));
		}
		teachers += !strcmp(event, "teacher");
		finals += !strcmp(event, "final");
		json_decref(j);
	}
	free(text);
	assert_int_equal(teachers, 1);
	assert_int_equal(finals, 1);
	assert_int_equal(iterations, NUM_ITERATIONS);
	assert_int_equal(steps, 3 + 2 + 2 + 3 + 4);
}

/* Logits of one fixed request. */
static void logits_of(const char *model, float *out, size_t vocab)
{
	char path[600];
	checkpoint ck;
	blip2_session *s = NULL;
	const checkpoint_options co = {.verify_digests = true};
	snprintf(path, sizeof path, "%s/%s", dir, model);
	assert_ok(checkpoint_load(&ck, path, &co, err));
	const blip2_config *c = blip2_get_config(ck.model);
	assert_int_equal(c->vocab_size, vocab);
	float *pixels = calloc(3 * (size_t)c->image_size * (size_t)c->image_size, sizeof *pixels);
	for (int i = 0; i < 3 * c->image_size * c->image_size; i++)
		pixels[i] = (float)sin(i * 0.37);
	int32_t ids[12];
	for (int i = 0; i < 12; i++)
		ids[i] = 10 + 7 * i;
	blip2_session_options so = blip2_session_defaults();
	so.max_text_len = 12;
	assert_ok(blip2_session_open(&s, ck.model, &so, err));
	const blip2_batch b = {.n = 1, .text_len = 12, .pixel_values = pixels, .input_ids = ids};
	assert_ok(blip2_forward(s, &b, err));
	const int32_t row = c->num_query_tokens + 11;
	blip2_logits(s, &row, 1, out);
	blip2_session_close(&s);
	checkpoint_close(&ck);
	free(pixels);
}

/* A partly pruned model is an ordinary model: written and read back it answers the same, to the bit. */
static void every_stage_survives_the_disk(void **state)
{
	static float a[512], b[512];
	for (int i = 0; i < NUM_ITERATIONS; i++) {
		char name[128], path[600], copy[600], vocabulary[640];
		checkpoint ck;
		const checkpoint_options co = {.skip_digest = true};
		snprintf(name, sizeof name, "story/iterations/%s", NAMES[i]);
		logits_of(name, a, 512);
		snprintf(path, sizeof path, "%s/%s", dir, name);
		snprintf(copy, sizeof copy, "%s/copy", dir);
		snprintf(vocabulary, sizeof vocabulary, "%s/tokenizer.json", path);
		assert_ok(checkpoint_load(&ck, path, &co, err));
		assert_ok(checkpoint_save(copy, ck.model, &ck.manifest, &ck.image_processor, vocabulary, DTYPE_F32, err));
		checkpoint_close(&ck);
		logits_of("copy", b, 512);
		assert_memory_equal(a, b, sizeof a);
	}
}

static void a_stop_is_kept_and_continued(void **state)
{
	volatile sig_atomic_t stop = 0;
	wn_error err = {0};
	assert_int_equal(compress("stopped", NULL, 0, false, 4, &stop, &err), WN_OK); /* --max-steps: inside the second iteration */
	stop = 1;
	assert_int_equal(compress("stopped", NULL, 0, true, 0, &stop, &err), WN_CANCELLED);
	stop = 0;
	assert_int_equal(compress("stopped", NULL, 0, true, 0, &stop, &err), WN_OK);
	assert_same_file("story", "stopped", "export/model.safetensors");
}

static void mistakes_are_named(void **state)
{
	static const struct {
		const char *set, *message;
	} at_load[] = {{"stages=[]", "stages: empty"},
		       {"stages=['blocks | iterations 0 | steps 1']", "iterations"},
		       {"stages=['heads | iterations 1 | steps 1']", "heads"},
		       {"distill.micro_batch=99", "distill.micro_batch: found 99"},
		       {"distill.min_learning_rate=1", "distill.min_learning_rate: found 1"},
		       {"target.kind=parameters", "target.value: found 0"},
		       {"data.unlabelled=5", "data.unlabelled_split is empty"}};
	char path[400];
	snprintf(path, sizeof path, "%s/story.yaml", dir);
	for (size_t i = 0; i < sizeof at_load / sizeof *at_load; i++) {
		compress_config c;
		assert_refused(WN_INVALID, at_load[i].message, compress_config_load(&c, path, &at_load[i].set, 1, err));
	}
	static const struct {
		const char *set, *message;
		wn_code code;
	} at_run[] = {{"final.vision.hidden_size=4096", "hidden_size", WN_INVALID},
		      {"final.text.num_hidden_layers=9", "final.text.num_hidden_layers: found 9, the teacher has 2", WN_INVALID},
		      {"teacher=/nowhere", "/nowhere", WN_NOT_FOUND},
		      {"data.split=none", "none", WN_NOT_FOUND}};
	for (size_t i = 0; i < sizeof at_run / sizeof *at_run; i++) {
		char run[32];
		snprintf(run, sizeof run, "wrong%zu", i);
		wn_error err = {0};
		wn_code rc = compress(run, &at_run[i].set, 1, false, 0, NULL, &err);
		if (rc == WN_OK || !strstr(err.message, at_run[i].message))
			fail_msg("%s: code %d, \"%s\"", at_run[i].set, rc, err.message);
	}
	wn_error err = {0};
	assert_int_equal(compress("story", NULL, 0, false, 0, NULL, &err), WN_INVALID); /* without --resume */
	assert_non_null(strstr(err.message, "already holds a run"));
	const char *other = "seed=2";
	assert_int_equal(compress("story", &other, 1, true, 0, NULL, &err), WN_INVALID);
}

/* Distillation teaches: on the ads it distils on, the sliced student's answers get better. */
static void a_student_learns(void **state)
{
	static const char *const sets[] = {"stages=['blocks+queries+inner+hidden | iterations 1 | steps 100']", "distill.finish_steps=100",
					   "distill.batch_size=16", "distill.micro_batch=0", "distill.learning_rate=3e-3",
					   "distill.finish_learning_rate=2e-3", "checkpoint_every=1000"};
	char *text;
	size_t len;
	wn_error err = {0};
	if (compress("learns", sets, sizeof sets / sizeof *sets, false, 0, NULL, &err))
		fail_msg("%s", err.message);
	read_in_run("learns", "log.jsonl", &text, &len);
	double before = 0, after = 0, full = 0;
	char *save = NULL;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		json_t *j = json_loads(line, 0, NULL);
		const char *event = json_string_value(json_object_get(j, "event"));
		if (!strcmp(event, "iteration") && before == 0)
			before = num(json_object_get(j, "before"), "accuracy");
		if (!strcmp(event, "final")) {
			after = num(json_object_get(j, "eval"), "accuracy");
			full = num(json_object_get(j, "teacher_eval"), "accuracy");
		}
		json_decref(j);
	}
	free(text);
	print_message("accuracy: teacher %.2f, sliced %.2f, distilled %.2f\n", full, before, after);
	assert_true(after > before + 0.1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(killed_and_resumed_equals_undisturbed),
		cmocka_unit_test(the_log_tells_the_story),
		cmocka_unit_test(every_stage_survives_the_disk),
		cmocka_unit_test(a_stop_is_kept_and_continued),
		cmocka_unit_test(mistakes_are_named),
		cmocka_unit_test(a_student_learns),
	};
	return cmocka_run_group_tests(tests, open_dir, close_dir);
}
