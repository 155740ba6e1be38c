/* swap.h: asks the server, every so often, to load a model while the load goes on.
 *
 * An administrative request over a connection of its own, so that it neither waits for an audit nor keeps one waiting.
 * Path and bodies are the caller's; several bodies take turns (load version 1, load version 2, …). What the server says
 * is logged and changes nothing in the run: which version answers from then on, and whether another one did before. A swap that is due while the one before is under way is skipped and
 * counted. */
#ifndef WINNOW_LOAD_SWAP_H
#define WINNOW_LOAD_SWAP_H

#include "load/connection.h"
#include "load/swap_log.h"

typedef struct swap_options {
	const endpoint *to;
	int64_t every_ns; /* 0: no swaps */
	int64_t timeout_ns;
	const char *const *requests; /* [num_requests] whole requests (payload.h), which must outlive the swapper */
	const size_t *lens;
	int num_requests;
} swap_options;

typedef struct swapper {
	connection connection; /* first */
	swap_options o;
	swap_log *log;    /* the caller's */
	int64_t start_ns; /* of the run */
	int64_t next_ns;  /* LOOP_NEVER: none to come */
	int64_t timeout_at_ns;
	size_t begun; /* so far */
	char answers[96]; /* NAME/VERSION that answers, as far as is known */
	bool under_way;
} swapper;

/* The first swap is one interval after start_ns. log is zeroed by the caller, who frees its entries. */
wn_code swapper_open(swapper *s, loop *l, const swap_options *o, int64_t start_ns, swap_log *log, wn_error *err);
void swapper_close(swapper *s);
/* An audit was answered by this model, "NAME/VERSION". Counts until the first swap is begun: what answered before it. */
void swapper_saw(swapper *s, const char *model);
/* Begins what is due and ends what has timed out. Once no_more, nothing new is begun. */
void swapper_tick(swapper *s, int64_t now_ns, bool no_more);
/* Ends one that is under way as OUTCOME_UNFINISHED. */
void swapper_abandon(swapper *s);
/* When it wants to be called again; LOOP_NEVER: an event comes first. */
int64_t swapper_next(const swapper *s);

#endif
