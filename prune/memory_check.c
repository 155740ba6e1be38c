/* memory_check.c: see memory_check.h. */
#include "prune/memory_check.h"

#include <unistd.h>

wn_code memory_check(const char *what, size_t floats, int copies, size_t beside, wn_error *err)
{
	const double need = (double)sizeof(float) * ((double)copies * (double)floats + (double)beside);
	const double have = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
	if (need > have)
		return wn_fail(err, WN_TOO_LARGE,
			       "%s: %.1f M parameters take %.1f GB with their gradients and moments, this machine has %.1f GB", what,
			       (double)floats * 1e-6, need * 1e-9, have * 1e-9);
	return WN_OK;
}
