/* search.c: see search.h. */
#include "load/search.h"

#include <math.h>

void search_start(search *s, const search_options *o)
{
	*s = (search){.o = *o, .missed = INFINITY, .rate = o->first_rate};
}

static bool is_narrow(const search *s) { return s->missed <= s->met * (1 + s->o.resolution) * (1 + 1e-9); }

/* What to try when `met` and `missed` say all that is known. */
static void choose(search *s)
{
	const bool bracketed = s->met > 0 && !isinf(s->missed);
	s->again = s->confirming = false;
	if (s->met <= 0) {
		if (s->missed <= s->o.min_rate)
			s->end = s->own_limit ? SEARCH_OWN_LIMIT : SEARCH_NOTHING_MET;
		else
			s->rate = fmax(s->missed / 2, s->o.min_rate);
	} else if (!bracketed && s->met < s->o.max_rate) {
		s->rate = fmin(s->met * 2, s->o.max_rate);
	} else if (bracketed && !is_narrow(s)) {
		s->rate = sqrt(s->met * s->missed);
	} else if (s->met_count < s->o.confirm) {
		s->rate = s->met;
		s->confirming = true;
	} else {
		s->end = s->own_limit ? SEARCH_OWN_LIMIT : isinf(s->missed) ? SEARCH_AT_MAX_RATE : SEARCH_FOUND;
	}
}

bool search_next(search *s, double *rate)
{
	if (s->end == SEARCH_RUNNING && s->trials >= s->o.max_trials)
		s->end = SEARCH_OUT_OF_TRIALS;
	*rate = s->rate;
	return s->end == SEARCH_RUNNING;
}

static void record_missed(search *s, bool own_limit)
{
	if (!s->confirming && !s->again) { /* once more: a bad moment? */
		s->again = true;
		return;
	}
	s->missed = s->rate;
	s->own_limit = own_limit;
	if (s->rate <= s->met) { /* what had met it once does not hold: one step down, to be confirmed anew */
		const double below = s->met / (1 + s->o.resolution);
		s->met = 0;
		s->met_count = 0;
		if (below >= s->o.min_rate) {
			s->rate = below;
			s->again = s->confirming = false;
			return;
		}
	}
	choose(s);
}

void search_record(search *s, trial_result r)
{
	s->trials++;
	if (r != TRIAL_MET) {
		record_missed(s, r == TRIAL_OWN_LIMIT);
		return;
	}
	s->met_count = s->rate == s->met ? s->met_count + 1 : 1;
	s->met = s->rate;
	choose(s);
}
