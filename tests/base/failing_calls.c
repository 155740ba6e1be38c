/* failing_calls.c: see failing_calls.h. */
#include "failing_calls.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>
#include <jansson.h>

#define MOST 100000 /* calls of one piece of work: more is a loop */

static atomic_uint armed;
static atomic_long countdown; /* calls until one fails; 0 or less: none does */
static atomic_bool has_failed;
static _Thread_local bool for_jansson; /* what is asked for now */

bool failing_call(unsigned kind)
{
	if (!(atomic_load(&armed) & kind) || atomic_load(&countdown) <= 0 || atomic_fetch_sub(&countdown, 1) != 1)
		return false;
	atomic_store(&has_failed, true);
	for_jansson = false; /* the call may be jumped out of */
	errno = ENOMEM;
	return true;
}

void failing_calls_arm(unsigned kinds, long k)
{
	atomic_store(&has_failed, false);
	atomic_store(&countdown, k);
	atomic_store(&armed, kinds);
}

bool failing_calls_disarm(void)
{
	atomic_store(&armed, 0);
	return atomic_load(&has_failed);
}

/* ---- what winnow's own code calls ---- */

/* Declares the real function and the one in its place, of the same type, and begins the latter. */
#define IN_PLACE_OF(type, name, ...)                                                                                       \
	type __real_##name(__VA_ARGS__);                                                                                   \
	type __wrap_##name(__VA_ARGS__);                                                                                   \
	type __wrap_##name(__VA_ARGS__)

static bool fails(void) { return failing_call(for_jansson ? CALLS_JANSSON : CALLS_OWN); }

IN_PLACE_OF(void *, malloc, size_t n) { return fails() ? NULL : __real_malloc(n); }
IN_PLACE_OF(void *, calloc, size_t n, size_t size) { return failing_call(CALLS_OWN) ? NULL : __real_calloc(n, size); }
IN_PLACE_OF(void *, realloc, void *p, size_t n) { return failing_call(CALLS_OWN) ? NULL : __real_realloc(p, n); }
IN_PLACE_OF(void *, reallocarray, void *p, size_t n, size_t size)
{
	return fails() ? NULL : __real_reallocarray(p, n, size);
}
IN_PLACE_OF(void *, aligned_alloc, size_t alignment, size_t n) { return failing_call(CALLS_OWN) ? NULL : __real_aligned_alloc(alignment, n); }
IN_PLACE_OF(char *, strdup, const char *s) { return failing_call(CALLS_OWN) ? NULL : __real_strdup(s); }
IN_PLACE_OF(char *, strndup, const char *s, size_t n) { return failing_call(CALLS_OWN) ? NULL : __real_strndup(s, n); }
IN_PLACE_OF(void *, mmap, void *at, size_t n, int protection, int flags, int fd, off_t offset)
{
	return failing_call(CALLS_OWN) ? MAP_FAILED : __real_mmap(at, n, protection, flags, fd, offset);
}
IN_PLACE_OF(FILE *, fopen, const char *path, const char *mode) { return failing_call(CALLS_OWN) ? NULL : __real_fopen(path, mode); }
IN_PLACE_OF(FILE *, fdopen, int fd, const char *mode) { return failing_call(CALLS_OWN) ? NULL : __real_fdopen(fd, mode); }
IN_PLACE_OF(FILE *, open_memstream, char **text, size_t *len) { return failing_call(CALLS_OWN) ? NULL : __real_open_memstream(text, len); }
IN_PLACE_OF(DIR *, opendir, const char *path) { return failing_call(CALLS_OWN) ? NULL : __real_opendir(path); }
IN_PLACE_OF(DIR *, fdopendir, int fd) { return failing_call(CALLS_OWN) ? NULL : __real_fdopendir(fd); }
IN_PLACE_OF(int, pthread_create, pthread_t *t, const pthread_attr_t *attr, void *(*run)(void *), void *arg)
{
	return failing_call(CALLS_OWN) ? EAGAIN : __real_pthread_create(t, attr, run, arg);
}

int __wrap_asprintf(char **out, const char *fmt, ...);
int __wrap_asprintf(char **out, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	int n = failing_call(CALLS_OWN) ? -1 : vasprintf(out, fmt, ap);
	va_end(ap);
	return n;
}

/* ---- jansson ---- */

static json_malloc_t take; /* base/json_text.h's */

static void *take_for_jansson(size_t n)
{
	for_jansson = true;
	void *block = take(n);
	for_jansson = false;
	return block;
}

/* After base/json_text.h's own. */
__attribute__((constructor)) static void hook_jansson(void)
{
	json_free_t give_back;
	json_get_alloc_funcs(&take, &give_back);
	json_set_alloc_funcs(take_for_jansson, give_back);
}

/* ---- every k ---- */

long every_failure(unsigned kinds, wn_code (*work)(void *cls, wn_error *err), void *cls, long *refused)
{
	long count = 0;
	for (long k = 1; k <= MOST; k++) {
		wn_error err = {0};
		failing_calls_arm(kinds, k);
		const wn_code rc = work(cls, &err);
		const bool failed = failing_calls_disarm();
		if (rc != WN_OK && !*err.message)
			fail_msg("call %ld fails: code %d without a message", k, (int)rc);
		if (!failed && rc != WN_OK)
			fail_msg("the work fails by itself: %s", err.message);
		if (!failed) {
			if (refused)
				*refused = count;
			return k - 1;
		}
		count += rc != WN_OK;
	}
	fail_msg("more than %d calls", MOST);
	return 0;
}
