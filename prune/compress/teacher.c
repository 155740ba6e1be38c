/* teacher.c: see teacher.h.
 *
 * A record of the cache is one item's logits [1 + tail_len][V] in f32, then the output of every block, vision, Q-Former, text, in
 * bf16: all of its rows but the padding. Filling goes through the items by length, so that a batch has little padding. */
#include "prune/compress/teacher.h"

#include <stdlib.h>
#include <string.h>

#include "model/ops.h"
#include "prune/compress/teacher_cache.h"
#include "prune/progress.h"

#define LOG_SECONDS  10
#define SYNC_SECONDS 30

struct teacher {
	teacher_options o;
	const blip2_config *shape;
	int max_len;            /* text tokens of a batch */
	size_t logits_count;    /* floats of one item: (1 + tail_len) * V */
	/* computing */
	blip2_session *session; /* NULL once everything is cached */
	int32_t *rows;          /* [batch of the session * (1 + tail_len)] */
	/* cached */
	bool cached;
	teacher_cache cache;
	float *memory;          /* owns the next */
	float *hidden[NUM_COMPONENTS][MAX_BLOCKS]; /* [micro_batch * rows][hidden_size] */
	float *logits;          /* [micro_batch, at least TEACHER_FILL_BATCH][1 + tail_len][V] */
};

/* ---- where an item's hidden states stand ---- */

/* A stretch of rows of one block's output without padding. */
typedef struct stretch {
	int which, block;
	size_t from, count; /* floats into the output of a batch */
	size_t at;          /* into the item's hidden states in the cache */
} stretch;
#define MAX_STRETCHES (2 * NUM_COMPONENTS * MAX_BLOCKS)

static const stack_config *stack_of(const teacher *t, int which) { return shape_stack(t->shape, (component)which); }

/* Rows a sample in a batch of text_len tokens. */
static size_t stack_rows(const teacher *t, int which, int text_len)
{
	const int grid = t->shape->image_size / t->shape->patch_size;
	const int rows[] = {1 + grid * grid, t->shape->num_query_tokens, t->shape->num_query_tokens + text_len};
	return (size_t)rows[which];
}

/* The stretches of sample i, in the cache's order; returns their number. */
static int list_stretches(const teacher *t, int i, int text_len, int padding, stretch out[MAX_STRETCHES])
{
	int n = 0;
	size_t at = 0;
	for (int which = 0; which < NUM_COMPONENTS; which++) {
		const size_t d = (size_t)stack_of(t, which)->hidden_size, rows = stack_rows(t, which, text_len);
		const size_t first = (size_t)i * rows; /* text: queries, padding, the rest */
		const size_t head = which == COMPONENT_TEXT ? (size_t)t->shape->num_query_tokens : rows;
		const size_t behind = which == COMPONENT_TEXT ? head + (size_t)padding : rows;
		for (int b = 0; b < stack_of(t, which)->num_hidden_layers; b++) {
			out[n++] = (stretch){which, b, first * d, head * d, at};
			at += head * d;
			if (rows > behind) {
				out[n++] = (stretch){which, b, (first + behind) * d, (rows - behind) * d, at};
				at += (rows - behind) * d;
			}
		}
	}
	return n;
}

static int sample_stretches(const teacher *t, const label_batch *b, int i, stretch out[MAX_STRETCHES])
{
	const int32_t *ids;
	return list_stretches(t, i, b->text_len, b->prompt_len - transfer_prompt(t->o.set, b->items[i], &ids), out);
}

/* Bytes of an item's record. */
static size_t record_size(const teacher *t, size_t item, bool hidden)
{
	const int32_t *ids;
	size_t count = 0;
	const int text_len = transfer_prompt(t->o.set, item, &ids) + t->o.trie->tail_len;
	for (int which = 0; hidden && which < NUM_COMPONENTS; which++)
		count += stack_rows(t, which, text_len) * (size_t)stack_of(t, which)->hidden_size *
			 (size_t)stack_of(t, which)->num_hidden_layers;
	return t->logits_count * sizeof(float) + count * sizeof(uint16_t);
}

/* ---- computing ---- */

static wn_code open_session(teacher *t, int most, wn_error *err)
{
	blip2_session_options so = blip2_session_defaults();
	so.max_batch = most;
	so.max_text_len = t->max_len;
	so.keep_hidden = t->o.hidden;
	so.bf16 = t->o.bf16;
	wn_code rc = blip2_session_open(&t->session, t->o.model, &so, err);
	t->rows = rc ? NULL : calloc((size_t)most * (1 + (size_t)t->o.trie->tail_len), sizeof *t->rows);
	return rc || t->rows ? rc : wn_fail(err, WN_NOMEM, "no memory for a batch of %d", most);
}

static wn_code compute(teacher *t, const label_batch *b, wn_error *err)
{
	const blip2_batch view = label_batch_view(b);
	wn_code rc = blip2_forward(t->session, &view, err);
	if (!rc)
		blip2_logits(t->session, t->rows, label_batch_rows(b, t->shape->num_query_tokens, t->rows), t->logits);
	return rc;
}

/* ---- the cache ---- */

/* Sample i of the batch that was just computed. */
static void pack(const teacher *t, const label_batch *b, int i, void *record)
{
	stretch s[MAX_STRETCHES];
	memcpy(record, t->logits + (size_t)i * t->logits_count, t->logits_count * sizeof(float));
	uint16_t *states = (uint16_t *)(void *)((float *)record + t->logits_count);
	const int n = t->o.hidden ? sample_stretches(t, b, i, s) : 0;
	for (int k = 0; k < n; k++) {
		const float *output = blip2_view_block(t->session, (component)s[k].which, s[k].block).output;
		ops->to_bf16(states + s[k].at, output + s[k].from, s[k].count);
	}
}

static void unpack(teacher *t, const label_batch *b, int i)
{
	stretch s[MAX_STRETCHES];
	const float *record = teacher_cache_at(&t->cache, b->items[i]);
	memcpy(t->logits + (size_t)i * t->logits_count, record, t->logits_count * sizeof(float));
	const uint16_t *states = (const uint16_t *)(const void *)(record + t->logits_count);
	const int n = t->o.hidden ? sample_stretches(t, b, i, s) : 0;
	for (int k = 0; k < n; k++)
		ops->widen(t->hidden[s[k].which][s[k].block] + s[k].from, states + s[k].at, s[k].count);
}

/* Digest of all that the records depend on. */
static wn_code make_key(const teacher *t, bool hidden, char key[DIGEST_SIZE], wn_error *err)
{
	const label_trie *trie = t->o.trie;
	const image_processor *ip = &t->o.batch->image_processor;
	char *config = hf_config_write(t->shape), *text = NULL;
	size_t size = 0;
	FILE *f = config ? open_memstream(&text, &size) : NULL;
	if (f) {
		fprintf(f, "teacher %s\nset %s\nhidden %d\nbf16 %d\nbatch %d\n", t->o.digest, transfer_digest(t->o.set), hidden, t->o.bf16,
			TEACHER_FILL_BATCH);
		fprintf(f, "pixels %d %a", ip->size, ip->rescale_factor);
		for (int c = 0; c < 3; c++)
			fprintf(f, " %a %a", (double)ip->mean[c], (double)ip->std[c]);
		fprintf(f, " blank %d\ntail", t->o.batch->blank_images);
		for (int k = 0; k < trie->tail_len; k++)
			fprintf(f, " %d:%d", (int)trie->tail_ids[k], (int)trie->tail_parent[k]);
		fputs("\nwidths", f);
		for (int which = 0; which < NUM_COMPONENTS; which++)
			for (int b = 0; b < stack_of(t, which)->num_hidden_layers; b++) {
				const block_widths *w = &stack_of(t, which)->blocks[b];
				fprintf(f, " %dx%d+%dx%d+%d", w->num_heads, w->head_dim, w->cross_num_heads, w->cross_head_dim, w->ffn_dim);
			}
		fprintf(f, "\n%s", config);
	}
	free(config);
	if (!f || fclose(f)) {
		free(text);
		return wn_fail(err, WN_NOMEM, "no memory for the teacher's digest");
	}
	digest_memory(key, text, size);
	free(text);
	return WN_OK;
}

/* All items, longest prompts first. */
static uint32_t *by_length(const transfer_set *set)
{
	const size_t count = transfer_count(set);
	uint32_t *order = calloc(count, sizeof *order);
	const int32_t *ids;
	size_t n = 0;
	for (int len = transfer_longest_prompt(set); order && len >= 0; len--)
		for (size_t i = 0; i < count; i++)
			if (transfer_prompt(set, i, &ids) == len)
				order[n++] = (uint32_t)i;
	return order;
}

static wn_code fill_batch(teacher *t, label_batch *b, const uint32_t *items, int n, void *record, const size_t *sizes, wn_error *err)
{
	wn_code rc = label_batch_fill(b, t->o.set, items, n, t->o.batch, 0, t->o.pad_id, err);
	if (!rc)
		rc = compute(t, b, err);
	for (int i = 0; !rc && i < n; i++) {
		pack(t, b, i, record);
		rc = teacher_cache_write(&t->cache, items[i], record, sizes[items[i]], err);
	}
	return rc;
}

/* Items order[t->cache.done..], batch by batch: what is done ends with a batch, so that a continued file has the bits of any other. */
static wn_code fill_rest(teacher *t, label_batch *b, const uint32_t *order, void *record, const size_t *sizes, wn_error *err)
{
	const size_t count = transfer_count(t->o.set), most = TEACHER_FILL_BATCH;
	const double sync_seconds = t->o.sync_seconds > 0 ? t->o.sync_seconds : SYNC_SECONDS;
	size_t at = t->cache.done;
	double synced = monotonic_seconds();
	progress p = {0};
	wn_code rc = WN_OK;
	if (t->o.out)
		progress_start(&p, t->o.out, "teacher outputs", (int64_t)at, (int64_t)count, t->o.log_seconds > 0 ? t->o.log_seconds : LOG_SECONDS);
	while (!rc && at < count) {
		const size_t n = count - at < most ? count - at : most;
		if (t->o.stop && *t->o.stop)
			rc = wn_fail(err, WN_CANCELLED, "stopped with the outputs of %zu of %zu items computed", at, count);
		else
			rc = fill_batch(t, b, order + at, (int)n, record, sizes, err);
		at += rc ? 0 : n;
		if (!rc && at < count && monotonic_seconds() - synced >= sync_seconds) {
			rc = teacher_cache_sync(&t->cache, at, err);
			synced = monotonic_seconds();
		}
		if (!rc && t->o.out && at < count)
			progress_update(&p, (int64_t)at, "");
	}
	if (rc && at > t->cache.done)
		teacher_cache_sync(&t->cache, at, NULL); /* what was done is kept, if that is possible: rc is the news */
	if (!rc && t->o.out)
		progress_finish(&p, (int64_t)count, "");
	return rc;
}

static wn_code fill(teacher *t, const size_t *sizes, wn_error *err)
{
	const size_t count = transfer_count(t->o.set);
	label_batch b = {0};
	size_t largest = 0;
	for (size_t i = 0; i < count; i++)
		largest = sizes[i] > largest ? sizes[i] : largest;
	void *record = malloc(largest);
	uint32_t *order = by_length(t->o.set);
	wn_code rc = record && order ? WN_OK : wn_fail(err, WN_NOMEM, "no memory for %zu items", count);
	if (!rc)
		rc = open_session(t, TEACHER_FILL_BATCH, err);
	if (!rc)
		rc = label_batch_open(&b, TEACHER_FILL_BATCH, transfer_longest_prompt(t->o.set), t->shape->image_size, t->o.trie, err);
	if (!rc)
		rc = fill_rest(t, &b, order, record, sizes, err);
	if (!rc)
		rc = teacher_cache_commit(&t->cache, err);
	label_batch_close(&b);
	blip2_session_close(&t->session);
	free(record);
	free(order);
	return rc;
}

/* One block for the outputs of a batch that are read back. */
static wn_code open_outputs(teacher *t, wn_error *err)
{
	size_t count = 0;
	for (int pass = 0; pass < 2; pass++) { /* measured, then handed out */
		float *at = t->memory;
		count = 0;
		for (int which = 0; which < NUM_COMPONENTS; which++)
			for (int b = 0; b < stack_of(t, which)->num_hidden_layers; b++) {
				if (at)
					t->hidden[which][b] = at + count;
				count += (size_t)t->o.micro_batch * stack_rows(t, which, t->max_len) * (size_t)stack_of(t, which)->hidden_size;
			}
		if (!at && !(t->memory = calloc(count, sizeof *t->memory)))
			return wn_fail(err, WN_NOMEM, "no memory for the hidden states of a batch of %d", t->o.micro_batch);
	}
	return WN_OK;
}

/* The name and the records of a file with hidden states or without. */
static wn_code describe(const teacher *t, bool hidden, char key[DIGEST_SIZE], size_t *sizes, wn_error *err)
{
	for (size_t i = 0; i < transfer_count(t->o.set); i++)
		sizes[i] = record_size(t, i, hidden);
	return make_key(t, hidden, key, err);
}

static bool is_too_large(const teacher *t, const size_t *sizes)
{
	const size_t bytes = teacher_cache_bytes(sizes, transfer_count(t->o.set));
	if (t->o.cache_limit >= 0 && bytes <= (size_t)t->o.cache_limit)
		return false;
	if (t->o.out)
		fprintf(t->o.out, "the teacher's outputs would take %.1f MiB, the limit is %.1f MiB: it runs along instead\n",
			(double)bytes / (1 << 20), (double)t->o.cache_limit / (1 << 20));
	return true;
}

/* Opens or makes the cache; leaves t->cached false when it would be too large. */
static wn_code open_cache(teacher *t, wn_error *err)
{
	const size_t count = transfer_count(t->o.set);
	char key[DIGEST_SIZE];
	wn_code rc = WN_OK;
	size_t *sizes = calloc(count, sizeof *sizes);
	const teacher_cache_options co = {.dir = t->o.cache_dir, .key = key, .sizes = sizes, .count = count, .stop = t->o.stop,
					  .out = t->o.out};
	if (!sizes)
		return wn_fail(err, WN_NOMEM, "no memory for %zu items", count);
	if (!t->o.hidden) { /* logits stand first in a record: a file that has hidden states as well does */
		rc = describe(t, true, key, sizes, err);
		t->cached = !rc && !teacher_cache_find(&t->cache, &co, NULL);
	}
	if (!rc && !t->cached)
		rc = describe(t, t->o.hidden, key, sizes, err);
	if (!rc && !t->cached && !is_too_large(t, sizes)) {
		rc = teacher_cache_open(&t->cache, &co, err);
		if (!rc && !t->cache.map)
			rc = fill(t, sizes, err);
		t->cached = !rc;
	}
	if (t->cached && t->o.hidden)
		rc = open_outputs(t, err);
	free(sizes);
	return rc;
}

/* ---- the teacher ---- */

wn_code teacher_open(teacher **out, const teacher_options *o, wn_error *err)
{
	*out = NULL;
	const blip2_config *shape = blip2_get_config(o->model);
	if (o->micro_batch < 1)
		return wn_fail(err, WN_INVALID, "teacher: micro-batches of %d, expected at least 1", o->micro_batch);
	if (o->batch->image_processor.size != shape->image_size)
		return wn_fail(err, WN_INVALID, "teacher: takes images of %d pixels a side, the batches have %d", shape->image_size,
			       o->batch->image_processor.size);
	teacher *t = calloc(1, sizeof *t);
	if (!t)
		return wn_fail(err, WN_NOMEM, "no memory for a teacher");
	*t = (teacher){.o = *o, .shape = shape,
		       .max_len = transfer_longest_prompt(o->set) + o->trie->tail_len,
		       .logits_count = (1 + (size_t)o->trie->tail_len) * (size_t)shape->vocab_size};
	const int most = o->micro_batch > TEACHER_FILL_BATCH ? o->micro_batch : TEACHER_FILL_BATCH;
	t->logits = calloc((size_t)most * t->logits_count, sizeof *t->logits);
	wn_code rc = t->logits ? WN_OK : wn_fail(err, WN_NOMEM, "no memory for the logits of a batch of %d", most);
	if (!rc && o->cache_dir && (!o->batch->augment_on || transfer_is_fixed(o->set)))
		rc = open_cache(t, err);
	if (!rc && !t->cached)
		rc = open_session(t, o->micro_batch, err);
	if (rc)
		teacher_close(&t);
	*out = t;
	return rc;
}

void teacher_close(teacher **t)
{
	if (!t || !*t)
		return;
	blip2_session_close(&(*t)->session);
	teacher_cache_close(&(*t)->cache);
	free((*t)->rows);
	free((*t)->memory);
	free((*t)->logits);
	free(*t);
	*t = NULL;
}

bool teacher_is_cached(const teacher *t) { return t->cached; }

wn_code teacher_run(teacher *t, const label_batch *b, wn_error *err)
{
	if (b->n > t->o.micro_batch || b->text_len > t->max_len || b->trie->tail_len != t->o.trie->tail_len)
		return wn_fail(err, WN_TOO_LARGE, "teacher: batch of %d samples with %d tokens, opened for %d with %d", b->n, b->text_len,
			       t->o.micro_batch, t->max_len);
	if (!t->cached)
		return compute(t, b, err);
#pragma omp parallel for schedule(static)
	for (int i = 0; i < b->n; i++)
		unpack(t, b, i);
	return WN_OK;
}

void teacher_prefetch(const teacher *t, const uint32_t *items, int n)
{
	for (int i = 0; t->cached && i < n; i++)
		teacher_cache_prefetch(&t->cache, items[i]);
}

const float *teacher_logits(const teacher *t) { return t->logits; }

const float *teacher_hidden(const teacher *t, component which, int block)
{
	if (!t->o.hidden)
		return NULL;
	return t->cached ? t->hidden[which][block] : blip2_view_block(t->session, which, block).output;
}
