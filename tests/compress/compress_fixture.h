/* compress_fixture.h: what the tests of whole compressions share: a tiny teacher trained on the sample ads, a student's configuration,
 * runs of it, and what they leave. */
#ifndef WINNOW_TESTS_COMPRESS_FIXTURE_H
#define WINNOW_TESTS_COMPRESS_FIXTURE_H

#include "tests/prune/child_run.h"
#include "tests/prune/tiny_model.h"

#include <omp.h>

#include "base/file.h"
#include "model/checkpoint.h"
#include "prune/compress/compress_cost.h"
#include "prune/compress/compress_log.h"
#include "prune/compress/compressor.h"
#include "prune/trainer.h"

#ifndef TEACHER_STEPS
#define TEACHER_STEPS 4 /* enough to be one; to answer well it takes 150 */
#endif

static char dir[256];

static const char TEACHER[] =
	"run_dir: %s/%s\n"
	"data: {dir: " SAMPLES_DIR ", cache: %s/cache, cache_scale: 1}\n"
	"threads: 2\n" TINY_MODEL
	"audit: {split: test, validation: '', steps: %d, batch_size: 16, warmup_steps: 10, learning_rate: 2e-3}\n"
	"augment: {crop_scale_min: 1, crop_ratio_max: 1, flip: 0, brightness: 0, contrast: 0, saturation: 0, cutout: 0}\n"
	"export: {dtype: f32}\n";

static const char STUDENT[] =
	"run_dir: %s/%s\n"
	"teacher: %s/teacher/export\n"
	"data: {dir: " SAMPLES_DIR ", split: test, validation: test, samples: 40, recombined: 60, cache: %s/cache}\n"
	"threads: 2\n"
	"final:\n"
	"  vision: {num_hidden_layers: 1, hidden_size: 24, num_attention_heads: 2, head_dim: 12, intermediate_size: 32}\n"
	"  qformer: {hidden_size: 24, num_attention_heads: 2, head_dim: 12, intermediate_size: 48}\n"
	"  text: {num_hidden_layers: 1, hidden_size: 32, num_attention_heads: 2, head_dim: 16, intermediate_size: 64}\n"
	"  num_query_tokens: 2\n"
	"stages: [blocks+queries | iterations 1 | steps 3, inner | iterations 2 | steps 2, hidden | iterations 1 | steps 3]\n"
	"width_multiple: 4\n"
	"importance: {batches: 2}\n"
	"distill: {batch_size: 6, micro_batch: 4, warmup_steps: 2, finish_steps: 4}\n"
	"target: {request_tokens: 16}\n"
	"eval: {batch: 8, latency_runs: 0}\n"
	"checkpoint_every: 2\n";

#define NUM_ITERATIONS 5
#define ALL_STEPS      (3 + 2 + 2 + 3 + 4)

/* Trains a model of the teacher's shape in dir/run. */
static inline wn_code train(const char *run, const char *const *sets, int num_sets, bool resume, int64_t max_steps, wn_error *err)
{
	char text[4096], path[400];
	snprintf(text, sizeof text, TEACHER, dir, run, dir, TEACHER_STEPS);
	snprintf(path, sizeof path, "%s/%s.yaml", dir, run);
	write_text(path, text);
	train_config c;
	train_run r;
	FILE *quiet = fopen("/dev/null", "w");
	wn_code rc = train_config_load(&c, path, sets, num_sets, err);
	if (rc)
		return rc;
	omp_set_num_threads(c.threads);
	const train_run_options ro = {.resume = resume, .out = quiet};
	const trainer_options to = {.resume = resume, .max_steps = max_steps, .reducer = {.ranks = 1}};
	if (!(rc = train_run_open(&r, &c, &ro, err))) {
		rc = trainer_run(&r, &to, err);
		train_run_close(&r);
	}
	train_config_free(&c);
	fclose(quiet);
	return rc;
}

static inline wn_code train_plainly(const char *run, bool resume, wn_error *err) { return train(run, NULL, 0, resume, 0, err); }

/* The teacher is trained in a child: tests that fork must be able to (child_run.h). */
static inline int open_dir(void **state)
{
	scratch_open(dir, sizeof dir);
	return !run_in_child(train_plainly, "teacher", false, 0);
}

static inline int close_dir(void **state)
{
	remove_tree(dir);
	return 0;
}

static inline void load_config(compress_config *c, const char *run, const char *const *sets, int num_sets)
{
	char text[4096], path[400];
	snprintf(text, sizeof text, STUDENT, dir, run, dir, dir);
	snprintf(path, sizeof path, "%s/%s.yaml", dir, run);
	write_text(path, text);
	assert_ok(compress_config_load(c, path, sets, num_sets, err));
}

/* What the command does, quietly: opens, plans, runs. */
static inline wn_code compress(const char *run, const char *const *sets, int num_sets, bool resume, int64_t max_steps,
                               volatile sig_atomic_t *stop, wn_error *err)
{
	compress_config c;
	workspace w;
	compress_cost cost;
	compress_plan *p = calloc(1, sizeof *p);
	FILE *quiet = fopen("/dev/null", "w");
	load_config(&c, run, sets, num_sets);
	omp_set_num_threads(c.threads);
	const workspace_options wo = {.resume = resume, .out = quiet, .stop = stop};
	const compressor_options co = {.resume = resume, .max_steps = max_steps};
	wn_code rc = workspace_open(&w, &c, &wo, err);
	if (!rc) {
		rc = compress_cost_open(&cost, &w, err);
		if (!rc)
			rc = compress_plan_make(p, &w, resume, cost.model, err);
		if (!rc)
			rc = compress_plan_save(p, &w, cost.model, err);
		if (!rc)
			rc = compressor_run(&w, p, cost.model, &co, err);
		compress_cost_close(&cost);
		workspace_close(&w);
	}
	compress_config_free(&c);
	fclose(quiet);
	free(p);
	return rc;
}

/* Must come to its end. */
static inline void compress_ok(const char *run, const char *const *sets, int num_sets, bool resume, int64_t max_steps)
{
	wn_error err = {0};
	if (compress(run, sets, num_sets, resume, max_steps, NULL, &err))
		fail_msg("%s: %s", run, err.message);
}

/* Must fail, with these words. */
static inline void compress_refused(const char *run, const char *set, bool resume, const char *words)
{
	wn_error err = {0};
	if (compress(run, &set, set ? 1 : 0, resume, 0, NULL, &err) == WN_OK || !strstr(err.message, words))
		fail_msg("%s %s: \"%s\", expected \"%s\"", run, set ? set : "", err.message, words);
}

static inline void read_in_run(const char *run, const char *name, char **text, size_t *len)
{
	char path[600];
	snprintf(path, sizeof path, "%s/%s/%s", dir, run, name);
	assert_ok(file_read(path, (size_t)1 << 28, text, len, err));
}

static inline void assert_same_file(const char *a, const char *b, const char *name)
{
	char *x, *y;
	size_t n, m;
	read_in_run(a, name, &x, &n);
	read_in_run(b, name, &y, &m);
	if (n != m || memcmp(x, y, n))
		fail_msg("%s differs between %s and %s", name, a, b);
	free(x);
	free(y);
}

/* The events of this kind in a run's log; the caller's. */
static inline json_t *events_of(const char *run, const char *kind)
{
	char *text, *save = NULL;
	size_t len;
	json_t *found = json_array();
	read_in_run(run, "log.jsonl", &text, &len);
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		json_t *j = json_loads(line, 0, NULL);
		assert_non_null(j);
		if (!strcmp(json_string_value(json_object_get(j, "event")), kind))
			json_array_append(found, j);
		json_decref(j);
	}
	free(text);
	return found;
}

static inline json_t *json_in_run(const char *run, const char *name)
{
	char path[600];
	json_error_t je;
	snprintf(path, sizeof path, "%s/%s/%s", dir, run, name);
	json_t *j = json_load_file(path, 0, &je);
	if (!j)
		fail_msg("%s: %s", path, je.text);
	return j;
}

static inline void write_in_run(const char *run, const char *name, const json_t *j)
{
	char path[600];
	snprintf(path, sizeof path, "%s/%s/%s", dir, run, name);
	assert_int_equal(json_dump_file(j, path, JSON_REAL_PRECISION(17)), 0);
}

#endif
