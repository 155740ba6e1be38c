/* test_distill_loss.c: the terms of the distillation loss and their gradients against PyTorch autograd (goldens of
 * make_goldens.py), finite differences, and themselves where the answer must not depend on how it is asked. */
#include "tests/prune/support.h"

#include <omp.h>
#include <stdatomic.h>

#include "model/safetensors.h"
#include "prune/compress/distill_loss.h"
#include "prune/rng.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

/* Every allocation of this program's own code passes here, so that a test can count them and let one fail. (libgomp's are its
 * own. A sanitizer's allocator must not be replaced: there nothing is counted and nothing fails.) */
static atomic_long allocations, failing = -1;
#if !defined(__SANITIZE_ADDRESS__)
extern const char __executable_start[], etext[];
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t);
static bool refuse(const void *caller)
{
	if ((const char *)caller < __executable_start || (const char *)caller >= etext)
		return false;
	return atomic_fetch_add(&allocations, 1) == atomic_load(&failing);
}
void *malloc(size_t n) { return refuse(__builtin_return_address(0)) ? NULL : __libc_malloc(n); }
void *calloc(size_t n, size_t m) { return refuse(__builtin_return_address(0)) ? NULL : __libc_calloc(n, m); }
#endif

/* ---- tries ---- */

/* steps [count][3]: label, row, token. */
static label_trie make_trie(const int64_t *steps, size_t count)
{
	label_trie t = {.steps = calloc(count, sizeof(label_step))};
	for (size_t k = 0; k < count; k++) {
		const int label = (int)steps[3 * k];
		t.steps[k] = (label_step){(int16_t)steps[3 * k + 1], (int32_t)steps[3 * k + 2]};
		t.num_labels = label + 1;
		t.first_step[label + 1] = (int)k + 1;
		if (t.steps[k].row > t.tail_len)
			t.tail_len = t.steps[k].row;
	}
	return t;
}

/* Paths of depth 1 to 4 with common prefixes, over 30 tokens or more. */
static const int64_t DEEP[] = {0, 0, 10, 0, 1, 11, 1, 0, 10, 1, 1, 12, 1, 2, 13, 2, 0, 20, 3, 0, 10, 3, 1, 12, 3, 2, 14, 3, 3, 15,
                               4, 0, 0, 4, 4, 29};
static label_trie deep_trie(void) { return make_trie(DEEP, COUNT(DEEP) / 3); }

static float *random_floats(size_t count, double size, uint64_t seed)
{
	float *x = malloc(count * sizeof *x);
	rng r = rng_open(seed, count, 0, 0);
	for (size_t i = 0; i < count; i++)
		x[i] = (float)rng_uniform(&r, -size, size);
	return x;
}

/* ---- goldens ---- */

static const float *floats(const safetensors *st, const char *name, size_t count)
{
	const tensor *t = safetensors_find(st, name);
	assert_non_null(t);
	assert_int_equal(t->dtype, DTYPE_F32);
	assert_int_equal(shape_count(t->rank, t->shape), count);
	return t->data;
}

/* A malloc'ed copy (a file's tensors may be unaligned); NULL when absent. */
static int64_t *integers(const safetensors *st, const char *name, size_t *count)
{
	const tensor *t = safetensors_find(st, name);
	if (!t)
		return NULL;
	assert_int_equal(t->dtype, DTYPE_I64);
	*count = (size_t)shape_count(t->rank, t->shape);
	int64_t *out = malloc(*count * sizeof *out);
	memcpy(out, t->data, *count * sizeof *out);
	return out;
}

static int *narrow(int64_t *wide, size_t count)
{
	int *out = wide ? malloc(count * sizeof *out) : NULL;
	for (size_t i = 0; wide && i < count; i++)
		out[i] = (int)wide[i];
	free(wide);
	return out;
}

static safetensors *open_golden(const char *kind, const char *name)
{
	char path[1024];
	safetensors *st;
	snprintf(path, sizeof path, "%s/%s_%s.safetensors", GOLDEN_DIR, kind, name);
	assert_ok(safetensors_open(&st, path, err));
	return st;
}

static double most(const float *x, size_t count)
{
	double m = 0;
	for (size_t i = 0; i < count; i++)
		m = fabs((double)x[i]) > m ? fabs((double)x[i]) : m;
	return m;
}

/* Every gradient within `limit` of the largest one. */
static void assert_gradient(const float *got, const float *want, size_t count, double limit, const char *what)
{
	const double size = most(want, count);
	for (size_t i = 0; i < count; i++)
		assert_close(got[i], want[i], limit * size, what, i);
}

static void check_golden(const char *name)
{
	safetensors *st = open_golden("distill", name);
	const tensor *logits = safetensors_find(st, "logits");
	assert_non_null(logits);
	const int n = (int)logits->shape[0];
	const size_t vocab = (size_t)logits->shape[2], count = (size_t)shape_count(3, logits->shape);
	size_t steps = 0, one = 0, num_labels = 0;
	int64_t *flat = integers(st, "steps", &steps), *batch = integers(st, "batch", &one);
	int64_t *wide = integers(st, "labels", &num_labels);
	int *labels = narrow(wide, num_labels);
	assert_int_equal(num_labels, n);
	label_trie trie = make_trie(flat, steps / 3);
	assert_int_equal(1 + trie.tail_len, logits->shape[1]);
	const float *w = floats(st, "weights", 7), *want = floats(st, "terms", 5);
	const distill_weights weights = {.nll = w[0], .kl = w[1], .pair = w[2], .relation = w[3], .hidden = 5, .temperature = w[4],
	                                 .margin = w[5], .labelled_share = w[6]};
	float *x = malloc(count * sizeof *x);
	memcpy(x, logits->data, count * sizeof *x);
	distill_scratch *s;
	assert_ok(distill_scratch_open(&s, n, &trie, vocab, err));
	distill_terms t = {0};
	distill_logits(s, x, floats(st, "teacher", count), labels, n, (int)*batch, &weights, &t);
	const double got[] = {t.nll, t.kl, t.pair, t.relation, t.total};
	for (size_t i = 0; i < COUNT(got); i++)
		assert_close(got[i], want[i], 1e-6 * fabs((double)want[i]), name, i);
	assert_gradient(x, floats(st, "gradient", count), count, 1e-6, name);
	assert_true(t.hidden == 0 && t.samples == n && t.correct <= n);
	distill_scratch_close(&s);
	assert_null(s);
	free(trie.steps);
	free(x);
	free(flat);
	free(batch);
	free(labels);
	safetensors_close(&st);
}

static void terms_and_gradients_equal_autograd(void **state)
{
	static const char *const names[] = {"nll", "kl", "kl_warm", "pair", "relation", "all", "some_unlabelled", "none_labelled", "micro",
	                                    "huge", "sure", "close", "one_sample", "one_row", "large_vocabulary"};
	for (size_t i = 0; i < COUNT(names); i++)
		check_golden(names[i]);
}

static void hidden_match_equals_autograd(void **state)
{
	static const char *const names[] = {"same", "dims", "rows", "rows_and_dims"};
	for (size_t k = 0; k < COUNT(names); k++) {
		safetensors *st = open_golden("hidden", names[k]);
		const tensor *student = safetensors_find(st, "student"), *teacher = safetensors_find(st, "teacher");
		const size_t rows = (size_t)student->shape[0], width = (size_t)student->shape[1], count = rows * width;
		const size_t teacher_count = (size_t)shape_count(2, teacher->shape), teacher_width = (size_t)teacher->shape[1];
		size_t num = 0;
		int64_t *wide_rows = integers(st, "to_row", &num), *wide_dims = integers(st, "to_dim", &num);
		int *to_row = narrow(wide_rows, rows), *to_dim = narrow(wide_dims, width);
		const hidden_map map = {.rows = rows, .to_row = to_row, .width = (int)width, .teacher_width = (int)teacher_width, .to_dim = to_dim};
		/* What the map leaves out is never looked at. */
		float *t = malloc(teacher_count * sizeof *t), *x = malloc(count * sizeof *x), *d = calloc(count, sizeof *d);
		for (size_t i = 0; i < teacher_count; i++)
			t[i] = NAN;
		memcpy(x, student->data, count * sizeof *x);
		for (size_t r = 0; r < rows; r++) {
			const size_t from = to_row ? (size_t)to_row[r] : r;
			for (size_t j = 0; j < width; j++) {
				const size_t at = from * teacher_width + (to_dim ? (size_t)to_dim[j] : j);
				if (to_row && to_row[r] < 0)
					x[r * width + j] = NAN;
				else
					t[at] = ((const float *)teacher->data)[at];
			}
		}
		const double weight = *floats(st, "weight", 1), want = *floats(st, "value", 1);
		assert_close(hidden_match(d, x, t, &map, weight), want, 1e-6 * want, names[k], 0);
		assert_gradient(d, floats(st, "gradient", count), count, 1e-6, names[k]);
		for (size_t i = 0; i < count; i++)
			d[i] = 1;
		hidden_match(d, x, t, &map, weight); /* it adds */
		for (size_t i = 0; i < count; i++)
			assert_close(d[i], 1 + floats(st, "gradient", count)[i], 1e-6, names[k], i);
		free(to_row);
		free(to_dim);
		free(t);
		free(x);
		free(d);
		safetensors_close(&st);
	}
}

/* ---- finite differences ---- */

static const distill_weights ALL = {.nll = 0.7, .kl = 1.3, .pair = 2, .relation = 5, .temperature = 2, .margin = 1.5};

static double loss_at(distill_scratch *s, float *work, const float *x, size_t count, const float *teacher, const int *labels, int n,
                      const distill_weights *w)
{
	distill_terms t = {0};
	memcpy(work, x, count * sizeof *x);
	distill_logits(s, work, teacher, labels, n, n, w, &t);
	return t.total;
}

static void gradients_equal_finite_differences(void **state)
{
	enum { N = 3, V = 31, R = 5 };
	static const int labels[N] = {3, -1, 1};
	label_trie trie = deep_trie();
	distill_scratch *s;
	assert_ok(distill_scratch_open(&s, N, &trie, V, err));
	const size_t count = N * R * V;
	float *x = random_floats(count, 3, 1), *teacher = random_floats(count, 3, 2), *grad = malloc(count * sizeof *grad);
	float *work = malloc(count * sizeof *work);
	distill_terms t = {0};
	memcpy(grad, x, count * sizeof *x);
	distill_logits(s, grad, teacher, labels, N, N, &ALL, &t);
	const double size = most(grad, count);
	assert_true(size > 1e-3);
	for (size_t i = 0; i < count; i++) {
		const float old = x[i], up = old + 1e-3f, down = old - 1e-3f;
		x[i] = up;
		const double above = loss_at(s, work, x, count, teacher, labels, N, &ALL);
		x[i] = down;
		const double below = loss_at(s, work, x, count, teacher, labels, N, &ALL);
		x[i] = old;
		assert_close(grad[i], (above - below) / ((double)up - down), 1e-5 * size, "finite difference", i);
	}
	distill_scratch_close(&s);
	free(trie.steps);
	free(x);
	free(teacher);
	free(grad);
	free(work);
}

static void hidden_gradient_equals_finite_differences(void **state)
{
	enum { ROWS = 4, W = 5, TW = 7 };
	static const int to_row[ROWS] = {2, -1, 0, 1}, to_dim[W] = {6, 0, 3, 2, 5};
	const hidden_map map = {ROWS, to_row, W, TW, to_dim};
	float *x = random_floats(ROWS * W, 2, 1), *t = random_floats(3 * TW, 2, 2), d[ROWS * W] = {0}, unused[ROWS * W] = {0};
	hidden_match(d, x, t, &map, 0.5);
	for (size_t i = 0; i < ROWS * W; i++) {
		const float old = x[i], up = old + 1e-2f, down = old - 1e-2f;
		x[i] = up;
		const double above = hidden_match(unused, x, t, &map, 1);
		x[i] = down;
		const double below = hidden_match(unused, x, t, &map, 1);
		x[i] = old;
		assert_close(d[i], 0.5 * (above - below) / ((double)up - down), 1e-7, "finite difference", i);
	}
	free(x);
	free(t);
}

/* ---- what must not matter ---- */

static void threads_do_not_change_bits(void **state)
{
	enum { N = 7, V = 5003, R = 5, WIDTH = 333 };
	static const int labels[N] = {0, -1, 2, 3, 4, -1, 1};
	label_trie trie = deep_trie();
	const size_t count = (size_t)N * R * V;
	float *x = random_floats(count, 4, 1), *teacher = random_floats(count, 4, 2), *grad[3], *d[3];
	double match[3];
	distill_terms t[3] = {0};
	const int before = omp_get_max_threads();
	const hidden_map map = {.rows = N * R, .width = WIDTH, .teacher_width = WIDTH};
	for (int k = 0; k < 3; k++) {
		distill_scratch *s;
		omp_set_num_threads(k + 1);
		assert_ok(distill_scratch_open(&s, N, &trie, V, err));
		grad[k] = malloc(count * sizeof *grad[k]);
		memcpy(grad[k], x, count * sizeof *x);
		distill_logits(s, grad[k], teacher, labels, N, N, &ALL, &t[k]);
		d[k] = calloc(N * R * WIDTH, sizeof *d[k]);
		match[k] = hidden_match(d[k], x, teacher, &map, 1);
		distill_scratch_close(&s);
		assert_true(most(grad[k], count) > 0 && match[k] > 0);
		assert_memory_equal(&t[k], &t[0], sizeof t[0]);
		assert_memory_equal(grad[k], grad[0], count * sizeof *grad[0]);
		assert_memory_equal(&match[k], &match[0], sizeof match[0]);
		assert_memory_equal(d[k], d[0], N * R * WIDTH * sizeof *d[0]);
	}
	omp_set_num_threads(before);
	for (int k = 0; k < 3; k++) {
		free(grad[k]);
		free(d[k]);
	}
	free(trie.steps);
	free(x);
	free(teacher);
}

/* A batch cut into micro-batches with different shares of labels: the same terms and gradients, all but relation. */
static void micro_batches_add_up(void **state)
{
	enum { N = 5, V = 40, R = 5, CUT = 2 };
	static const int labels[N] = {0, -1, 2, 3, -1};
	distill_weights w = ALL;
	w.relation = 0;
	w.labelled_share = 3.0 / N;
	label_trie trie = deep_trie();
	const size_t count = (size_t)N * R * V;
	float *whole = random_floats(count, 4, 1), *cut = random_floats(count, 4, 1), *teacher = random_floats(count, 4, 2);
	distill_scratch *s;
	assert_ok(distill_scratch_open(&s, N, &trie, V, err));
	distill_terms a = {0}, b = {0};
	distill_logits(s, whole, teacher, labels, N, N, &w, &a);
	distill_logits(s, cut, teacher, labels, CUT, N, &w, &b);
	distill_logits(s, cut + CUT * R * V, teacher + CUT * R * V, labels + CUT, N - CUT, N, &w, &b);
	const double one[] = {a.nll, a.kl, a.pair, a.total}, two[] = {b.nll, b.kl, b.pair, b.total};
	for (size_t i = 0; i < COUNT(one); i++)
		assert_close(two[i], one[i], 1e-12 * one[i], "term of two micro-batches", i);
	assert_true(one[0] > 0 && one[1] > 0 && one[2] > 0);
	assert_int_equal(b.samples, N);
	assert_int_equal(b.correct, a.correct);
	assert_gradient(cut, whole, count, 1e-7, "gradient of two micro-batches");
	distill_scratch_close(&s);
	free(trie.steps);
	free(whole);
	free(cut);
	free(teacher);
}

/* Counted by hand: two labels of one token each. */
static void correct_answers_are_counted(void **state)
{
	static const int64_t steps[] = {0, 0, 1, 1, 0, 2};
	static const int labels[] = {0, 0, 1, -1, -1};
	/* rows of 3 logits; the first is no label's */
	const float student[] = {9, 2, 1, /**/ 9, 1, 2, /**/ 9, 1, 2, /**/ 9, 1, 2, /**/ 9, 1, 2};
	const float teacher[] = {0, 0, 5, /**/ 0, 0, 5, /**/ 0, 5, 0, /**/ 0, 0, 5, /**/ 0, 5, 0};
	label_trie trie = make_trie(steps, 2);
	distill_scratch *s;
	assert_ok(distill_scratch_open(&s, 5, &trie, 3, err));
	distill_terms t = {0};
	float x[15];
	const distill_weights nll = {.nll = 1, .temperature = 1, .margin = 1};
	for (int round = 0; round < 2; round++) { /* terms add up */
		memcpy(x, student, sizeof x);
		distill_logits(s, x, teacher, labels, 5, 5, &nll, &t);
	}
	assert_int_equal(t.samples, 10);
	assert_int_equal(t.correct, 6); /* the first, third and fourth */
	t = (distill_terms){0};
	memcpy(x, student, sizeof x);
	distill_logits(s, x, NULL, labels, 5, 5, &nll, &t); /* nobody knows the last two */
	assert_int_equal(t.samples, 3);
	assert_int_equal(t.correct, 2);
	assert_true(t.nll > 0);
	distill_scratch_close(&s);
	free(trie.steps);
}

/* A weight of 0: no NaN of the teacher's gets in, nothing is read, the gradient is zero where no term looks. */
static void weight_zero_costs_nothing(void **state)
{
	enum { N = 2, V = 40, R = 5 };
	static const int labels[N] = {0, 2}; /* rows 0 and 1; row 0 */
	label_trie trie = deep_trie();
	const size_t count = (size_t)N * R * V;
	distill_scratch *s;
	assert_ok(distill_scratch_open(&s, N, &trie, V, err));
	float *x = random_floats(count, 4, 1), *nan = random_floats(count, 4, 2);
	for (size_t i = 0; i < count; i++)
		nan[i] = NAN;
	distill_terms t = {0};
	const distill_weights nll = {.nll = 1, .temperature = 1, .margin = 1}, none = {.temperature = 1, .margin = 1};
	distill_logits(s, x, nan, labels, N, N, &nll, &t);
	assert_true(t.nll > 0 && t.total == t.nll && t.kl == 0 && t.pair == 0 && t.relation == 0);
	for (size_t r = 0; r < N * R; r++)
		assert_true((most(x + r * V, V) > 0) == (r == 0 || r == 1 || r == R));
	free(x);
	x = random_floats(count, 4, 1);
	t = (distill_terms){0};
	distill_logits(s, x, NULL, labels, N, N, &none, &t);
	assert_true(t.total == 0 && t.nll == 0 && t.samples == N && most(x, count) == 0);
	const hidden_map map = {.rows = N, .width = V, .teacher_width = V};
	assert_true(hidden_match(NULL, NULL, NULL, &map, 0) == 0);
	/* no row that is compared; a teacher that is zero */
	static const int nowhere[N] = {-1, -1};
	const hidden_map padding = {.rows = N, .to_row = nowhere, .width = V, .teacher_width = V};
	assert_true(hidden_match(x, x, nan, &padding, 1) == 0 && most(x, count) == 0);
	float *zero = calloc(count, sizeof *zero), *student = random_floats(count, 1, 3);
	assert_true(hidden_match(x, student, zero, &map, 1) == 0 && most(x, count) == 0);
	distill_scratch_close(&s);
	free(trie.steps);
	free(x);
	free(nan);
	free(zero);
	free(student);
}

/* The teacher itself as student: nothing to learn but the labels. */
static void a_perfect_student_has_nothing_to_learn(void **state)
{
	enum { N = 4, V = 600, R = 5 };
	static const int labels[N] = {-1, -1, -1, -1};
	label_trie trie = deep_trie();
	const size_t count = (size_t)N * R * V;
	float *x = random_floats(count, 5, 1), *teacher = random_floats(count, 5, 1), *d = calloc(count, sizeof *d);
	distill_scratch *s;
	assert_ok(distill_scratch_open(&s, N, &trie, V, err));
	const hidden_map map = {.rows = N * R, .width = V, .teacher_width = V};
	assert_true(hidden_match(d, x, teacher, &map, 1) == 0 && most(d, count) == 0);
	distill_terms t = {0};
	distill_logits(s, x, teacher, labels, N, N, &ALL, &t);
	assert_true(fabs(t.total) < 1e-12 && most(x, count) < 1e-12);
	assert_int_equal(t.correct, N);
	distill_scratch_close(&s);
	free(trie.steps);
	free(x);
	free(teacher);
	free(d);
}

/* A NaN must reach the caller, who skips the step. */
static void a_nan_shows(void **state)
{
	enum { N = 2, V = 700, R = 5 };
	static const int labels[N] = {1, 2};
	static const size_t places[] = {0, 3, 600, V + 5, R * V + 699};
	label_trie trie = deep_trie();
	const size_t count = (size_t)N * R * V;
	distill_scratch *s;
	assert_ok(distill_scratch_open(&s, N, &trie, V, err));
	for (size_t k = 0; k < COUNT(places); k++)
		for (int side = 0; side < 2; side++) {
			float *x = random_floats(count, 4, 1), *teacher = random_floats(count, 4, 2);
			(side ? teacher : x)[places[k]] = NAN;
			distill_terms t = {0};
			distill_logits(s, x, teacher, labels, N, N, &ALL, &t);
			assert_true(isnan(t.total));
			free(x);
			free(teacher);
		}
	distill_scratch_close(&s);
	free(trie.steps);
}

/* ---- failing ---- */

static void bad_tries_are_refused(void **state)
{
	static const struct {
		int64_t steps[6];
		size_t count;
		const char *message;
	} bad[] = {
		{{0, 0, 50, 1, 0, 2}, 2, "label 0 has token 50, the vocabulary has 50"},
		{{0, 0, 1, 1, 0, -1}, 2, "label 1 has token -1"},
		{{0, 0, 1, 1, 1, 2}, 2, "step 0 of label 1 reads row 1, expected row 0 of 2 rows"},
		{{0, 0, 1, 0, 0, 2}, 2, "step 1 of label 0 reads row 0, expected a later one"},
	};
	distill_scratch *s;
	label_trie trie;
	for (size_t i = 0; i < COUNT(bad); i++) {
		trie = make_trie(bad[i].steps, bad[i].count);
		assert_refused(WN_INVALID, bad[i].message, distill_scratch_open(&s, 4, &trie, 50, err));
		assert_null(s);
		free(trie.steps);
	}
	trie = deep_trie();
	trie.tail_len = 3;
	assert_refused(WN_INVALID, "step 1 of label 4 reads row 4", distill_scratch_open(&s, 4, &trie, 50, err));
	trie.tail_len = 4;
	assert_refused(WN_INVALID, "0 samples", distill_scratch_open(&s, 0, &trie, 50, err));
	assert_refused(WN_INVALID, "65537 samples", distill_scratch_open(&s, 65537, &trie, 50, err));
	assert_refused(WN_INVALID, "vocabulary of 0", distill_scratch_open(&s, 1, &trie, 0, err));
	trie.first_step[2] = trie.first_step[1];
	assert_refused(WN_INVALID, "label 1 has no token", distill_scratch_open(&s, 4, &trie, 50, err));
	free(trie.steps);
	trie = (label_trie){0};
	assert_refused(WN_INVALID, "0 labels", distill_scratch_open(&s, 4, &trie, 50, err));
	distill_scratch_close(&s);
	distill_scratch_close(NULL);
}

static void memory_is_taken_once_and_may_be_refused(void **state)
{
#if defined(__SANITIZE_ADDRESS__)
	skip();
#endif
	enum { N = 3, V = 50, R = 5 };
	static const int labels[N] = {0, -1, 3};
	label_trie trie = deep_trie();
	distill_scratch *s;
	wn_error e = {0};
	const long before = atomic_load(&allocations);
	assert_int_equal(distill_scratch_open(&s, N, &trie, V, &e), WN_OK);
	const long opened = atomic_load(&allocations) - before;
	assert_true(opened > 5);
	float *x = random_floats(N * R * V, 4, 1), *teacher = random_floats(N * R * V, 4, 2), *d = calloc(N * R * V, sizeof *d);
	distill_terms t = {0};
	const hidden_map map = {.rows = N * R, .width = V, .teacher_width = V};
	const long quiet = atomic_load(&allocations);
	for (int i = 0; i < 3; i++) {
		hidden_match(d, x, teacher, &map, 1);
		distill_logits(s, x, teacher, labels, N, N, &ALL, &t);
	}
	assert_int_equal(atomic_load(&allocations), quiet);
	distill_scratch_close(&s);
	for (long k = 0; k < opened; k++) {
		e = (wn_error){0};
		atomic_store(&failing, atomic_load(&allocations) + k);
		const wn_code code = distill_scratch_open(&s, N, &trie, V, &e);
		atomic_store(&failing, -1);
		assert_int_equal(code, WN_NOMEM);
		assert_null(s);
		assert_non_null(strstr(e.message, "no memory"));
	}
	free(trie.steps);
	free(x);
	free(teacher);
	free(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(terms_and_gradients_equal_autograd),
		cmocka_unit_test(hidden_match_equals_autograd),
		cmocka_unit_test(gradients_equal_finite_differences),
		cmocka_unit_test(hidden_gradient_equals_finite_differences),
		cmocka_unit_test(threads_do_not_change_bits),
		cmocka_unit_test(micro_batches_add_up),
		cmocka_unit_test(correct_answers_are_counted),
		cmocka_unit_test(weight_zero_costs_nothing),
		cmocka_unit_test(a_perfect_student_has_nothing_to_learn),
		cmocka_unit_test(a_nan_shows),
		cmocka_unit_test(bad_tries_are_refused),
		cmocka_unit_test(memory_is_taken_once_and_may_be_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
