/* cost.c: see cost.h. How parts are timed is cost_clock.h's business; here is what they are, and the table of them.
 *
 * Outside of blocks there are three parts that depend on few numbers each, so that the table stays small while a planner tries
 * widths. The language model's last block is a part of its own: it works for rows with logits only (model/engine_run.c). */
#include "prune/compress/cost.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/block.h"
#include "model/embedding.h"
#include "prune/compress/cost_clock.h"

#define TINY 8 /* a width that costs nothing */

/* ---- parameters ---- */

static double norm_parameters(double hidden) { return 2 * hidden; }

static double attention_parameters(double hidden, int num_heads, int head_dim, double kv_width, bool qkv_bias)
{
	const double inner = (double)num_heads * head_dim;
	if (!num_heads)
		return 0;
	return inner * (hidden + 2 * kv_width) + (qkv_bias ? 3 * inner : 0) + hidden * (inner + 1) + norm_parameters(hidden);
}

static double block_parameters(const blip2_config *c, component which, int i)
{
	const stack_config *s = shape_stack(c, which);
	const block_widths *w = &s->blocks[i];
	const double d = s->hidden_size, ffn = w->ffn_dim;
	return attention_parameters(d, w->num_heads, w->head_dim, d, which != COMPONENT_VISION || c->qkv_bias) +
	       attention_parameters(d, w->cross_num_heads, w->cross_head_dim, c->vision.hidden_size, true) + ffn * (2 * d + 1) + d +
	       norm_parameters(d);
}

static int vision_rows(const blip2_config *c)
{
	const int grid = c->image_size / c->patch_size;
	return 1 + grid * grid;
}

double cost_parameters(const blip2_config *c)
{
	const double dv = c->vision.hidden_size, dq = c->qformer.hidden_size, dt = c->text.hidden_size, p = c->patch_size;
	double count = dv * (1 + vision_rows(c) + 3 * p * p + 1 + 2);      /* class token, positions, patches with bias, norm */
	count += dq * (c->num_query_tokens + 2) + dt * (dq + 1);           /* queries, norm; projection with bias */
	count += dt * (c->vocab_size + c->max_position_embeddings + POSITION_OFFSET + 2.0); /* tokens, positions, norm */
	for (int s = 0; s < NUM_COMPONENTS; s++)
		for (int i = 0; i < shape_stack(c, (component)s)->num_hidden_layers; i++)
			count += block_parameters(c, (component)s, i);
	return count;
}

/* ---- the table of timed parts ---- */

enum { PART_BLOCK, PART_LAST_BLOCK, PART_VISION, PART_QFORMER, PART_TEXT };

typedef struct part_key {
	int kind;
	int numbers[13]; /* of which the time depends; the rest 0 */
} part_key;

typedef struct part {
	part_key key;
	double ms; /* 0: the slot is free */
} part;

struct cost_model {
	cost_request request;
	cost_functions custom; /* latency NULL: this machine */
	part *parts;           /* open addressing; a power of two of slots, at most half of them taken */
	size_t slots, taken;
};

static uint64_t hash(const part_key *k)
{
	const int *v = (const int *)k;
	uint64_t h = 1469598103934665603u;
	for (size_t i = 0; i < sizeof *k / sizeof *v; i++)
		h = (h ^ (uint64_t)(unsigned)v[i]) * 1099511628211u;
	return h ^ h >> 29;
}

/* Where k is, or belongs. */
static part *slot_of(part *parts, size_t slots, const part_key *k)
{
	for (size_t i = (size_t)hash(k);; i++) {
		part *p = &parts[i & (slots - 1)];
		if (p->ms == 0 || !memcmp(&p->key, k, sizeof *k))
			return p;
	}
}

static wn_code remember(cost_model *c, const part_key *k, double ms, wn_error *err)
{
	if (2 * (c->taken + 1) > c->slots) {
		const size_t slots = c->slots ? 2 * c->slots : 256;
		part *grown = calloc(slots, sizeof *grown);
		if (!grown)
			return wn_fail(err, WN_NOMEM, "no memory for %zu timed parts", slots);
		for (size_t i = 0; i < c->slots; i++)
			if (c->parts[i].ms > 0)
				*slot_of(grown, slots, &c->parts[i].key) = c->parts[i];
		free(c->parts);
		c->parts = grown;
		c->slots = slots;
	}
	*slot_of(c->parts, c->slots, k) = (part){*k, ms > 0 ? ms : 1e-9};
	c->taken++;
	return WN_OK;
}

/* ---- parts of a shape ---- */

static part_key block_key(const blip2_config *c, component which, int i, int text_len)
{
	const stack_config *s = shape_stack(c, which);
	const block_widths *w = &s->blocks[i];
	const int lens[] = {vision_rows(c), c->num_query_tokens, c->num_query_tokens + text_len};
	const bool last = which == COMPONENT_TEXT && i == s->num_hidden_layers - 1, crosses = w->cross_num_heads > 0;
	return (part_key){last ? PART_LAST_BLOCK : PART_BLOCK,
	                  {(int)which, s->hidden_size, w->num_heads, w->head_dim, c->qkv_bias, w->cross_num_heads, w->cross_head_dim,
	                   crosses ? c->vision.hidden_size : 0, w->ffn_dim, (int)s->activation, lens[which], crosses ? lens[0] : 0}};
}

static part_key outside_key(int kind, const blip2_config *c)
{
	if (kind == PART_VISION)
		return (part_key){kind, {c->image_size, c->patch_size, c->vision.hidden_size}};
	if (kind == PART_QFORMER)
		return (part_key){kind, {c->num_query_tokens, c->qformer.hidden_size, c->text.hidden_size}};
	return (part_key){kind, {c->num_query_tokens, c->text.hidden_size, c->vocab_size}};
}

/* A model without blocks in which only what stands around this stack has its size: its input, its width, and what leaves it. */
static void outside_shape(blip2_config *out, component which, const blip2_config *c)
{
	*out = *c;
	out->vision.num_hidden_layers = out->qformer.num_hidden_layers = out->text.num_hidden_layers = 0;
	if (which != COMPONENT_VISION) {
		out->image_size = out->patch_size = 1;
		out->vision.hidden_size = TINY;
	}
	if (which != COMPONENT_QFORMER)
		out->qformer.hidden_size = TINY;
	if (which == COMPONENT_VISION) {
		out->num_query_tokens = 1;
		out->text.hidden_size = TINY;
	}
	if (which != COMPONENT_TEXT)
		out->vocab_size = TINY;
}

/* The same with `count` blocks like block i. */
static void block_shape(blip2_config *out, const blip2_config *c, component which, int i, int count)
{
	stack_config *s = shape_stack_in(out, which);
	outside_shape(out, which, c);
	s->num_hidden_layers = count;
	for (int k = 0; k < count; k++)
		s->blocks[k] = shape_stack(c, which)->blocks[i];
	if (s->blocks[0].cross_num_heads) { /* what it reads */
		out->image_size = c->image_size;
		out->patch_size = c->patch_size;
		out->vision.hidden_size = c->vision.hidden_size;
	}
	if (which == COMPONENT_TEXT)
		out->vocab_size = TINY;
}

static cost_request part_request(const cost_model *c, component which)
{
	cost_request r = c->request;
	if (which != COMPONENT_TEXT)
		r.text_len = r.logit_rows = 1;
	return r;
}

static wn_code time_block(const cost_model *c, const blip2_config *shape, component which, int i, bool last, double *ms, wn_error *err)
{
	const cost_request r = part_request(c, which);
	const int rest = last ? 0 : 1, copies = last ? 1 : CLOCK_COPIES;
	blip2_config with, without;
	block_shape(&with, shape, which, i, rest + copies);
	block_shape(&without, shape, which, i, 1);
	without.text.num_hidden_layers = which == COMPONENT_TEXT ? rest : without.text.num_hidden_layers;
	wn_code rc = clock_difference(&with, &without, &r, ms, err);
	*ms /= copies;
	return rc;
}

static wn_code time_outside(const cost_model *c, const blip2_config *shape, component which, double *ms, wn_error *err)
{
	const cost_request r = part_request(c, which);
	blip2_config outside;
	outside_shape(&outside, which, shape);
	return clock_request(&outside, &r, CLOCK_OUTSIDE_RUNS, ms, err);
}

/* Adds a part's time, timing it when it is not known: block i of a stack, or (i < 0) what stands around the stack. */
static wn_code add_part(cost_model *c, const part_key *k, const blip2_config *shape, component which, int i, double *ms, wn_error *err)
{
	const part *known = c->slots ? slot_of(c->parts, c->slots, k) : NULL;
	if (known && known->ms > 0) {
		*ms += known->ms;
		return WN_OK;
	}
	double took = 0;
	wn_code rc = i < 0 ? time_outside(c, shape, which, &took, err)
			   : time_block(c, shape, which, i, k->kind == PART_LAST_BLOCK, &took, err);
	if (!rc)
		rc = remember(c, k, took, err);
	*ms += took;
	return rc;
}

static wn_code check_request(const cost_model *c, const blip2_config *shape, wn_error *err)
{
	const int len = shape->num_query_tokens + c->request.text_len;
	if (len > shape->max_position_embeddings)
		return wn_fail(err, WN_TOO_LARGE, "%d queries and %d text tokens exceed max_position_embeddings %d", shape->num_query_tokens,
			       c->request.text_len, shape->max_position_embeddings);
	if (c->request.logit_rows > len)
		return wn_fail(err, WN_INVALID, "logit_rows: found %d, expected at most the %d positions of a request", c->request.logit_rows, len);
	return WN_OK;
}

wn_code cost_latency(cost_model *c, const blip2_config *shape, double *ms, wn_error *err)
{
	*ms = 0;
	wn_code rc = check_request(c, shape, err);
	if (rc)
		return rc;
	if (c->custom.latency)
		return c->custom.latency(c->custom.ctx, shape, ms, err);
	for (int s = 0; s < NUM_COMPONENTS; s++)
		for (int i = 0; !rc && i < shape_stack(shape, (component)s)->num_hidden_layers; i++) {
			const part_key k = block_key(shape, (component)s, i, c->request.text_len);
			rc = add_part(c, &k, shape, (component)s, i, ms, err);
		}
	for (int s = 0; !rc && s < NUM_COMPONENTS; s++) {
		const part_key k = outside_key(PART_VISION + s, shape);
		rc = add_part(c, &k, shape, (component)s, -1, ms, err);
	}
	return rc;
}

wn_code cost_measure(cost_model *c, const blip2_config *shape, int runs, double *ms, wn_error *err)
{
	*ms = 0;
	if (runs < 1)
		return wn_fail(err, WN_INVALID, "runs: found %d, expected at least 1", runs);
	wn_code rc = check_request(c, shape, err);
	if (rc)
		return rc;
	if (c->custom.measure)
		return c->custom.measure(c->custom.ctx, shape, runs, ms, err);
	return clock_request(shape, &c->request, runs, ms, err);
}

double cost_flops(const cost_model *c, const blip2_config *shape)
{
	return blip2_request_flops(shape, c->request.text_len, c->request.logit_rows);
}

size_t cost_parts(const cost_model *c) { return c->taken; }

wn_code cost_open(cost_model **out, const cost_request *request, wn_error *err)
{
	const cost_functions none = {0};
	return cost_open_custom(out, request, &none, err);
}

wn_code cost_open_custom(cost_model **out, const cost_request *request, const cost_functions *functions, wn_error *err)
{
	*out = NULL;
	if (request->text_len < 1 || request->logit_rows < 1 || request->threads < 0)
		return wn_fail(err, WN_INVALID, "a request of %d text tokens, %d rows of logits and %d threads: expected at least 1, 1 and 0",
			       request->text_len, request->logit_rows, request->threads);
	cost_model *c = calloc(1, sizeof *c);
	if (!c)
		return wn_fail(err, WN_NOMEM, "no memory for a cost model");
	c->request = *request;
	c->custom = *functions;
	*out = c;
	return WN_OK;
}

void cost_close(cost_model **c)
{
	if (!c || !*c)
		return;
	free((*c)->parts);
	free(*c);
	*c = NULL;
}
