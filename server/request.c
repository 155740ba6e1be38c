/* request.c: see request.h. */
#include "server/request.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "model/pretokenize.h"

/* A kept request may hold on to this much of each buffer; a rare giant is given back at once. */
#define KEEP_BYTES ((size_t)1 << 20)

#define REASON_ROW(id, status, name, title) {status, name, title},
static const struct {
	int status;
	const char *name, *title;
} REASON_TABLE[] = {REASONS(REASON_ROW)};

int reason_status(reason r) { return REASON_TABLE[r].status; }
const char *reason_name(reason r) { return REASON_TABLE[r].name; }
const char *reason_title(reason r) { return REASON_TABLE[r].title; }

const char *stage_name(stage s)
{
	static const char *const NAMES[] = {"receive", "queue", "decode", "preprocess", "inference"};
	return NAMES[s];
}

int64_t monotonic_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static bool budget_take(byte_budget *b, size_t n)
{
	if (!b)
		return true;
	size_t used = atomic_load(&b->used);
	do {
		if (n > b->limit || used > b->limit - n)
			return false;
	} while (!atomic_compare_exchange_weak(&b->used, &used, used + n));
	return true;
}

static void budget_give(byte_budget *b, size_t n)
{
	if (b)
		atomic_fetch_sub(&b->used, n);
}

wn_code bytes_reserve(bytes *b, size_t cap, wn_error *err)
{
	if (cap <= b->cap)
		return WN_OK;
	size_t more = cap - b->cap;
	if (!budget_take(b->budget, more))
		return wn_fail(err, WN_TOO_LARGE, "the server holds as many request bytes as it may");
	unsigned char *data = realloc(b->data, cap);
	if (!data) {
		budget_give(b->budget, more);
		return wn_fail(err, WN_NOMEM, "out of memory for %zu request bytes", cap);
	}
	b->data = data;
	b->cap = cap;
	return WN_OK;
}

wn_code bytes_append(bytes *b, const void *data, size_t len, size_t max, wn_error *err)
{
	if (len > max || b->len > max - len)
		return wn_fail(err, WN_TOO_LARGE, "more than %zu bytes", max);
	size_t need = b->len + len;
	if (need > b->cap) {
		size_t cap = b->cap < 4096 ? 4096 : b->cap > max / 2 ? max : b->cap * 2;
		if (bytes_reserve(b, cap < need ? need : cap, err) != WN_OK)
			return err ? err->code : WN_NOMEM;
	}
	if (len)
		memcpy(b->data + b->len, data, len);
	b->len = need;
	return WN_OK;
}

wn_code bytes_set_string(bytes *b, const char *data, size_t len, wn_error *err)
{
	wn_code code = bytes_reserve(b, len + 1, err);
	if (code != WN_OK)
		return code;
	if (len)
		memcpy(b->data, data, len);
	b->data[len] = 0;
	b->len = len;
	return WN_OK;
}

void bytes_free(bytes *b)
{
	budget_give(b->budget, b->cap);
	free(b->data);
	b->data = NULL;
	b->len = b->cap = 0;
}

struct request_pool {
	pthread_mutex_t lock;
	request *free_list; /* the last that came back goes out first */
	size_t free_count, keep;
	size_t unneeded; /* the least free_count since request_pool_shrink: that many at the list's end nobody took */
	byte_budget budget;
};

static void request_destroy(request *r)
{
	bytes_free(&r->body);
	bytes_free(&r->decoded);
	bytes_free(&r->text);
	bytes_free(&r->assist);
	bytes_free(&r->pixels);
	bytes_free(&r->prompt);
	free(r);
}

wn_code request_pool_open(request_pool **out, size_t keep, size_t budget_bytes, wn_error *err)
{
	request_pool *p = *out = calloc(1, sizeof *p);
	if (!p)
		return wn_fail(err, WN_NOMEM, "out of memory for the request pool");
	pthread_mutex_init(&p->lock, NULL);
	p->keep = keep;
	p->budget.limit = budget_bytes;
	return WN_OK;
}

void request_pool_close(request_pool **pp)
{
	request_pool *p = *pp;
	if (!p)
		return;
	*pp = NULL;
	for (request *r; (r = p->free_list);) {
		p->free_list = r->next_free;
		request_destroy(r);
	}
	pthread_mutex_destroy(&p->lock);
	free(p);
}

size_t request_pool_bytes(request_pool *p) { return atomic_load(&p->budget.used); }

request *request_pool_get(request_pool *p)
{
	pthread_mutex_lock(&p->lock);
	request *r = p->free_list;
	if (r) {
		p->free_list = r->next_free;
		p->free_count--;
	}
	p->unneeded = p->free_count < p->unneeded ? p->free_count : p->unneeded;
	pthread_mutex_unlock(&p->lock);
	if (!r) {
		r = calloc(1, sizeof *r);
		if (!r)
			return NULL;
		/* pixels and prompt are sized by the model and bounded by the queue: only outside data is budgeted. */
		r->body.budget = r->decoded.budget = r->text.budget = r->assist.budget = &p->budget;
	}
	r->next_free = NULL;
	return r;
}

/* Outside data leaves with its request unless it is small; kept buffers still count against the budget. */
static bytes bytes_recycle(bytes b, size_t keep)
{
	if (b.cap > keep)
		bytes_free(&b);
	b.len = 0;
	return b;
}

void request_pool_put(request_pool *p, request *r)
{
	registry_release(&r->model);
	registry_release(&r->other);
	trial_release(&r->trial);
	free(r->answer);
	/* The budget must never be eaten up by idle buffers: keep little of what outsiders can make large. */
	size_t keep = p->budget.limit / 4 / (p->keep ? p->keep : 1);
	keep = keep > KEEP_BYTES ? KEEP_BYTES : keep;
	request clean = {.body = bytes_recycle(r->body, keep),
			 .decoded = bytes_recycle(r->decoded, keep),
			 .text = bytes_recycle(r->text, 4096),
			 .assist = bytes_recycle(r->assist, 4096),
			 .pixels = bytes_recycle(r->pixels, (size_t)16 << 20),
			 .prompt = bytes_recycle(r->prompt, 65536)};
	*r = clean;
	pthread_mutex_lock(&p->lock);
	bool kept = p->free_count < p->keep;
	if (kept) {
		r->next_free = p->free_list;
		p->free_list = r;
		p->free_count++;
	}
	pthread_mutex_unlock(&p->lock);
	if (!kept)
		request_destroy(r);
}

static size_t request_size(const request *r)
{
	return sizeof *r + r->body.cap + r->decoded.cap + r->text.cap + r->assist.cap + r->pixels.cap + r->prompt.cap;
}

size_t request_pool_shrink(request_pool *p)
{
	pthread_mutex_lock(&p->lock);
	request **end = &p->free_list;
	for (size_t stay = p->free_count - p->unneeded; stay > 0; stay--)
		end = &(*end)->next_free;
	request *gone = *end;
	*end = NULL;
	p->free_count -= p->unneeded;
	p->unneeded = p->free_count;
	pthread_mutex_unlock(&p->lock);
	size_t freed = 0;
	for (request *next; gone; gone = next) {
		next = gone->next_free;
		freed += request_size(gone);
		request_destroy(gone);
	}
	return freed;
}

reason request_fail(request *r, reason why, const char *fmt, ...)
{
	if (r->outcome != REASON_OK)
		return r->outcome;
	r->outcome = why;
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(r->detail, sizeof r->detail, fmt, ap);
	va_end(ap);
	utf8_repair(r->detail);
	return why;
}

reason request_no_memory(request *r)
{
	return request_fail(r, REASON_OUT_OF_MEMORY, "there is no memory left for this request");
}

void request_random_id(char out[REQUEST_ID_SIZE])
{
	unsigned char b[16];
	static atomic_uint_fast64_t fallback;
	if (getrandom(b, sizeof b, 0) != (ssize_t)sizeof b) {
		/* Uniqueness is all that is asked of the id, and only a broken kernel gets here. */
		uint64_t v[2] = {(uint64_t)monotonic_ns(), atomic_fetch_add(&fallback, 1)};
		memcpy(b, v, sizeof b);
	}
	for (int i = 0; i < 16; i++)
		snprintf(out + 2 * i, 3, "%02x", b[i]);
}

bool request_id_is_valid(const char *s)
{
	size_t n = strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");
	return n > 0 && n < REQUEST_ID_SIZE && s[n] == 0;
}
