/* The file of a teacher's outputs: found again, whole after a kill, continued after a stop, refused when it is something else, and not
 * left lying about. */
#include "tests/compress/teacher_fixture.h"

#include <signal.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <time.h>

#include "base/file.h"
#include "tests/base/kill_point.h"

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
	char size[800];
	snprintf(size, sizeof size, "%s takes %.1f MiB\n", path, (double)before.st_size / (1 << 20));
	assert_memory_equal(said, size, strlen(size));
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
		{len, 104, false, "found format 3, expected 2"},
		{len, 60, false, "another teacher or transfer set"},  /* the key */
		{len, 112, false, "another teacher or transfer set"}, /* the number of records */
		{len, 128, false, "records, expected 155"},           /* how many of them are done */
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

/* ---- stopped ---- */

static volatile sig_atomic_t stop_now;
static void stop_filling(void) { stop_now = 1; }

/* Fills until `writes` calls were made, then is stopped. Items done. */
static int fill_until(teacher_options o, int writes)
{
	int done = -1;
	teacher *t;
	wn_error err = {0};
	o.stop = &stop_now;
	stop_now = 0;
	calls.then = stop_filling;
	calls.count = 0;
	calls.at = writes;
	assert_int_equal(teacher_open(&t, &o, &err), WN_CANCELLED);
	calls.at = 0;
	calls.then = NULL;
	assert_int_equal(sscanf(err.message, "stopped with the outputs of %d of 155 items", &done), 1);
	return done;
}

static void zero_weights(void) { memset(blip2_weights(f.model), 0, blip2_weights_count(f.model) * sizeof(float)); }

/* A stop costs at most the batch at work: the next run goes on where this one was, and the file is that of an undisturbed one. */
static void a_stopped_fill_is_continued(void **state)
{
	const teacher_options o = options(cache);
	char path[600], name[256], said[2000], *whole, *now;
	size_t len, now_len;
	teacher *t = open_teacher(&o);
	teacher_close(&t);
	cache_path(path, sizeof path);
	assert_ok(file_read(path, (size_t)1 << 30, &whole, &len, err));
	unlink(path);
	assert_int_equal(fill_until(o, 40), 48); /* a header and 39 of 48 records: the third batch is finished */
	assert_int_equal(list_cache(name), 1);
	assert_non_null(strstr(name, ".bin.writing"));
	assert_int_equal(fill_until(o, 10), 64);
	t = open_listening(o, memset(said, 0, sizeof said), sizeof said);
	teacher_close(&t);
	assert_non_null(strstr(said, "64 of 155 records are in "));
	cache_path(path, sizeof path);
	assert_ok(file_read(path, (size_t)1 << 30, &now, &now_len, err));
	assert_true(now_len == len && !memcmp(now, whole, len));
	free(now);
	unlink(path);

	/* not only said: by a model that has forgotten everything, what was done before is not done again */
	assert_int_equal(fill_until(o, 40), 48);
	zero_weights();
	t = open_teacher(&o);
	teacher_close(&t);
	cache_path(path, sizeof path);
	assert_ok(file_read(path, (size_t)1 << 30, &now, &now_len, err));
	assert_int_equal(now_len, len);
	size_t same = 0;
	const int32_t *ids;
	const size_t count = transfer_count(set), start = 192; /* behind the header */
	for (size_t i = 0, at = start; i < count; i++) {
		const size_t rows = 2 * PATCH_ROWS * 32 + 2 * QUERIES * 32 +
				    3 * (size_t)(QUERIES + transfer_prompt(set, i, &ids) + f.trie.tail_len) * 40;
		const size_t bytes = (1 + (size_t)f.trie.tail_len) * VOCAB * sizeof(float) + rows * sizeof(uint16_t);
		assert_true(at + bytes <= len);
		same += !memcmp(now + at, whole + at, bytes);
		at = (at + bytes + 63) / 64 * 64;
	}
	assert_int_equal(same, 48);
	free(now);
	free(whole);
}

/* A beginning that does not say what it is, or says more than it has, is not continued. */
static void a_damaged_beginning_is_not_continued(void **state)
{
	static const struct {
		size_t flip;
		bool cut;
	} cases[] = {{3, false}, {60, false}, {104, false}, {112, false}, {135, false}, {0, true}};
	const teacher_options o = options(cache);
	char path[600], name[256], said[2000], *whole, *now;
	size_t len, now_len;
	teacher *t = open_teacher(&o);
	teacher_close(&t);
	cache_path(path, sizeof path);
	assert_ok(file_read(path, (size_t)1 << 30, &whole, &len, err));
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char writing[700], byte;
		unlink(path);
		assert_int_equal(fill_until(o, 40), 48);
		list_cache(name);
		snprintf(writing, sizeof writing, "%s/%s", cache, name);
		int fd = open(writing, O_RDWR);
		assert_int_equal(pread(fd, &byte, 1, (off_t)cases[i].flip), 1);
		byte ^= 1;
		if (cases[i].cut)
			assert_int_equal(ftruncate(fd, (off_t)len - 1), 0);
		else
			assert_int_equal(pwrite(fd, &byte, 1, (off_t)cases[i].flip), 1);
		close(fd);
		t = open_listening(o, memset(said, 0, sizeof said), sizeof said);
		teacher_close(&t);
		if (strstr(said, "already"))
			fail_msg("case %zu was continued", i);
		cache_path(path, sizeof path);
		assert_ok(file_read(path, (size_t)1 << 30, &now, &now_len, err));
		assert_true(now_len == len && !memcmp(now, whole, len));
		free(now);
	}
	free(whole);
}

static void make_older(const char *path, int days)
{
	const struct timespec t = {.tv_sec = time(NULL) - days * 86400 - 60};
	assert_int_equal(utimensat(AT_FDCWD, path, (const struct timespec[2]){t, t}, 0), 0);
}

/* Who makes a file takes away what dead makers of others left, but not what one alive works on or may come back to. */
static void leftovers_of_other_keys_are_swept(void **state)
{
	char begun[700], name[256], said[2000] = "", expected[900], path[4][600];
	static const char *const names[] = {"teacher-killed.bin.writing", "teacher-locked.bin.writing", "teacher-other.bin",
					    "elsewhere.writing"};
	teacher_options o = options(cache);
	assert_int_equal(fill_until(o, 40), 48); /* one that can be continued */
	list_cache(name);
	snprintf(begun, sizeof begun, "%s/%s", cache, name);
	for (int i = 0; i < 4; i++) {
		snprintf(path[i], sizeof path[i], "%s/%s", cache, names[i]);
		write_text(path[i], "x");
	}
	int held = open(path[1], O_RDONLY);
	assert_int_equal(flock(held, LOCK_EX), 0);
	make_older(path[1], 30);
	make_older(begun, 6);
	o.digest = "sha256:ff112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
	teacher *t = open_listening(o, said, sizeof said);
	teacher_close(&t);
	snprintf(expected, sizeof expected, "removed %s, 0.0 MiB that an interrupted run left\n", path[0]);
	assert_non_null(strstr(said, expected));
	assert_int_equal(access(path[0], F_OK), -1);
	for (int i = 1; i < 4; i++)
		assert_int_equal(access(path[i], F_OK), 0);
	assert_int_equal(access(begun, F_OK), 0);

	make_older(begun, 7);
	close(held);
	o.digest = "sha256:ee112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
	t = open_teacher(&o);
	teacher_close(&t);
	assert_int_equal(access(begun, F_OK), -1);
	assert_int_equal(access(path[1], F_OK), -1);
	assert_int_equal(list_cache(name), 4); /* two complete ones, and two that are no concern of ours */
}

/* ---- processes ---- */

/* This program again, in a process of its own: opens everything by itself and fills the cache. kill_at: is killed at that call,
 * having put every batch on disk. */
static int fill(const char *own_dir, const char *cache_dir, int kill_at)
{
	mkdir(own_dir, 0755);
	fixture_open(&f, own_dir, 96);
	transfer_options to = fixture_options(&f);
	to.recombined = 600;
	wn_error err = {0};
	teacher *t = NULL;
	wn_code rc = transfer_open(&set, &to, &err);
	teacher_options o = options(cache_dir);
	o.sync_seconds = kill_at ? 1e-9 : 0;
	calls.count = 0;
	calls.at = kill_at;
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

static pid_t start_filler(const char *own, int kill_at)
{
	char own_dir[400], number[16];
	snprintf(number, sizeof number, "%d", kill_at);
	snprintf(own_dir, sizeof own_dir, "%s/%s", dir, own);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		execl("/proc/self/exe", "test_teacher_cache", "fill", own_dir, cache, number, (char *)NULL);
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
	finish(start_filler("undisturbed", 0));
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
		pid_t pid = start_filler("disturbed", 0);
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
	finish(start_filler("last", 0));
	cache_path(path, sizeof path); /* one file, without .writing */
	assert_ok(file_read(path, (size_t)1 << 30, &now, &now_len, err));
	assert_true(now_len == len && !memcmp(now, whole, len));
	free(whole);
	free(now);
}

/* Killed again and again, at the writing of records, of the count and between: it gets on, and the file is an undisturbed one's. */
static void a_killed_fill_gets_on(void **state)
{
	static const int moments[] = {1, 2, 30, 18, 19, 20, 21, 100, 300};
	char name[256], path[700], whole_path[600], *whole, *now;
	size_t len, now_len;
	uint64_t before = 0, done = 0;
	finish(start_filler("undisturbed", 0));
	cache_path(whole_path, sizeof whole_path);
	assert_ok(file_read(whole_path, (size_t)1 << 30, &whole, &len, err));
	unlink(whole_path);
	snprintf(path, sizeof path, "%s.writing", whole_path);
	for (size_t i = 0; i < sizeof moments / sizeof *moments; i++) {
		int status;
		pid_t pid = start_filler("disturbed", moments[i]);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		assert_int_equal(list_cache(name), 1);
		int fd = open(path, O_RDONLY);
		assert_true(fd >= 0);
		if (pread(fd, &done, sizeof done, 128) != sizeof done)
			done = 0; /* at the first call there is no header */
		close(fd);
		assert_true(done >= before && done % TEACHER_FILL_BATCH == 0);
		before = done;
	}
	print_message("%d of 755 records were done when it was killed last\n", (int)done);
	assert_true(done > 300);
	finish(start_filler("last", 0));
	cache_path(path, sizeof path);
	assert_ok(file_read(path, (size_t)1 << 30, &now, &now_len, err));
	assert_true(now_len == len && !memcmp(now, whole, len));
	free(whole);
	free(now);
}

static void two_processes_make_one_cache(void **state)
{
	char path[600];
	pid_t a = start_filler("a", 0), b = start_filler("b", 0);
	finish(a);
	finish(b);
	cache_path(path, sizeof path);
}

int main(int argc, char **argv)
{
	if (argc == 5 && !strcmp(argv[1], "fill"))
		return fill(argv[2], argv[3], atoi(argv[4]));
	const struct CMUnitTest tests[] = {
		IN_DIR(a_kill_leaves_no_half_cache),
		IN_DIR(a_killed_fill_gets_on),
		IN_DIR(two_processes_make_one_cache),
		WITH_ALL(a_cache_is_reused),
		WITH_ALL(the_name_says_what_is_inside),
		WITH_ALL(a_damaged_file_is_made_anew),
		WITH_ALL(a_cache_beyond_the_limit_is_not_made),
		WITH_ALL(a_stopped_fill_is_continued),
		WITH_ALL(a_damaged_beginning_is_not_continued),
		WITH_ALL(leftovers_of_other_keys_are_swept),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
