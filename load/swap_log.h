/* swap_log.h: when models were swapped during a run, and what the server said to it. */
#ifndef WINNOW_LOAD_SWAP_LOG_H
#define WINNOW_LOAD_SWAP_LOG_H

#include <stddef.h>

#include "load/outcome.h"

#define SWAP_LOG_MAX 4096

typedef struct swap_entry {
	int64_t begun_ns, ended_ns; /* from the start of the run */
	outcome outcome;
	char detail[160]; /* printable: what a refusal says, or what went wrong */
} swap_entry;

typedef struct swap_log {
	swap_entry *entries; /* [count], owned, in order, not overlapping */
	size_t count;
	size_t skipped; /* due while the one before was still under way */
} swap_log;

#endif
