/* ops.c: picks the kernel table. */
#include "model/ops.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

extern const ops_table ops_table_c, ops_table_avx2, ops_table_avx512;

const ops_table *ops = &ops_table_c;
static const ops_table *usable[4];

__attribute__((constructor)) static void choose(void)
{
	int n = 0;
	__builtin_cpu_init();
	if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
	    __builtin_cpu_supports("avx512dq"))
		usable[n++] = &ops_table_avx512;
	if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
		usable[n++] = &ops_table_avx2;
	usable[n++] = &ops_table_c;
	ops = usable[0];
	const char *want = getenv("WINNOW_ISA");
	for (int i = 0; want && i < n; i++)
		if (strcmp(usable[i]->name, want) == 0)
			ops = usable[i];
}

const ops_table *const *ops_all(void) { return usable; }
