/* Whole runs of a tiny model on the sample ads.
 *
 * Resume: one process trains undisturbed; others are killed with SIGKILL at random moments and resumed until done; every byte
 * of the weights, the optimiser and the saved models must agree. Overfit: 100 % accuracy on the training ads. */
#include "tests/prune/child_run.h"
#include "tests/prune/tiny_model.h"

#include <omp.h>

#include "base/file.h"
#include "model/classifier.h"
#include "prune/evaluate.h"
#include "prune/trainer.h"

static char dir[256];

static int open_dir(void **state)
{
	scratch_open(dir, sizeof dir);
	return 0;
}
static int close_dir(void **state)
{
	remove_tree(dir);
	return 0;
}

static const char CONFIG[] =
	"run_dir: %s/%s\n"
	"data: {dir: " SAMPLES_DIR ", cache: %s/cache}\n"
	"threads: 2\n" TINY_MODEL
	"caption: {split: test, validation: test, warmup_steps: 2}\n"
	"audit: {split: test, validation: test}\n"
	"eval: {batch: 8}\n";

static void load_config(train_config *c, const char *run, const char *const *sets, int num_sets)
{
	char text[4096], path[400];
	snprintf(text, sizeof text, CONFIG, dir, run, dir);
	snprintf(path, sizeof path, "%s/%s.yaml", dir, run);
	write_text(path, text);
	assert_ok(train_config_load(c, path, sets, num_sets, err));
}

/* Trains in this process; returns trainer_run's code. */
static wn_code train(const char *run, const char *const *sets, int num_sets, bool resume, int64_t max_steps,
		     volatile sig_atomic_t *stop, wn_error *err)
{
	train_config c;
	load_config(&c, run, sets, num_sets);
	omp_set_num_threads(c.threads);
	FILE *quiet = fopen("/dev/null", "w");
	train_run_options ro = {.resume = resume, .out = quiet, .stop = stop};
	trainer_options to = {.resume = resume, .max_steps = max_steps, .reducer = {.ranks = 1}};
	train_run r;
	wn_code rc = train_run_open(&r, &c, &ro, err);
	if (!rc) {
		rc = trainer_run(&r, &to, err);
		train_run_close(&r);
	}
	train_config_free(&c);
	fclose(quiet);
	return rc;
}

static const char *const SHORT[] = {"phases=[caption, audit]", "caption.steps=5", "audit.steps=9", "audit.warmup_steps=2",
				    "caption.batch_size=6", "audit.batch_size=6", "audit.micro_batch=4", "audit.caption_replay=0.3",
				    "checkpoint_every=2", "eval.every=4", "eval.limit=12"};
/* The same number of steps, with a stretch for the vision stack on half of the patches, one for the language model, and a
 * checkpoint inside each. */
static const char *const STRETCHES[] = {"phases=[caption, audit]", "caption.steps=9", "audit.steps=5", "audit.warmup_steps=2",
					"caption.batch_size=6", "audit.batch_size=6", "caption.micro_batch=4", "checkpoint_every=2",
					"caption.vision_first_steps=5", "caption.vision_patch_share=0.5", "caption.text_first_steps=2",
					"eval.every=4", "eval.limit=12"};
#define NUM_STRETCHES (int)(sizeof STRETCHES / sizeof *STRETCHES)
#define NUM_SHORT (int)(sizeof SHORT / sizeof *SHORT)

static wn_code train_short(const char *run, bool resume, wn_error *err)
{
	return train(run, SHORT, NUM_SHORT, resume, 0, NULL, err);
}

static void assert_same_file(const char *a, const char *b, const char *name)
{
	char path[600], *x, *y;
	size_t n, m;
	snprintf(path, sizeof path, "%s/%s/%s", dir, a, name);
	assert_ok(file_read(path, (size_t)1 << 28, &x, &n, err));
	snprintf(path, sizeof path, "%s/%s/%s", dir, b, name);
	assert_ok(file_read(path, (size_t)1 << 28, &y, &m, err));
	if (n != m || memcmp(x, y, n))
		fail_msg("%s differs between the undisturbed and the resumed run", name);
	free(x);
	free(y);
}

/* The log without its times. */
static void assert_same_log(const char *a, const char *b)
{
	static const char *const times[] = {"samples_per_s", "batch_s", "step_s", "seconds"};
	char path[2][600], line[2][2000];
	FILE *f[2];
	for (int k = 0; k < 2; k++) {
		snprintf(path[k], sizeof path[k], "%s/%s/log.jsonl", dir, k ? b : a);
		assert_non_null(f[k] = fopen(path[k], "r"));
	}
	int lines = 0;
	while (fgets(line[0], sizeof line[0], f[0])) {
		assert_non_null(fgets(line[1], sizeof line[1], f[1]));
		json_t *j[2];
		for (int k = 0; k < 2; k++) {
			assert_non_null(j[k] = json_loads(line[k], 0, NULL));
			for (size_t t = 0; t < 4; t++)
				json_object_del(j[k], times[t]);
		}
		if (!json_equal(j[0], j[1]))
			fail_msg("log line %d: %s and %s", lines + 1, line[0], line[1]);
		json_decref(j[0]);
		json_decref(j[1]);
		lines++;
	}
	assert_null(fgets(line[1], sizeof line[1], f[1]));
	assert_int_equal(lines, 14 + 5); /* 14 steps; validation after 4, 5 (end), 4, 8 and 9 (end) */
	fclose(f[0]);
	fclose(f[1]);
}

static void killed_and_resumed_equals_undisturbed(void **state)
{
	assert_true(run_in_child(train_short, "warm", false, 0)); /* fills the image cache: the next one's time is that of training */
	const long whole_ms = time_in_child(train_short, "whole");
	int kills = 0;
	for (long most = whole_ms * 2 / 3; kills < 8;) {
		if (!run_in_child(train_short, "killed", true, random_moment(most))) {
			kills++;
			continue;
		}
		if (kills >= 2)
			break;
		char path[400]; /* the machine got faster: this run proved little */
		snprintf(path, sizeof path, "%s/killed", dir);
		remove_tree(path);
		most = most / 2 + 10;
		kills = 0;
	}
	char path[400]; /* what a kill amid a model's save leaves */
	snprintf(path, sizeof path, "%s/killed/best.tmp-Ab12Cd", dir);
	mkdir(path, 0755);
	assert_true(run_in_child(train_short, "killed", true, 0)); /* also: resuming a finished run is harmless */
	assert_int_equal(access(path, F_OK), -1);
	print_message("killed %d times; undisturbed %ld ms\n", kills, whole_ms);
	assert_same_file("whole", "killed", "state/step-000000014/state.safetensors");
	assert_same_file("whole", "killed", "best/model.safetensors");
	assert_same_file("whole", "killed", "last/model.safetensors");
	assert_same_file("whole", "killed", "export/model.safetensors");
	assert_same_file("whole", "killed", "tokenizer.json");
	assert_same_log("whole", "killed");
}

static void stop_and_max_steps_leave_a_resumable_run(void **state)
{
	volatile sig_atomic_t stop = 1;
	assert_ok(train("whole", SHORT, NUM_SHORT, false, 0, NULL, err));
	assert_ok(train("parts", SHORT, NUM_SHORT, false, 3, NULL, err));
	assert_refused(WN_CANCELLED, "stopped at step 3 of 14", train("parts", SHORT, NUM_SHORT, true, 0, &stop, err));
	assert_ok(train("parts", SHORT, NUM_SHORT, true, 5, NULL, err)); /* exactly a phase's end */
	assert_ok(train("parts", SHORT, NUM_SHORT, true, 0, NULL, err));
	assert_same_file("whole", "parts", "state/step-000000014/state.safetensors");
	assert_same_log("whole", "parts");
	/* a second start, and a resume as another run, are refused */
	assert_refused(WN_INVALID, "already holds a run: add --resume", train("parts", SHORT, NUM_SHORT, false, 0, NULL, err));
	const char *changed[NUM_SHORT + 1];
	memcpy(changed, SHORT, sizeof SHORT);
	changed[NUM_SHORT] = "seed=2";
	assert_refused(WN_INVALID, "cannot resume: seed: found 2, expected 1", train("parts", changed, NUM_SHORT + 1, true, 0, NULL, err));
	changed[NUM_SHORT] = "data.limit=20";
	assert_refused(WN_INVALID, "cannot resume: \"data\"", train("parts", changed, NUM_SHORT + 1, true, 0, NULL, err));
}

/* Vision first, then text, then all: stopped in and between all of them. The vision stretch's validation says what it has
 * learned, and leaves no "best" for a later one to beat. */
static void stretches_resume_exactly(void **state)
{
	char path[400], line[2000];
	assert_ok(train("whole", STRETCHES, NUM_STRETCHES, false, 0, NULL, err));
	static const int64_t stops[] = {3, 4, 5, 6, 7, 8, 0}; /* 4: right behind a validation */
	for (int i = 0; i < 7; i++) {
		assert_ok(train("parts", STRETCHES, NUM_STRETCHES, i > 0, stops[i], NULL, err));
		snprintf(path, sizeof path, "%s/parts/best", dir);
		assert_int_equal(access(path, F_OK) == 0, stops[i] == 8 || stops[i] == 0);
	}
	assert_same_file("whole", "parts", "state/step-000000014/state.safetensors");
	assert_same_file("whole", "parts", "best/model.safetensors");
	assert_same_log("whole", "parts");
	snprintf(path, sizeof path, "%s/whole/log.jsonl", dir);
	FILE *f = fopen(path, "r");
	int vision = 0, whole = 0;
	while (fgets(line, sizeof line, f)) {
		json_t *j = json_loads(line, 0, NULL);
		bool eval = !strcmp(json_string_value(json_object_get(j, "event")), "eval");
		bool first = eval && num(j, "phase_step") == 4 && !strcmp(json_string_value(json_object_get(j, "phase")), "caption");
		if (eval)
			assert_int_equal(json_object_get(j, "first_token_accuracy") != NULL, first);
		if (first)
			assert_true(json_is_false(json_object_get(j, "best")) && num(j, "loss") > 0);
		vision += first;
		whole += eval && !first;
		json_decref(j);
	}
	fclose(f);
	assert_int_equal(vision, 1);
	assert_int_equal(whole, 4); /* caption after 8 and 9, audit after 4 and 5 */
}

/* A run may be resumed with fewer steps than it has taken: the phase is over then. */
static void fewer_steps_end_the_phase(void **state)
{
	const char *changed[NUM_SHORT + 1];
	memcpy(changed, SHORT, sizeof SHORT);
	assert_ok(train("parts", SHORT, NUM_SHORT, false, 4, NULL, err));
	changed[NUM_SHORT] = "caption.steps=3";
	assert_ok(train("parts", changed, NUM_SHORT + 1, true, 6, NULL, err));
	changed[NUM_SHORT] = "audit.steps=1";
	assert_ok(train("parts", changed, NUM_SHORT + 1, true, 0, NULL, err));
	changed[NUM_SHORT] = "phases=[audit]";
	assert_refused(WN_INVALID, "cannot resume: phases: found [\"audit\"], expected [\"caption\", \"audit\"]", train("parts", changed, NUM_SHORT + 1, true, 0, NULL, err));
}

/* With `epochs` the number of steps is known once the data is read. */
static void stretches_longer_than_the_phase_are_refused(void **state)
{
	static const char *const sets[] = {"audit.steps=0", "audit.epochs=1", "audit.batch_size=23", "audit.text_first_steps=2"};
	assert_refused(WN_INVALID, "text_first_steps = 2 leave none of its 2 steps", train("epochs", sets, 4, false, 0, NULL, err));
	static const char *const widths[] = {"audit.vision_first_steps=2", "model.qformer.hidden_size=48"};
	assert_refused(WN_UNSUPPORTED, "audit.vision_first_steps: needs one hidden_size for vision and Q-Former, found 32 and 48",
		       train("widths", widths, 2, false, 0, NULL, err));
}

/* What no winnow.json may say, and where nothing can be written, is known before the first step, not when a model is saved. */
static void what_could_not_be_saved_is_refused_at_once(void **state)
{
	static const struct {
		const char *set;
		wn_code code;
		const char *words;
	} cases[] = {
		{"name=my ad", WN_INVALID, "name: found \"my ad\", expected 1 to 64 of"},
		{"labels=[a b | 合规 | pass, c | 赌博 | block]", WN_INVALID, "labels[0].name: found \"a b\", expected 1 to 63 of"},
		{"prompt=内容", WN_INVALID, "prompt"},
		{"export.dir=/no/such/place/x", WN_IO, "export.dir: nothing can be written into /no/such/place"},
	};
	char path[400];
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		assert_refused(cases[i].code, cases[i].words, train("unsaved", &cases[i].set, 1, false, 0, NULL, err));
	snprintf(path, sizeof path, "%s/unsaved/manifest.json", dir);
	assert_int_equal(access(path, F_OK), -1);
}

/* Weighting micro-batches by their label tokens makes the gradient that of the whole batch, however it is cut. */
static void micro_batches_add_up_to_the_batch(void **state)
{
	double norms[2], losses[2];
	static const char *const cuts[] = {"audit.micro_batch=12", "audit.micro_batch=5"};
	for (int k = 0; k < 2; k++) {
		const char *const sets[] = {"audit.steps=1", "audit.batch_size=12", "audit.validation=", "phases=[caption, audit]",
					    "caption.steps=1", "caption.batch_size=2", "audit.caption_replay=0.5", cuts[k]};
		char path[600], line[2][2000];
		assert_ok(train(k ? "cut" : "uncut", sets, 8, false, 0, NULL, err));
		snprintf(path, sizeof path, "%s/%s/log.jsonl", dir, k ? "cut" : "uncut");
		FILE *f = fopen(path, "r");
		while (fgets(line[0], sizeof line[0], f))
			memcpy(line[1], line[0], sizeof line[0]);
		fclose(f);
		json_t *j = json_loads(line[1], 0, NULL);
		assert_string_equal(json_string_value(json_object_get(j, "phase")), "audit");
		norms[k] = num(j, "grad_norm");
		losses[k] = num(j, "loss");
		json_decref(j);
	}
	assert_true(norms[0] > 0.1);
	assert_close(losses[1] / losses[0], 1, 1e-5, "loss", 0);
	assert_close(norms[1] / norms[0], 1, 1e-4, "norm", 0);
}

static void tiny_model_learns_the_sample_ads_by_heart(void **state)
{
	static const char *const sets[] = {"audit.steps=260", "audit.batch_size=46", "audit.learning_rate=4e-3", "audit.warmup_steps=20",
					   "augment.crop_scale_min=1", "augment.crop_ratio_max=1", "augment.flip=0", "augment.cutout=0",
					   "augment.brightness=0", "augment.contrast=0", "augment.saturation=0", "data.cache_scale=1",
					   "optimizer.weight_decay=0", "eval.every=130", "export.dtype=f32", "export.from=last"};
	char path[400];
	classifier *c = NULL;
	dataset d;
	image_cache images;
	sequence_set q;
	metrics *m = calloc(1, sizeof *m);
	assert_ok(train("heart", sets, (int)(sizeof sets / sizeof *sets), false, 0, NULL, err));
	snprintf(path, sizeof path, "%s/heart/export", dir);
	const classifier_options co = {.load.verify_digests = true};
	assert_ok(classifier_open(&c, path, &co, err));
	const checkpoint *ck = classifier_checkpoint(c);
	assert_ok(dataset_read(&d, SAMPLES_DIR, "test", ck->manifest.labels, ck->manifest.num_labels, DATASET_NEEDS_LABEL, 0, err));
	snprintf(path, sizeof path, "%s/again.rgb", dir);
	assert_ok(image_cache_open(&images, path, &d, ck->image_processor.size, 2, NULL, NULL, err));
	sequence_spec spec = {.tokenizer = ck->tokenizer, .manifest = &ck->manifest, .end_token = -1, .max_len = 150};
	assert_ok(sequence_set_build(&q, &d, &spec, err));
	batch_options bo = {.image_processor = ck->image_processor};
	eval_data ed = {.dataset = &d, .images = &images, .sequences = &q, .batch = &bo, .batch_size = 7};
	assert_ok(evaluate_audit(&ed, c, m, err));
	assert_int_equal(m->count, 46);
	print_message("accuracy %.3f  NLL %.4f\n", m->accuracy, m->nll);
	assert_true(m->accuracy == 1.0);
	/* The accuracy is the model's, not the evaluation's: with labels turned by one it must be none. */
	for (size_t i = 0; i < d.count; i++)
		d.samples[i].label = (d.samples[i].label + 1) % 9;
	assert_ok(evaluate_audit(&ed, c, m, err));
	assert_true(m->accuracy == 0.0);
	sequence_set_close(&q);
	image_cache_close(&images);
	dataset_close(&d);
	classifier_close(&c);
	free(m);
}

int main(void)
{
#define IN_DIR(f) cmocka_unit_test_setup_teardown(f, open_dir, close_dir)
	const struct CMUnitTest tests[] = {
		IN_DIR(killed_and_resumed_equals_undisturbed), /* first: it forks, and OpenMP must not have started yet */
		IN_DIR(micro_batches_add_up_to_the_batch),
		IN_DIR(stop_and_max_steps_leave_a_resumable_run),
		IN_DIR(stretches_resume_exactly),
		IN_DIR(fewer_steps_end_the_phase),
		IN_DIR(stretches_longer_than_the_phase_are_refused),
		IN_DIR(what_could_not_be_saved_is_refused_at_once),
		IN_DIR(tiny_model_learns_the_sample_ads_by_heart),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
