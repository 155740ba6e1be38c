/* Checkpoints of a run on disk, its log, and what is cleared up when it is opened again. */
#include "tests/prune/support.h"

#include "prune/run_dir.h"
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

/* DIR/below, with the files named in `files` (separated by spaces). */
static void plant(const char *below, const char *files)
{
	char path[512], name[64];
	snprintf(path, sizeof path, "%s/%s", dir, below);
	assert_ok(run_dir_make(path, err));
	for (int n; sscanf(files, "%63s%n", name, &n) == 1; files += n) {
		snprintf(path, sizeof path, "%s/%s/%s", dir, below, name);
		write_text(path, "x");
	}
}

static bool is_there(const char *below)
{
	char path[800];
	snprintf(path, sizeof path, "%s/%s", dir, below);
	return access(path, F_OK) == 0;
}

/* What a kill leaves behind is not taken for a checkpoint, and does not stop the next one. */
static void unfinished_directories_do_not_count(void **state)
{
	adamw a;
	float w[COUNT] = {0};
	train_position p;
	open_optimizer(&a, 1);
	plant("state/step-000000012.tmp-Ab12Cd", "state.json state.safetensors");
	plant("state/step-12x", "state.json state.safetensors");
	plant("state/step-000000009", "");
	plant("state/step-000000008", "state.json");
	plant("state/step-000000007", "state.safetensors");
	assert_false(train_state_exists(dir));
	assert_refused(WN_NOT_FOUND, "no checkpoint", train_state_position(dir, &p, err));
	save_at(5, &a, w);
	assert_true(train_state_exists(dir));
	assert_ok(train_state_position(dir, &p, err));
	assert_int_equal(p.step, 5);
	assert_false(present("step-000000009") || present("step-000000008") || present("step-000000007"));
	plant("state/step-000000006", "state.json"); /* in the place of the next one */
	save_at(6, &a, w);
	assert_ok(train_state_load(dir, &p, w, &a, err));
	assert_int_equal(p.step, 6);
	adamw_close(&a);
}

static adamw killed_optimizer;
static float killed_weights[COUNT];

/* The same step again, as at a phase's end, and one more: the oldest goes. */
static void save_two(void)
{
	for (int64_t step = 5; step <= 6; step++) {
		const train_position p = {.step = step, .log_bytes = 100 + step, .identity = "sha256:x"};
		killed_optimizer.step = 1000 + step;
		if (train_state_save(dir, &p, killed_weights, &killed_optimizer, NULL))
			abort();
	}
}

static void fill_with(float x)
{
	for (int i = 0; i < COUNT; i++)
		killed_weights[i] = killed_optimizer.exp_avg[i] = killed_optimizer.exp_avg_sq[i] = x;
}

/* At every call of the file system: what is loaded is one whole checkpoint, the one before or one of the new. */
static void a_kill_at_any_moment_costs_no_checkpoint(void **state)
{
	adamw back;
	float w[COUNT];
	open_optimizer(&killed_optimizer, 1);
	open_optimizer(&back, 1);
	for (int exchange = 1; exchange >= 0; exchange--) {
		int seen[3] = {0}, fd;
		bool killed = true;
		calls.no_exchange = !exchange;
		for (int k = 1; killed; k++) {
			train_position p = {0};
			remove_tree(dir);
			mkdir(dir, 0755);
			fill_with(1);
			for (int64_t step = 4; step <= 5; step++)
				save_at(step, &killed_optimizer, killed_weights);
			fill_with(2);
			killed = is_killed_at(k, save_two);
			if (!exchange) { /* a run that is opened again sweeps; with the exchange it need not */
				assert_ok(run_dir_lock(dir, &fd, err));
				close(fd);
			}
			assert_ok(train_state_load(dir, &p, w, &back, err));
			const bool is_new = w[0] == 2;
			assert_true(p.step == 6 ? is_new : p.step == 5);
			assert_int_equal(p.log_bytes, is_new ? 100 + p.step : 99);
			assert_int_equal(back.step, is_new ? 1000 + p.step : 50);
			for (int i = 0; i < COUNT; i++)
				assert_true(w[i] == w[0] && back.exp_avg[i] == w[0] && back.exp_avg_sq[i] == w[0]);
			seen[p.step == 6 ? 2 : is_new]++;
			assert_ok(run_dir_lock(dir, &fd, err));
			close(fd);
			save_at(7, &killed_optimizer, killed_weights);
			assert_ok(train_state_position(dir, &p, err));
			assert_int_equal(p.step, 7);
			assert_true(present(seen[2] ? "step-000000006" : "step-000000005"));
			assert_false(present("step-000000004"));
		}
		print_message("killed %d times at the old checkpoint, %d at the new one of the same step, %d at the next\n", seen[0],
			      seen[1], seen[2]);
		assert_true(seen[0] >= 5 && seen[1] >= 5 && seen[2] >= 3);
	}
	calls.no_exchange = false;
	adamw_close(&killed_optimizer);
	adamw_close(&back);
}

/* Whoever opens a run clears up behind its killed predecessor, under the lock and among the run's own names only. */
static void an_opened_run_is_swept(void **state)
{
	static const char *const leftovers[] = {"best.tmp-Ab12Cd", "last.tmp-000000", "export.tmp-zzzzzz", "iterations/003-inner.tmp-Ab12Cd",
						"state/step-000000007.tmp-Ab12Cd"};
	static const char *const others[] = {"best", "report.tmp-Ab12Cd", "cache/x.tmp-Ab12Cd", "iterations/003-inner", "best.tmp-notours"};
	int fd, second;
	char path[512];
	for (size_t i = 0; i < sizeof leftovers / sizeof *leftovers; i++)
		plant(leftovers[i], "config.json .model.safetensors.12-0.tmp");
	for (size_t i = 0; i < sizeof others / sizeof *others; i++)
		plant(others[i], "config.json");
	plant("export.tmp-yyyyyy.old", "config.json");
	plant("last", "config.json");
	plant("last.tmp-yyyyyy.old", "config.json");
	plant("iterations", ".003-inner.pruning.json.77-1.tmp");
	plant(".", ".plan.json.77-1.tmp .report.html.77-1.tmp");
	assert_ok(run_dir_lock(dir, &fd, err));
	for (size_t i = 0; i < sizeof leftovers / sizeof *leftovers; i++)
		if (is_there(leftovers[i]))
			fail_msg("%s is still there", leftovers[i]);
	for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
		snprintf(path, sizeof path, "%s/config.json", others[i]);
		if (!is_there(path))
			fail_msg("%s is gone", path);
	}
	assert_true(is_there("export/config.json") && !is_there("export.tmp-yyyyyy.old")); /* put back: there was none */
	assert_true(is_there("last/config.json") && !is_there("last.tmp-yyyyyy.old"));
	assert_true(!is_there("iterations/.003-inner.pruning.json.77-1.tmp") && !is_there(".plan.json.77-1.tmp"));
	assert_true(is_there(".report.html.77-1.tmp"));
	plant("best.tmp-inwork", "config.json"); /* by who holds the lock */
	assert_refused(WN_IO, "another process is", run_dir_lock(dir, &second, err));
	assert_true(is_there("best.tmp-inwork"));
	close(fd);
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
		IN_DIR(a_kill_at_any_moment_costs_no_checkpoint),
		IN_DIR(an_opened_run_is_swept),
		IN_DIR(strangers_are_refused),
		IN_DIR(log_is_cut_back_to_its_checkpoint),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
