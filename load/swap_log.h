/* swap_log.h: when models were swapped during a run, and what the server said to it. */
#ifndef WINNOW_LOAD_SWAP_LOG_H
#define WINNOW_LOAD_SWAP_LOG_H

#include <stddef.h>

#include "load/outcome.h"

#define SWAP_LOG_MAX 4096

typedef enum swap_effect { SWAP_UNKNOWN, SWAP_CHANGED, SWAP_NO_CHANGE } swap_effect;

typedef struct swap_entry {
	int64_t begun_ns, ended_ns; /* from the start of the run */
	outcome outcome;
	char detail[160]; /* printable: what a refusal says, or what went wrong */
	char model[96];   /* NAME/VERSION that answers now, as the server says; "": it does not */
	swap_effect effect; /* against what answered before; SWAP_UNKNOWN also when it failed */
} swap_entry;

typedef struct swap_log {
	swap_entry *entries; /* [count], owned, in order, not overlapping */
	size_t count;
	size_t skipped; /* due while the one before was still under way */
} swap_log;

typedef struct swap_tally {
	size_t good, changed, unchanged; /* good ones of neither kind: not known */
	double longest_ms;
	const swap_entry *bad; /* the first that was refused or failed */
} swap_tally;

swap_tally swap_log_tally(const swap_log *l);

#endif
