/* heap.h: what malloc keeps of what was freed, and when the system gets it back.
 *
 * malloc_trim is the only way to most of it, and nothing to do often: it holds up every allocation meanwhile, and whatever thread
 * uses that memory next pays a page fault for each of its pages. After every swap that showed in the latency of live requests
 * (docs/results.md). So whoever frees much says so, and one thread gives it back, now and then. */
#ifndef WINNOW_SERVER_HEAP_H
#define WINNOW_SERVER_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Before anything is allocated from several threads: large blocks, which are the models', are mapped one by one and go back when they
 * are freed. For a process that decodes no images itself. */
void heap_keep_dense(void);

/* So many bytes were freed, in blocks too small to go back by themselves. In any thread, after it. */
void heap_note_freed(size_t bytes);

/* Gives back what was noted, when that is worth it (a MiB) and the last time is three seconds ago (now_ns: CLOCK_MONOTONIC).
 * True when it did. Always in the same thread. */
bool heap_give_back(int64_t now_ns);

#endif
