/* shrink_check.c: see shrink_check.h. */
#include "prune/compress/shrink_check.h"

#include <stddef.h>

wn_code shrink_check(const char *where, const char *name, int from, int to, wn_error *err)
{
	if (to >= 1 && to <= from)
		return WN_OK;
	return wn_fail(err, WN_INVALID, "%s%s: found %d, expected 1 to the source's %d", where, name, to, from);
}

int width_pairs(width_pair out[MAX_WIDTHS], const block_widths *from, const block_widths *to)
{
	const width_pair all[MAX_WIDTHS] = {
		{"num_heads", from->num_heads, to->num_heads},
		{"head_dim", from->head_dim, to->head_dim},
		{"cross_num_heads", from->cross_num_heads, to->cross_num_heads},
		{"cross_head_dim", from->cross_head_dim, to->cross_head_dim},
		{"ffn_dim", from->ffn_dim, to->ffn_dim},
	};
	int n = 0;
	for (size_t i = 0; i < MAX_WIDTHS; i++)
		if (all[i].from || all[i].to)
			out[n++] = all[i];
	return n;
}
