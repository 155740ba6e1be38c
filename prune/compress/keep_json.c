/* keep_json.c: see keep_json.h. */
#include "prune/compress/keep_json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WHERE_SIZE 48 /* "vision.blocks[127].cross_qk" */

/* The lists are of these shapes, or the file belongs to another run. */
static wn_code check_shape(const json_t *j, const char *key, const blip2_config *expected, wn_error *err)
{
	blip2_config found;
	wn_code rc = shape_parse(&found, json_object_get(j, key), expected, err);
	if (rc)
		return wn_fail_prefix(err, "%s", key);
	return shape_same(&found, expected) ? WN_OK : wn_fail(err, WN_INVALID, "%s: found another shape than the plan's", key);
}

/* ---- lists ---- */

/* The lists stand in one block of memory, in the order in which they are read. */
typedef struct reader {
	int *next;
	wn_error *err;
} reader;

static size_t self_width(const block_widths *w) { return (size_t)w->num_heads * (size_t)w->head_dim; }
static size_t cross_width(const block_widths *w) { return (size_t)w->cross_num_heads * (size_t)w->cross_head_dim; }

static size_t count_indices(const blip2_config *to)
{
	size_t count = (size_t)to->num_query_tokens;
	for (int c = 0; c < NUM_COMPONENTS; c++) {
		const stack_config *s = shape_stack(to, (component)c);
		count += (size_t)s->hidden_size;
		for (int i = 0; i < s->num_hidden_layers; i++)
			count += (size_t)s->blocks[i].ffn_dim + 2 * self_width(&s->blocks[i]) + 2 * cross_width(&s->blocks[i]);
	}
	return count;
}

/* *out = `count` ascending integers below `limit`. */
static wn_code read_list(reader *r, int **out, const json_t *object, const char *where, const char *key, size_t count, size_t limit)
{
	const json_t *list = json_object_get(object, key);
	int *to = *out = r->next;
	if (!json_is_array(list) || json_array_size(list) != count)
		return wn_fail(r->err, WN_INVALID, "%s%s: found %zu numbers, expected %zu", where, key, json_array_size(list), count);
	for (size_t i = 0; i < count; i++) {
		const json_t *v = json_array_get(list, i);
		const json_int_t least = i ? to[i - 1] + 1 : 0, found = json_integer_value(v);
		if (!json_is_integer(v) || found < least || found >= (json_int_t)limit)
			return wn_fail(r->err, WN_INVALID,
			               "%s%s[%zu]: found %" JSON_INTEGER_FORMAT ", expected an integer from %" JSON_INTEGER_FORMAT " to %zu",
			               where, key, i, found, least, limit - 1);
		to[i] = (int)found;
	}
	r->next += count;
	return WN_OK;
}

/* The dimensions of every kept head come from one head of the source, another for each, and the same for both lists. */
static wn_code check_heads(const attention_keep *a, const char *where, const char *key, int heads, int dim, int from_dim, wn_error *err)
{
	for (int h = 0, last = -1; h < heads; h++) {
		const int head = a->qk[h * dim] / from_dim;
		bool same = head > last;
		for (int d = h * dim; d < (h + 1) * dim; d++)
			same = same && a->qk[d] / from_dim == head && a->v[d] / from_dim == head;
		if (!same)
			return wn_fail(err, WN_INVALID, "%s%s_qk, %s_v: the dimensions of head %d are not those of one head of the source", where,
			               key, key, h);
		last = head;
	}
	return WN_OK;
}

static wn_code read_attention(reader *r, attention_keep *out, const json_t *block, const char *where, bool cross, const block_widths *from,
                              const block_widths *to)
{
	const char *key = cross ? "cross" : "self";
	char qk[16], v[16];
	snprintf(qk, sizeof qk, "%s_qk", key);
	snprintf(v, sizeof v, "%s_v", key);
	const size_t count = cross ? cross_width(to) : self_width(to), limit = cross ? cross_width(from) : self_width(from);
	wn_code rc = read_list(r, &out->qk, block, where, qk, count, limit);
	if (!rc)
		rc = read_list(r, &out->v, block, where, v, count, limit);
	if (!rc)
		rc = check_heads(out, where, key, cross ? to->cross_num_heads : to->num_heads, cross ? to->cross_head_dim : to->head_dim,
		                 cross ? from->cross_head_dim : from->head_dim, r->err);
	return rc;
}

static wn_code read_block(reader *r, keep *k, int which, int index, const json_t *block)
{
	const stack_config *from = shape_stack(&k->from, (component)which), *to = shape_stack(&k->to, (component)which);
	block_keep *b = &k->blocks[which][index];
	const json_t *source = json_object_get(block, "source");
	const int least = index ? k->blocks[which][index - 1].source + 1 : 0;
	char where[WHERE_SIZE];
	snprintf(where, sizeof where, "%s.blocks[%d].", shape_stack_name((component)which), index);
	if (!json_is_integer(source) || json_integer_value(source) < least || json_integer_value(source) >= from->num_hidden_layers)
		return wn_fail(r->err, WN_INVALID, "%ssource: found %" JSON_INTEGER_FORMAT ", expected an integer from %d to %d", where,
		               json_integer_value(source), least, from->num_hidden_layers - 1);
	b->source = (int)json_integer_value(source);
	const block_widths *f = &from->blocks[b->source], *t = &to->blocks[index];
	if (!f->cross_num_heads && t->cross_num_heads)
		return wn_fail(r->err, WN_INVALID, "%scross_num_heads: found %d, the source's block has %d", where, t->cross_num_heads,
		               f->cross_num_heads);
	wn_code rc = read_list(r, &b->ffn, block, where, "ffn", (size_t)t->ffn_dim, (size_t)f->ffn_dim);
	if (!rc)
		rc = read_attention(r, &b->self, block, where, false, f, t);
	if (!rc && t->cross_num_heads)
		rc = read_attention(r, &b->cross, block, where, true, f, t);
	return rc;
}

static wn_code read_lists(reader *r, keep *k, const json_t *j)
{
	wn_code rc = WN_OK;
	for (int c = 0; c < NUM_COMPONENTS && !rc; c++) {
		const stack_config *from = shape_stack(&k->from, (component)c), *to = shape_stack(&k->to, (component)c);
		const json_t *stack = json_object_get(j, shape_stack_name((component)c)), *blocks = json_object_get(stack, "blocks");
		char where[WHERE_SIZE];
		snprintf(where, sizeof where, "%s.", shape_stack_name((component)c));
		rc = read_list(r, &k->hidden[c], stack, where, "hidden", (size_t)to->hidden_size, (size_t)from->hidden_size);
		for (int i = 0; i < to->num_hidden_layers && !rc; i++)
			rc = read_block(r, k, c, i, json_array_get(blocks, (size_t)i));
	}
	if (!rc)
		rc = read_list(r, &k->queries, j, "", "queries", (size_t)k->to.num_query_tokens, (size_t)k->from.num_query_tokens);
	return rc;
}

wn_code keep_parse(keep *out, const json_t *j, const blip2_config *from, const blip2_config *to, wn_error *err)
{
	memset(out, 0, sizeof *out);
	out->from = *from;
	out->to = *to;
	wn_code rc = check_shape(j, "from", from, err);
	if (!rc)
		rc = check_shape(j, "to", to, err);
	if (!rc && !(out->memory = calloc(count_indices(to), sizeof *out->memory)))
		rc = wn_fail(err, WN_NOMEM, "no memory for what a model keeps");
	reader r = {.next = out->memory, .err = err};
	if (!rc)
		rc = read_lists(&r, out, j);
	if (rc)
		keep_close(out);
	return rc;
}
