/* teacher_fixture.h: a teacher of the fixture's model with a cache in a directory of its own, and what its answers must be. */
#ifndef WINNOW_TESTS_COMPRESS_TEACHER_FIXTURE_H
#define WINNOW_TESTS_COMPRESS_TEACHER_FIXTURE_H

#include "tests/compress/transfer_fixture.h"

#include <dirent.h>

#include "model/ops.h"
#include "prune/compress/teacher.h"

static char dir[256], cache[300];
static fixture f;
static transfer_set *set;

enum { MICRO = 8, BATCH = 6, PATCH_ROWS = 1 + (SIZE / 14) * (SIZE / 14) };

static inline int open_dir(void **state)
{
	scratch_open(dir, sizeof dir);
	snprintf(cache, sizeof cache, "%s/cache", dir);
	return 0;
}
static inline int close_dir(void **state)
{
	remove_tree(dir);
	return 0;
}
static inline int open_all(void **state)
{
	open_dir(state);
	fixture_open(&f, dir, 96);
	const transfer_options o = fixture_options(&f);
	assert_ok(transfer_open(&set, &o, err));
	return 0;
}
static inline int close_all(void **state)
{
	transfer_close(&set);
	fixture_close(&f);
	return close_dir(state);
}

static const char DIGEST[] = "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

static inline teacher_options options(const char *cache_dir)
{
	return (teacher_options){.model = f.model, .digest = DIGEST, .set = set, .trie = &f.trie, .batch = &f.batch, .pad_id = 1,
				 .micro_batch = MICRO, .hidden = true, .cache_dir = cache_dir, .cache_limit = (int64_t)1 << 30};
}

static inline teacher *open_teacher(const teacher_options *o)
{
	teacher *t = NULL;
	assert_ok(teacher_open(&t, o, err));
	return t;
}

/* Opens with what it says collected into said. */
static inline teacher *open_listening(teacher_options o, char *said, size_t size)
{
	o.out = fmemopen(said, size, "w");
	assert_non_null(o.out);
	teacher *t = open_teacher(&o);
	fclose(o.out);
	return t;
}

/* Names in the cache directory, the last of them in `name`; how many. */
static inline int list_cache(char name[256])
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

static inline void cache_path(char *path, size_t size)
{
	char name[256];
	assert_int_equal(list_cache(name), 1);
	assert_true(!strncmp(name, "teacher-", 8) && strlen(name) == 8 + 64 + 4 && !strcmp(name + 72, ".bin"));
	snprintf(path, size, "%s/%s", cache, name);
}

static const int NUM_BLOCKS[] = {2, 2, 3}, WIDTHS[] = {32, 32, 40};

/* Rows a sample; where >= 0: which of them are padding in sample i of b. */
static inline int stack_rows(const label_batch *b, int which)
{
	return which == COMPONENT_VISION ? PATCH_ROWS : which == COMPONENT_QFORMER ? QUERIES : QUERIES + b->text_len;
}
static inline bool is_padding(const label_batch *b, int which, int i, int row)
{
	return which == COMPONENT_TEXT && row >= QUERIES && !b->attention_mask[i * b->text_len + row - QUERIES];
}

typedef struct tolerance {
	double logits;           /* absolute */
	double relative, hidden; /* of a hidden value: relative, plus absolute */
} tolerance;

/* Is a float exactly what rounding x to the nearest bf16, ties to even, gives? */
static inline bool is_bf16_of(float got, float x)
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
static inline void compare_with_engine(const teacher *t, const label_batch *b, const tolerance *tol)
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

static inline void run_step(teacher *t, label_batch *b, int64_t step)
{
	uint32_t items[BATCH];
	transfer_step(set, step, items);
	assert_ok(label_batch_fill(b, set, items, BATCH, &f.batch, step, 1, err));
	assert_ok(teacher_run(t, b, err));
}

#define IN_DIR(test)   cmocka_unit_test_setup_teardown(test, open_dir, close_dir)
#define WITH_ALL(test) cmocka_unit_test_setup_teardown(test, open_all, close_all)

#endif
