/* golden.h: what the engine's tests share: a golden case loaded as model and batch, and the two measures of difference. */
#ifndef WINNOW_TESTS_ENGINE_GOLDEN_H
#define WINNOW_TESTS_ENGINE_GOLDEN_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "model/blip2.h"
#include "model/checkpoint.h"
#include "model/safetensors.h"

typedef struct golden {
	checkpoint ck;
	safetensors *in, *out, *grad; /* grad NULL when the case has none */
	blip2_batch batch;            /* points into the buffers below */
	float *pixels;
	int32_t *ids, *labels;
	uint8_t *mask;
} golden;

/* Loads golden/NAME; any failure fails the test with the library's line. */
void golden_open(golden *g, const char *name);
void golden_close(golden *g);

/* "golden/NAME/FILE" in a static buffer. */
const char *golden_path(const char *name, const char *file);

/* The floats of a tensor that must exist and hold `count` of them. */
const float *golden_floats(const safetensors *st, const char *name, size_t count);

/* max |a - b| / max |b|, and ||a - b|| / ||b||, in double. NaN anywhere gives infinity. */
double worst_difference(const float *a, const float *b, size_t count);
double norm_difference(const float *a, const float *b, size_t count);

/* Prints the library's line when a call failed, and fails the test. */
#define assert_ok(call, err)                                                                                                   \
	do {                                                                                                                   \
		if ((call) != WN_OK)                                                                                           \
			fail_msg("%s: %s", #call, (err)->message);                                                             \
	} while (0)

/* An assertion that says what was found. */
#define assert_at_most(found, limit, what)                                                                                     \
	do {                                                                                                                   \
		double found_ = (found);                                                                                       \
		if (!(found_ <= (limit)))                                                                                      \
			fail_msg("%s: found %g, at most %g expected", what, found_, (double)(limit));                          \
	} while (0)

#endif
