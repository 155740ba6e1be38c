/* The teacher's outputs, computed and cached: equal to the engine's own, whole after a kill, refused when they are something
 * else. */
#include "tests/compress/transfer_fixture.h"

#include <dirent.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

#include "base/file.h"
#include "model/ops.h"
#include "prune/compress/teacher.h"

static char dir[256], cache[300];
static fixture f;
static transfer_set *set;

enum { MICRO = 8, BATCH = 6, PATCH_ROWS = 1 + (SIZE / 14) * (SIZE / 14) };

static int open_dir(void **state)
{
	scratch_open(dir, sizeof dir);
	snprintf(cache, sizeof cache, "%s/cache", dir);
	return 0;
}
static int close_dir(void **state)
{
	remove_tree(dir);
	return 0;
}
static int open_all(void **state)
{
	open_dir(state);
	fixture_open(&f, dir, 96);
	const transfer_options o = fixture_options(&f);
	assert_ok(transfer_open(&set, &o, err));
	return 0;
}
static int close_all(void **state)
{
	transfer_close(&set);
	fixture_close(&f);
	return close_dir(state);
}

static const char DIGEST[] = "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

static teacher_options options(const char *cache_dir)
{
	return (teacher_options){.model = f.model, .digest = DIGEST, .set = set, .trie = &f.trie, .batch = &f.batch, .pad_id = 1,
				 .micro_batch = MICRO, .hidden = true, .cache_dir = cache_dir, .cache_limit = (int64_t)1 << 30};
}

static teacher *open_teacher(const teacher_options *o)
{
	teacher *t = NULL;
	assert_ok(teacher_open(&t, o, err));
	return t;
}

/* Opens with what it says collected into said. */
static teacher *open_listening(teacher_options o, char *said, size_t size)
{
	o.out = fmemopen(said, size, "w");
	assert_non_null(o.out);
	teacher *t = open_teacher(&o);
	fclose(o.out);
	return t;
}

/* Names in the cache directory, the last of them in `name`; how many. */
static int list_cache(char name[256])
{
	int n = 0;
	*name = 0;
	DIR *d = opendir(cache);
	for (struct dirent *e; d && (e = readdir(d));)
		if (*e->d_name != '.') {
			snprintf(name, 256, "%s", e->d_name);
			n++;
		}
	if (d)
		closedir(d);
	return n;
}

static void cache_path(char *path, size_t size)
{
	char name[256];
	assert_int_equal(list_cache(name), 1);
	assert_true(!strncmp(name, "teacher-", 8) && strlen(name) == 8 + 64 + 4 && !strcmp(name + 72, ".bin"));
	snprintf(path, size, "%s/%s", cache, name);
}

static const int NUM_BLOCKS[] = {2, 2, 3}, WIDTHS[] = {32, 32, 40};

/* Rows a sample; where >= 0: which of them are padding in sample i of b. */
static int stack_rows(const label_batch *b, int which)
{
	return which == COMPONENT_VISION ? PATCH_ROWS : which == COMPONENT_QFORMER ? QUERIES : QUERIES + b->text_len;
}
static bool is_padding(const label_batch *b, int which, int i, int row)
{
	return which == COMPONENT_TEXT && row >= QUERIES && !b->attention_mask[i * b->text_len + row - QUERIES];
}

typedef struct tolerance {
	double logits;           /* absolute */
	double relative, hidden; /* of a hidden value: relative, plus absolute */
} tolerance;

/* Is a float exactly what rounding x to the nearest bf16, ties to even, gives? */
static bool is_bf16_of(float got, float x)
{
	uint16_t r;
	ops->to_bf16(&r, &x, 1);
	union {
		uint32_t u;
		float f;
	} v = {.u = (uint32_t)r << 16};
	return got == v.f;
}

/* What t says of b is what a session of the same model computes for b. Tolerance NULL: logits to the bit, hidden states to their
 * bf16. */
static void compare_with_engine(const teacher *t, const label_batch *b, const tolerance *tol)
{
	blip2_session *s = NULL;
	blip2_session_options so = blip2_session_defaults();
	const size_t each = 1 + (size_t)f.trie.tail_len, count = (size_t)b->n * each;
	int32_t *rows = malloc(count * sizeof *rows);
	float *logits = malloc(count * VOCAB * sizeof *logits);
	const blip2_batch view = label_batch_view(b);
	size_t compared = 0;
	so.max_batch = b->n;
	so.max_text_len = b->text_len;
	so.keep_hidden = true;
	assert_ok(blip2_session_open(&s, f.model, &so, err));
	assert_ok(blip2_forward(s, &view, err));
	blip2_logits(s, rows, label_batch_rows(b, QUERIES, rows), logits);
	if (!tol)
		assert_memory_equal(teacher_logits(t), logits, count * VOCAB * sizeof *logits);
	for (size_t i = 0; tol && i < count * VOCAB; i++)
		assert_close(teacher_logits(t)[i], logits[i], tol->logits, "logit", i);
	for (int which = 0; which < 3; which++)
		for (int block = 0; block < NUM_BLOCKS[which]; block++) {
			const blip2_block_view v = blip2_view_block(s, (component)which, block);
			const float *got = teacher_hidden(t, (component)which, block);
			const int each_rows = stack_rows(b, which), d = WIDTHS[which];
			assert_int_equal(v.rows, b->n * each_rows);
			for (int r = 0; r < b->n * each_rows; r++)
				for (int k = 0; k < d && !is_padding(b, which, r / each_rows, r % each_rows); k++) {
					const size_t at = (size_t)r * (size_t)d + (size_t)k;
					const double x = (double)v.output[at];
					compared++;
					if (tol)
						assert_close(got[at], x, tol->relative * fabs(x) + tol->hidden, "hidden", at);
					else if (!is_bf16_of(got[at], v.output[at]))
						fail_msg("stack %d block %d value %zu: %a is not %a in bf16", which, block, at,
							 (double)got[at], x);
				}
		}
	assert_true(compared > 1000);
	blip2_session_close(&s);
	free(rows);
	free(logits);
}

static void run_step(teacher *t, label_batch *b, int64_t step)
{
	uint32_t items[BATCH];
	transfer_step(set, step, items);
	assert_ok(label_batch_fill(b, set, items, BATCH, &f.batch, step, 1, err));
	assert_ok(teacher_run(t, b, err));
}

/* Batches as steps draw them, not as the cache was filled: rounding differs a little. */
static void cached_and_computed_agree(void **state)
{
	const teacher_options with = options(cache), without = options(NULL);
	teacher *cached = open_teacher(&with), *computed = open_teacher(&without);
	label_batch b;
	char path[600];
	assert_true(teacher_is_cached(cached));
	assert_false(teacher_is_cached(computed));
	cache_path(path, sizeof path);
	assert_ok(label_batch_open(&b, BATCH, transfer_longest_prompt(set), SIZE, &f.trie, err));
	double largest = 0;
	for (int step = 0; step < 12; step++) {
		run_step(computed, &b, step);
		compare_with_engine(computed, &b, &(tolerance){0, 0, 0});
		for (size_t i = 0; i < (size_t)BATCH * (1 + (size_t)f.trie.tail_len) * VOCAB; i++)
			largest = fmax(largest, fabs((double)teacher_logits(computed)[i]));
		run_step(cached, &b, step);
		/* 2^-8 is the most that rounding to bf16 loses */
		compare_with_engine(cached, &b, &(tolerance){2e-5, 1.01 / 256, 2e-5});
	}
	assert_true(largest > 0.5); /* 2e-5 is small beside them */
	label_batch_close(&b);
	teacher_close(&computed);
	teacher_close(&cached);
}

/* In the batches that the cache was filled from, longest prompts first. */
static void what_is_kept_is_exact(void **state)
{
	const size_t count = transfer_count(set);
	uint32_t *order = calloc(count, sizeof *order);
	const int32_t *ids;
	size_t n = 0;
	for (int len = 96; len > 0; len--)
		for (size_t i = 0; i < count; i++)
			if (transfer_prompt(set, i, &ids) == len)
				order[n++] = (uint32_t)i;
	assert_int_equal(n, count);
	const teacher_options o = options(cache);
	teacher *t = open_teacher(&o);
	label_batch b;
	assert_ok(label_batch_open(&b, MICRO, transfer_longest_prompt(set), SIZE, &f.trie, err));
	for (size_t from = 0; from < count; from += MICRO) {
		const int some = (int)(count - from < MICRO ? count - from : MICRO);
		assert_ok(label_batch_fill(&b, set, order + from, some, &f.batch, 0, 1, err));
		assert_ok(teacher_run(t, &b, err));
		compare_with_engine(t, &b, NULL);
	}
	label_batch_close(&b);
	teacher_close(&t);
	free(order);
}

/* The second open reads: with a model that has forgotten everything it gives the same answers. */
static void a_cache_is_reused(void **state)
{
	const teacher_options o = options(cache);
	const size_t count = (size_t)BATCH * (1 + (size_t)f.trie.tail_len) * VOCAB;
	float *first = malloc(count * sizeof *first);
	char said[2000] = "", path[600];
	struct stat before, after;
	label_batch b;
	teacher *t = open_listening(o, said, sizeof said);
	assert_non_null(strstr(said, "teacher outputs 155/155  took"));
	cache_path(path, sizeof path);
	assert_int_equal(stat(path, &before), 0);
	assert_ok(label_batch_open(&b, BATCH, transfer_longest_prompt(set), SIZE, &f.trie, err));
	run_step(t, &b, 0);
	memcpy(first, teacher_logits(t), count * sizeof *first);
	teacher_close(&t);
	memset(blip2_weights(f.model), 0, blip2_weights_count(f.model) * sizeof(float));
	memset(said, 0, sizeof said);
	t = open_listening(o, said, sizeof said);
	assert_string_equal(said, "");
	run_step(t, &b, 0);
	assert_memory_equal(first, teacher_logits(t), count * sizeof *first);
	assert_int_equal(stat(path, &after), 0);
	assert_true(before.st_ino == after.st_ino && before.st_mtim.tv_nsec == after.st_mtim.tv_nsec);
	teacher_close(&t);
	label_batch_close(&b);
	free(first);
}

/* What the outputs depend on names another file; how they are asked for does not. */
static void the_name_says_what_is_inside(void **state)
{
	char name[256];
	teacher_options o = options(cache);
	blip2_config *c = malloc(sizeof *c);
	*c = *blip2_get_config(f.model);
	teacher *t = open_teacher(&o);
	teacher_close(&t);
	o.micro_batch = 3;
	o.cache_limit *= 2;
	o.pad_id = -1;
	t = open_teacher(&o);
	teacher_close(&t);
	assert_int_equal(list_cache(name), 1);

	int files = 1;
	o = options(cache);
	o.hidden = false;
	t = open_teacher(&o);
	assert_true(teacher_is_cached(t));
	assert_null(teacher_hidden(t, COMPONENT_TEXT, 0));
	teacher_close(&t);
	assert_int_equal(list_cache(name), ++files);

	o = options(cache);
	o.digest = "sha256:ff112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
	t = open_teacher(&o);
	teacher_close(&t);
	assert_int_equal(list_cache(name), ++files);

	batch_options bo = f.batch;
	bo.image_processor.std[1] *= 1.01f;
	o = options(cache);
	o.batch = &bo;
	t = open_teacher(&o);
	teacher_close(&t);
	assert_int_equal(list_cache(name), ++files);

	label_trie fewer;
	f.manifest.num_labels = 5;
	assert_ok(label_trie_build(&fewer, f.tokenizer, &f.manifest, err));
	o = options(cache);
	o.trie = &fewer;
	t = open_teacher(&o);
	teacher_close(&t);
	label_trie_close(&fewer);
	assert_int_equal(list_cache(name), ++files);

	/* the same numbers as weights, other heads */
	blip2 *wider = NULL;
	c->text.blocks[1].num_heads = 4;
	c->text.blocks[1].head_dim = 10;
	assert_ok(blip2_create(&wider, c, err));
	o = options(cache);
	o.model = wider;
	t = open_teacher(&o);
	teacher_close(&t);
	blip2_close(&wider);
	assert_int_equal(list_cache(name), ++files);
	free(c);
}

/* Whatever stands there in the cache's place is told in one line and replaced, and the answers are right. */
static void a_damaged_file_is_made_anew(void **state)
{
	const teacher_options o = options(cache);
	char path[600], said[4000], *whole, *now;
	size_t len, now_len;
	label_batch b;
	teacher *t = open_teacher(&o);
	teacher_close(&t);
	cache_path(path, sizeof path);
	assert_ok(file_read(path, (size_t)1 << 30, &whole, &len, err));
	assert_ok(label_batch_open(&b, BATCH, transfer_longest_prompt(set), SIZE, &f.trie, err));
	const struct {
		size_t keep;         /* bytes */
		size_t flip;         /* changed byte; 0: none */
		bool longer;
		const char *message;
	} cases[] = {
		{0, 0, false, "not a file of teacher outputs"},
		{50, 0, false, "not a file of teacher outputs"},
		{len, 3, false, "not a file of teacher outputs"},
		{len, 104, false, "found format 0, expected 1"},
		{len, 60, false, "another teacher or transfer set"},  /* the key */
		{len, 112, false, "another teacher or transfer set"}, /* the number of records */
		{len / 2, 0, false, "bytes, expected"},
		{len - 1, 0, false, "bytes, expected"},
		{len, 0, true, "bytes, expected"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char *damaged = malloc(len + 1), *line;
		memcpy(damaged, whole, len);
		damaged[len] = 0;
		if (cases[i].flip)
			damaged[cases[i].flip] ^= 1;
		write_file(path, damaged, cases[i].longer ? len + 1 : cases[i].keep);
		free(damaged);
		memset(said, 0, sizeof said);
		t = open_listening(o, said, sizeof said);
		assert_non_null(line = strchr(said, '\n'));
		*line = 0;
		if (!strstr(said, path) || !strstr(said, cases[i].message) || !strstr(said, "making it anew"))
			fail_msg("case %zu: \"%s\", expected \"%s\"", i, said, cases[i].message);
		run_step(t, &b, 1);
		compare_with_engine(t, &b, &(tolerance){2e-5, 1.01 / 256, 2e-5});
		teacher_close(&t);
		cache_path(path, sizeof path); /* and nothing else is left */
		assert_ok(file_read(path, (size_t)1 << 30, &now, &now_len, err));
		assert_true(now_len == len && !memcmp(now, whole, len));
		free(now);
	}
	label_batch_close(&b);
	free(whole);
}

static void a_cache_beyond_the_limit_is_not_made(void **state)
{
	char path[600], said[2000] = "", name[256];
	struct stat st;
	teacher_options o = options(cache);
	teacher *t = open_teacher(&o);
	teacher_close(&t);
	cache_path(path, sizeof path);
	assert_int_equal(stat(path, &st), 0);
	o.cache_limit = st.st_size;
	t = open_teacher(&o);
	assert_true(teacher_is_cached(t));
	teacher_close(&t);
	unlink(path);
	o.cache_limit--;
	t = open_listening(o, said, sizeof said);
	assert_false(teacher_is_cached(t));
	assert_non_null(strstr(said, "MiB: it runs along instead\n"));
	assert_int_equal(list_cache(name), 0);
	label_batch b;
	assert_ok(label_batch_open(&b, BATCH, transfer_longest_prompt(set), SIZE, &f.trie, err));
	run_step(t, &b, 3);
	compare_with_engine(t, &b, &(tolerance){0, 0, 0});
	label_batch_close(&b);
	teacher_close(&t);
}

/* With augmentation a step's pictures are its own: nothing is cached, and the outputs are of the pictures in the batch. */
static void augmented_pictures_are_computed(void **state)
{
	batch_options bo = f.batch;
	uint32_t items[BATCH];
	char name[256];
	label_batch b;
	bo.augment_on = true;
	bo.augment.crop_scale_min = 0.5;
	teacher_options o = options(cache);
	o.batch = &bo;
	teacher *t = open_teacher(&o);
	assert_false(teacher_is_cached(t));
	assert_int_equal(list_cache(name), 0);
	assert_ok(label_batch_open(&b, BATCH, transfer_longest_prompt(set), SIZE, &f.trie, err));
	for (int step = 0; step < 3; step++) {
		transfer_step(set, step, items);
		assert_ok(label_batch_fill(&b, set, items, BATCH, &bo, step, 1, err));
		assert_ok(teacher_run(t, &b, err));
		compare_with_engine(t, &b, &(tolerance){0, 0, 0});
	}
	label_batch_close(&b);
	teacher_close(&t);
}

static void what_cannot_be_is_one_clear_line(void **state)
{
	volatile sig_atomic_t stop = 1;
	char name[256], blocked[600];
	teacher *t;
	teacher_options o = options(cache);
	o.stop = &stop;
	assert_refused(WN_CANCELLED, "stopped with the outputs of 0 of 155 items computed", teacher_open(&t, &o, err));
	assert_null(t);
	assert_int_equal(list_cache(name), 0); /* not even a temporary */

	o = options(cache);
	o.micro_batch = 0;
	assert_refused(WN_INVALID, "micro-batches of 0", teacher_open(&t, &o, err));
	batch_options bo = f.batch;
	bo.image_processor.size = 56;
	o = options(cache);
	o.batch = &bo;
	assert_refused(WN_INVALID, "takes images of 42 pixels a side, the batches have 56", teacher_open(&t, &o, err));

	snprintf(blocked, sizeof blocked, "%s/tokenizer.json/cache", dir);
	o = options(blocked);
	assert_refused(WN_IO, "tokenizer.json", teacher_open(&t, &o, err));

	/* no room: said before anything is computed */
	struct rlimit before;
	getrlimit(RLIMIT_FSIZE, &before);
	signal(SIGXFSZ, SIG_IGN);
	o = options(cache);
	o.stop = &stop; /* would say so if it came that far */
	const struct rlimit limited = {.rlim_cur = 4096, .rlim_max = before.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limited), 0);
	assert_refused(WN_IO, "cannot reserve", teacher_open(&t, &o, err));
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	assert_int_equal(list_cache(name), 0);

	o = options(cache);
	o.micro_batch = BATCH - 1;
	t = open_teacher(&o);
	label_batch b;
	uint32_t items[BATCH];
	assert_ok(label_batch_open(&b, BATCH, transfer_longest_prompt(set), SIZE, &f.trie, err));
	transfer_step(set, 0, items);
	assert_ok(label_batch_fill(&b, set, items, BATCH, &f.batch, 0, 1, err));
	assert_refused(WN_TOO_LARGE, "batch of 6 samples", teacher_run(t, &b, err));
	label_batch_close(&b);
	teacher_close(&t);
}

/* ---- processes ---- */

/* This program again, in a process of its own: opens everything by itself and fills the cache. */
static int fill(const char *own_dir, const char *cache_dir)
{
	mkdir(own_dir, 0755);
	fixture_open(&f, own_dir, 96);
	transfer_options to = fixture_options(&f);
	to.recombined = 600;
	wn_error err = {0};
	teacher *t = NULL;
	wn_code rc = transfer_open(&set, &to, &err);
	const teacher_options o = options(cache_dir);
	if (!rc)
		rc = teacher_open(&t, &o, &err);
	if (rc)
		fprintf(stderr, "%s\n", err.message);
	const bool done = !rc && teacher_is_cached(t);
	teacher_close(&t);
	transfer_close(&set);
	fixture_close(&f);
	return done ? 0 : 1;
}

static pid_t start_filler(const char *own)
{
	char own_dir[400];
	snprintf(own_dir, sizeof own_dir, "%s/%s", dir, own);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		execl("/proc/self/exe", "test_teacher", "fill", own_dir, cache, (char *)NULL);
		_exit(127);
	}
	return pid;
}

static void finish(pid_t pid)
{
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void a_kill_leaves_no_half_cache(void **state)
{
	char name[256], path[700], whole_path[600], *whole, *now;
	size_t len, now_len;
	int kills = 0;
	finish(start_filler("undisturbed"));
	cache_path(whole_path, sizeof whole_path);
	assert_ok(file_read(whole_path, (size_t)1 << 30, &whole, &len, err));
	unlink(whole_path);
	srand((unsigned)time(NULL)); /* other moments in every run: the claim is for any */
	for (int attempt = 0; attempt < 20 && kills < 3; attempt++) {
		const bool left = list_cache(name) > 0; /* the temporary of the kill before */
		struct stat st = {0};
		snprintf(path, sizeof path, "%s.writing", whole_path);
		stat(path, &st);
		const struct timespec old = st.st_mtim;
		pid_t pid = start_filler("disturbed");
		/* as soon as it has started on its temporary, and a little later */
		bool ended = false;
		while (!(ended = waitpid(pid, NULL, WNOHANG) == pid) &&
		       (stat(path, &st) ||
			(left && st.st_mtim.tv_sec == old.tv_sec && st.st_mtim.tv_nsec == old.tv_nsec)))
			nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
		nanosleep(&(struct timespec){.tv_nsec = rand() % 30 * 1000000L}, NULL);
		if (!ended) {
			kill(pid, SIGKILL);
			waitpid(pid, NULL, 0);
		}
		assert_int_equal(list_cache(name), 1);
		if (strstr(name, ".writing")) {
			kills++;
		} else { /* it was faster */
			cache_path(path, sizeof path);
			unlink(path);
		}
	}
	print_message("killed %d times while filling\n", kills);
	assert_true(kills > 0);
	finish(start_filler("last"));
	cache_path(path, sizeof path); /* one file, without .writing */
	assert_ok(file_read(path, (size_t)1 << 30, &now, &now_len, err));
	assert_true(now_len == len && !memcmp(now, whole, len));
	free(whole);
	free(now);
}

static void two_processes_make_one_cache(void **state)
{
	char path[600];
	pid_t a = start_filler("a"), b = start_filler("b");
	finish(a);
	finish(b);
	cache_path(path, sizeof path);
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "fill"))
		return fill(argv[2], argv[3]);
#define IN_DIR(test) cmocka_unit_test_setup_teardown(test, open_dir, close_dir)
#define WITH_ALL(test) cmocka_unit_test_setup_teardown(test, open_all, close_all)
	const struct CMUnitTest tests[] = {
		IN_DIR(a_kill_leaves_no_half_cache),
		IN_DIR(two_processes_make_one_cache),
		WITH_ALL(cached_and_computed_agree),
		WITH_ALL(what_is_kept_is_exact),
		WITH_ALL(a_cache_is_reused),
		WITH_ALL(the_name_says_what_is_inside),
		WITH_ALL(a_damaged_file_is_made_anew),
		WITH_ALL(a_cache_beyond_the_limit_is_not_made),
		WITH_ALL(augmented_pictures_are_computed),
		WITH_ALL(what_cannot_be_is_one_clear_line),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
