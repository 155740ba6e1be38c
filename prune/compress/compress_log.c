/* compress_log.c: see compress_log.h. */
#include "prune/compress/compress_log.h"

#include <math.h>

json_t *json_number(double v) { return isfinite(v) ? json_real(v) : json_null(); }

static json_t *stack_json(const stack_config *s)
{
	json_t *blocks = json_array();
	for (int i = 0; blocks && i < s->num_hidden_layers; i++) {
		const block_widths *b = &s->blocks[i];
		json_array_append_new(blocks, json_pack("{s:i, s:i, s:i, s:i, s:i}", "num_heads", b->num_heads, "head_dim", b->head_dim,
							"cross_num_heads", b->cross_num_heads, "cross_head_dim", b->cross_head_dim,
							"ffn_dim", b->ffn_dim));
	}
	return json_pack("{s:i, s:o}", "hidden_size", s->hidden_size, "blocks", blocks);
}

json_t *widths_json(const blip2_config *c)
{
	return json_pack("{s:o, s:o, s:o, s:i}", "vision", stack_json(&c->vision), "qformer", stack_json(&c->qformer), "text",
			 stack_json(&c->text), "num_query_tokens", c->num_query_tokens);
}

static bool parse_stack(stack_config *s, const json_t *j)
{
	json_t *blocks;
	if (json_unpack((json_t *)(uintptr_t)j, "{s:i, s:o}", "hidden_size", &s->hidden_size, "blocks", &blocks))
		return false;
	const size_t n = json_array_size(blocks);
	if (n < 1 || n > MAX_BLOCKS || s->hidden_size < 1 || s->hidden_size > MAX_HIDDEN)
		return false;
	s->num_hidden_layers = (int)n;
	for (size_t i = 0; i < n; i++) {
		block_widths *b = &s->blocks[i];
		if (json_unpack(json_array_get(blocks, i), "{s:i, s:i, s:i, s:i, s:i}", "num_heads", &b->num_heads, "head_dim",
				&b->head_dim, "cross_num_heads", &b->cross_num_heads, "cross_head_dim", &b->cross_head_dim, "ffn_dim",
				&b->ffn_dim))
			return false;
		if (b->num_heads < 1 || b->head_dim < 1 || b->ffn_dim < 1 || b->cross_num_heads < 0 || b->cross_head_dim < 0)
			return false;
	}
	return true;
}

wn_code widths_parse(blip2_config *out, const json_t *j, const blip2_config *base, wn_error *err)
{
	*out = *base;
	json_t *vision, *qformer, *text;
	if (json_unpack((json_t *)(uintptr_t)j, "{s:o, s:o, s:o, s:i}", "vision", &vision, "qformer", &qformer, "text", &text,
			"num_query_tokens", &out->num_query_tokens) ||
	    !parse_stack(&out->vision, vision) || !parse_stack(&out->qformer, qformer) || !parse_stack(&out->text, text))
		return wn_fail(err, WN_INVALID, "widths: a key is missing or no positive number");
	return WN_OK;
}

json_t *eval_json(const metrics *m, const char *split, const manifest *labels)
{
	json_t *classes = json_array();
	for (int i = 0; classes && i < m->num_classes; i++) {
		const class_metrics *c = &m->classes[i];
		json_array_append_new(classes, json_pack("{s:s, s:f, s:f, s:f, s:I}", "label", labels->labels[i].name, "precision",
							 c->precision, "recall", c->recall, "f1", c->f1, "support",
							 (json_int_t)c->support));
	}
	return json_pack("{s:s, s:I, s:o, s:o, s:o, s:o, s:o}", "split", split, "samples", (json_int_t)m->count, "accuracy",
			 json_number(m->accuracy), "macro_f1", json_number(m->macro_f1), "ece", json_number(m->ece), "nll",
			 json_number(m->nll), "classes", classes);
}
