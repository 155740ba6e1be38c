/* The bounded queue and the worker pool, with many threads: run under the thread sanitizer too. */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>
#include <sched.h>

#include "server/queue.h"
#include "server/worker.h"

static queue *open_queue(size_t capacity)
{
	queue *q;
	wn_error err = {0};
	assert_int_equal(queue_open(&q, capacity, &err), WN_OK);
	return q;
}

static void queue_keeps_order_and_refuses_when_full(void **state)
{
	int items[4];
	void *out[4];
	queue *q = open_queue(3);
	for (int round = 0; round < 5; round++) { /* several times round the ring */
		for (int i = 0; i < 3; i++)
			assert_true(queue_push(q, &items[i]));
		assert_false(queue_push(q, &items[3]));
		assert_int_equal(queue_depth(q), 3);
		assert_int_equal(queue_pop(q, out, 2), 2);
		assert_ptr_equal(out[0], &items[0]);
		assert_ptr_equal(out[1], &items[1]);
		assert_int_equal(queue_pop(q, out, 4), 1);
		assert_ptr_equal(out[0], &items[2]);
	}
	queue_close(&q);
	assert_null(q);
}

static void shut_queue_gives_what_is_left_then_nothing(void **state)
{
	int item;
	void *out[2];
	queue *q = open_queue(2);
	assert_true(queue_push(q, &item));
	queue_shut(q);
	assert_false(queue_push(q, &item));
	assert_int_equal(queue_pop(q, out, 2), 1);
	assert_int_equal(queue_pop(q, out, 2), 0);
	queue_close(&q);
}

static void what_is_given_back_comes_first_also_when_shut(void **state)
{
	int items[6];
	void *out[8], *const back[] = {&items[0], &items[1], &items[2]};
	for (size_t turn = 0; turn < 5; turn++) { /* wherever the ring's ends are */
		queue *q = open_queue(5);
		for (size_t i = 0; i < turn; i++) {
			assert_true(queue_push(q, &items[i]));
			assert_int_equal(queue_pop(q, out, 1), 1);
		}
		assert_int_equal(queue_push_front(q, back, 0), 0);
		for (int i = 3; i < 6; i++)
			assert_true(queue_push(q, &items[i]));
		queue_shut(q);
		assert_int_equal(queue_push_front(q, back, 3), 1); /* there is room for two: the last */
		assert_int_equal(queue_depth(q), 5);
		assert_int_equal(queue_pop(q, out, 8), 5);
		for (int i = 0; i < 5; i++)
			assert_ptr_equal(out[i], &items[1 + i]);
		assert_int_equal(queue_push_front(q, back, 3), 0);
		assert_int_equal(queue_pop(q, out, 8), 3);
		for (int i = 0; i < 3; i++)
			assert_ptr_equal(out[i], &items[i]);
		assert_int_equal(queue_pop(q, out, 8), 0);
		queue_close(&q);
	}
}

static void impossible_capacities_are_refused(void **state)
{
	queue *q;
	wn_error err = {0};
	assert_int_equal(queue_open(&q, 0, &err), WN_INVALID);
	assert_int_equal(queue_open(&q, SIZE_MAX / 4, NULL), WN_INVALID);
}

typedef struct popper {
	queue *q;
	pthread_barrier_t *round;
	int share[200]; /* items of each round */
} popper;

static void *pop_once_a_round(void *arg)
{
	popper *p = arg;
	void *out[4];
	for (int i = 0; i < 200; i++) {
		p->share[i] = (int)queue_pop(p->q, out, 4);
		pthread_barrier_wait(p->round);
	}
	return NULL;
}

/* What comes together for poppers that wait together is no batch for the first of them. */
static void waiting_poppers_share(void **state)
{
	static int item;
	pthread_t threads[2];
	pthread_barrier_t round;
	queue *q = open_queue(8);
	popper p[2] = {{.q = q, .round = &round}, {.q = q, .round = &round}};
	pthread_barrier_init(&round, NULL, 3);
	for (int i = 0; i < 2; i++)
		pthread_create(&threads[i], NULL, pop_once_a_round, &p[i]);
	for (int i = 0; i < 200; i++) {
		while (queue_waiting(q) < 2)
			sched_yield();
		for (int k = 0; k < 2; k++)
			assert_true(queue_push(q, &item));
		while (queue_depth(q) > 0)
			sched_yield();
		assert_int_equal(queue_waiting(q), 0); /* else one took both, and the other would wait for ever */
		pthread_barrier_wait(&round);
		assert_int_equal(p[0].share[i], 1);
		assert_int_equal(p[1].share[i], 1);
	}
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	void *out[4];
	for (int i = 0; i < 3; i++)
		assert_true(queue_push(q, &item));
	assert_int_equal(queue_pop(q, out, 4), 3); /* nobody else waits: all of them */
	pthread_barrier_destroy(&round);
	queue_close(&q);
}

typedef struct wish {
	const int *from, *to; /* [from, to) are wanted */
	int asked;
} wish;

static bool is_wanted(void *cls, void *item)
{
	wish *w = cls;
	w->asked++;
	return (const int *)item >= w->from && (const int *)item < w->to;
}

static void items_are_taken_from_the_middle_and_the_rest_keeps_its_order(void **state)
{
	int items[8];
	void *out[8];
	for (size_t turn = 0; turn < 8; turn++) { /* wherever the ring's end is */
		queue *q = open_queue(8);
		for (size_t i = 0; i < turn; i++) {
			assert_true(queue_push(q, &items[i]));
			assert_int_equal(queue_pop(q, out, 1), 1);
		}
		wish none = {items, items, 0}, middle = {items + 2, items + 6, 0};
		assert_int_equal(queue_take_if(q, out, 8, is_wanted, &middle), 0); /* empty */
		for (int i = 0; i < 8; i++)
			assert_true(queue_push(q, &items[i]));
		assert_int_equal(queue_take_if(q, out, 8, is_wanted, &none), 0);
		assert_int_equal(none.asked, 8);
		assert_int_equal(queue_take_if(q, out, 3, is_wanted, &middle), 3); /* no more than there is room for */
		for (int i = 0; i < 3; i++)
			assert_ptr_equal(out[i], &items[2 + i]);
		assert_int_equal(queue_take_if(q, out, 3, is_wanted, &middle), 1);
		assert_ptr_equal(out[0], &items[5]);
		assert_int_equal(queue_depth(q), 4);
		for (int i = 0; i < 4; i++) /* there is room again */
			assert_true(queue_push(q, &items[2 + i]));
		assert_false(queue_push(q, &items[0]));
		static const int ORDER[] = {0, 1, 6, 7, 2, 3, 4, 5};
		assert_int_equal(queue_pop(q, out, 8), 8);
		for (int i = 0; i < 8; i++)
			assert_ptr_equal(out[i], &items[ORDER[i]]);
		queue_close(&q);
	}
}

#define PRODUCERS    4
#define PER_PRODUCER 5000

typedef struct totals {
	queue *q;
	atomic_llong sum;
	atomic_int count, calls;
	atomic_int most_in_call;
	int values[PRODUCERS * PER_PRODUCER];
	atomic_int next;
} totals;

static void *produce(void *arg)
{
	totals *t = arg;
	for (int i = 0; i < PER_PRODUCER; i++) {
		int k = atomic_fetch_add(&t->next, 1);
		t->values[k] = k;
		while (!queue_push(t->q, &t->values[k]))
			sched_yield();
	}
	return NULL;
}

static void consume(void *cls, int worker, void **items, size_t count)
{
	totals *t = cls;
	atomic_fetch_add(&t->calls, 1);
	if ((int)count > atomic_load(&t->most_in_call))
		atomic_store(&t->most_in_call, (int)count);
	for (size_t i = 0; i < count; i++)
		atomic_fetch_add(&t->sum, *(int *)items[i]);
	atomic_fetch_add(&t->count, (int)count);
}

static void every_item_is_worked_on_exactly_once(void **state)
{
	totals *t = calloc(1, sizeof *t);
	t->q = open_queue(16);
	worker_options opt = {
	    .name = "test-workers", .in = t->q, .threads = 3, .max_items = 4, .cls = t, .run = consume};
	worker_pool *pool;
	wn_error err = {0};
	assert_int_equal(worker_pool_open(&pool, &opt, &err), WN_OK);
	pthread_t producers[PRODUCERS];
	for (int i = 0; i < PRODUCERS; i++)
		pthread_create(&producers[i], NULL, produce, t);
	for (int i = 0; i < PRODUCERS; i++)
		pthread_join(producers[i], NULL);
	worker_pool_close(&pool); /* drains what is still queued */
	const long long n = PRODUCERS * PER_PRODUCER;
	assert_int_equal(atomic_load(&t->count), n);
	assert_true(atomic_load(&t->sum) == n * (n - 1) / 2);
	assert_in_range(atomic_load(&t->most_in_call), 1, 4);
	queue_close(&t->q);
	free(t);
}

static bool is_odd(void *cls, void *item) { return *(int *)item % 2 == 1; }

typedef struct thief {
	totals *from;
	atomic_bool stop;
	int taken;
} thief;

static void *take_odd_ones(void *arg)
{
	thief *t = arg;
	void *out[2];
	while (!atomic_load(&t->stop)) {
		const size_t n = queue_take_if(t->from->q, out, 2, is_odd, NULL);
		for (size_t i = 0; i < n; i++) {
			assert_int_equal(*(int *)out[i] % 2, 1);
			atomic_fetch_add(&t->from->sum, *(int *)out[i]);
		}
		atomic_fetch_add(&t->from->count, (int)n);
		t->taken += (int)n;
		if (n == 0)
			sched_yield();
	}
	return NULL;
}

static void what_is_taken_away_meanwhile_is_nobody_elses(void **state)
{
	totals *t = calloc(1, sizeof *t);
	t->q = open_queue(16);
	thief away = {.from = t};
	worker_options opt = {.name = "test-workers", .in = t->q, .threads = 2, .max_items = 4, .cls = t, .run = consume};
	worker_pool *pool;
	wn_error err = {0};
	assert_int_equal(worker_pool_open(&pool, &opt, &err), WN_OK);
	pthread_t producers[PRODUCERS], taking;
	pthread_create(&taking, NULL, take_odd_ones, &away);
	for (int i = 0; i < PRODUCERS; i++)
		pthread_create(&producers[i], NULL, produce, t);
	for (int i = 0; i < PRODUCERS; i++)
		pthread_join(producers[i], NULL);
	worker_pool_close(&pool);
	atomic_store(&away.stop, true);
	pthread_join(taking, NULL);
	const long long n = PRODUCERS * PER_PRODUCER;
	assert_int_equal(atomic_load(&t->count), n);
	assert_true(atomic_load(&t->sum) == n * (n - 1) / 2);
	print_message("%d of %lld taken away\n", away.taken, n);
	queue_close(&t->q);
	free(t);
}

static wn_code start_fails_in_one(void *cls, int worker, wn_error *err)
{
	atomic_fetch_add((atomic_int *)cls, 1);
	return worker == 1 ? wn_fail(err, WN_INTERNAL, "worker 1 cannot start") : WN_OK;
}

static void never_run(void *cls, int worker, void **items, size_t count) { abort(); }

static void failing_start_stops_the_pool_with_its_message(void **state)
{
	atomic_int started = 0;
	queue *q = open_queue(4);
	worker_options opt = {.name = "w",
			      .in = q,
			      .threads = 3,
			      .max_items = 1,
			      .cls = &started,
			      .start = start_fails_in_one,
			      .run = never_run};
	worker_pool *pool;
	wn_error err = {0};
	assert_int_equal(worker_pool_open(&pool, &opt, &err), WN_INTERNAL);
	assert_null(pool);
	assert_string_equal(err.message, "worker 1 cannot start");
	assert_int_equal(atomic_load(&started), 3);
	queue_close(&q);
}

typedef struct chores {
	worker_pool *pool;
	queue *q;
	atomic_int items, done;
	int before, least, most; /* items between the asking and the doing */
	pthread_t thread;
} chores;

static void count_item(void *cls, int worker, void **items, size_t count)
{
	chores *c = cls;
	if (worker == 0)
		c->thread = pthread_self();
	atomic_fetch_add(&c->items, (int)count);
}

static void chore(void *arg)
{
	chores *c = arg;
	int waited = atomic_load(&c->items) - c->before;
	c->most = waited > c->most ? waited : c->most;
	c->least = waited < c->least ? waited : c->least;
	if (atomic_load(&c->done) > 0)
		assert_true(pthread_equal(c->thread, pthread_self()));
	c->thread = pthread_self();
	atomic_fetch_add(&c->done, 1);
}

static void *keep_busy(void *arg)
{
	chores *c = arg;
	static int item;
	while (atomic_load(&c->done) < 60)
		if (!queue_push(c->q, &item))
			sched_yield();
	return NULL;
}

static void chores_run_between_items_on_their_own_thread(void **state)
{
	chores c = {0};
	wn_error err = {0};
	c.q = open_queue(8);
	worker_options opt = {.name = "w", .in = c.q, .threads = 1, .max_items = 1, .cls = &c, .run = count_item};
	assert_int_equal(worker_pool_open(&c.pool, &opt, &err), WN_OK);
	for (int i = 0; i < 10; i++) /* nothing else to do: at once */
		assert_true(worker_pool_run_on(c.pool, 0, chore, &c));
	assert_int_equal(c.most, 0);
	c.least = INT_MAX;
	pthread_t busy;
	pthread_create(&busy, NULL, keep_busy, &c);
	for (int i = 0; i < 50; i++) { /* never an empty queue: after a few items at most */
		c.before = atomic_load(&c.items);
		assert_true(worker_pool_run_on(c.pool, 0, chore, &c));
	}
	pthread_join(busy, NULL);
	/* The asker may be held up between reading the count and asking, so only the quickest says something. */
	assert_in_range(c.least, 0, WORKER_CHORE_EVERY + 1);
	worker_pool_close(&c.pool);
	queue_close(&c.q);
}

typedef struct late_chore {
	chores c;
	bool ran;
} late_chore;

static void never_reached(void *arg) { ((late_chore *)arg)->ran = true; }

static void *ask_late(void *arg)
{
	late_chore *l = arg;
	while (worker_pool_run_on(l->c.pool, 0, chore, &l->c))
		;
	assert_false(worker_pool_run_on(l->c.pool, 0, never_reached, l));
	return NULL;
}

static void a_closing_pool_refuses_chores_and_strands_nobody(void **state)
{
	late_chore l = {0};
	wn_error err = {0};
	l.c.q = open_queue(8);
	worker_options opt = {.name = "w", .in = l.c.q, .threads = 2, .max_items = 1, .cls = &l.c, .run = count_item};
	assert_int_equal(worker_pool_open(&l.c.pool, &opt, &err), WN_OK);
	pthread_t asker;
	pthread_create(&asker, NULL, ask_late, &l);
	while (atomic_load(&l.c.done) < 100)
		sched_yield();
	queue_shut(l.c.q);
	pthread_join(asker, NULL);
	assert_false(l.ran);
	worker_pool_close(&l.c.pool);
	queue_close(&l.c.q);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(queue_keeps_order_and_refuses_when_full),
	    cmocka_unit_test(shut_queue_gives_what_is_left_then_nothing),
	    cmocka_unit_test(what_is_given_back_comes_first_also_when_shut),
	    cmocka_unit_test(impossible_capacities_are_refused),
	    cmocka_unit_test(waiting_poppers_share),
	    cmocka_unit_test(items_are_taken_from_the_middle_and_the_rest_keeps_its_order),
	    cmocka_unit_test(every_item_is_worked_on_exactly_once),
	    cmocka_unit_test(what_is_taken_away_meanwhile_is_nobody_elses),
	    cmocka_unit_test(failing_start_stops_the_pool_with_its_message),
	    cmocka_unit_test(chores_run_between_items_on_their_own_thread),
	    cmocka_unit_test(a_closing_pool_refuses_chores_and_strands_nobody),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
