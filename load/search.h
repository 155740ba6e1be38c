/* search.h: --find-max: the highest rate that meets the target, by trials.
 *
 * A pure state machine: search_next names the rate to try, search_record takes what came of it. Doubling (or halving)
 * from the first rate finds a rate that meets the target and one that does not; the ratio between them is then halved
 * until it is at most 1 + resolution. One bad moment of a machine must not decide: a rate counts as missed only after
 * two trials in a row, and the answer must have met the target in `confirm` trials without a miss between them, else
 * the next lower rate is tried. */
#ifndef WINNOW_LOAD_SEARCH_H
#define WINNOW_LOAD_SEARCH_H

#include <stdbool.h>

typedef enum trial_result {
	TRIAL_MET,
	TRIAL_MISSED,
	TRIAL_OWN_LIMIT /* missed, but the load generator was too slow: the server may hold more */
} trial_result;

typedef struct search_options {
	double first_rate, min_rate, max_rate; /* per second; first_rate between the others */
	double resolution;                     /* 0.05: within 5 % */
	int confirm;                           /* trials the answer must meet, at least 1 */
	int max_trials;
} search_options;

typedef enum search_end {
	SEARCH_RUNNING,
	SEARCH_FOUND,
	SEARCH_NOTHING_MET,  /* not even min_rate */
	SEARCH_AT_MAX_RATE,  /* max_rate meets it: the server may hold more */
	SEARCH_OWN_LIMIT,    /* beyond the answer the load generator was too slow: the server may hold more */
	SEARCH_OUT_OF_TRIALS /* the answer is not confirmed */
} search_end;

typedef struct search {
	search_options o;
	search_end end;
	double met, missed; /* highest known to meet (0: none), lowest known to miss (INFINITY: none) */
	int met_count;      /* trials in a row that `met` has met */
	double rate;        /* being tried */
	bool again;         /* it has been missed once */
	bool confirming;
	bool own_limit; /* `missed` is the load generator's */
	int trials;
} search;

void search_start(search *s, const search_options *o);
/* The rate to try; false when it is over: s->end says why, s->met is the answer (0: none). */
bool search_next(search *s, double *rate);
void search_record(search *s, trial_result r);

#endif
