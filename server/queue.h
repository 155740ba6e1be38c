/* queue.h: a bounded first-in first-out queue of pointers between threads.
 *
 * It never grows and never blocks a producer: a full queue says so, which is what turns into 429 at the edge. Any
 * number of threads may push and pop. */
#ifndef WINNOW_SERVER_QUEUE_H
#define WINNOW_SERVER_QUEUE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

typedef struct queue queue;

wn_code queue_open(queue **out, size_t capacity, wn_error *err);
/* Frees an empty or abandoned queue that no thread uses any more; items are not touched. */
void queue_close(queue **q);

/* False when full or shut; the item stays the caller's. */
bool queue_push(queue *q, void *item);
/* Gives back what was taken: before everything else, in its order, and also when the queue is shut, which the poppers then find
 * not empty. What does not fit stays the caller's: items[0..n), the first, n being what is returned. */
size_t queue_push_front(queue *q, void *const *items, size_t n);
/* Waits for an item, then takes up to max of those already there; no more than its share while others wait for items too: two
 * requests for two idle instances are no batch. 0 when the queue is shut and empty. */
size_t queue_pop(queue *q, void **items, size_t max);
/* The same, but returns 0 too as soon as the queue is empty while *interrupted is true: a popper with something else to do
 * meanwhile. Whoever sets the flag calls queue_interrupt afterwards, which makes the poppers look at theirs. */
size_t queue_pop_unless(queue *q, void **items, size_t max, const atomic_bool *interrupted);
void queue_interrupt(queue *q);
/* Takes out up to max of the items that wanted() says yes to, wherever they stand; the others keep their order. The lock is held
 * meanwhile: wanted() is short, calls nothing of the queue, and may look at an item, which is nobody else's while it is in here. */
size_t queue_take_if(queue *q, void **items, size_t max, bool (*wanted)(void *cls, void *item), void *cls);
/* No pushes from now on; poppers get what is left, then 0. */
void queue_shut(queue *q);

size_t queue_depth(queue *q);
size_t queue_waiting(queue *q); /* poppers that wait for an item */

#endif
