/* The teacher's outputs, computed and read back: equal to the engine's own, the same bits whoever filled the cache, refused when they
 * cannot be. */
#include "tests/compress/teacher_fixture.h"

#include <signal.h>
#include <sys/resource.h>

#include "base/file.h"

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
	teacher_options o = options(cache);
	o.micro_batch = TEACHER_FILL_BATCH;
	teacher *t = open_teacher(&o);
	label_batch b;
	enum { FILL = TEACHER_FILL_BATCH };
	assert_ok(label_batch_open(&b, FILL, transfer_longest_prompt(set), SIZE, &f.trie, err));
	for (size_t from = 0; from < count; from += FILL) {
		const int some = (int)(count - from < FILL ? count - from : FILL);
		assert_ok(label_batch_fill(&b, set, order + from, some, &f.batch, 0, 1, err));
		assert_ok(teacher_run(t, &b, err));
		compare_with_engine(t, &b, NULL);
	}
	label_batch_close(&b);
	teacher_close(&t);
	free(order);
}

static void copy_logits(const teacher_options *o, int64_t step, float *out)
{
	label_batch b;
	teacher *t = open_teacher(o);
	assert_true(teacher_is_cached(t));
	assert_ok(label_batch_open(&b, BATCH, transfer_longest_prompt(set), SIZE, &f.trie, err));
	run_step(t, &b, step);
	memcpy(out, teacher_logits(t), (size_t)BATCH * (1 + (size_t)f.trie.tail_len) * VOCAB * sizeof *out);
	label_batch_close(&b);
	teacher_close(&t);
}

/* Whoever needs no hidden states takes the logits from a file that has them; without one, they are the same bits. */
static void hidden_states_may_be_passed_over(void **state)
{
	const size_t count = (size_t)BATCH * (1 + (size_t)f.trie.tail_len) * VOCAB;
	float *logits[3];
	char path[600], name[256];
	struct stat with, without;
	teacher_options o = options(cache);
	for (int i = 0; i < 3; i++)
		logits[i] = malloc(count * sizeof(float));
	copy_logits(&o, 2, logits[0]);
	cache_path(path, sizeof path);
	assert_int_equal(stat(path, &with), 0);
	o.hidden = false;
	copy_logits(&o, 2, logits[1]);
	assert_int_equal(list_cache(name), 1);
	unlink(path);
	copy_logits(&o, 2, logits[2]);
	cache_path(path, sizeof path);
	assert_int_equal(stat(path, &without), 0);
	assert_true(without.st_size < with.st_size);
	for (int i = 1; i < 3; i++)
		assert_memory_equal(logits[0], logits[i], count * sizeof(float));
	teacher *t = open_teacher(&o);
	assert_null(teacher_hidden(t, COMPONENT_TEXT, 0));
	teacher_close(&t);
	for (int i = 0; i < 3; i++)
		free(logits[i]);
}

/* Runs that share a cache read the same bits, whichever of them filled it. */
static void the_bits_do_not_depend_on_who_filled(void **state)
{
	static const int micro[] = {1, 5, MICRO, 64};
	char path[600], *first = NULL;
	size_t first_len = 0;
	for (int i = 0; i < 4; i++) {
		char *now;
		size_t len;
		teacher_options o = options(cache);
		o.micro_batch = micro[i];
		teacher *t = open_teacher(&o);
		teacher_close(&t);
		cache_path(path, sizeof path);
		assert_ok(file_read(path, (size_t)1 << 30, &now, &len, err));
		unlink(path);
		if (first && (len != first_len || memcmp(first, now, len)))
			fail_msg("a run with micro-batches of %d fills other bits than one with %d", micro[i], micro[0]);
		free(first);
		first = now;
		first_len = len;
	}
	free(first);
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

/* Views are drawn once: whatever the step, the outputs in the file are of the pictures in the batch. */
static void views_are_cached(void **state)
{
	batch_options bo = f.batch;
	uint32_t items[BATCH];
	label_batch b;
	bo.augment_on = true;
	bo.augment = (augment_options){.crop_scale_min = 0.5, .crop_ratio_max = 1.2, .brightness = 0.3};
	transfer_options so = fixture_options(&f);
	so.views = 2;
	so.augment = &bo.augment;
	transfer_close(&set);
	assert_ok(transfer_open(&set, &so, err));
	teacher_options o = options(cache);
	o.batch = &bo;
	teacher *t = open_teacher(&o);
	assert_true(teacher_is_cached(t));
	assert_ok(label_batch_open(&b, BATCH, transfer_longest_prompt(set), SIZE, &f.trie, err));
	for (int step = 0; step < 12; step++) {
		transfer_step(set, step, items);
		assert_ok(label_batch_fill(&b, set, items, BATCH, &bo, step, 1, err));
		teacher_prefetch(t, items, BATCH);
		assert_ok(teacher_run(t, &b, err));
		compare_with_engine(t, &b, &(tolerance){2e-5, 1.01 / 256, 2e-5});
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_ALL(cached_and_computed_agree),
		WITH_ALL(what_is_kept_is_exact),
		WITH_ALL(hidden_states_may_be_passed_over),
		WITH_ALL(the_bits_do_not_depend_on_who_filled),
		WITH_ALL(augmented_pictures_are_computed),
		WITH_ALL(views_are_cached),
		WITH_ALL(what_cannot_be_is_one_clear_line),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
