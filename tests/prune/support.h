/* support.h: what the tests of prune/ share: a scratch directory, files, JSON goldens. */
#ifndef WINNOW_TESTS_PRUNE_SUPPORT_H
#define WINNOW_TESTS_PRUNE_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <ftw.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "../base/assert_ok.h"

/* The call must fail with this code and a message that contains every word of `part`. */
#define assert_refused(code_, part, call)                                                                  \
	do {                                                                                               \
		wn_error e_ = {0};                                                                         \
		wn_error *err = &e_;                                                                       \
		wn_code rc_ = (call);                                                                      \
		if (rc_ != (code_) || !strstr(e_.message, part))                                           \
			fail_msg("%s: code %d, message \"%s\"; expected code %d and \"%s\"", #call, rc_, e_.message, code_, part); \
	} while (0)

static inline void assert_close(double got, double expected, double tolerance, const char *what, size_t i)
{
	if (!(fabs(got - expected) <= tolerance))
		fail_msg("%s[%zu]: got %.9g, expected %.9g within %g", what, i, got, expected, tolerance);
}

static inline int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *f)
{
	(void)st, (void)flag, (void)f;
	return remove(path);
}
static inline void remove_tree(const char *path) { nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS); }

/* A fresh directory; path static per call site's buffer. */
static inline char *scratch_open(char *buf, size_t size)
{
	const char *base = getenv("TMPDIR");
	snprintf(buf, size, "%s/winnow-test-XXXXXX", base ? base : "/tmp");
	assert_non_null(mkdtemp(buf));
	return buf;
}

static inline void write_file(const char *path, const void *data, size_t len)
{
	FILE *f = fopen(path, "wb");
	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, len, f), len);
	assert_int_equal(fclose(f), 0);
}
static inline void write_text(const char *path, const char *text) { write_file(path, text, strlen(text)); }

static inline json_t *load_golden(const char *name)
{
	char path[1024];
	json_error_t je;
	snprintf(path, sizeof path, "%s/%s", GOLDEN_DIR, name);
	json_t *j = json_load_file(path, 0, &je);
	if (!j)
		fail_msg("%s: %s", path, je.text);
	return j;
}
static inline double num(const json_t *o, const char *key) { return json_number_value(json_object_get(o, key)); }

#endif
