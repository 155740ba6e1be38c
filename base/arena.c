/* arena.c: see arena.h. */
#include "base/arena.h"

#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#define ALIGN 64
#define HUGE ((size_t)2 << 20)

wn_code arena_open(arena *a, size_t bytes, wn_error *err)
{
	memset(a, 0, sizeof *a);
	if (bytes > SIZE_MAX / 2)
		return wn_fail(err, WN_NOMEM, "arena of %zu bytes is too large", bytes);
	size_t size = (bytes + HUGE - 1) / HUGE * HUGE;
	if (size == 0)
		size = HUGE;
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return wn_fail(err, WN_NOMEM, "cannot map an arena of %zu bytes", size);
	madvise(p, size, MADV_HUGEPAGE); /* advice only: a kernel without huge pages is merely slower */
	a->base = p;
	a->size = size;
	return WN_OK;
}

void arena_close(arena *a)
{
	if (a->base)
		munmap(a->base, a->size);
	memset(a, 0, sizeof *a);
}

void *arena_alloc(arena *a, size_t bytes)
{
	size_t need = (bytes + ALIGN - 1) / ALIGN * ALIGN;
	if (need < bytes || need > SIZE_MAX - a->used)
		return NULL;
	if (a->base && a->used + need > a->size)
		return NULL;
	void *p = a->base ? a->base + a->used : (void *)(uintptr_t)ALIGN;
	a->used += need;
	if (a->used > a->peak)
		a->peak = a->used;
	return p;
}

bool arena_floats(arena *a, float **out, size_t rows, size_t width)
{
	size_t count, bytes;
	*out = NULL;
	if (!__builtin_mul_overflow(rows, width, &count) && !__builtin_mul_overflow(count, sizeof **out, &bytes))
		*out = arena_alloc(a, bytes);
	return *out != NULL;
}
