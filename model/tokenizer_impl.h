/* tokenizer_impl.h: what a loaded tokenizer is made of; shared by tokenizer.c (encode, decode), tokenizer_json.c (load) and
 * bpe.c (merges), nobody else. Everything is written while loading and read-only afterwards. */
#ifndef WINNOW_MODEL_TOKENIZER_IMPL_H
#define WINNOW_MODEL_TOKENIZER_IMPL_H

#include "model/intern.h"
#include "model/tokenizer.h"

/* Limits of a tokenizer.json and of a text. The largest published vocabularies stay below a quarter of them. */
#define TOKENIZER_MAX_JSON (32u << 20)     /* bytes of the file */
#define TOKENIZER_MAX_ID ((1 << 21) - 1)   /* an id indexes arrays */
#define TOKENIZER_MAX_MERGES (1u << 22)
#define TOKENIZER_MAX_TOKEN_BYTES 4096     /* of a vocabulary entry as written in the file */
#define TOKENIZER_MAX_ADDED_BYTES 512      /* of an added token: bounds the look-ahead of matching */
#define TOKENIZER_MAX_ADDED 65536
#define TOKENIZER_MAX_SPECIAL_IDS 64       /* a post_processor puts at most so many on either side */

/* 64-bit key -> 32-bit value, open addressing, at most half full. */
typedef struct pair_map {
	uint64_t *keys; /* [num_slots], PAIR_NONE when free */
	uint32_t *values;
	size_t num_slots, count;
} pair_map;
#define PAIR_NONE UINT64_MAX

wn_code pair_map_put(pair_map *m, uint64_t key, uint32_t value, wn_error *err); /* a known key gets the new value */
/* The value, or UINT32_MAX. */
uint32_t pair_map_get(const pair_map *m, uint64_t key);
void pair_map_free(pair_map *m);

typedef struct added_token {
	uint32_t entry; /* its content in tokenizer.strings */
	int32_t id;
	bool single_word, lstrip, rstrip, normalized;
} added_token;

/* Byte trie over the contents of some added tokens. */
typedef struct added_trie {
	pair_map edges;      /* node << 8 | byte -> node; node 0 is the root */
	uint32_t *node_token; /* [num_nodes] index into tokenizer.added, or UINT32_MAX */
	uint32_t num_nodes, nodes_cap;
	bool first[256]; /* bytes that start a token */
} added_trie;

struct tokenizer {
	intern strings;           /* token contents: the model's vocabulary, then added tokens outside it */
	uint32_t num_vocab;       /* entries [0, num_vocab) of strings are the model's */
	int32_t *entry_id;        /* [strings.count] */
	uint32_t *id_entry;       /* [num_ids] INTERN_NONE where no token has the id */
	size_t num_ids;           /* highest id + 1 */
	char *decoded;            /* the bytes each id decodes to, joined */
	uint32_t *decoded_starts; /* [num_ids + 1] */

	/* model */
	pair_map ranks;        /* left id << 32 | right id -> rank */
	int32_t *merged;       /* [rank] the id a merge makes */
	int32_t byte_ids[256]; /* the id of a byte's character, -1 when the vocabulary has none */
	int32_t unk_id;        /* stands for a byte without id; -1: such a byte vanishes */
	bool fuse_unk;
	bool ignore_merges; /* a word that is a vocabulary entry is that token, whatever the merges say */

	/* pre_tokenizer */
	bool add_prefix_space, use_regex;

	/* added tokens: pass 0 matches those with normalized = false, pass 1 the others in what is left */
	added_token *added;
	size_t num_added;
	added_trie tries[2];

	/* post_processor */
	int32_t prefix[TOKENIZER_MAX_SPECIAL_IDS], suffix[TOKENIZER_MAX_SPECIAL_IDS];
	size_t num_prefix, num_suffix;
};

/* tokenizer_json.c: fills a zeroed tokenizer; what it allocated before an error is the caller's to free. */
wn_code tokenizer_load_json(tokenizer *t, const char *json, size_t len, wn_error *err);

/* Where encode puts ids: the first `max` are kept, all are counted. */
typedef struct id_sink {
	int32_t *ids;
	size_t max, count;
} id_sink;

static inline void id_sink_put(id_sink *sink, int32_t id)
{
	if (sink->count < sink->max)
		sink->ids[sink->count] = id;
	sink->count++;
}

/* Symbols of one word during merging. Words up to BPE_SMALL bytes need no allocation; longer ones grow `big`, which
 * lasts for one encode call. */
#define BPE_SMALL 256
typedef struct bpe_symbol {
	int32_t id; /* -1: merged into the symbol on its left */
	int32_t prev, next;
} bpe_symbol;
typedef struct bpe_scratch {
	bpe_symbol small_symbols[BPE_SMALL];
	uint64_t small_heap[2 * BPE_SMALL];
	void *big;
	size_t big_cap; /* symbols that fit in big */
} bpe_scratch;

/* bpe.c: the tokens of one word, " " + s[0..len) with lead_space. WN_NOMEM only. */
wn_code bpe_encode_word(const tokenizer *t, bool lead_space, const char *s, size_t len, bpe_scratch *scratch, id_sink *out,
                        wn_error *err);

#endif
