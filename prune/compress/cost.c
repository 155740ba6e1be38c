/* cost.c: see cost.h.
 *
 * A block is timed with block_forward over weights of its shape laid out as blip2_params.c lays them out. A request reads
 * every block's weights once, from wherever they are by then; a single block run again and again would find its own in the
 * nearest cache. So the weights buffer, random floats of no particular shape, holds several copies in turn.
 *
 * What stands outside the blocks is timed as a request to a model without blocks in which everything but the part in
 * question is as small as it gets: the same code as a real forward, and three parts that depend on few numbers each, so that
 * the table stays small while a planner tries widths. */
#include "prune/compress/cost.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <omp.h>

#include "base/arena.h"
#include "model/block.h"
#include "model/embedding.h"
#include "prune/bench_request.h"

#define WARM_UP_RUNS    2
#define MIN_RUNS        9
#define MAX_RUNS        64
#define SECONDS_A_PART  0.008           /* of runs, beyond MIN_RUNS */
#define WEIGHT_BYTES    ((size_t)16 << 20) /* copies of a block's weights take at least so much, if that is no more than: */
#define MAX_COPIES      16
#define WEIGHT_SCALE    0.05f           /* activations stay near 1 */
#define TINY            8               /* a width that costs nothing */
#define OUTSIDE_RUNS    15

/* ---- parameters ---- */

/* A block's parameters one behind the other: how many, and where each starts. */
typedef struct layout {
	size_t count; /* parameters */
	size_t floats; /* with each on a 64-byte boundary */
} layout;

static size_t put(layout *l, size_t rows, size_t width)
{
	const size_t at = l->floats;
	l->count += rows * width;
	l->floats += (rows * width + 15) / 16 * 16;
	return at;
}

static void put_norm(layout *l, norm_params *n, size_t hidden)
{
	n->weight = put(l, 1, hidden);
	n->bias = put(l, 1, hidden);
}

static void put_attention(layout *l, attention_params *a, size_t hidden, bool qkv_bias)
{
	const size_t inner = (size_t)a->num_heads * (size_t)a->head_dim, fused = a->kv_width ? inner : 3 * inner;
	a->qkv_weight = put(l, fused, hidden);
	a->qkv_bias = qkv_bias ? put(l, 1, fused) : NO_PARAM;
	if (a->kv_width) {
		a->kv_weight = put(l, 2 * inner, (size_t)a->kv_width);
		a->kv_bias = put(l, 1, 2 * inner);
	}
	a->out_weight = put(l, hidden, inner);
	a->out_bias = put(l, 1, hidden);
	put_norm(l, &a->norm, hidden);
}

/* Block i of a stack, its parameters laid out. */
static layout place_block(block *b, const blip2_config *c, component which, int i)
{
	const stack_config *s = shape_stack(c, which);
	const block_widths *w = &s->blocks[i];
	const size_t hidden = (size_t)s->hidden_size, ffn = (size_t)w->ffn_dim;
	layout l = {0};
	*b = (block){.hidden = s->hidden_size,
	             .pre_norm = which != COMPONENT_QFORMER,
	             .causal = which == COMPONENT_TEXT,
	             .eps = s->layer_norm_eps,
	             .activation = s->activation,
	             .self = {.num_heads = w->num_heads, .head_dim = w->head_dim},
	             .cross = {.num_heads = w->cross_num_heads,
	                       .head_dim = w->cross_head_dim,
	                       .kv_width = w->cross_num_heads ? c->vision.hidden_size : 0},
	             .ffn_dim = w->ffn_dim};
	put_attention(&l, &b->self, hidden, which != COMPONENT_VISION || c->qkv_bias);
	if (b->cross.num_heads)
		put_attention(&l, &b->cross, hidden, true);
	b->fc1_weight = put(&l, ffn, hidden);
	b->fc1_bias = put(&l, 1, ffn);
	b->fc2_weight = put(&l, hidden, ffn);
	b->fc2_bias = put(&l, 1, hidden);
	put_norm(&l, &b->ffn_norm, hidden);
	return l;
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
		for (int i = 0; i < shape_stack(c, (component)s)->num_hidden_layers; i++) {
			block b;
			count += (double)place_block(&b, c, (component)s, i).count;
		}
	return count;
}

/* ---- the table of timed parts ---- */

enum { PART_BLOCK, PART_VISION, PART_QFORMER, PART_TEXT };

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
	arena weights;         /* random floats */
	arena state;           /* of the block being timed */
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

/* ---- timing ---- */

/* The caller's number of threads comes back with the return value. */
static int threads_enter(const cost_request *r)
{
	const int before = omp_get_max_threads();
	omp_set_num_threads(r->threads > 0 ? r->threads : omp_get_num_procs());
	return before;
}

static void fill(float *w, size_t count, uint64_t seed)
{
	for (size_t i = 0; i < count; i++)
		w[i] = WEIGHT_SCALE * bench_random(&seed);
}

/* At least so many random floats in c->weights. */
static wn_code need_weights(cost_model *c, size_t floats, wn_error *err)
{
	const size_t bytes = floats * sizeof(float) > WEIGHT_BYTES ? floats * sizeof(float) : WEIGHT_BYTES;
	if (c->weights.size >= bytes)
		return WN_OK;
	arena_close(&c->weights);
	wn_code rc = arena_open(&c->weights, bytes, err);
	if (!rc)
		fill((float *)c->weights.base, c->weights.size / sizeof(float), 1);
	return rc;
}

typedef struct block_bench {
	block b;
	int len, encoder_len;
	float *x, *encoder;
	block_state st;
} block_bench;

static bool bench_alloc(block_bench *t, arena *a)
{
	a->used = 0;
	return arena_floats(a, &t->x, (size_t)t->len, (size_t)t->b.hidden) &&
	       arena_floats(a, &t->encoder, (size_t)t->encoder_len, (size_t)t->b.cross.kv_width) &&
	       block_state_alloc(&t->st, a, &t->b, 1, t->len, t->encoder_len, false);
}

static wn_code need_state(cost_model *c, block_bench *t, wn_error *err)
{
	arena dry = {0};
	if (!bench_alloc(t, &dry))
		return wn_fail(err, WN_TOO_LARGE, "a block of hidden_size %d overflows memory", t->b.hidden);
	if (c->state.size < dry.peak) {
		arena_close(&c->state);
		wn_code rc = arena_open(&c->state, dry.peak, err);
		if (rc)
			return rc;
	}
	if (!bench_alloc(t, &c->state))
		return wn_fail(err, WN_INTERNAL, "a block's layout changed between measuring and mapping");
	fill(t->x, (size_t)t->len * (size_t)t->b.hidden, 2);
	fill(t->encoder, (size_t)t->encoder_len * (size_t)t->b.cross.kv_width, 3);
	return WN_OK;
}

static wn_code time_block(cost_model *c, block_bench *t, size_t floats, double *ms, wn_error *err)
{
	wn_code rc = need_weights(c, floats, err);
	if (!rc)
		rc = need_state(c, t, err);
	if (rc)
		return rc;
	const compute cx = {.weights = (float *)c->weights.base};
	const block_run run = {.cx = &cx, .n = 1, .len = t->len, .encoder = t->encoder, .encoder_len = t->encoder_len};
	const size_t fit = c->weights.size / sizeof(float) / floats, copies = fit < MAX_COPIES ? fit : MAX_COPIES;
	double times[MAX_RUNS], until = 0;
	int runs = 0;
	for (int i = -WARM_UP_RUNS; i < MIN_RUNS || (i < MAX_RUNS && bench_now_ms() < until); i++) {
		const float *w = cx.weights + (size_t)(i + WARM_UP_RUNS) % copies * floats;
		const double start = bench_now_ms();
		block_forward(&t->b, w, &t->st, t->x, &run);
		if (i == 0)
			until = start + 1e3 * SECONDS_A_PART;
		if (i >= 0)
			times[runs++] = bench_now_ms() - start;
	}
	*ms = bench_median(times, runs);
	return WN_OK;
}

/* The median request of a random model of this shape. */
static wn_code time_model(const blip2_config *shape, const bench_request_options *o, double *ms, wn_error *err)
{
	blip2 *m = NULL;
	double *times = calloc((size_t)o->runs, sizeof *times);
	wn_code rc = times ? blip2_create(&m, shape, err) : wn_fail(err, WN_NOMEM, "out of memory for %d runs", o->runs);
	if (!rc) {
		fill(blip2_weights(m), blip2_weights_count(m), 1);
		rc = bench_request(m, o, times, err);
	}
	if (!rc)
		*ms = bench_median(times, o->runs);
	blip2_close(&m);
	free(times);
	return rc;
}

/* ---- parts of a shape ---- */

static part_key block_key(const block *b, component which, int len, int encoder_len)
{
	return (part_key){PART_BLOCK,
	                  {(int)which, b->hidden, b->self.num_heads, b->self.head_dim, b->self.qkv_bias != NO_PARAM, b->cross.num_heads,
	                   b->cross.head_dim, b->cross.kv_width, b->ffn_dim, (int)b->activation, len, encoder_len}};
}

static part_key outside_key(int kind, const blip2_config *c)
{
	if (kind == PART_VISION)
		return (part_key){kind, {c->image_size, c->patch_size, c->vision.hidden_size}};
	if (kind == PART_QFORMER)
		return (part_key){kind, {c->num_query_tokens, c->qformer.hidden_size, c->text.hidden_size}};
	return (part_key){kind, {c->num_query_tokens, c->text.hidden_size, c->vocab_size}};
}

/* A model without blocks in which only this part has its size. */
static void outside_shape(blip2_config *out, int kind, const blip2_config *c)
{
	*out = *c;
	out->vision.num_hidden_layers = out->qformer.num_hidden_layers = out->text.num_hidden_layers = 0;
	if (kind != PART_VISION) {
		out->image_size = out->patch_size = 1;
		out->vision.hidden_size = TINY;
	}
	if (kind != PART_QFORMER)
		out->qformer.hidden_size = TINY;
	if (kind == PART_VISION) {
		out->num_query_tokens = 1;
		out->text.hidden_size = TINY;
	}
	if (kind != PART_TEXT)
		out->vocab_size = TINY;
}

/* Adds a part's time, timing it when it is not known. b NULL: outside of blocks. */
static wn_code add_part(cost_model *c, const part_key *k, block_bench *b, size_t floats, const blip2_config *shape, double *ms,
                        wn_error *err)
{
	const part *known = c->slots ? slot_of(c->parts, c->slots, k) : NULL;
	if (known && known->ms > 0) {
		*ms += known->ms;
		return WN_OK;
	}
	double took = 0;
	wn_code rc;
	const int threads = threads_enter(&c->request);
	if (b) {
		rc = time_block(c, b, floats, &took, err);
	} else {
		const bool text = k->kind == PART_TEXT;
		const bench_request_options o = {.tokens = text ? c->request.text_len : 1,
		                                 .logit_rows = text ? c->request.logit_rows : 1,
		                                 .runs = OUTSIDE_RUNS};
		blip2_config outside;
		outside_shape(&outside, k->kind, shape);
		rc = time_model(&outside, &o, &took, err);
	}
	omp_set_num_threads(threads);
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
	const int vision = vision_rows(shape), queries = shape->num_query_tokens, lens[] = {vision, queries, queries + c->request.text_len};
	for (int s = 0; s < NUM_COMPONENTS; s++)
		for (int i = 0; !rc && i < shape_stack(shape, (component)s)->num_hidden_layers; i++) {
			block_bench t = {.len = lens[s]};
			const size_t floats = place_block(&t.b, shape, (component)s, i).floats;
			t.encoder_len = t.b.cross.num_heads ? vision : 0;
			const part_key k = block_key(&t.b, (component)s, t.len, t.encoder_len);
			rc = add_part(c, &k, &t, floats, shape, ms, err);
		}
	for (int kind = PART_VISION; !rc && kind <= PART_TEXT; kind++) {
		const part_key k = outside_key(kind, shape);
		rc = add_part(c, &k, NULL, 0, shape, ms, err);
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
	const bench_request_options o = {.tokens = c->request.text_len, .logit_rows = c->request.logit_rows, .runs = runs};
	const int threads = threads_enter(&c->request);
	rc = time_model(shape, &o, ms, err);
	omp_set_num_threads(threads);
	return rc;
}

double cost_flops(const cost_model *c, const blip2_config *shape)
{
	double total = 0;
	for (int s = 0; s < NUM_COMPONENTS; s++)
		total += blip2_flops(shape, (component)s, c->request.text_len, c->request.logit_rows);
	return total;
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
	arena_close(&(*c)->weights);
	arena_close(&(*c)->state);
	free((*c)->parts);
	free(*c);
	*c = NULL;
}
