/* result_cache.c: a hash table of chained entries that are also a list in order of use; see result_cache.h. */
#include "server/result_cache.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <nettle/sha2.h>

#define TYPICAL_ENTRY 192 /* bytes: what the number of buckets is guessed from */

typedef struct entry {
	struct entry *chain;         /* of its bucket */
	struct entry *newer, *older; /* by use */
	int64_t stored_ns;
	uint8_t key[RESULT_KEY_SIZE];
	int n;
	float probs[]; /* [n] */
} entry;

struct result_cache {
	pthread_mutex_t lock;
	int64_t max_age_ns;
	result_cache_stats stats;
	entry *newest, *oldest;
	size_t num_buckets; /* a power of two */
	entry *buckets[];
};

wn_code result_cache_open(result_cache **out, size_t max_bytes, int64_t max_age_ns, wn_error *err)
{
	*out = NULL;
	if (max_bytes == 0)
		return WN_OK;
	size_t buckets = 16;
	while (buckets < max_bytes / TYPICAL_ENTRY && buckets < (size_t)1 << 24)
		buckets *= 2;
	result_cache *c = calloc(1, sizeof *c + buckets * sizeof c->buckets[0]);
	if (!c)
		return wn_fail(err, WN_NOMEM, "cache.bytes: out of memory for %zu buckets", buckets);
	pthread_mutex_init(&c->lock, NULL);
	c->max_age_ns = max_age_ns;
	c->num_buckets = buckets;
	c->stats.max_bytes = max_bytes;
	*out = c;
	return WN_OK;
}

void result_cache_close(result_cache **cp)
{
	result_cache *c = *cp;
	if (!c)
		return;
	*cp = NULL;
	for (entry *e = c->newest, *older; e; e = older) {
		older = e->older;
		free(e);
	}
	pthread_mutex_destroy(&c->lock);
	free(c);
}

static void add(struct sha256_ctx *ctx, const void *data, size_t len)
{
	uint64_t n = len; /* lengths keep "ab" + "c" apart from "a" + "bc" */
	sha256_update(ctx, sizeof n, (const uint8_t *)&n);
	if (len)
		sha256_update(ctx, len, data);
}

void result_cache_key(uint8_t key[RESULT_KEY_SIZE], const request *r)
{
	struct sha256_ctx ctx;
	sha256_init(&ctx);
	add(&ctx, r->image, r->image_len);
	add(&ctx, r->text.data, r->text.len);
	add(&ctx, r->assist.data, r->assist.len);
	add(&ctx, r->model->name, strlen(r->model->name));
	add(&ctx, r->model->version, strlen(r->model->version));
	add(&ctx, r->model->digest, strlen(r->model->digest));
	add(&ctx, &r->model->fingerprint, sizeof r->model->fingerprint);
	sha256_digest(&ctx, RESULT_KEY_SIZE, key);
}

static entry **bucket_of(result_cache *c, const uint8_t *key)
{
	uint64_t h;
	memcpy(&h, key, sizeof h);
	return &c->buckets[h & (c->num_buckets - 1)];
}

static entry *find(result_cache *c, const uint8_t *key)
{
	entry *e = *bucket_of(c, key);
	while (e && memcmp(e->key, key, RESULT_KEY_SIZE) != 0)
		e = e->chain;
	return e;
}

static void unlink_use(result_cache *c, entry *e)
{
	*(e->newer ? &e->newer->older : &c->newest) = e->older;
	*(e->older ? &e->older->newer : &c->oldest) = e->newer;
}

static void link_newest(result_cache *c, entry *e)
{
	e->newer = NULL;
	e->older = c->newest;
	*(c->newest ? &c->newest->newer : &c->oldest) = e;
	c->newest = e;
}

static size_t entry_bytes(int n) { return sizeof(entry) + (size_t)n * sizeof(float) + 2 * sizeof(void *); /* malloc's */ }

static void drop(result_cache *c, entry *e)
{
	entry **p = bucket_of(c, e->key);
	while (*p != e)
		p = &(*p)->chain;
	*p = e->chain;
	unlink_use(c, e);
	c->stats.entries--;
	c->stats.bytes -= entry_bytes(e->n);
	free(e);
}

bool result_cache_get(result_cache *c, const uint8_t key[RESULT_KEY_SIZE], float *probs, int n, int64_t now_ns)
{
	if (!c)
		return false;
	pthread_mutex_lock(&c->lock);
	entry *e = find(c, key);
	if (e && now_ns - e->stored_ns > c->max_age_ns) {
		drop(c, e);
		c->stats.evictions++;
		e = NULL;
	}
	bool hit = e && e->n == n;
	if (hit) {
		memcpy(probs, e->probs, (size_t)n * sizeof probs[0]);
		unlink_use(c, e);
		link_newest(c, e);
		c->stats.hits++;
	} else {
		c->stats.misses++;
	}
	pthread_mutex_unlock(&c->lock);
	return hit;
}

void result_cache_put(result_cache *c, const uint8_t key[RESULT_KEY_SIZE], const float *probs, int n, int64_t now_ns)
{
	if (!c || entry_bytes(n) > c->stats.max_bytes)
		return;
	entry *e = malloc(sizeof *e + (size_t)n * sizeof e->probs[0]);
	if (!e)
		return;
	e->n = n;
	e->stored_ns = now_ns;
	memcpy(e->key, key, RESULT_KEY_SIZE);
	memcpy(e->probs, probs, (size_t)n * sizeof probs[0]);
	pthread_mutex_lock(&c->lock);
	entry *old = find(c, key); /* the same ad twice at once */
	if (old)
		drop(c, old);
	while (c->stats.bytes + entry_bytes(n) > c->stats.max_bytes) {
		drop(c, c->oldest);
		c->stats.evictions++;
	}
	entry **p = bucket_of(c, key);
	e->chain = *p;
	*p = e;
	link_newest(c, e);
	c->stats.entries++;
	c->stats.bytes += entry_bytes(n);
	pthread_mutex_unlock(&c->lock);
}

result_cache_stats result_cache_read(result_cache *c)
{
	if (!c)
		return (result_cache_stats){0};
	pthread_mutex_lock(&c->lock);
	result_cache_stats s = c->stats;
	pthread_mutex_unlock(&c->lock);
	return s;
}
