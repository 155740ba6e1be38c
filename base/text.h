/* text.h: what C's strings lack. */
#ifndef WINNOW_BASE_TEXT_H
#define WINNOW_BASE_TEXT_H

#include <stdbool.h>
#include <string.h>

static inline bool text_ends_with(const char *s, const char *tail)
{
	const size_t n = strlen(s), k = strlen(tail);
	return n >= k && memcmp(s + n - k, tail, k) == 0;
}

#endif
