/* heap.c: see heap.h. malloc is the process's, and so is this state. */
#include "server/heap.h"

#include <malloc.h>
#include <stdatomic.h>

#define INTERVAL_NS 3000000000
#define WORTH_IT    ((size_t)1 << 20)

static atomic_size_t freed;
static int64_t next_ns; /* heap_give_back only */

/* Where no image is decoded in this process nearly all blocks of half a megabyte and more are the models' (the others: the pixels of large
 * PNGs on their way to the model's size, bodies above a megabyte). malloc would map the first of them and then take the next ones,
 * which are as large, from its heap: every swap would leave other holes there, and less to give back. */
void heap_keep_dense(void)
{
	mallopt(M_MMAP_THRESHOLD, 512 << 10);
	mallopt(M_TRIM_THRESHOLD, 2 << 20); /* what a load takes and gives back in small pieces stays in between */
}

void heap_note_freed(size_t bytes) { atomic_fetch_add(&freed, bytes); }

bool heap_give_back(int64_t now_ns)
{
	if (now_ns < next_ns || atomic_load(&freed) < WORTH_IT)
		return false;
	next_ns = now_ns + INTERVAL_NS;
	atomic_store(&freed, 0); /* before: what is noted from now on may come too late for this time */
	malloc_trim(0);
	return true;
}
