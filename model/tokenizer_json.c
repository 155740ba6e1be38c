/* tokenizer_json.c: a tokenizer.json (Hugging Face `tokenizers` 1.0 format) into a tokenizer.
 *
 * Only the byte-level BPE family is run. Every part that would change ids is either honoured or refused with the key's
 * name: normalizer (null only), pre_tokenizer (ByteLevel), model options (dropout, prefixes, suffixes, byte_fallback
 * refused; unk_token, fuse_unk, ignore_merges honoured), post_processor (ByteLevel, TemplateProcessing with one $A,
 * RobertaProcessing, BertProcessing, Sequences of them), decoder (ByteLevel). truncation and padding are ignored, as
 * transformers overrides both on every call; callers limit lengths themselves. Where `tokenizers` would silently renumber
 * added tokens or let one id stand for two, the file is refused. */
#include <stdlib.h>
#include <string.h>

#include "base/json_text.h"
#include "model/pretokenize.h"
#include "model/tokenizer_impl.h"

static const char *type_name(const json_t *v)
{
	static const char *const names[] = {"object", "array", "string", "integer", "real", "true", "false", "null"};
	return v ? names[json_typeof(v)] : "nothing";
}

/* parent[key] as an object; key names it in errors. */
static wn_code get_object(const json_t *parent, const char *key, const json_t **out, wn_error *err)
{
	*out = json_object_get(parent, key);
	if (!*out)
		return wn_fail(err, WN_NOT_FOUND, "%s: missing, expected an object", key);
	if (!json_is_object(*out))
		return wn_fail(err, WN_INVALID, "%s: found %s, expected an object", key, type_name(*out));
	return WN_OK;
}

/* A boolean; absent counts as `fallback`, or is an error when that is negative. `where` is the object's name. */
static wn_code get_bool(const json_t *o, const char *where, const char *key, int fallback, bool *out, wn_error *err)
{
	const json_t *v = json_object_get(o, key);
	if (!v && fallback >= 0) {
		*out = fallback;
		return WN_OK;
	}
	if (!json_is_boolean(v))
		return wn_fail(err, WN_INVALID, "%s.%s: found %s, expected true or false", where, key, type_name(v));
	*out = json_is_true(v);
	return WN_OK;
}

static const char *type_of(const json_t *o)
{
	const char *type = json_string_value(json_object_get(o, "type"));
	return type ? type : "(no type)";
}

static wn_code check_id(const json_t *v, const char *where, const char *token, int32_t *id, wn_error *err)
{
	if (!json_is_integer(v))
		return wn_fail(err, WN_INVALID, "%s: the id of \"%.80s\" is %s, expected an integer", where, token, type_name(v));
	json_int_t n = json_integer_value(v);
	if (n < 0 || n > TOKENIZER_MAX_ID)
		return wn_fail(err, n < 0 ? WN_INVALID : WN_TOO_LARGE,
		               "%s: \"%.80s\" has id %lld, expected 0 to %d", where, token, (long long)n, TOKENIZER_MAX_ID);
	*id = (int32_t)n;
	return WN_OK;
}

/* Gives the last entry of strings its id; ids are dense enough that id_entry may be a plain array. */
static wn_code set_id(tokenizer *t, uint32_t entry, int32_t id, const char *where, wn_error *err)
{
	size_t need = (size_t)id + 1;
	if (need > t->num_ids) {
		uint32_t *p = realloc(t->id_entry, (need > 2 * t->num_ids ? need : 2 * t->num_ids) * sizeof *p);
		if (!p)
			return wn_fail(err, WN_NOMEM, "out of memory for %zu ids", need);
		t->id_entry = p;
		while (t->num_ids < need)
			p[t->num_ids++] = INTERN_NONE;
	}
	if (t->id_entry[id] != INTERN_NONE)
		return wn_fail(err, WN_INVALID, "%s: id %d belongs to both \"%.80s\" and \"%.80s\"", where, id,
		               intern_get(&t->strings, t->id_entry[id]), intern_get(&t->strings, entry));
	t->id_entry[id] = entry;
	t->entry_id[entry] = id;
	return WN_OK;
}

static wn_code load_vocab(tokenizer *t, const json_t *model, size_t num_added, wn_error *err)
{
	const json_t *vocab;
	const char *key;
	json_t *v;
	wn_code rc = get_object(model, "vocab", &vocab, err);
	if (rc != WN_OK)
		return wn_fail_prefix(err, "model");
	size_t n = json_object_size(vocab);
	if (n == 0 || n > TOKENIZER_MAX_ID)
		return wn_fail(err, n ? WN_TOO_LARGE : WN_INVALID, "model.vocab: %zu entries, expected 1 to %d", n, TOKENIZER_MAX_ID);
	t->entry_id = malloc((n + num_added) * sizeof *t->entry_id);
	if (!t->entry_id)
		return wn_fail(err, WN_NOMEM, "out of memory for %zu tokens", n);
	json_object_foreach((json_t *)vocab, key, v)
	{
		int32_t id = 0;
		uint32_t entry;
		size_t len = strlen(key);
		if (len > TOKENIZER_MAX_TOKEN_BYTES)
			return wn_fail(err, WN_TOO_LARGE, "model.vocab: a token of %zu bytes (\"%.40s...\"), expected at most %d", len, key,
			               TOKENIZER_MAX_TOKEN_BYTES);
		if ((rc = check_id(v, "model.vocab", key, &id, err)) != WN_OK ||
		    (rc = intern_add(&t->strings, key, len, &entry, err)) != WN_OK ||
		    (rc = set_id(t, entry, id, "model.vocab", err)) != WN_OK)
			return rc;
	}
	t->num_vocab = t->strings.count;
	return WN_OK;
}

static int32_t vocab_id(const tokenizer *t, const char *s, size_t len)
{
	uint32_t entry = intern_find(&t->strings, s, len);
	return entry < t->num_vocab ? t->entry_id[entry] : -1;
}

/* The two halves of merges[i], written "a b" or ["a", "b"]. */
static wn_code split_merge(const json_t *m, size_t i, const char *part[2], size_t len[2], wn_error *err)
{
	if (json_is_string(m)) {
		const char *s = json_string_value(m), *space = strchr(s, ' ');
		if (!space || strchr(space + 1, ' '))
			return wn_fail(err, WN_INVALID, "model.merges[%zu]: \"%.80s\", expected two tokens with one space between", i, s);
		part[0] = s;
		len[0] = (size_t)(space - s);
		part[1] = space + 1;
		len[1] = strlen(space + 1);
		return WN_OK;
	}
	if (json_array_size(m) != 2)
		return wn_fail(err, WN_INVALID, "model.merges[%zu]: found an array of %zu, expected two tokens", i, json_array_size(m));
	for (size_t k = 0; k < 2; k++) {
		const json_t *v = json_array_get(m, k);
		if (!json_is_string(v))
			return wn_fail(err, WN_INVALID, "model.merges[%zu][%zu]: found %s, expected a string", i, k, type_name(v));
		part[k] = json_string_value(v);
		len[k] = json_string_length(v);
	}
	return WN_OK;
}

static wn_code add_merge(tokenizer *t, const json_t *m, size_t i, uint32_t rank, wn_error *err)
{
	const char *part[2];
	size_t len[2];
	int32_t id[2];
	char joined[2 * TOKENIZER_MAX_TOKEN_BYTES];
	wn_code rc = split_merge(m, i, part, len, err);
	if (rc != WN_OK)
		return rc;
	for (size_t k = 0; k < 2; k++)
		if ((id[k] = vocab_id(t, part[k], len[k])) < 0)
			return wn_fail(err, WN_INVALID, "model.merges[%zu]: \"%.*s\" is not in model.vocab", i,
			               (int)(len[k] < 80 ? len[k] : 80), part[k]);
	memcpy(joined, part[0], len[0]); /* in the vocabulary, so short enough */
	memcpy(joined + len[0], part[1], len[1]);
	if ((t->merged[rank] = vocab_id(t, joined, len[0] + len[1])) < 0)
		return wn_fail(err, WN_INVALID, "model.merges[%zu]: the result \"%.*s\" is not in model.vocab", i,
		               (int)(len[0] + len[1] < 80 ? len[0] + len[1] : 80), joined);
	/* A pair listed twice has the later rank, as in the library's map. */
	return pair_map_put(&t->ranks, (uint64_t)(uint32_t)id[0] << 32 | (uint32_t)id[1], rank, err);
}

static wn_code load_merges(tokenizer *t, const json_t *model, wn_error *err)
{
	const json_t *merges = json_object_get(model, "merges"), *m;
	if (!json_is_array(merges))
		return wn_fail(err, merges ? WN_INVALID : WN_NOT_FOUND, "model.merges: found %s, expected an array", type_name(merges));
	size_t n = json_array_size(merges), i;
	uint32_t rank = 0;
	if (n > TOKENIZER_MAX_MERGES)
		return wn_fail(err, WN_TOO_LARGE, "model.merges: %zu entries, expected at most %u", n, TOKENIZER_MAX_MERGES);
	t->merged = malloc((n + 1) * sizeof *t->merged);
	if (!t->merged)
		return wn_fail(err, WN_NOMEM, "out of memory for %zu merges", n);
	int form = n ? json_typeof(json_array_get(merges, 0)) : JSON_STRING;
	json_array_foreach((json_t *)merges, i, m)
	{
		if ((int)json_typeof(m) != form || (form != JSON_STRING && form != JSON_ARRAY))
			return wn_fail(err, WN_INVALID, "model.merges[%zu]: found %s, expected all \"a b\" or all [\"a\", \"b\"]", i,
			               type_name(m));
		if (form == JSON_STRING && strncmp(json_string_value(m), "#version", 8) == 0)
			continue; /* a header line carried over from merges.txt */
		wn_code rc = add_merge(t, m, i, rank++, err);
		if (rc != WN_OK)
			return rc;
	}
	return WN_OK;
}

/* Model options that we do not run must have the value that makes them void. */
static wn_code check_model_options(const json_t *model, wn_error *err)
{
	static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
	const json_t *type = json_object_get(model, "type"), *dropout = json_object_get(model, "dropout");
	bool byte_fallback = false;
	if (type && (!json_is_string(type) || strcmp(json_string_value(type), "BPE") != 0)) /* absent in files before 0.9 */
		return wn_fail(err, WN_UNSUPPORTED, "model.type: found %s, expected BPE",
		               json_is_string(type) ? json_string_value(type) : type_name(type));
	if (dropout && !json_is_null(dropout) && !(json_is_number(dropout) && json_number_value(dropout) == 0))
		return wn_fail(err, WN_UNSUPPORTED, "model.dropout: expected null or 0, encoding must be repeatable");
	for (size_t i = 0; i < 2; i++) {
		const json_t *v = json_object_get(model, affixes[i]);
		if (v && !json_is_null(v) && !(json_is_string(v) && json_string_length(v) == 0))
			return wn_fail(err, WN_UNSUPPORTED, "model.%s: found \"%.40s\", expected null or \"\"", affixes[i],
			               json_is_string(v) ? json_string_value(v) : type_name(v));
	}
	wn_code rc = get_bool(model, "model", "byte_fallback", false, &byte_fallback, err);
	if (rc == WN_OK && byte_fallback)
		return wn_fail(err, WN_UNSUPPORTED, "model.byte_fallback: found true, expected false");
	return rc;
}

static wn_code load_model(tokenizer *t, const json_t *root, size_t num_added, wn_error *err)
{
	const json_t *model, *unk;
	int missing = -1;
	wn_code rc;
	if ((rc = get_object(root, "model", &model, err)) != WN_OK || (rc = check_model_options(model, err)) != WN_OK ||
	    (rc = get_bool(model, "model", "fuse_unk", false, &t->fuse_unk, err)) != WN_OK ||
	    (rc = get_bool(model, "model", "ignore_merges", false, &t->ignore_merges, err)) != WN_OK ||
	    (rc = load_vocab(t, model, num_added, err)) != WN_OK || (rc = load_merges(t, model, err)) != WN_OK)
		return rc;
	for (int b = 0; b < 256; b++) {
		char utf8[2];
		t->byte_ids[b] = vocab_id(t, utf8, (size_t)byte_to_utf8((unsigned char)b, utf8));
		if (t->byte_ids[b] < 0)
			missing = b;
	}
	unk = json_object_get(model, "unk_token");
	t->unk_id = -1;
	if (unk && !json_is_null(unk)) {
		if (!json_is_string(unk))
			return wn_fail(err, WN_INVALID, "model.unk_token: found %s, expected a string or null", type_name(unk));
		t->unk_id = vocab_id(t, json_string_value(unk), json_string_length(unk));
		if (t->unk_id < 0 && missing >= 0) /* with all bytes present it is never used: GPT-2 files leave it "" */
			return wn_fail(err, WN_INVALID, "model.unk_token: \"%.80s\" is not in model.vocab, and neither is byte 0x%02x",
			               json_string_value(unk), missing);
	}
	return WN_OK;
}

static wn_code load_pre_tokenizer(tokenizer *t, const json_t *root, wn_error *err)
{
	const json_t *pre;
	wn_code rc;
	if ((rc = get_object(root, "pre_tokenizer", &pre, err)) != WN_OK)
		return rc;
	if (strcmp(type_of(pre), "ByteLevel") != 0)
		return wn_fail(err, WN_UNSUPPORTED, "pre_tokenizer.type: found %.40s, expected ByteLevel", type_of(pre));
	if ((rc = get_bool(pre, "pre_tokenizer", "add_prefix_space", -1, &t->add_prefix_space, err)) != WN_OK)
		return rc;
	return get_bool(pre, "pre_tokenizer", "use_regex", true, &t->use_regex, err);
}

/* A new node of the trie; node 0 is the root. */
static wn_code trie_node(added_trie *trie, wn_error *err)
{
	if (trie->num_nodes == trie->nodes_cap) {
		uint32_t cap = trie->nodes_cap ? trie->nodes_cap * 2 : 64;
		uint32_t *p = realloc(trie->node_token, cap * sizeof *p);
		if (!p)
			return wn_fail(err, WN_NOMEM, "out of memory for the added tokens");
		trie->node_token = p;
		trie->nodes_cap = cap;
	}
	trie->node_token[trie->num_nodes++] = UINT32_MAX;
	return WN_OK;
}

static wn_code trie_add(added_trie *trie, const char *s, uint32_t token, wn_error *err)
{
	wn_code rc = WN_OK;
	uint32_t node = 0;
	if (trie->num_nodes == 0 && (rc = trie_node(trie, err)) != WN_OK)
		return rc;
	trie->first[(unsigned char)s[0]] = true;
	for (; *s; s++) {
		uint64_t edge = (uint64_t)node << 8 | (unsigned char)*s;
		node = pair_map_get(&trie->edges, edge);
		if (node == UINT32_MAX) {
			node = trie->num_nodes;
			if ((rc = trie_node(trie, err)) != WN_OK || (rc = pair_map_put(&trie->edges, edge, node, err)) != WN_OK)
				return rc;
		}
	}
	trie->node_token[node] = token;
	return WN_OK;
}

/* added_tokens[i]. *next_id is what `tokenizers` would give to a token outside the vocabulary, whatever the file says. */
static wn_code load_added_token(tokenizer *t, const json_t *o, size_t i, int32_t *next_id, wn_error *err)
{
	char where[48];
	int32_t id = 0;
	wn_code rc;
	bool special;
	added_token *a = &t->added[i];
	snprintf(where, sizeof where, "added_tokens[%zu]", i);
	const json_t *content = json_object_get(o, "content");
	if (!json_is_string(content) || json_string_length(content) == 0)
		return wn_fail(err, WN_INVALID, "%s.content: found %s, expected a non-empty string", where, type_name(content));
	const char *s = json_string_value(content);
	size_t len = json_string_length(content);
	if (len > TOKENIZER_MAX_ADDED_BYTES)
		return wn_fail(err, WN_TOO_LARGE, "%s.content: %zu bytes, expected at most %d", where, len, TOKENIZER_MAX_ADDED_BYTES);
	if ((rc = check_id(json_object_get(o, "id"), where, s, &id, err)) != WN_OK ||
	    (rc = get_bool(o, where, "single_word", -1, &a->single_word, err)) != WN_OK ||
	    (rc = get_bool(o, where, "lstrip", -1, &a->lstrip, err)) != WN_OK ||
	    (rc = get_bool(o, where, "rstrip", -1, &a->rstrip, err)) != WN_OK ||
	    (rc = get_bool(o, where, "normalized", -1, &a->normalized, err)) != WN_OK ||
	    (rc = get_bool(o, where, "special", -1, &special, err)) != WN_OK)
		return rc;
	for (size_t k = 0; k < 2; k++) {
		const added_trie *trie = &t->tries[k];
		uint32_t node = trie->num_nodes ? 0 : UINT32_MAX;
		for (const char *p = s; *p && node != UINT32_MAX; p++)
			node = pair_map_get(&trie->edges, (uint64_t)node << 8 | (unsigned char)*p);
		if (node != UINT32_MAX && trie->node_token[node] != UINT32_MAX)
			return wn_fail(err, WN_INVALID, "%s: \"%.80s\" occurs twice", where, s);
	}
	int32_t expected = vocab_id(t, s, len);
	bool known = expected >= 0;
	if (!known)
		expected = (*next_id)++;
	if (id != expected)
		return wn_fail(err, WN_INVALID, "%s: \"%.80s\" has id %d, expected %d (%s)", where, s, id, expected,
		               known ? "its id in model.vocab" : "the next after model.vocab");
	if ((rc = intern_add(&t->strings, s, len, &a->entry, err)) != WN_OK ||
	    (!known && (rc = set_id(t, a->entry, id, where, err)) != WN_OK))
		return rc;
	a->id = id;
	return trie_add(&t->tries[a->normalized], s, (uint32_t)i, err);
}

static wn_code load_added_tokens(tokenizer *t, const json_t *list, wn_error *err)
{
	size_t n = json_array_size(list);
	int32_t next_id = (int32_t)t->num_vocab;
	t->added = calloc(n + 1, sizeof *t->added);
	if (!t->added)
		return wn_fail(err, WN_NOMEM, "out of memory for %zu added tokens", n);
	for (size_t i = 0; i < n; i++) {
		wn_code rc = load_added_token(t, json_array_get(list, i), i, &next_id, err);
		if (rc != WN_OK)
			return rc;
	}
	t->num_added = n;
	return WN_OK;
}

/* Puts `n` ids in front of (or behind) those already there: a later processor of a Sequence wraps the earlier. */
static wn_code add_special_ids(tokenizer *t, const int32_t *ids, size_t n, bool front, wn_error *err)
{
	int32_t *list = front ? t->prefix : t->suffix;
	size_t *count = front ? &t->num_prefix : &t->num_suffix;
	if (n > TOKENIZER_MAX_SPECIAL_IDS - *count)
		return wn_fail(err, WN_TOO_LARGE, "post_processor: more than %d special tokens on one side", TOKENIZER_MAX_SPECIAL_IDS);
	if (front)
		memmove(list + n, list, *count * sizeof *list);
	memcpy(front ? list : list + *count, ids, n * sizeof *ids);
	*count += n;
	return WN_OK;
}

static wn_code check_special_id(const tokenizer *t, const json_t *v, const char *name, int32_t *id, wn_error *err)
{
	wn_code rc = check_id(v, "post_processor", name, id, err);
	if (rc != WN_OK)
		return rc;
	if ((size_t)*id >= t->num_ids || t->id_entry[*id] == INTERN_NONE)
		return wn_fail(err, WN_INVALID, "post_processor: \"%.80s\" has id %d, which no token has", name, *id);
	return WN_OK;
}

/* "cls"/"sep" of RobertaProcessing and BertProcessing: ["</s>", 2]. */
static wn_code load_pair(const tokenizer *t, const json_t *o, const char *key, int32_t *id, wn_error *err)
{
	const json_t *v = json_object_get(o, key), *name = json_array_get(v, 0);
	if (json_array_size(v) != 2 || !json_is_string(name))
		return wn_fail(err, WN_INVALID, "post_processor.%s: expected [\"token\", id]", key);
	return check_special_id(t, json_array_get(v, 1), json_string_value(name), id, err);
}

static wn_code load_template(tokenizer *t, const json_t *o, wn_error *err)
{
	const json_t *single = json_object_get(o, "single"), *specials = json_object_get(o, "special_tokens"), *piece;
	int32_t side[2][TOKENIZER_MAX_SPECIAL_IDS];
	size_t count[2] = {0, 0}, i, sequences = 0;
	if (!json_is_array(single))
		return wn_fail(err, WN_INVALID, "post_processor.single: found %s, expected an array of pieces", type_name(single));
	json_array_foreach((json_t *)single, i, piece)
	{
		const json_t *sequence = json_object_get(piece, "Sequence"), *special = json_object_get(piece, "SpecialToken");
		const char *id = json_string_value(json_object_get(sequence ? sequence : special, "id"));
		if (!id || (sequence && strcmp(id, "A") != 0))
			return wn_fail(err, WN_INVALID, "post_processor.single[%zu]: expected a SpecialToken or the Sequence A", i);
		if (sequence) {
			sequences++;
			continue;
		}
		const json_t *ids = json_object_get(json_object_get(specials, id), "ids"), *v;
		if (!json_is_array(ids))
			return wn_fail(err, WN_INVALID, "post_processor.special_tokens: no ids for \"%.80s\"", id);
		size_t k, s = sequences > 0;
		json_array_foreach((json_t *)ids, k, v)
		{
			if (count[s] == TOKENIZER_MAX_SPECIAL_IDS)
				return wn_fail(err, WN_TOO_LARGE, "post_processor: more than %d special tokens on one side",
				               TOKENIZER_MAX_SPECIAL_IDS);
			wn_code rc = check_special_id(t, v, id, &side[s][count[s]], err);
			if (rc != WN_OK)
				return rc;
			count[s]++;
		}
	}
	if (sequences != 1)
		return wn_fail(err, WN_UNSUPPORTED, "post_processor.single: the text occurs %zu times, expected once", sequences);
	wn_code rc = add_special_ids(t, side[0], count[0], true, err);
	return rc == WN_OK ? add_special_ids(t, side[1], count[1], false, err) : rc;
}

static wn_code load_post_processor(tokenizer *t, const json_t *o, int depth, wn_error *err)
{
	const char *type = type_of(o);
	if (!o || json_is_null(o) || strcmp(type, "ByteLevel") == 0) /* ByteLevel only moves offsets */
		return WN_OK;
	if (strcmp(type, "TemplateProcessing") == 0)
		return load_template(t, o, err);
	if (strcmp(type, "RobertaProcessing") == 0 || strcmp(type, "BertProcessing") == 0) {
		int32_t cls, sep;
		wn_code rc;
		if ((rc = load_pair(t, o, "cls", &cls, err)) != WN_OK || (rc = load_pair(t, o, "sep", &sep, err)) != WN_OK ||
		    (rc = add_special_ids(t, &cls, 1, true, err)) != WN_OK)
			return rc;
		return add_special_ids(t, &sep, 1, false, err);
	}
	const json_t *list = json_object_get(o, "processors");
	if (strcmp(type, "Sequence") == 0 && json_is_array(list) && depth < 4) {
		wn_code rc = WN_OK;
		for (size_t i = 0; i < json_array_size(list) && rc == WN_OK; i++)
			rc = load_post_processor(t, json_array_get(list, i), depth + 1, err);
		return rc;
	}
	return wn_fail(err, WN_UNSUPPORTED,
	               "post_processor.type: found %.40s, expected ByteLevel, TemplateProcessing, RobertaProcessing, BertProcessing "
	               "or a Sequence of them",
	               type);
}

/* The bytes of every id: an entry made of byte characters only is those bytes, any other is its own text. */
static wn_code load_decoded(tokenizer *t, wn_error *err)
{
	size_t used = 0;
	t->decoded = malloc(t->strings.bytes_used + 1);
	t->decoded_starts = malloc((t->num_ids + 1) * sizeof *t->decoded_starts);
	if (!t->decoded || !t->decoded_starts)
		return wn_fail(err, WN_NOMEM, "out of memory for %zu tokens", t->num_ids);
	for (size_t id = 0; id < t->num_ids; id++) {
		t->decoded_starts[id] = (uint32_t)used;
		uint32_t entry = t->id_entry[id];
		if (entry == INTERN_NONE)
			continue;
		const char *s = intern_get(&t->strings, entry);
		size_t len = intern_len(&t->strings, entry), at = used;
		for (size_t i = 0; i < len;) {
			int b = char_to_byte(utf8_next(s, &i));
			if (b < 0) {
				memcpy(t->decoded + used, s, len);
				at = used + len;
				break;
			}
			t->decoded[at++] = (char)b;
		}
		used = at;
	}
	t->decoded_starts[t->num_ids] = (uint32_t)used;
	return WN_OK;
}

static wn_code load_root(tokenizer *t, const json_t *root, wn_error *err)
{
	const json_t *version, *normalizer, *decoder, *added;
	wn_code rc;
	if (!json_is_object(root))
		return wn_fail(err, WN_INVALID, "found %s at the top, expected an object", type_name(root));
	version = json_object_get(root, "version");
	if (version && (!json_is_string(version) || strcmp(json_string_value(version), "1.0") != 0))
		return wn_fail(err, WN_UNSUPPORTED, "version: found \"%.40s\", expected \"1.0\"",
		               json_is_string(version) ? json_string_value(version) : type_name(version));
	normalizer = json_object_get(root, "normalizer");
	if (normalizer && !json_is_null(normalizer))
		return wn_fail(err, WN_UNSUPPORTED, "normalizer.type: found %.40s, expected no normalizer (null)", type_of(normalizer));
	added = json_object_get(root, "added_tokens");
	if (added && !json_is_array(added))
		return wn_fail(err, WN_INVALID, "added_tokens: found %s, expected an array", type_name(added));
	if (json_array_size(added) > TOKENIZER_MAX_ADDED)
		return wn_fail(err, WN_TOO_LARGE, "added_tokens: %zu entries, expected at most %d", json_array_size(added),
		               TOKENIZER_MAX_ADDED);
	if ((rc = load_pre_tokenizer(t, root, err)) != WN_OK ||
	    (rc = load_model(t, root, json_array_size(added), err)) != WN_OK ||
	    (rc = load_added_tokens(t, added, err)) != WN_OK ||
	    (rc = load_post_processor(t, json_object_get(root, "post_processor"), 0, err)) != WN_OK ||
	    (rc = get_object(root, "decoder", &decoder, err)) != WN_OK)
		return rc;
	if (strcmp(type_of(decoder), "ByteLevel") != 0)
		return wn_fail(err, WN_UNSUPPORTED, "decoder.type: found %.40s, expected ByteLevel", type_of(decoder));
	return load_decoded(t, err);
}

wn_code tokenizer_load_json(tokenizer *t, const char *json, size_t len, wn_error *err)
{
	json_error_t where;
	if (len > TOKENIZER_MAX_JSON)
		return wn_fail(err, WN_TOO_LARGE, "%zu bytes, expected at most %u", len, TOKENIZER_MAX_JSON);
	json_t *root = json_read(json, len, JSON_REJECT_DUPLICATES, &where);
	if (!root)
		return wn_fail(err, json_read_code(&where),
		               "malformed JSON at line %d, column %d: %s", where.line, where.column, where.text);
	wn_code rc = load_root(t, root, err);
	json_decref(root);
	return rc;
}
