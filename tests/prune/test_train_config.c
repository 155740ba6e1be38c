/* The training configuration: the shipped files load, and every mistake is one line that names the key. */
#include "tests/prune/support.h"

#include "model/blip2.h"
#include "prune/train_config.h"

static char dir[256], path[300];

static int open_dir(void **state)
{
	scratch_open(dir, sizeof dir);
	snprintf(path, sizeof path, "%s/c.yaml", dir);
	return 0;
}
static int close_dir(void **state)
{
	remove_tree(dir);
	return 0;
}

#define MINIMAL "run_dir: r\ndata: {dir: d}\nprompt: 'q {text}'\nlabels:\n  - ok | good | pass\n  - bad | evil | block | 0.7 | 0.1\n"

static void minimal_file_has_defaults(void **state)
{
	train_config c;
	manifest m = {0};
	blip2_config b;
	task tasks[NUM_TASKS];
	write_text(path, MINIMAL);
	const char *const sets[] = {"audit.steps=7", "model.qformer.num_hidden_layers=3", "model.cross_attention_frequency=2"};
	assert_ok(train_config_load(&c, path, sets, 3, err));
	assert_int_equal(c.phase[TASK_AUDIT].steps, 7);
	assert_int_equal(train_config_phases(&c, tasks), 1);
	assert_int_equal(tasks[0], TASK_AUDIT);
	assert_ok(train_config_manifest(&c, &m, err));
	assert_int_equal(m.num_labels, 2);
	assert_string_equal(m.labels[0].verbalizer, "good");
	assert_int_equal(m.labels[0].action, ACTION_PASS);
	assert_true(m.labels[0].threshold == 0.5 && m.labels[0].review_threshold == 0.2);
	assert_true(m.labels[1].threshold == 0.7 && m.labels[1].review_threshold == 0.1);
	assert_ok(train_config_model(&c, &b, err));
	assert_int_equal(b.vision.blocks[5].head_dim, 64);
	assert_int_equal(b.qformer.blocks[0].cross_num_heads, 3);
	assert_int_equal(b.qformer.blocks[1].cross_num_heads, 0);
	assert_int_equal(b.qformer.blocks[2].cross_num_heads, 3);
	blip2 *model = NULL;
	assert_ok(blip2_create(&model, &b, err));
	blip2_close(&model);
	/* what the run's manifest keeps loads again, to the same */
	char *text = config_text(&TRAIN_CONFIG_SCHEMA, &c);
	train_config again;
	assert_ok(config_parse(&TRAIN_CONFIG_SCHEMA, &again, "printed", text, strlen(text), err));
	assert_null(config_first_difference(&TRAIN_CONFIG_SCHEMA, &c, &again, 0));
	free(text);
	train_config_free(&again);
	manifest_close(&m);
	train_config_free(&c);
}

static void shipped_files_load(void **state)
{
	static const char *const names[] = {"train.yaml", "train-longer.yaml", "train-audit.yaml", "train-text-only.yaml", "train-image-only.yaml"};
	static const int expected[] = {MODALITIES_BOTH, MODALITIES_BOTH, MODALITIES_BOTH, MODALITIES_TEXT, MODALITIES_IMAGE};
	for (int i = 0; i < 5; i++) {
		train_config c;
		blip2_config b;
		char file[1024];
		snprintf(file, sizeof file, "%s/%s", CONFIGS_DIR, names[i]);
		assert_ok(train_config_load(&c, file, NULL, 0, err));
		assert_int_equal(c.modalities, expected[i]);
		assert_int_equal(c.labels.count, 9);
		assert_ok(train_config_model(&c, &b, err));
		train_config_free(&c);
	}
}

/* The resolved configuration without the lines of keys in `may_differ` and, when it is in there, of the caption section. */
static char *comparable(const train_config *c, const char *const *may_differ)
{
	char *text = config_text(&TRAIN_CONFIG_SCHEMA, c), *out = calloc(1, strlen(text) + 1), *save = NULL, section[64] = "";
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char key[160];
		const int name = (int)strcspn(line + strspn(line, " "), ":");
		if (*line != ' ')
			snprintf(section, sizeof section, "%.*s", name, line);
		snprintf(key, sizeof key, "%s%s%.*s", *line == ' ' ? section : "", *line == ' ' ? "." : "", name, line + strspn(line, " "));
		bool skip = false;
		for (int i = 0; may_differ[i]; i++)
			skip |= !strcmp(key, may_differ[i]) || !strcmp(section, may_differ[i]);
		if (!skip)
			strcat(strcat(out, line), "\n");
	}
	free(text);
	return out;
}

/* A baseline that trains differently says nothing about what the missing modality is worth. */
static void baselines_differ_only_in_what_they_see(void **state)
{
	static const struct {
		const char *name, *may_differ[12];
	} baselines[] = {{"train-image-only.yaml", {"name", "run_dir", "modalities", "model.init_from", "phases", "caption", "audit.steps", "eval.every"}},
			 {"train-text-only.yaml", {"name", "run_dir", "modalities", "model.init_from", "phases", "caption", "audit.steps",
						   "audit.caption_replay", "eval.every"}}};
	for (int i = 0; i < 2; i++) {
		train_config full, baseline;
		char file[1024];
		snprintf(file, sizeof file, "%s/train-audit.yaml", CONFIGS_DIR);
		assert_ok(train_config_load(&full, file, NULL, 0, err));
		snprintf(file, sizeof file, "%s/%s", CONFIGS_DIR, baselines[i].name);
		assert_ok(train_config_load(&baseline, file, NULL, 0, err));
		char *a = comparable(&full, baselines[i].may_differ), *b = comparable(&baseline, baselines[i].may_differ);
		assert_non_null(strstr(a, "hidden_size"));
		assert_string_equal(a, b);
		free(a);
		free(b);
		train_config_free(&full);
		train_config_free(&baseline);
	}
}

static void mistakes_are_named(void **state)
{
	static const struct {
		const char *text, *set, *message;
	} cases[] = {
		{"run_dir: r\n", NULL, "data.dir"},
		{MINIMAL "nonsense: 1\n", NULL, "nonsense"},
		{MINIMAL, "vision=1", "vision"},
		{MINIMAL, "phases=[audit, audit]", "\"audit\" twice"},
		{MINIMAL, "phases=[sleep]", "\"sleep\""},
		{MINIMAL, "phases=[]", "phases: empty"},
		{MINIMAL, "audit.steps=0", "audit: steps and epochs are both 0"},
		{MINIMAL, "audit.micro_batch=64", "audit.micro_batch: found 64, expected at most batch_size = 32"},
		{MINIMAL, "audit.min_learning_rate=1", "audit.min_learning_rate: found 1, expected at most"},
		{MINIMAL, "labels=[a|b|pass]", "labels: found 1, expected at least 2"},
		{MINIMAL, "labels=['a|b|pass', 'c|d|maybe']", "action: found \"maybe\", expected pass, review or block"},
		{MINIMAL, "labels=['a|b|pass', 'c|d']", "\"c|d\": expected name | verbalizer | action"},
		{MINIMAL, "labels=['a|b|pass', 'c||pass']", "name or verbalizer is empty"},
		{MINIMAL, "labels=['a|b|pass', 'c|d|pass|1.5']", "threshold: found \"1.5\", expected 0 to 1"},
		{MINIMAL, "labels=['a|b|pass', 'c|d|pass|0.5|x']", "review_threshold: found \"x\""},
		{MINIMAL, "labels=['a|b|pass', 'c|d|pass|0.5|0.5|1']", "more than five fields"},
		{MINIMAL, "labels=['a|b|pass', 'a|d|pass']", "share a name or a verbalizer"},
		{MINIMAL, "labels=['a|b|pass', 'c|b|pass']", "share a name or a verbalizer"},
		{MINIMAL, "prompt=", "prompt: empty"},
		{MINIMAL "audit: {text_first_steps: 4, steps: 7}\n", "audit.vision_first_steps=3",
		 "audit: vision_first_steps = 3 and text_first_steps = 4 leave none of its 7 steps for the whole model"},
		{MINIMAL "modalities: text\n", "audit.vision_first_steps=3", "audit.vision_first_steps: found 3, expected 0 with modalities: text"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		train_config c;
		write_text(path, cases[i].text);
		assert_refused(WN_INVALID, cases[i].message, train_config_load(&c, path, &cases[i].set, cases[i].set != NULL, err));
	}
}

static void impossible_shapes_are_named(void **state)
{
	static const struct {
		const char *set, *message;
	} cases[] = {
		{"model.vision.num_attention_heads=5", "model.vision.num_attention_heads: found 5, expected a divisor of hidden_size = 192"},
		{"model.text.num_attention_heads=3", "model.text.num_attention_heads"},
		{"model.patch_size=13", "model.patch_size: found 13, expected a divisor of image_size = 112"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		train_config c;
		blip2_config b;
		write_text(path, MINIMAL);
		assert_ok(train_config_load(&c, path, &cases[i].set, 1, err));
		assert_refused(WN_INVALID, cases[i].message, train_config_model(&c, &b, err));
		train_config_free(&c);
	}
}

int main(void)
{
#define IN_DIR(f) cmocka_unit_test_setup_teardown(f, open_dir, close_dir)
	const struct CMUnitTest tests[] = {
		IN_DIR(minimal_file_has_defaults),
		cmocka_unit_test(shipped_files_load),
		cmocka_unit_test(baselines_differ_only_in_what_they_see),
		IN_DIR(mistakes_are_named),
		IN_DIR(impossible_shapes_are_named),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
