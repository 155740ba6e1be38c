/* label_trie.c: see label_trie.h. Nodes are kept in one array in order of creation, so that parents come before children; a
 * node's children are found by looking through what lies behind it: there are a few dozen. */
#include "model/label_trie.h"

#include <stdlib.h>
#include <string.h>

#include "model/prompt.h"

typedef struct trie_node {
	int32_t token;
	int parent;   /* -1: the prompt */
	int label;    /* the label that ends here, or -1 */
	int children;
	int inner;    /* number among the inner nodes */
} trie_node;

typedef struct trie {
	trie_node *nodes;
	int count;
} trie;

static wn_code refuse_prefix(const manifest *man, int a, int b, wn_error *err)
{
	return wn_fail(err, WN_INVALID, "winnow.json: the tokens of verbalizer \"%.60s\" (label %s) begin those of \"%.60s\" "
	               "(label %s): expected verbalizers none of which is a prefix of another",
	               man->labels[a].verbalizer, man->labels[a].name, man->labels[b].verbalizer, man->labels[b].name);
}

/* Any label at or below node k. */
static int label_below(const trie *t, int k)
{
	while (t->nodes[k].label < 0) {
		int child = k + 1;
		while (t->nodes[child].parent != k)
			child++;
		k = child;
	}
	return t->nodes[k].label;
}

/* Adds one label's path; returns its last node through *leaf. */
static wn_code trie_add(trie *t, const manifest *man, int label, const int32_t *ids, int count, int *leaf, wn_error *err)
{
	int at = -1;
	for (int i = 0; i < count; i++) {
		int k = at + 1;
		while (k < t->count && !(t->nodes[k].parent == at && t->nodes[k].token == ids[i]))
			k++;
		if (k == t->count) {
			t->nodes[t->count++] = (trie_node){.token = ids[i], .parent = at, .label = -1};
			if (at >= 0)
				t->nodes[at].children++;
		} else if (t->nodes[k].label >= 0) {
			return refuse_prefix(man, t->nodes[k].label, label, err);
		}
		at = k;
	}
	if (t->nodes[at].children)
		return refuse_prefix(man, label, label_below(t, at), err);
	t->nodes[at].label = label;
	*leaf = at;
	return WN_OK;
}

/* Numbers the inner nodes, in order of creation. */
static wn_code lay_out_tail(label_trie *out, trie *t, wn_error *err)
{
	out->tail_ids = calloc((size_t)t->count, sizeof *out->tail_ids);
	out->tail_parent = calloc((size_t)t->count, sizeof *out->tail_parent);
	if (!out->tail_ids || !out->tail_parent)
		return wn_fail(err, WN_NOMEM, "out of memory for %d verbalizer tokens", t->count);
	for (int k = 0; k < t->count; k++) {
		trie_node *n = &t->nodes[k];
		if (!n->children)
			continue;
		n->inner = out->tail_len++;
		out->tail_ids[n->inner] = n->token;
		out->tail_parent[n->inner] = (int16_t)(n->parent < 0 ? -1 : t->nodes[n->parent].inner);
	}
	return WN_OK;
}

/* Every label's way from the prompt to its leaf. total: the sum of depths. */
static wn_code lay_out_steps(label_trie *out, const trie *t, const int *leaves, const int *depth, int total, wn_error *err)
{
	if (!(out->steps = calloc((size_t)total, sizeof *out->steps)))
		return wn_fail(err, WN_NOMEM, "out of memory for %d verbalizer tokens", total);
	for (int i = 0, at = 0; i < out->num_labels; i++) {
		out->first_step[i] = at;
		int k = leaves[i];
		for (int d = depth[i] - 1; d >= 0; d--, k = t->nodes[k].parent) {
			int parent = t->nodes[k].parent;
			out->steps[at + d] = (label_step){(int16_t)(parent < 0 ? 0 : 1 + t->nodes[parent].inner), t->nodes[k].token};
		}
		at += depth[i];
		out->first_step[i + 1] = at;
	}
	return WN_OK;
}

wn_code label_trie_build(label_trie *out, const tokenizer *tok, const manifest *man, wn_error *err)
{
	const size_t capacity = (size_t)man->num_labels * VERBALIZER_MAX_TOKENS;
	int leaves[MAX_LABELS], depth[MAX_LABELS], total = 0;
	wn_code rc = WN_OK;
	trie t = {calloc(capacity, sizeof *t.nodes), 0};
	*out = (label_trie){.num_labels = man->num_labels};
	if (!t.nodes)
		rc = wn_fail(err, WN_NOMEM, "out of memory for %zu verbalizer tokens", capacity);
	for (int i = 0; i < man->num_labels && rc == WN_OK; i++) {
		int32_t ids[VERBALIZER_MAX_TOKENS];
		if ((rc = prompt_encode_verbalizer(tok, man->labels[i].verbalizer, ids, &depth[i], err)))
			rc = wn_fail_prefix(err, "winnow.json: label %s", man->labels[i].name);
		else
			rc = trie_add(&t, man, i, ids, depth[i], &leaves[i], err);
		total += depth[i];
	}
	if (rc == WN_OK)
		rc = lay_out_tail(out, &t, err);
	if (rc == WN_OK)
		rc = lay_out_steps(out, &t, leaves, depth, total, err);
	free(t.nodes);
	if (rc)
		label_trie_close(out);
	return rc;
}

void label_trie_close(label_trie *t)
{
	free(t->steps);
	free(t->tail_ids);
	free(t->tail_parent);
	*t = (label_trie){0};
}

/* ---- batches ---- */

int label_trie_prompt_len(int longest, int most)
{
	int up = (longest + PROMPT_BUCKET - 1) / PROMPT_BUCKET * PROMPT_BUCKET;
	return up < most ? up : most;
}

void label_trie_lay_out(const label_trie *t, int32_t *ids, uint8_t *mask, const int32_t *prompt, int len, int prompt_len,
                        int32_t pad_id)
{
	const int padding = prompt_len - len;
	for (int i = 0; i < padding; i++)
		ids[i] = pad_id < 0 ? 0 : pad_id;
	memcpy(ids + padding, prompt, (size_t)len * sizeof *ids);
	if (t->tail_len)
		memcpy(ids + prompt_len, t->tail_ids, (size_t)t->tail_len * sizeof *ids);
	memset(mask, 0, (size_t)padding);
	memset(mask + padding, 1, (size_t)(len + t->tail_len));
}

void label_trie_rows(const label_trie *t, int32_t *rows, int i, int queries, int prompt_len)
{
	const int32_t last = (int32_t)(i * (queries + prompt_len + t->tail_len) + queries + prompt_len - 1);
	for (int r = 0; r <= t->tail_len; r++)
		rows[r] = last + r;
}
