/* test_steady_state.c: a request whose shape was met before makes no oneDNN primitive, and winnow's code takes nothing from the heap
 * for it, whatever its prompt's length, in every precision. With AVX-512, and a kernel of its own for attention, oneDNN takes no buffer
 * either. It does take the few small nodes of a map for the arguments of every product, whatever calls it, and gives them back; the heap
 * is as full behind a request as before.
 *
 * The heap's functions are defined here, in front of libc's, so that oneDNN's and libgomp's calls are seen, too, and told apart by
 * the object they come from. Sanitizers bring their own heap: with them only primitives are counted. */
#include <dlfcn.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>

#include "model/classifier.h"
#include "model/dnn.h"

static atomic_bool counting;
static atomic_long taken, own; /* calls; those of this program's own code */
static atomic_size_t largest;

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define COUNTS_THE_HEAP 1
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *p, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

static void count(size_t size, void *caller)
{
	static const char here;
	Dl_info object, program;
	if (!atomic_load_explicit(&counting, memory_order_relaxed))
		return;
	atomic_fetch_add(&taken, 1);
	if (dladdr(caller, &object) && dladdr(&here, &program) && object.dli_fbase == program.dli_fbase)
		atomic_fetch_add(&own, 1);
	for (size_t most = atomic_load(&largest); size > most && !atomic_compare_exchange_weak(&largest, &most, size);)
		;
}

void *malloc(size_t size)
{
	count(size, __builtin_return_address(0));
	return __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
	count(n * size, __builtin_return_address(0));
	return __libc_calloc(n, size);
}

void *realloc(void *p, size_t size)
{
	count(size, __builtin_return_address(0));
	return __libc_realloc(p, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
	count(size, __builtin_return_address(0));
	return __libc_memalign(alignment, size);
}

void *memalign(size_t alignment, size_t size)
{
	count(size, __builtin_return_address(0));
	return __libc_memalign(alignment, size);
}

int posix_memalign(void **out, size_t alignment, size_t size)
{
	count(size, __builtin_return_address(0));
	*out = __libc_memalign(alignment, size);
	return *out ? 0 : ENOMEM;
}
#else
#define COUNTS_THE_HEAP 0
#endif

enum { NO_BUFFER = 2048 }; /* bytes: libgomp's notes on a team have 1.5 KiB */

static const char *model_dir;

static void the_heap_is_counted(void **state)
{
	void *(*volatile take)(size_t) = malloc; /* a call that the compiler cannot leave out */
	(void)state;
	atomic_store(&counting, true);
	void *p = take(100);
	atomic_store(&counting, false);
	free(p);
	assert_int_equal(atomic_exchange(&taken, 0), COUNTS_THE_HEAP);
	assert_int_equal(atomic_exchange(&own, 0), COUNTS_THE_HEAP);
	assert_int_equal(atomic_exchange(&largest, 0), COUNTS_THE_HEAP ? 100 : 0);
}

typedef struct served {
	classifier *c;
	classifier_session *s;
	float *pixels;
	int32_t ids[512];
	float probs[64];
} served;

static void answer(served *m, const char *text)
{
	wn_error err;
	int len;
	assert_int_equal(classifier_encode_prompt(m->c, text, "", m->ids, &len, &err), WN_OK);
	const classifier_input in = {m->pixels, m->ids, len};
	atomic_store(&counting, true); /* a prompt's encoding is text's, and may allocate */
	const wn_code rc = classifier_run(m->s, &in, 1, m->probs, &err);
	atomic_store(&counting, false);
	assert_int_equal(rc, WN_OK);
	assert_true(m->probs[0] >= 0 && m->probs[0] <= 1);
}

static void a_warm_request_takes_nothing(void **state)
{
	static const char *const texts[] = {"", "new shoes", "Slots, roulette and blackjack from home: two hundred free spins for everybody who joins today"};
	const precision p = *(const precision *)*state;
	const classifier_options o = {.precision = &p};
	wn_error err;
	served m = {0};
	assert_int_equal(classifier_open(&m.c, model_dir, &o, &err), WN_OK);
	assert_int_equal(classifier_session_open(&m.s, m.c, 2, &err), WN_OK);
	assert_true(classifier_num_labels(m.c) <= 64 && classifier_checkpoint(m.c)->manifest.max_text_tokens <= 512);
	const size_t side = (size_t)classifier_checkpoint(m.c)->image_processor.size;
	m.pixels = calloc(3 * side * side, sizeof *m.pixels);
	assert_int_equal(classifier_warm(m.s, &err), WN_OK);
	const int created = classifier_session_created(m.s);
	assert_true(created > 0);
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
		answer(&m, texts[i]);
	const size_t full = COUNTS_THE_HEAP ? mallinfo2().uordblks : 0;
	atomic_store(&taken, 0);
	atomic_store(&own, 0);
	atomic_store(&largest, 0);
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
		answer(&m, texts[i]);
	assert_true(!COUNTS_THE_HEAP || mallinfo2().uordblks == full);
	print_message("%ld small calls for the heap by oneDNN and libgomp, the largest for %zu bytes\n", atomic_load(&taken), atomic_load(&largest));
	assert_int_equal(atomic_load(&own), 0);
	const bool buffers = strstr(engine_describe(classifier_engine(m.c)), "oneDNN") || strncmp(dnn_isa(), "avx512", 6) != 0;
	assert_true(buffers || atomic_load(&largest) < NO_BUFFER);
	assert_int_equal(classifier_session_created(m.s), created);
	free(m.pixels);
	classifier_session_close(&m.s);
	classifier_close(&m.c);
}

int main(int argc, char **argv)
{
	static precision precisions[] = {PRECISION_F32, PRECISION_BF16, PRECISION_INT8};
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_heap_is_counted),
		{"f32", a_warm_request_takes_nothing, NULL, NULL, &precisions[0]},
		{"bf16", a_warm_request_takes_nothing, NULL, NULL, &precisions[1]},
		{"int8", a_warm_request_takes_nothing, NULL, NULL, &precisions[2]},
	};
	if (argc != 2) {
		fprintf(stderr, "usage: test_steady_state MODEL_DIR\n");
		return 2;
	}
	model_dir = argv[1];
	return cmocka_run_group_tests(tests, NULL, NULL);
}
