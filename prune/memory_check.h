/* memory_check.h: does a model fit this machine while it learns? Asked before memory is touched: the kernel's answer to too
 * much is to kill. */
#ifndef WINNOW_PRUNE_MEMORY_CHECK_H
#define WINNOW_PRUNE_MEMORY_CHECK_H

#include <stddef.h>

#include "base/error.h"

enum {
	MEMORY_OF_GRADIENTS = 3, /* weights, gradients, and a sum of them */
	MEMORY_OF_STEPS = 4,     /* weights, gradients, AdamW's two moments */
};

/* `copies` buffers of `floats` each, and `beside` floats of something else: WN_TOO_LARGE when they are more than the machine
 * has. what: "model", "student": begins the message. */
wn_code memory_check(const char *what, size_t floats, int copies, size_t beside, wn_error *err);

#endif
