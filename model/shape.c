/* shape.c: see shape.h. */
#include "model/shape.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "model/json_check.h"

const stack_config *shape_stack(const blip2_config *shape, component which)
{
	const stack_config *each[NUM_COMPONENTS] = {&shape->vision, &shape->qformer, &shape->text};
	return each[which];
}

stack_config *shape_stack_in(blip2_config *shape, component which)
{
	stack_config *each[NUM_COMPONENTS] = {&shape->vision, &shape->qformer, &shape->text};
	return each[which];
}

const char *shape_stack_name(component which)
{
	static const char *const each[NUM_COMPONENTS] = {"vision", "qformer", "text"};
	return each[which];
}

/* ---- alike or not ---- */

bool shape_same_widths(const block_widths *a, const block_widths *b)
{
	return a->num_heads == b->num_heads && a->head_dim == b->head_dim && a->cross_num_heads == b->cross_num_heads &&
	       a->cross_head_dim == b->cross_head_dim && a->ffn_dim == b->ffn_dim;
}

bool shape_same(const blip2_config *a, const blip2_config *b)
{
	if (a->num_query_tokens != b->num_query_tokens || shape_check_fixed(a, b, NULL))
		return false;
	for (int c = 0; c < NUM_COMPONENTS; c++) {
		const stack_config *x = shape_stack(a, (component)c), *y = shape_stack(b, (component)c);
		if (x->hidden_size != y->hidden_size || x->num_hidden_layers != y->num_hidden_layers)
			return false;
		for (int i = 0; i < x->num_hidden_layers; i++)
			if (!shape_same_widths(&x->blocks[i], &y->blocks[i]))
				return false;
	}
	return true;
}

wn_code shape_check_fixed(const blip2_config *found, const blip2_config *source, wn_error *err)
{
	const struct {
		const char *name;
		int found, source;
	} same[] = {
		{"image_size", found->image_size, source->image_size},
		{"patch_size", found->patch_size, source->patch_size},
		{"qkv_bias", found->qkv_bias, source->qkv_bias},
		{"vocab_size", found->vocab_size, source->vocab_size},
		{"max_position_embeddings", found->max_position_embeddings, source->max_position_embeddings},
		{"vision.activation", (int)found->vision.activation, (int)source->vision.activation},
		{"qformer.activation", (int)found->qformer.activation, (int)source->qformer.activation},
		{"text.activation", (int)found->text.activation, (int)source->text.activation},
	};
	for (size_t i = 0; i < sizeof same / sizeof *same; i++)
		if (same[i].found != same[i].source)
			return wn_fail(err, WN_INVALID, "%s: found %d, expected the source's %d", same[i].name, same[i].found,
			               same[i].source);
	for (int c = 0; c < NUM_COMPONENTS; c++) {
		const float f = shape_stack(found, (component)c)->layer_norm_eps, s = shape_stack(source, (component)c)->layer_norm_eps;
		if (f != s)
			return wn_fail(err, WN_INVALID, "%s.layer_norm_eps: found %g, expected the source's %g",
			               shape_stack_name((component)c), (double)f, (double)s);
	}
	return WN_OK;
}

bool shape_common_widths(block_widths *out, const stack_config *s)
{
	*out = s->blocks[0];
	for (int i = 0; i < s->num_hidden_layers && !out->cross_num_heads; i++) {
		out->cross_num_heads = s->blocks[i].cross_num_heads;
		out->cross_head_dim = s->blocks[i].cross_head_dim;
	}
	for (int i = 0; i < s->num_hidden_layers; i++) {
		block_widths w = *out;
		if (!s->blocks[i].cross_num_heads)
			w.cross_num_heads = w.cross_head_dim = 0;
		if (!shape_same_widths(&w, &s->blocks[i]))
			return false;
	}
	return true;
}

/* ---- to JSON ---- */

/* all_keys: 0 stands for no cross-attention. */
static json_t *blocks_json(const stack_config *s, bool all_keys)
{
	json_t *list = json_array();
	for (int i = 0; list && i < s->num_hidden_layers; i++) {
		const block_widths *b = &s->blocks[i];
		json_t *v = b->cross_num_heads > 0 || all_keys
		                ? json_pack("{s:i, s:i, s:i, s:i, s:i}", "num_heads", b->num_heads, "head_dim", b->head_dim,
		                            "cross_num_heads", b->cross_num_heads, "cross_head_dim", b->cross_head_dim, "ffn_dim",
		                            b->ffn_dim)
		                : json_pack("{s:i, s:i, s:i}", "num_heads", b->num_heads, "head_dim", b->head_dim, "ffn_dim",
		                            b->ffn_dim);
		if (json_array_append_new(list, v) != 0) { /* also when v is NULL */
			json_decref(list);
			list = NULL;
		}
	}
	return list;
}

json_t *shape_blocks_json(const stack_config *s) { return blocks_json(s, false); }

json_t *shape_json(const blip2_config *c)
{
	json_t *j = json_object();
	int failed = 0;
	for (int i = 0; i < NUM_COMPONENTS; i++) {
		const stack_config *s = shape_stack(c, (component)i);
		failed |= json_object_set_new(j, shape_stack_name((component)i),
		                              json_pack("{s:i, s:o}", "hidden_size", s->hidden_size, "blocks", blocks_json(s, true)));
	}
	failed |= json_object_set_new(j, "num_query_tokens", json_integer(c->num_query_tokens));
	if (!failed)
		return j;
	json_decref(j);
	return NULL;
}

/* ---- and back ---- */

static wn_code parse_width(int *out, const json_t *object, const char *where, const char *key, wn_error *err)
{
	const json_t *v = json_object_get(object, key);
	if (!json_is_integer(v) || json_integer_value(v) < 1 || json_integer_value(v) > MAX_HIDDEN)
		return json_bad(err, where, key, v, "an integer from 1 to 65536");
	*out = (int)json_integer_value(v);
	return WN_OK;
}

/* One attention's heads and their width. */
static wn_code parse_heads(int *heads, int *dim, const json_t *block, const char *where, const char *heads_key, const char *dim_key,
                           wn_error *err)
{
	wn_code rc = parse_width(heads, block, where, heads_key, err);
	if (rc == WN_OK)
		rc = parse_width(dim, block, where, dim_key, err);
	if (rc == WN_OK && (int64_t)*heads * *dim > MAX_HIDDEN)
		rc = wn_fail(err, WN_TOO_LARGE, "%s%s: found %d heads of %d, expected an inner width of at most %d", where, heads_key,
		             *heads, *dim, MAX_HIDDEN);
	return rc;
}

static bool is_zero(const json_t *v) { return json_is_integer(v) && json_integer_value(v) == 0; }

static wn_code parse_block(block_widths *out, const json_t *v, const char *where, bool may_cross, bool all_keys, wn_error *err)
{
	static const char *const plain[] = {"num_heads", "head_dim", "ffn_dim", NULL};
	static const char *const cross[] = {"num_heads", "head_dim", "ffn_dim", "cross_num_heads", "cross_head_dim", NULL};
	const json_t *heads = json_object_get(v, "cross_num_heads"), *dim = json_object_get(v, "cross_head_dim");
	wn_code rc;
	memset(out, 0, sizeof *out);
	if ((rc = json_check_keys(v, where, may_cross || all_keys ? cross : plain, err)) != WN_OK ||
	    (rc = parse_heads(&out->num_heads, &out->head_dim, v, where, "num_heads", "head_dim", err)) != WN_OK ||
	    (rc = parse_width(&out->ffn_dim, v, where, "ffn_dim", err)) != WN_OK)
		return rc;
	if (all_keys ? is_zero(heads) && is_zero(dim) : !heads && !dim)
		return WN_OK;
	if (!may_cross)
		return json_bad(err, where, "cross_num_heads", heads, "0");
	return parse_heads(&out->cross_num_heads, &out->cross_head_dim, v, where, "cross_num_heads", "cross_head_dim", err);
}

static wn_code parse_blocks(block_widths *out, const json_t *list, component which, const char *where, bool all_keys, wn_error *err)
{
	char place[80];
	int crossing = 0;
	if (!json_is_array(list))
		return json_bad(err, where, "", list, "an array");
	if (json_array_size(list) < 1 || json_array_size(list) > MAX_BLOCKS)
		return wn_fail(err, WN_INVALID, "%s: found %zu blocks, expected 1 to %d", where, json_array_size(list), MAX_BLOCKS);
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *v = json_array_get(list, i);
		snprintf(place, sizeof place, "%s[%zu]", where, i);
		if (!json_is_object(v))
			return json_bad(err, place, "", v, "an object");
		snprintf(place, sizeof place, "%s[%zu].", where, i);
		wn_code rc = parse_block(&out[i], v, place, which == COMPONENT_QFORMER, all_keys, err);
		if (rc != WN_OK)
			return rc;
		crossing += out[i].cross_num_heads > 0;
	}
	if (which == COMPONENT_QFORMER && crossing == 0)
		return wn_fail(err, WN_INVALID, "%s: found no block with cross_num_heads, expected one at least", where);
	return WN_OK;
}

wn_code shape_blocks_parse(block_widths *out, const json_t *list, component which, const char *where, wn_error *err)
{
	return parse_blocks(out, list, which, where, false, err);
}

wn_code shape_parse(blip2_config *out, const json_t *j, const blip2_config *base, wn_error *err)
{
	const json_t *queries = json_object_get(j, "num_query_tokens");
	*out = *base;
	for (int c = 0; c < NUM_COMPONENTS; c++) {
		stack_config *s = shape_stack_in(out, (component)c);
		const char *name = shape_stack_name((component)c);
		const json_t *one = json_object_get(j, name), *blocks = json_object_get(one, "blocks");
		char where[32];
		snprintf(where, sizeof where, "%s.", name);
		wn_code rc = parse_width(&s->hidden_size, one, where, "hidden_size", err);
		snprintf(where, sizeof where, "%s.blocks", name);
		if (rc == WN_OK)
			rc = parse_blocks(s->blocks, blocks, (component)c, where, true, err);
		if (rc != WN_OK)
			return rc;
		s->num_hidden_layers = (int)json_array_size(blocks);
	}
	if (!json_is_integer(queries) || json_integer_value(queries) < 1 || json_integer_value(queries) > MAX_HIDDEN)
		return json_bad(err, "", "num_query_tokens", queries, "an integer from 1 to 65536");
	out->num_query_tokens = (int)json_integer_value(queries);
	return WN_OK;
}
