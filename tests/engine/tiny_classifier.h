/* tiny_classifier.h: a whole model directory, as small as one can be: two labels, 16 x 16 pixels, one block a stack, random weights.
 * What it answers means nothing; that it answers the same again does. */
#ifndef WINNOW_TESTS_TINY_CLASSIFIER_H
#define WINNOW_TESTS_TINY_CLASSIFIER_H

#include <stdint.h>

#include "base/error.h"

typedef struct tiny_classifier {
	uint64_t seed;      /* of the weights */
	const char *scaled; /* NULL, or one parameter whose weights are multiplied by `factor` (NAN makes it nothing but NaN) */
	float factor;
} tiny_classifier;

/* dir is made; beside it stands dir.tokenizer.json while it is. */
wn_code tiny_classifier_write(const char *dir, const tiny_classifier *t, wn_error *err);

#endif
