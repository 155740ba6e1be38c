/* compare.h: the second opinion of a trial: requests that were answered are run again, through both versions.
 *
 * One thread of low priority with a session of its own for either version, so that neither a request nor its neighbours
 * wait for it: it is handed what a finished request no longer needs (its body moves, nothing is copied), has room for
 * one, and refuses the next while it is busy. */
#ifndef WINNOW_SERVER_COMPARE_H
#define WINNOW_SERVER_COMPARE_H

#include "server/request.h"

typedef struct comparer comparer;

/* config must outlive it. */
wn_code compare_open(comparer **out, const server_config *config, wn_error *err);
/* Finishes what it has. */
void compare_close(comparer **c);

/* For a request whose trial is set and that was answered: takes its body, its trial and its references to both
 * versions. When it is busy, counts that and leaves r as it is. */
void compare_submit(comparer *c, request *r);

#endif
