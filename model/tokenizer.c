/* tokenizer.c: encode and decode over a loaded tokenizer.
 *
 * Encoding walks the text once and never builds lists: added tokens without normalization are cut out first, then, in what
 * lies between, those with it; what remains is split into words and each word goes through the merges. A text of ordinary
 * words needs no allocation; a word beyond BPE_SMALL bytes takes 28 bytes of scratch per byte for the length of the
 * call, so a text of TOKENIZER_MAX_TEXT costs 112 MB at the very worst. The tokenizer itself is never written. */
#include "model/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "model/pretokenize.h"
#include "model/tokenizer_impl.h"

wn_code tokenizer_parse(tokenizer **out, const char *json, size_t len, wn_error *err)
{
	*out = NULL;
	tokenizer *t = calloc(1, sizeof *t);
	if (!t)
		return wn_fail(err, WN_NOMEM, "out of memory for a tokenizer");
	wn_code rc = tokenizer_load_json(t, json, len, err);
	if (rc != WN_OK)
		tokenizer_close(&t);
	*out = t;
	return rc;
}

wn_code tokenizer_open(tokenizer **out, const char *path, wn_error *err)
{
	char *json = NULL;
	size_t len;
	wn_error local = {0};
	*out = NULL;
	wn_code rc = file_read(path, TOKENIZER_MAX_JSON, &json, &len, err);
	if (rc != WN_OK)
		return rc;
	rc = tokenizer_parse(out, json, len, &local);
	if (rc != WN_OK)
		wn_fail(err, rc, "%s: %s", path, local.message);
	free(json);
	return rc;
}

void tokenizer_close(tokenizer **tp)
{
	tokenizer *t = *tp;
	*tp = NULL;
	if (!t)
		return;
	intern_free(&t->strings);
	free(t->entry_id);
	free(t->id_entry);
	free(t->decoded);
	free(t->decoded_starts);
	pair_map_free(&t->ranks);
	free(t->merged);
	free(t->added);
	for (size_t i = 0; i < 2; i++) {
		pair_map_free(&t->tries[i].edges);
		free(t->tries[i].node_token);
	}
	free(t);
}

/* One encode call. */
typedef struct encoder {
	const tokenizer *t;
	id_sink out;
	bpe_scratch scratch;
	wn_error *err;
} encoder;

static wn_code encode_words(encoder *e, const char *s, size_t len)
{
	const tokenizer *t = e->t;
	bool lead = t->add_prefix_space && len && s[0] != ' ';
	wn_code rc = WN_OK;
	for (size_t start = 0, end; (start < len || lead) && rc == WN_OK; start = end, lead = false) {
		end = t->use_regex ? pretokenize_next(s, len, start, lead) : len;
		rc = bpe_encode_word(t, lead, s + start, end - start, &e->scratch, &e->out, e->err);
	}
	return rc;
}

/* The leftmost longest token of the trie at or after `from`; false when there is none. */
static bool find_added(const added_trie *trie, const char *s, size_t len, size_t from, size_t *start, size_t *end,
                       uint32_t *token)
{
	for (size_t i = from; i < len; i++) {
		if (!trie->first[(unsigned char)s[i]])
			continue;
		uint32_t node = 0, found = UINT32_MAX;
		for (size_t k = i; k < len; k++) {
			node = pair_map_get(&trie->edges, (uint64_t)node << 8 | (unsigned char)s[k]);
			if (node == UINT32_MAX)
				break;
			if (trie->node_token[node] != UINT32_MAX) {
				found = trie->node_token[node];
				*end = k + 1;
			}
		}
		if (found != UINT32_MAX) {
			*start = i;
			*token = found;
			return true;
		}
	}
	return false;
}

/* single_word: no word character may touch the match on either side, inside this piece of text. */
static bool stands_alone(const char *s, size_t len, size_t start, size_t end)
{
	size_t before = start, after = end;
	return (start == 0 || !char_is_word(utf8_prev(s, &before))) && (end == len || !char_is_word(utf8_next(s, &after)));
}

/* Splits s at the added tokens of pass 0, then of pass 1, and encodes what lies between. Mirrors find_matches of
 * `tokenizers`, also where it is odd: a match without lstrip counts although an rstrip before it swallowed its text. */
static wn_code encode_piece(encoder *e, int pass, const char *s, size_t len)
{
	if (pass == 2)
		return encode_words(e, s, len);
	const added_trie *trie = &e->t->tries[pass];
	size_t done = 0, start, end, space_start = 0, space_end = 0;
	uint32_t token;
	wn_code rc = WN_OK;
	for (size_t from = 0; rc == WN_OK && find_added(trie, s, len, from, &start, &end, &token);) {
		const added_token *a = &e->t->added[token];
		from = end;
		if (a->single_word && !stands_alone(s, len, start, end))
			continue;
		if (a->lstrip) {
			size_t at = start;
			while (start > done && char_is_space(utf8_prev(s, &at)))
				start = at;
			if (start < done)
				start = done;
		}
		if (a->rstrip) {
			/* Several matches may look over the same run of spaces; its end is kept so that it is walked once. */
			if (end < space_start || end > space_end) {
				space_start = space_end = end;
				for (size_t at = end; at < len && char_is_space(utf8_next(s, &at)); space_end = at)
					;
			}
			end = space_end;
		}
		if (start >= end)
			continue; /* nothing left of it: an rstrip before took it all (the library drops it too, or panics) */
		if (done < start)
			rc = encode_piece(e, pass + 1, s + done, start - done);
		id_sink_put(&e->out, a->id);
		done = end;
	}
	if (rc == WN_OK && done != len)
		rc = encode_piece(e, pass + 1, s + done, len - done);
	return rc;
}

wn_code tokenizer_encode(const tokenizer *t, const char *text, size_t len, bool add_special, int32_t *ids, size_t max,
                         size_t *count, wn_error *err)
{
	*count = 0;
	if (len > TOKENIZER_MAX_TEXT)
		return wn_fail(err, WN_TOO_LARGE, "text of %zu bytes, expected at most %d", len, TOKENIZER_MAX_TEXT);
	size_t bad = utf8_valid_prefix(text, len);
	if (bad < len)
		return wn_fail(err, WN_INVALID, "text: invalid UTF-8 at byte %zu (0x%02x)", bad, (unsigned char)text[bad]);
	encoder e;
	e.t = t;
	e.out = (id_sink){.ids = ids, .max = max};
	e.scratch.big = NULL;
	e.scratch.big_cap = 0;
	e.err = err;
	for (size_t i = 0; add_special && i < t->num_prefix; i++)
		id_sink_put(&e.out, t->prefix[i]);
	wn_code rc = encode_piece(&e, 0, text, len);
	for (size_t i = 0; add_special && i < t->num_suffix; i++)
		id_sink_put(&e.out, t->suffix[i]);
	free(e.scratch.big);
	if (rc != WN_OK)
		return rc;
	*count = e.out.count;
	if (e.out.count > max)
		return wn_fail(err, WN_TOO_LARGE, "text needs %zu tokens, room for %zu", e.out.count, max);
	return WN_OK;
}

wn_code tokenizer_decode_bytes(const tokenizer *t, const int32_t *ids, size_t count, char **out, size_t *out_len,
                               wn_error *err)
{
	*out = NULL;
	*out_len = 0;
	size_t total = 0;
	for (size_t i = 0; i < count; i++) {
		if (ids[i] < 0)
			return wn_fail(err, WN_INVALID, "ids[%zu]: %d, expected 0 or more", i, ids[i]);
		if ((size_t)ids[i] < t->num_ids)
			total += t->decoded_starts[ids[i] + 1] - t->decoded_starts[ids[i]];
		if (total > TOKENIZER_MAX_DECODED)
			return wn_fail(err, WN_TOO_LARGE, "ids decode to more than %d bytes", TOKENIZER_MAX_DECODED);
	}
	/* A broken byte becomes three (U+FFFD); so the raw bytes go to the last third and are rewritten to the front. */
	char *buf = malloc(3 * total + 1);
	if (!buf)
		return wn_fail(err, WN_NOMEM, "out of memory to decode %zu tokens", count);
	char *raw = buf + 2 * total;
	for (size_t i = 0, at = 0; i < count; i++) {
		if ((size_t)ids[i] >= t->num_ids)
			continue; /* as the library: an id without token decodes to nothing */
		size_t n = t->decoded_starts[ids[i] + 1] - t->decoded_starts[ids[i]];
		memcpy(raw + at, t->decoded + t->decoded_starts[ids[i]], n);
		at += n;
	}
	size_t at = 0;
	for (size_t i = 0; i < total;) {
		int n = utf8_sequence(raw + i, total - i);
		size_t take = (size_t)(n > 0 ? n : -n);
		if (n > 0)
			memmove(buf + at, raw + i, take);
		else
			memcpy(buf + at, "\xef\xbf\xbd", 3);
		at += n > 0 ? take : 3;
		i += take;
	}
	buf[at] = '\0';
	*out = buf;
	*out_len = at;
	return WN_OK;
}

wn_code tokenizer_decode(const tokenizer *t, const int32_t *ids, size_t count, char **out, wn_error *err)
{
	size_t len;
	return tokenizer_decode_bytes(t, ids, count, out, &len, err);
}

size_t tokenizer_vocab_size(const tokenizer *t) { return t->num_ids; }

int32_t tokenizer_token_id(const tokenizer *t, const char *content)
{
	uint32_t entry = intern_find(&t->strings, content, strlen(content));
	return entry == INTERN_NONE ? -1 : t->entry_id[entry];
}
