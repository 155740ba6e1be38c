/* bpe.c: merges the symbols of one word, lowest rank first, leftmost among equals.
 *
 * Symbols form a doubly linked list over an array; a binary heap of (rank, position) holds every adjacent pair that
 * some merge names. A merge makes at most two new pairs, so the heap stays below 2n entries and a word of n bytes costs
 * O(n log n): a pasted 100 kB word is no attack. Entries are not removed when a neighbour changes; they are recognised when
 * popped, by the id they would make, exactly as `tokenizers` does (Word::merge_all). */
#include <stdlib.h>
#include <string.h>

#include "model/pretokenize.h"
#include "model/tokenizer_impl.h"

static size_t pair_slot_of(const pair_map *m, uint64_t key)
{
	size_t mask = m->num_slots - 1, i = (size_t)(key * UINT64_C(0x9e3779b97f4a7c15) >> 24) & mask;
	while (m->keys[i] != key && m->keys[i] != PAIR_NONE)
		i = (i + 1) & mask;
	return i;
}

static wn_code pair_map_grow(pair_map *m, wn_error *err)
{
	pair_map bigger = {.num_slots = m->num_slots ? m->num_slots * 2 : 256, .count = m->count};
	bigger.keys = malloc(bigger.num_slots * sizeof *bigger.keys);
	bigger.values = malloc(bigger.num_slots * sizeof *bigger.values);
	if (!bigger.keys || !bigger.values) {
		pair_map_free(&bigger);
		return wn_fail(err, WN_NOMEM, "out of memory for a table of %zu pairs", m->num_slots);
	}
	memset(bigger.keys, 0xff, bigger.num_slots * sizeof *bigger.keys);
	for (size_t i = 0; i < m->num_slots; i++) {
		if (m->keys[i] == PAIR_NONE)
			continue;
		size_t slot = pair_slot_of(&bigger, m->keys[i]);
		bigger.keys[slot] = m->keys[i];
		bigger.values[slot] = m->values[i];
	}
	pair_map_free(m);
	*m = bigger;
	return WN_OK;
}

wn_code pair_map_put(pair_map *m, uint64_t key, uint32_t value, wn_error *err)
{
	if (m->count >= m->num_slots / 2) {
		wn_code rc = pair_map_grow(m, err);
		if (rc != WN_OK)
			return rc;
	}
	size_t slot = pair_slot_of(m, key);
	m->count += m->keys[slot] == PAIR_NONE;
	m->keys[slot] = key;
	m->values[slot] = value;
	return WN_OK;
}

uint32_t pair_map_get(const pair_map *m, uint64_t key)
{
	if (m->num_slots == 0)
		return UINT32_MAX;
	size_t slot = pair_slot_of(m, key);
	return m->keys[slot] == key ? m->values[slot] : UINT32_MAX;
}

void pair_map_free(pair_map *m)
{
	free(m->keys);
	free(m->values);
	memset(m, 0, sizeof *m);
}

static uint32_t rank_of(const tokenizer *t, int32_t left, int32_t right)
{
	return pair_map_get(&t->ranks, (uint64_t)(uint32_t)left << 32 | (uint32_t)right);
}

static void heap_push(uint64_t *heap, size_t *n, uint64_t x)
{
	size_t i = (*n)++;
	for (; i > 0 && x < heap[(i - 1) / 2]; i = (i - 1) / 2)
		heap[i] = heap[(i - 1) / 2];
	heap[i] = x;
}

static uint64_t heap_pop(uint64_t *heap, size_t *n)
{
	uint64_t top = heap[0], last = heap[--*n];
	size_t i = 0;
	for (size_t child; (child = 2 * i + 1) < *n; i = child) {
		if (child + 1 < *n && heap[child + 1] < heap[child])
			child++;
		if (last <= heap[child])
			break;
		heap[i] = heap[child];
	}
	heap[i] = last;
	return top;
}

/* Queues the pair that starts at symbol `pos`, if some merge names it. */
static void queue_pair(const tokenizer *t, const bpe_symbol *s, int32_t pos, uint64_t *heap, size_t *heap_size)
{
	uint32_t rank = rank_of(t, s[pos].id, s[s[pos].next].id);
	if (rank != UINT32_MAX)
		heap_push(heap, heap_size, (uint64_t)rank << 32 | (uint32_t)pos);
}

static void merge_symbols(const tokenizer *t, bpe_symbol *s, size_t n, uint64_t *heap)
{
	size_t heap_size = 0;
	for (size_t i = 0; i + 1 < n; i++)
		queue_pair(t, s, (int32_t)i, heap, &heap_size);
	while (heap_size) {
		uint64_t top = heap_pop(heap, &heap_size);
		int32_t pos = (int32_t)(uint32_t)top, right = s[pos].next;
		int32_t token = t->merged[top >> 32];
		if (s[pos].id < 0 || right < 0)
			continue;
		uint32_t rank = rank_of(t, s[pos].id, s[right].id);
		if (rank == UINT32_MAX || t->merged[rank] != token)
			continue; /* expired: a neighbour was merged in the meantime */
		s[pos].id = token;
		s[pos].next = s[right].next;
		s[right].id = -1;
		if (s[pos].next >= 0) {
			s[s[pos].next].prev = pos;
			queue_pair(t, s, pos, heap, &heap_size);
		}
		if (s[pos].prev >= 0)
			queue_pair(t, s, s[pos].prev, heap, &heap_size);
	}
}

/* One symbol per byte; a byte the vocabulary lacks becomes unk, one for a whole run with fuse_unk, or nothing. */
static size_t split_bytes(const tokenizer *t, bool lead_space, const char *text, size_t len, bpe_symbol *s)
{
	size_t n = 0;
	bool after_unk = false;
	for (size_t i = 0; i < len + lead_space; i++) {
		unsigned char b = lead_space ? (i == 0 ? ' ' : (unsigned char)text[i - 1]) : (unsigned char)text[i];
		int32_t id = t->byte_ids[b];
		bool unk = id < 0;
		if (unk)
			id = t->unk_id;
		if (id < 0 || (unk && after_unk && t->fuse_unk))
			continue;
		after_unk = unk;
		s[n] = (bpe_symbol){.id = id, .prev = (int32_t)n - 1, .next = (int32_t)n + 1};
		n++;
	}
	if (n)
		s[n - 1].next = -1;
	return n;
}

static wn_code grow_scratch(bpe_scratch *scratch, size_t n, wn_error *err)
{
	if (n <= scratch->big_cap)
		return WN_OK;
	free(scratch->big);
	scratch->big_cap = 0;
	scratch->big = malloc(n * (sizeof(bpe_symbol) + 2 * sizeof(uint64_t)));
	if (!scratch->big)
		return wn_fail(err, WN_NOMEM, "out of memory to encode a word of %zu bytes", n);
	scratch->big_cap = n;
	return WN_OK;
}

/* The vocabulary's id of the whole word, or -1. */
static int32_t whole_word(const tokenizer *t, bool lead_space, const char *s, size_t len)
{
	char spelled[TOKENIZER_MAX_TOKEN_BYTES + 2];
	size_t at = 0;
	if (lead_space)
		at += (size_t)byte_to_utf8(' ', spelled);
	for (size_t i = 0; i < len; i++) {
		if (at > TOKENIZER_MAX_TOKEN_BYTES)
			return -1; /* longer than any entry */
		at += (size_t)byte_to_utf8((unsigned char)s[i], spelled + at);
	}
	uint32_t entry = intern_find(&t->strings, spelled, at);
	return entry < t->num_vocab ? t->entry_id[entry] : -1;
}

wn_code bpe_encode_word(const tokenizer *t, bool lead_space, const char *s, size_t len, bpe_scratch *scratch, id_sink *out,
                        wn_error *err)
{
	bpe_symbol *symbols = scratch->small_symbols;
	uint64_t *heap = scratch->small_heap;
	if (t->ignore_merges) {
		int32_t id = whole_word(t, lead_space, s, len);
		if (id >= 0) {
			id_sink_put(out, id);
			return WN_OK;
		}
	}
	size_t n = len + lead_space;
	if (n > BPE_SMALL) {
		wn_code rc = grow_scratch(scratch, n, err);
		if (rc != WN_OK)
			return rc;
		heap = scratch->big;
		symbols = (bpe_symbol *)(heap + 2 * scratch->big_cap);
	}
	n = split_bytes(t, lead_space, s, len, symbols);
	merge_symbols(t, symbols, n, heap);
	for (int32_t i = 0; n && i >= 0; i = symbols[i].next)
		id_sink_put(out, symbols[i].id);
	return WN_OK;
}
