/* bpe_train.c: byte-level BPE training, the same merges in the same order as `tokenizers` BpeTrainer.
 *
 * Words are counted once; then the most frequent pair of symbols is merged in every word that holds it, over and over.
 * A heap keeps the candidate pairs with the words they were seen in; counts go stale while a candidate waits and are
 * refreshed when it surfaces. To be exact where it shows, three habits of the original are kept:
 *  - equal counts: the pair with the smaller ids goes first;
 *  - the count of a merged pair stays behind in the table, and a pair that forms again later (two pairs that spell the
 *    same token share its id) starts from it; such a pair may wait in the heap twice and be merged twice;
 *  - counts are 32-bit.
 * Of a pair merged twice only the later merge is written, since the original keeps merges in a map.
 * (None of 3,000 random corpora made to provoke such a pair had one; the code for it is kept because it is what the
 * original does, not because it was seen to matter.)
 * Single-threaded; all state belongs to one call. Cost: O(total symbols touched by merges), not O(merges x corpus). */
#include "model/bpe_write.h"

#include <stdlib.h>
#include <string.h>

#include "model/pretokenize.h"

#define MAX_VOCAB (UINT32_C(1) << 20)
#define MAX_CORPUS_BYTES INT32_MAX /* keeps every count inside 32 bits */
#define NO_PENDING UINT32_MAX

/* Numbers of the words that hold a pair, each once. */
typedef struct word_list {
	uint32_t *items;
	uint32_t count, cap;
} word_list;

typedef struct pair_slot {
	uint64_t pair; /* left << 32 | right; EMPTY_PAIR when free */
	int32_t count;
	uint32_t pending; /* index into trainer.pending, or NO_PENDING */
} pair_slot;
#define EMPTY_PAIR UINT64_MAX

/* A pair that gained words since the heap was last fed. */
typedef struct candidate {
	uint64_t pair;
	uint64_t count; /* what the pair's count was when this entered the heap */
	word_list words;
} candidate;

typedef struct trainer {
	intern vocab; /* entry = id */
	intern words;
	uint64_t *word_counts; /* [words.count] */
	size_t word_counts_cap;
	uint32_t *symbols;    /* every word's symbols, one after the other */
	size_t *word_starts;  /* [words.count] into symbols */
	uint32_t *word_sizes; /* [words.count] symbols left in the word */
	pair_slot *pairs;
	size_t num_slots, num_pairs;
	candidate *pending, *heap;
	size_t num_pending, pending_cap, heap_size, heap_cap;
	bpe_pair *merges;
	size_t num_merges, merges_cap;
	char *text; /* scratch for the spelling of a new token */
	size_t text_cap;
} trainer;

static wn_code out_of_memory(wn_error *err) { return wn_fail(err, WN_NOMEM, "out of memory while training the tokenizer"); }

/* Makes room for one more item of `size` bytes; *items may move. */
static bool reserve(void **items, size_t count, size_t *cap, size_t size)
{
	if (count < *cap)
		return true;
	size_t n = *cap ? *cap * 2 : 64;
	if (n > SIZE_MAX / size)
		return false;
	void *p = realloc(*items, n * size);
	if (!p)
		return false;
	*items = p;
	*cap = n;
	return true;
}

static bool word_list_add(word_list *l, uint32_t word)
{
	if (l->count && l->items[l->count - 1] == word)
		return true; /* words come in order, so a repeat is always the last one */
	if (l->count == l->cap) {
		uint32_t cap = l->cap ? l->cap * 2 : 4;
		uint32_t *items = realloc(l->items, (size_t)cap * sizeof *items);
		if (!items)
			return false;
		l->items = items;
		l->cap = cap;
	}
	l->items[l->count++] = word;
	return true;
}

static size_t find_pair(const trainer *t, uint64_t pair)
{
	size_t mask = t->num_slots - 1, i = (size_t)(pair * UINT64_C(0x9e3779b97f4a7c15) >> 20) & mask;
	while (t->pairs[i].pair != pair && t->pairs[i].pair != EMPTY_PAIR)
		i = (i + 1) & mask;
	return i;
}

static pair_slot *get_pair(trainer *t, uint64_t pair)
{
	if (t->num_pairs >= t->num_slots / 2) {
		size_t old_n = t->num_slots, n = old_n ? old_n * 2 : 4096;
		pair_slot *old = t->pairs, *slots = malloc(n * sizeof *slots);
		if (!slots)
			return NULL;
		for (size_t i = 0; i < n; i++)
			slots[i].pair = EMPTY_PAIR;
		t->pairs = slots;
		t->num_slots = n;
		for (size_t i = 0; i < old_n; i++)
			if (old[i].pair != EMPTY_PAIR)
				slots[find_pair(t, old[i].pair)] = old[i];
		free(old);
	}
	pair_slot *s = &t->pairs[find_pair(t, pair)];
	if (s->pair == EMPTY_PAIR) {
		*s = (pair_slot){.pair = pair, .pending = NO_PENDING};
		t->num_pairs++;
	}
	return s;
}

/* The pair's count changes by `change` in word `word`; a gain also puts the word on the pair's pending list. */
static bool change_pair(trainer *t, uint32_t left, uint32_t right, int change, uint32_t word)
{
	pair_slot *s = get_pair(t, (uint64_t)left << 32 | right);
	if (!s)
		return false;
	uint32_t by = (uint32_t)t->word_counts[word];
	s->count = (int32_t)((uint32_t)s->count + (change > 0 ? by : 0 - by));
	if (change < 0)
		return true;
	if (s->pending == NO_PENDING) {
		if (!reserve((void **)&t->pending, t->num_pending, &t->pending_cap, sizeof *t->pending))
			return false;
		s->pending = (uint32_t)t->num_pending;
		t->pending[t->num_pending++] = (candidate){.pair = s->pair};
	}
	return word_list_add(&t->pending[s->pending].words, word);
}

/* True when a is to be merged before b. */
static bool before(const candidate *a, const candidate *b)
{
	return a->count != b->count ? a->count > b->count : a->pair < b->pair;
}

static bool heap_push(trainer *t, candidate c)
{
	if (!reserve((void **)&t->heap, t->heap_size, &t->heap_cap, sizeof *t->heap))
		return false;
	size_t i = t->heap_size++;
	for (; i > 0 && before(&c, &t->heap[(i - 1) / 2]); i = (i - 1) / 2)
		t->heap[i] = t->heap[(i - 1) / 2];
	t->heap[i] = c;
	return true;
}

/* The heap must not be empty. */
static candidate heap_pop(trainer *t)
{
	candidate top = t->heap[0], last = t->heap[--t->heap_size];
	size_t i = 0;
	for (size_t child; (child = 2 * i + 1) < t->heap_size; i = child) {
		if (child + 1 < t->heap_size && before(&t->heap[child + 1], &t->heap[child]))
			child++;
		if (!before(&t->heap[child], &last))
			break;
		t->heap[i] = t->heap[child];
	}
	if (t->heap_size)
		t->heap[i] = last;
	return top;
}

/* Moves the pending pairs that still occur into the heap. On failure the rest stays pending, to be freed there. */
static bool flush_pending(trainer *t)
{
	while (t->num_pending) {
		candidate *c = &t->pending[t->num_pending - 1];
		pair_slot *s = &t->pairs[find_pair(t, c->pair)];
		c->count = (uint64_t)(int64_t)s->count;
		if (s->count > 0) {
			if (!heap_push(t, *c))
				return false;
		} else {
			free(c->words.items);
		}
		s->pending = NO_PENDING;
		t->num_pending--;
	}
	return true;
}

static wn_code count_words(trainer *t, const char *const *texts, size_t n, wn_error *err)
{
	size_t total = 0;
	for (size_t i = 0; i < n; i++) {
		const char *s = texts[i];
		size_t len = strlen(s), bad = utf8_valid_prefix(s, len);
		if (bad < len)
			return wn_fail(err, WN_INVALID, "training text %zu: invalid UTF-8 at byte %zu", i, bad);
		if (len > (size_t)MAX_CORPUS_BYTES - total)
			return wn_fail(err, WN_TOO_LARGE, "training texts: more than %d bytes in all", MAX_CORPUS_BYTES);
		total += len;
		for (size_t start = 0, end; start < len; start = end) {
			end = pretokenize_next(s, len, start, false);
			uint32_t word, known = t->words.count;
			wn_code rc = intern_add(&t->words, s + start, end - start, &word, err);
			if (rc != WN_OK)
				return rc;
			if (word == known) {
				if (!reserve((void **)&t->word_counts, word, &t->word_counts_cap, sizeof *t->word_counts))
					return out_of_memory(err);
				t->word_counts[word] = 0;
			}
			t->word_counts[word]++;
		}
	}
	return WN_OK;
}

/* Special tokens, then the 256 bytes' characters in code point order. */
static wn_code start_vocab(trainer *t, const bpe_trainer_options *opt, wn_error *err)
{
	uint32_t id;
	wn_code rc;
	for (size_t i = 0; i < opt->num_special_tokens; i++) {
		const char *s = opt->special_tokens[i];
		size_t len = strlen(s);
		if (len == 0 || utf8_valid_prefix(s, len) < len)
			return wn_fail(err, WN_INVALID, "special_tokens[%zu]: %s, expected UTF-8 text", i, len ? "invalid UTF-8" : "empty");
		if (intern_find(&t->vocab, s, len) != INTERN_NONE)
			return wn_fail(err, WN_INVALID, "special_tokens[%zu]: \"%s\" occurs twice", i, s);
		if ((rc = intern_add(&t->vocab, s, len, &id, err)) != WN_OK)
			return rc;
	}
	if (opt->bos_token && intern_find(&t->vocab, opt->bos_token, strlen(opt->bos_token)) == INTERN_NONE)
		return wn_fail(err, WN_INVALID, "bos_token \"%s\" is not one of the special tokens", opt->bos_token);
	for (uint32_t c = 0; c < 0x180; c++) {
		int b = char_to_byte(c);
		char utf8[2];
		if (b >= 0 && (rc = intern_add(&t->vocab, utf8, (size_t)byte_to_utf8((unsigned char)b, utf8), &id, err)) != WN_OK)
			return rc;
	}
	if (t->vocab.count > opt->vocab_size)
		return wn_fail(err, WN_INVALID, "vocab_size %zu: expected at least %u for the special tokens and the 256 bytes",
		               opt->vocab_size, t->vocab.count);
	return WN_OK;
}

static wn_code split_words(trainer *t, wn_error *err)
{
	uint32_t byte_ids[256], num_words = t->words.count;
	for (int b = 0; b < 256; b++) {
		char utf8[2];
		byte_ids[b] = intern_find(&t->vocab, utf8, (size_t)byte_to_utf8((unsigned char)b, utf8));
	}
	size_t total = t->words.bytes_used - num_words; /* without the terminators */
	t->symbols = malloc((total + 1) * sizeof *t->symbols);
	t->word_starts = malloc(((size_t)num_words + 1) * sizeof *t->word_starts);
	t->word_sizes = malloc(((size_t)num_words + 1) * sizeof *t->word_sizes);
	if (!t->symbols || !t->word_starts || !t->word_sizes)
		return out_of_memory(err);
	size_t at = 0;
	for (uint32_t w = 0; w < num_words; w++) {
		const char *s = intern_get(&t->words, w);
		size_t len = intern_len(&t->words, w);
		t->word_starts[w] = at;
		t->word_sizes[w] = (uint32_t)len;
		for (size_t i = 0; i < len; i++)
			t->symbols[at++] = byte_ids[(unsigned char)s[i]];
		for (size_t i = 0; i + 1 < len; i++)
			if (!change_pair(t, t->symbols[at - len + i], t->symbols[at - len + i + 1], 1, w))
				return out_of_memory(err);
	}
	return flush_pending(t) ? WN_OK : out_of_memory(err);
}

/* Replaces left,right by `token` in one word, from the left, counting the neighbours' pairs as they are at that moment. */
static bool merge_in_word(trainer *t, uint32_t word, uint32_t left, uint32_t right, uint32_t token)
{
	uint32_t *s = t->symbols + t->word_starts[word];
	uint32_t n = t->word_sizes[word], out = 0;
	for (uint32_t i = 0; i < n; out++) {
		if (i + 1 >= n || s[i] != left || s[i + 1] != right) {
			s[out] = s[i++];
			continue;
		}
		i += 2;
		if (out > 0 && (!change_pair(t, s[out - 1], left, -1, word) || !change_pair(t, s[out - 1], token, 1, word)))
			return false;
		if (i < n && (!change_pair(t, right, s[i], -1, word) || !change_pair(t, token, s[i], 1, word)))
			return false;
		s[out] = token;
	}
	t->word_sizes[word] = out;
	return true;
}

/* Gives the pair's spelling an id (an existing one when it is a known token) and merges it everywhere. */
static wn_code merge_pair(trainer *t, const candidate *c, wn_error *err)
{
	uint32_t left = (uint32_t)(c->pair >> 32), right = (uint32_t)c->pair, token;
	size_t a = intern_len(&t->vocab, left), b = intern_len(&t->vocab, right);
	if (a + b > t->text_cap) {
		char *text = realloc(t->text, 2 * (a + b));
		if (!text)
			return out_of_memory(err);
		t->text = text;
		t->text_cap = 2 * (a + b);
	}
	memcpy(t->text, intern_get(&t->vocab, left), a);
	memcpy(t->text + a, intern_get(&t->vocab, right), b);
	wn_code rc = intern_add(&t->vocab, t->text, a + b, &token, err);
	if (rc != WN_OK)
		return rc;
	if (!reserve((void **)&t->merges, t->num_merges, &t->merges_cap, sizeof *t->merges))
		return out_of_memory(err);
	t->merges[t->num_merges++] = (bpe_pair){left, right};
	for (uint32_t i = 0; i < c->words.count; i++)
		if (!merge_in_word(t, c->words.items[i], left, right, token))
			return out_of_memory(err);
	return flush_pending(t) ? WN_OK : out_of_memory(err);
}

static wn_code merge_loop(trainer *t, size_t vocab_size, uint64_t min_frequency, wn_error *err)
{
	while (t->vocab.count < vocab_size && t->heap_size) {
		candidate top = heap_pop(t);
		uint64_t count = (uint64_t)(int64_t)t->pairs[find_pair(t, top.pair)].count;
		if (top.count != count) {
			top.count = count;
			if (!heap_push(t, top)) {
				free(top.words.items);
				return out_of_memory(err);
			}
			continue;
		}
		bool done = count < 1 || count < min_frequency;
		wn_code rc = done ? WN_OK : merge_pair(t, &top, err);
		free(top.words.items);
		if (rc != WN_OK || done)
			return rc;
	}
	return WN_OK;
}

/* Keeps the last merge of every pair. The pending index of a slot, free by now, marks the pairs already seen. */
static void drop_repeated_merges(trainer *t)
{
	size_t to = t->num_merges;
	for (size_t i = t->num_merges; i-- > 0;) {
		pair_slot *s = &t->pairs[find_pair(t, (uint64_t)t->merges[i].left << 32 | t->merges[i].right)];
		if (s->pending == NO_PENDING) {
			s->pending = 0;
			t->merges[--to] = t->merges[i];
		}
	}
	if (to > 0)
		memmove(t->merges, t->merges + to, (t->num_merges - to) * sizeof *t->merges);
	t->num_merges -= to;
}

static void trainer_free(trainer *t)
{
	for (size_t i = 0; i < t->heap_size; i++)
		free(t->heap[i].words.items);
	for (size_t i = 0; i < t->num_pending; i++)
		free(t->pending[i].words.items);
	intern_free(&t->vocab);
	intern_free(&t->words);
	free(t->word_counts);
	free(t->symbols);
	free(t->word_starts);
	free(t->word_sizes);
	free(t->pairs);
	free(t->pending);
	free(t->heap);
	free(t->merges);
	free(t->text);
}

wn_code bpe_train(const char *path, const char *const *texts, size_t n, const bpe_trainer_options *opt, wn_error *err)
{
	trainer t = {0};
	wn_code rc;
	if (opt->vocab_size > MAX_VOCAB)
		return wn_fail(err, WN_TOO_LARGE, "vocab_size %zu: expected at most %u", opt->vocab_size, MAX_VOCAB);
	if ((rc = start_vocab(&t, opt, err)) != WN_OK || (rc = count_words(&t, texts, n, err)) != WN_OK ||
	    (rc = split_words(&t, err)) != WN_OK ||
	    (rc = merge_loop(&t, opt->vocab_size, opt->min_frequency ? opt->min_frequency : 2, err)) != WN_OK)
		goto out;
	drop_repeated_merges(&t);
	rc = bpe_write_json(path, &t.vocab, t.merges, t.num_merges, opt, err);
out:
	trainer_free(&t);
	return rc;
}
