/* failing_calls.h: the k-th call for memory (or a thread, a file, a mapping) fails, for every k until the work succeeds.
 *
 * A program that depends on failing_calls_dep has the calls of winnow's own code linked to here (--wrap). What base/json_text.h asks
 * for when jansson asks it counts as jansson's. Others that can say no count themselves with failing_call(). Not counted is what libraries take
 * for themselves: libyaml, stdio, libjpeg, libstdc++'s operator new under oneDNN (an exception through C ends the program). */
#ifndef WINNOW_TESTS_FAILING_CALLS_H
#define WINNOW_TESTS_FAILING_CALLS_H

#include <stdbool.h>

#include "base/error.h"

enum { CALLS_OWN = 1, CALLS_JANSSON = 2, CALLS_ONEDNN = 4 };

/* From now on the k-th counted call of these kinds fails, whichever thread makes it; 0 = none does. */
void failing_calls_arm(unsigned kinds, long k);
/* None fails any more. Returns whether one did. */
bool failing_calls_disarm(void);
/* For a kind that is not wrapped here: counts a call; true when it is the one that must fail. */
bool failing_call(unsigned kind);

/* Runs work with the first counted call failing, then the second, …, until it has fewer. Each failure must be WN_OK (it could do
 * without) or an error with a message. Returns how many calls there were; *refused (may be NULL) gets how many of their failures
 * ended the work. */
long every_failure(unsigned kinds, wn_code (*work)(void *cls, wn_error *err), void *cls, long *refused);

#endif
