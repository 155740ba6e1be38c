/* image_test.h: cmocka with its includes, reading a file below tests/image, and the goldens' hash. */
#ifndef WINNOW_TESTS_IMAGE_TEST_H
#define WINNOW_TESTS_IMAGE_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "model/image.h"

/* Exactly len bytes on the heap, so that a sanitizer sees the first byte read past them; the caller frees. */
static inline uint8_t *read_test_file(const char *name, size_t *len)
{
	char path[1024];
	snprintf(path, sizeof path, "%s/%s", IMAGE_TESTS, name);
	FILE *f = fopen(path, "rb");
	if (!f)
		fail_msg("cannot open %s", path);
	fseek(f, 0, SEEK_END);
	*len = (size_t)ftell(f);
	rewind(f);
	uint8_t *b = malloc(*len ? *len : 1);
	assert_non_null(b);
	assert_int_equal(fread(b, 1, *len, f), *len);
	fclose(f);
	return b;
}

static inline uint64_t fnv1a(const void *data, size_t n)
{
	uint64_t h = 0xcbf29ce484222325u;
	for (const uint8_t *p = data; n; n--, p++)
		h = (h ^ *p) * 0x100000001b3u;
	return h;
}

static inline int is_jpeg_name(const char *name)
{
	size_t n = strlen(name);
	return n > 4 && !strcmp(name + n - 4, ".jpg");
}

/* One line of goldens/index.txt (make_goldens.py says what it holds). */
typedef struct golden {
	char name[64];
	int width, height;
	uint64_t decoded, r32, f32, r56, r224;
} golden;

static inline size_t read_index(golden *g, size_t room)
{
	FILE *f = fopen(IMAGE_TESTS "/goldens/index.txt", "r");
	assert_non_null(f);
	size_t n = 0;
	while (n < room && fscanf(f, "%63s %d %d %lx %lx %lx %lx %lx", g[n].name, &g[n].width, &g[n].height, &g[n].decoded,
				  &g[n].r32, &g[n].f32, &g[n].r56, &g[n].r224) == 8)
		n++;
	assert_true(feof(f)); /* a line that does not parse would end the list early */
	fclose(f);
	return n;
}

#endif
