/* loader.h: one thread of low priority that does what live requests must not wait for: hashing, reading, packing,
 * freeing.
 *
 * It runs in the background (background.h), and OpenMP has one thread in it: a team's members, each waiting for a processor that
 * requests hold, would wait for each other all the time. p99 with a swap every half second, to p99 without, at 70 % load on two
 * processors: 3.1 with a team of two at nice 19 and 1.6 with that in the background (a publisher beside both), 0.9 with one thread (the
 * publisher in the background as well; 1.4 with two), which is done first, too.
 * (The first runs of a model with several threads need as many here, too; on the serving ones live requests would wait for them.)
 * A thread that hardly runs must not be waited for: it takes no lock of ours that a serving thread takes, and as a model is both made
 * and freed here, hardly one of malloc's. */
#ifndef WINNOW_SERVER_LOADER_H
#define WINNOW_SERVER_LOADER_H

#include "base/error.h"

typedef struct loader loader;

wn_code loader_open(loader **out, wn_error *err);
void loader_close(loader **l);

/* Runs fn(arg) on it and waits for the end. One caller at a time. */
void loader_run(loader *l, void (*fn)(void *arg), void *arg);

#endif
