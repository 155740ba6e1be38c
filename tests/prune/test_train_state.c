/* Checkpoints of a run on disk, and its log. */
#include "tests/prune/support.h"

#include "prune/train_log.h"
#include "prune/train_state.h"
#include "tests/base/kill_point.h"

enum { COUNT = 100 };
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

static void open_optimizer(adamw *a, float fill)
{
	const adamw_segment s = {0, COUNT, true};
	const adamw_options o = {.beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8};
	assert_ok(adamw_open(a, &o, COUNT, &s, 1, err));
	for (int i = 0; i < COUNT; i++) {
		a->exp_avg[i] = fill + 0.1f * (float)i;
		a->exp_avg_sq[i] = fill + 0.3f * (float)i;
	}
}

static bool present(const char *name)
{
	char path[512];
	snprintf(path, sizeof path, "%s/state/%s", dir, name);
	return access(path, F_OK) == 0;
}

static void save_at(int64_t step, adamw *a, const float *w)
{
	train_position p = {.phase = 1, .phase_step = step - 3, .step = step, .has_best = true, .best_metric = 1.0 / 3,
			    .best_loss = 0.1, .best_step = step - 1, .log_bytes = 99, .skipped_in_a_row = 2, .eval_pending = true,
			    .smooth_loss = 2.0 / 7, .identity = "sha256:x"};
	a->step = step * 10;
	assert_ok(train_state_save(dir, &p, w, a, err));
}

static void newest_comes_back_bit_by_bit(void **state)
{
	adamw a, b;
	float w[COUNT], back[COUNT] = {0};
	train_position p = {0};
	open_optimizer(&a, 1);
	open_optimizer(&b, 7);
	for (int i = 0; i < COUNT; i++)
		w[i] = 1 / (float)(i + 3);
	w[0] = -0.0f;
	assert_false(train_state_exists(dir));
	assert_refused(WN_NOT_FOUND, "no checkpoint", train_state_load(dir, &p, back, &b, err));
	for (int64_t s = 8; s <= 11; s++) { /* 9 -> 10: names sort as numbers do */
		w[1] = (float)s;
		save_at(s, &a, w);
	}
	assert_true(train_state_exists(dir));
	assert_false(present("step-000000008"));
	assert_false(present("step-000000009"));
	assert_true(present("step-000000010") && present("step-000000011"));
	assert_ok(train_state_load(dir, &p, back, &b, err));
	assert_int_equal(p.step, 11);
	assert_int_equal(p.phase_step, 8);
	assert_int_equal(p.phase, 1);
	assert_true(p.has_best && p.eval_pending && p.best_metric == 1.0 / 3 && p.best_loss == 0.1 && p.smooth_loss == 2.0 / 7);
	assert_true(p.best_step == 10 && p.log_bytes == 99 && p.skipped_in_a_row == 2);
	assert_string_equal(p.identity, "sha256:x");
	assert_memory_equal(back, w, sizeof w);
	assert_memory_equal(a.exp_avg, b.exp_avg, sizeof w);
	assert_memory_equal(a.exp_avg_sq, b.exp_avg_sq, sizeof w);
	assert_int_equal(b.step, 110);
	/* the same step again replaces it */
	w[1] = 77;
	save_at(11, &a, w);
	assert_ok(train_state_load(dir, &p, back, &b, err));
	assert_true(back[1] == 77);
	adamw_close(&a);
	adamw_close(&b);
}

/* What a kill leaves behind is not taken for a checkpoint, and does not stop the next one. */
static void unfinished_directories_do_not_count(void **state)
{
	adamw a;
	float w[COUNT] = {0};
	char path[512];
	open_optimizer(&a, 1);
	snprintf(path, sizeof path, "%s/state", dir);
	mkdir(path, 0755);
	snprintf(path, sizeof path, "%s/state/writing", dir);
	mkdir(path, 0755);
	snprintf(path, sizeof path, "%s/state/writing/state.json", dir);
	write_text(path, "{");
	snprintf(path, sizeof path, "%s/state/writing/state.safetensors.Ab12", dir); /* a writer's own temporary */
	write_text(path, "x");
	snprintf(path, sizeof path, "%s/state/step-12x", dir);
	mkdir(path, 0755);
	assert_false(train_state_exists(dir));
	save_at(5, &a, w);
	assert_true(train_state_exists(dir));
	assert_false(present("writing"));
	adamw_close(&a);
}

static void strangers_are_refused(void **state)
{
	static const struct {
		const char *text, *message;
	} cases[] = {{"{", "state.json"}, {"{}", "state.json"}, {"{\"format\": 1, \"phase\": \"x\"}", "state.json"}};
	adamw a, larger;
	float w[COUNT * 2] = {0};
	char path[512];
	train_position p;
	open_optimizer(&a, 1);
	save_at(5, &a, w);
	const adamw_segment s = {0, COUNT * 2, true};
	assert_ok(adamw_open(&larger, &a.opt, COUNT * 2, &s, 1, err));
	assert_refused(WN_INVALID, "weights: found F32 of 100, expected F32 of 200", train_state_load(dir, &p, w, &larger, err));
	snprintf(path, sizeof path, "%s/state/step-000000005/state.json", dir);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		write_text(path, cases[i].text);
		assert_refused(WN_INVALID, cases[i].message, train_state_load(dir, &p, w, &a, err));
	}
	adamw_close(&a);
	adamw_close(&larger);
}

static void log_is_cut_back_to_its_checkpoint(void **state)
{
	char path[512], line[200];
	train_log l;
	snprintf(path, sizeof path, "%s/log.jsonl", dir);
	assert_ok(train_log_open(&l, path, 0, err));
	assert_ok(train_log_write(&l, json_pack("{s:i}", "step", 1), err));
	int64_t keep = -1, now = -1;
	struct stat st;
	assert_ok(train_log_sync(&l, &keep, err));
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(keep, strlen("{\"step\":1}\n"));
	assert_true(calls.synced == st.st_ino && calls.synced_bytes == keep); /* a checkpoint that says so finds them there */
	assert_ok(train_log_write(&l, json_pack("{s:i}", "step", 2), err));
	assert_refused(WN_NOMEM, "no memory", train_log_write(&l, NULL, err));
	train_log_close(&l);
	assert_ok(train_log_open(&l, path, keep, err));
	assert_ok(train_log_sync(&l, &now, err));
	assert_int_equal(now, keep);
	assert_ok(train_log_write(&l, json_pack("{s:i}", "step", 22), err));
	train_log_close(&l);
	FILE *f = fopen(path, "r");
	assert_non_null(fgets(line, sizeof line, f));
	assert_string_equal(line, "{\"step\":1}\n");
	assert_non_null(fgets(line, sizeof line, f));
	assert_string_equal(line, "{\"step\":22}\n");
	assert_null(fgets(line, sizeof line, f));
	fclose(f);
	assert_refused(WN_INVALID, "expected at least the 1000", train_log_open(&l, path, 1000, err));
	assert_refused(WN_IO, "no/such", train_log_open(&l, "/no/such/log", 0, err));
}

int main(void)
{
#define IN_DIR(f) cmocka_unit_test_setup_teardown(f, open_dir, close_dir)
	const struct CMUnitTest tests[] = {
		IN_DIR(newest_comes_back_bit_by_bit),
		IN_DIR(unfinished_directories_do_not_count),
		IN_DIR(strangers_are_refused),
		IN_DIR(log_is_cut_back_to_its_checkpoint),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
