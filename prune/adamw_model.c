/* adamw_model.c: see adamw_model.h. */
#include "prune/adamw_model.h"

#include <stdlib.h>
#include <string.h>

wn_code adamw_open_model(adamw *a, float **grads, const adamw_options *opt, const blip2 *m, wn_error *err)
{
	const size_t n = blip2_num_params(m), count = blip2_weights_count(m), bytes = (count * sizeof(float) + 63) / 64 * 64;
	adamw_segment *segments = calloc(n, sizeof *segments);
	*grads = aligned_alloc(64, bytes);
	wn_code rc = segments && *grads ? WN_OK : wn_fail(err, WN_NOMEM, "no memory for %zu gradients", count);
	if (!rc)
		memset(*grads, 0, bytes);
	for (size_t i = 0; !rc && i < n; i++) {
		const param *p = blip2_param(m, i);
		segments[i] = (adamw_segment){.offset = p->offset, .count = p->count, .decay = p->decay};
	}
	if (!rc)
		rc = adamw_open(a, opt, count, segments, n, err);
	free(segments);
	if (rc) {
		free(*grads);
		*grads = NULL;
	}
	return rc;
}
