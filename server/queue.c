/* queue.c: a ring under one mutex. At hundreds of requests a second the lock is uncontended; see queue.h. */
#include "server/queue.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

struct queue {
	pthread_mutex_t lock;
	pthread_cond_t not_empty;
	size_t capacity, head, count;
	size_t waiting; /* poppers without an item */
	bool shut;
	void *ring[]; /* [capacity] */
};

wn_code queue_open(queue **out, size_t capacity, wn_error *err)
{
	*out = NULL;
	if (capacity == 0 || capacity > (SIZE_MAX - sizeof(queue)) / sizeof(void *))
		return wn_fail(err, WN_INVALID, "queue capacity %zu is out of range", capacity);
	queue *q = calloc(1, sizeof *q + capacity * sizeof q->ring[0]);
	if (!q)
		return wn_fail(err, WN_NOMEM, "out of memory for a queue of %zu", capacity);
	pthread_mutex_init(&q->lock, NULL);
	pthread_cond_init(&q->not_empty, NULL);
	q->capacity = capacity;
	*out = q;
	return WN_OK;
}

void queue_close(queue **qp)
{
	queue *q = *qp;
	if (!q)
		return;
	*qp = NULL;
	pthread_cond_destroy(&q->not_empty);
	pthread_mutex_destroy(&q->lock);
	free(q);
}

bool queue_push(queue *q, void *item)
{
	pthread_mutex_lock(&q->lock);
	bool fits = !q->shut && q->count < q->capacity;
	if (fits) {
		q->ring[(q->head + q->count) % q->capacity] = item;
		q->count++;
		pthread_cond_signal(&q->not_empty);
	}
	pthread_mutex_unlock(&q->lock);
	return fits;
}

size_t queue_push_front(queue *q, void *const *items, size_t n)
{
	pthread_mutex_lock(&q->lock);
	for (; n > 0 && q->count < q->capacity; q->count++) {
		q->head = (q->head + q->capacity - 1) % q->capacity;
		q->ring[q->head] = items[--n];
		pthread_cond_signal(&q->not_empty);
	}
	pthread_mutex_unlock(&q->lock);
	return n;
}

size_t queue_pop(queue *q, void **items, size_t max)
{
	static const atomic_bool never;
	return queue_pop_unless(q, items, max, &never);
}

size_t queue_pop_unless(queue *q, void **items, size_t max, const atomic_bool *interrupted)
{
	size_t n = 0;
	pthread_mutex_lock(&q->lock);
	q->waiting++;
	while (q->count == 0 && !q->shut && !atomic_load(interrupted))
		pthread_cond_wait(&q->not_empty, &q->lock);
	/* Each of the others was told of an item, or finds one on its way to sleep. */
	const size_t share = (q->count + q->waiting - 1) / q->waiting;
	max = share < max ? share : max;
	q->waiting--;
	for (; n < max && q->count > 0; n++, q->count--) {
		items[n] = q->ring[q->head];
		q->head = (q->head + 1) % q->capacity;
	}
	pthread_mutex_unlock(&q->lock);
	return n;
}

size_t queue_take_if(queue *q, void **items, size_t max, bool (*wanted)(void *cls, void *item), void *cls)
{
	size_t n = 0, kept = 0;
	pthread_mutex_lock(&q->lock);
	for (size_t i = 0; i < q->count; i++) {
		void *item = q->ring[(q->head + i) % q->capacity];
		if (n < max && wanted(cls, item))
			items[n++] = item;
		else
			q->ring[(q->head + kept++) % q->capacity] = item;
	}
	q->count = kept;
	pthread_mutex_unlock(&q->lock);
	return n;
}

void queue_interrupt(queue *q)
{
	pthread_mutex_lock(&q->lock);
	pthread_cond_broadcast(&q->not_empty);
	pthread_mutex_unlock(&q->lock);
}

void queue_shut(queue *q)
{
	pthread_mutex_lock(&q->lock);
	q->shut = true;
	pthread_cond_broadcast(&q->not_empty);
	pthread_mutex_unlock(&q->lock);
}

size_t queue_depth(queue *q)
{
	pthread_mutex_lock(&q->lock);
	size_t n = q->count;
	pthread_mutex_unlock(&q->lock);
	return n;
}

size_t queue_waiting(queue *q)
{
	pthread_mutex_lock(&q->lock);
	size_t n = q->waiting;
	pthread_mutex_unlock(&q->lock);
	return n;
}
