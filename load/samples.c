/* samples.c: see samples.h. */
#include "load/samples.h"

#include <stdlib.h>

#define MAX_BLOCKS (SAMPLES_MAX / SAMPLES_PER_BLOCK + 1)

wn_code samples_add(samples *s, const sample *one, wn_error *err)
{
	const size_t block = s->count / SAMPLES_PER_BLOCK;
	if (!s->blocks)
		s->blocks = calloc(MAX_BLOCKS, sizeof *s->blocks);
	if (!s->blocks || block >= MAX_BLOCKS)
		return wn_fail(err, s->blocks ? WN_TOO_LARGE : WN_NOMEM, "no room for more than %zu requests",
			       s->count);
	if (!s->blocks[block])
		s->blocks[block] = malloc(SAMPLES_PER_BLOCK * sizeof **s->blocks);
	if (!s->blocks[block])
		return wn_fail(err, WN_NOMEM, "no memory for more than %zu requests", s->count);
	s->blocks[block][s->count++ % SAMPLES_PER_BLOCK] = *one;
	return WN_OK;
}

void samples_close(samples *s)
{
	for (size_t i = 0; s->blocks && i < MAX_BLOCKS; i++)
		free(s->blocks[i]);
	free(s->blocks);
	*s = (samples){0};
}
