/* values.h: operands for the tests of matrix products. */
#ifndef WINNOW_TESTS_OPS_VALUES_H
#define WINNOW_TESTS_OPS_VALUES_H

#include <stddef.h>
#include <stdint.h>

#include "model/ops.h"

/* In [-1, 1], the same every time; salt: another stream. */
static inline float value(size_t i, unsigned salt) { return (float)((i * 2654435761u + salt * 40503u) % 2001) / 1000.0f - 1.0f; }

static inline float from_bf16(uint16_t v)
{
	float f;
	ops_all()[0]->widen(&f, &v, 1);
	return f;
}

#endif
