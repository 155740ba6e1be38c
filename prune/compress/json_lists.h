/* json_lists.h: lists of numbers as JSON arrays. Every function takes NULL for no memory and hands it on, so that a caller
 * builds a whole tree and checks once, with json_done. */
#ifndef WINNOW_PRUNE_COMPRESS_JSON_LISTS_H
#define WINNOW_PRUNE_COMPRESS_JSON_LISTS_H

#include <stddef.h>

#include <jansson.h>

/* v, or NULL (and v released) when building it failed. */
static inline json_t *json_done(json_t *v, int failed)
{
	if (!failed)
		return v;
	json_decref(v);
	return NULL;
}

static inline json_t *json_ints(const int *x, size_t count)
{
	json_t *list = json_array();
	int failed = !list;
	for (size_t i = 0; i < count && !failed; i++)
		failed = json_array_append_new(list, json_integer(x[i]));
	return json_done(list, failed);
}

static inline json_t *json_doubles(const double *x, size_t count)
{
	json_t *list = json_array();
	int failed = !list;
	for (size_t i = 0; i < count && !failed; i++)
		failed = json_array_append_new(list, json_real(x[i]));
	return json_done(list, failed);
}

#endif
