/* server/heap.h: memory freed in small pieces goes back to the system, not sooner and not more often than it should. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/heap.h"

#define SECOND ((int64_t)1000000000)
#define PIECE  ((size_t)16 << 10)
#define PIECES ((size_t)512) /* 8 MiB */

static size_t resident_bytes(void)
{
	size_t pages = 0;
	FILE *f = fopen("/proc/self/statm", "r");
	assert_non_null(f);
	assert_int_equal(fscanf(f, "%*s %zu", &pages), 1);
	fclose(f);
	return pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* Small blocks come, are written and go; one behind them stays, so that free itself has nothing to give back. */
static void *leave_a_hole(void)
{
	static void *pieces[PIECES];
	for (size_t i = 0; i < PIECES; i++) {
		assert_non_null(pieces[i] = malloc(PIECE));
		memset(pieces[i], 1, PIECE);
	}
	void *behind = malloc(PIECE);
	assert_non_null(behind);
	for (size_t i = 0; i < PIECES; i++)
		free(pieces[i]);
	return behind;
}

static void test_given_back_when_worth_it_and_due(void **state)
{
	(void)state;
	int64_t now = 100 * SECOND;
	void *behind = leave_a_hole();
	const size_t before = resident_bytes();
	assert_false(heap_give_back(now)); /* nobody said anything */
	heap_note_freed(1000);
	assert_false(heap_give_back(now)); /* not for that */
	heap_note_freed(PIECES * PIECE);
	assert_true(heap_give_back(now));
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* they bring their own malloc */
	assert_true(resident_bytes() + PIECES * PIECE / 2 < before);
#else
	(void)before;
#endif
	free(behind);

	heap_note_freed(PIECES * PIECE);
	assert_false(heap_give_back(now += 2 * SECOND)); /* too soon */
	assert_true(heap_give_back(now += SECOND));      /* what was noted meanwhile is not forgotten */
	assert_false(heap_give_back(now += 60 * SECOND));
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_given_back_when_worth_it_and_due)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
