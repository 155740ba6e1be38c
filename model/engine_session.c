/* engine_session.c: a session's memory: one arena, laid out twice, first to measure and then to take. */
#include "model/engine_internal.h"

#include <stdlib.h>
#include <string.h>

#include <omp.h>

#include "model/parallel.h"

#define LANE_ROWS 8 /* of the longest stack at least: a lane with fewer would wait for its neighbours more than it helps them */

/* What an attention's shared operand takes: bytes, and scales. */
typedef struct operand_needs {
	size_t bytes, scales;
} operand_needs;

/* Elements of a lane's buffers, and the shared operands, as the largest user of each needs them. */
typedef struct needs {
	int lanes;
	size_t in, rows, raw, scores, queries, context, row;
	operand_needs qkv, kv;
} needs;

static void raise(size_t *most, size_t n) { *most = n > *most ? n : *most; }

/* Of rows that all lanes share, the most that one of them has. */
static size_t share_of(const needs *most, size_t rows) { return (rows + (size_t)most->lanes - 1) / (size_t)most->lanes; }

static void need_layer(needs *most, const layer *y, size_t rows)
{
	const size_t share = share_of(most, rows);
	raise(&most->in, share * y->in);
	raise(&most->raw, share * y->out);
	raise(&most->rows, share);
	raise(&most->row, y->in > y->out ? y->in : y->out);
}

static void need_operand(operand_needs *most, const engine_attention *a, const layer *y, size_t rows)
{
	raise(&most->bytes, rows * y->out * element_size(a->type));
	raise(&most->scales, rows * y->out / (size_t)a->head_dim);
}

static void need_attention(needs *most, const engine_attention *a, size_t n, size_t len, size_t encoder_len)
{
	const size_t inner = (size_t)a->num_heads * (size_t)a->head_dim, keys = a->kv_width ? encoder_len : len;
	const size_t share = share_of(most, n * len), span = share < len ? share : len;
	if (!a->num_heads)
		return;
	need_layer(most, &a->qkv, n * len);
	need_layer(most, &a->out, n * len);
	if (a->kv_width) {
		need_layer(most, &a->kv, n * encoder_len);
		need_operand(&most->kv, a, &a->kv, n * encoder_len);
	}
	need_operand(&most->qkv, a, &a->qkv, n * len);
	raise(&most->context, share * inner);
	if (attend_kernel(a->type)) {
		raise(&most->scores, attend_scratch(a->type, keys, (size_t)a->head_dim) / sizeof(float));
		return;
	}
	raise(&most->scores, (size_t)a->num_heads * span * keys);
	raise(&most->queries, share * inner);
}

static void need_stack(needs *most, const engine_stack *s, size_t n, size_t len, size_t encoder_len)
{
	for (int i = 0; i < s->num_blocks; i++) {
		const engine_block *b = &s->blocks[i];
		need_attention(most, &b->self, n, len, encoder_len);
		need_attention(most, &b->cross, n, len, encoder_len);
		need_layer(most, &b->fc1, n * len);
		need_layer(most, &b->fc2, n * len);
	}
}

/* Lines of the first cache are not shared between lanes. */
static bool lay_out_lane(engine_lane *l, arena *a, const needs *most)
{
	float *in, *raw, *context, *queries;
	if (!arena_floats(a, &in, most->in, 1) || !arena_floats(a, &l->in_scale, most->rows, 1) || !arena_floats(a, &raw, most->raw, 1) ||
	    !arena_floats(a, &l->scores, most->scores, 1) || !arena_floats(a, &context, most->context, 1) ||
	    !arena_floats(a, &queries, most->queries, 1) || !arena_floats(a, &l->row, most->row, 1))
		return false;
	l->in = in;
	l->raw = raw;
	l->context = context;
	l->queries = queries;
	return true;
}

static bool lay_out_operand(operand *o, arena *a, const operand_needs *most)
{
	return (o->data = arena_alloc(a, most->bytes)) && arena_floats(a, &o->scale, most->scales, 1);
}

static bool lay_out_lanes(engine_session *s, arena *a, const needs *most)
{
	const needs wide = {.lanes = 1, .context = 1, .queries = 1, .scores = 1};
	needs logits = wide;
	need_layer(&logits, &s->e->logits, (size_t)s->max_rows);
	bool ok = lay_out_lane(&s->wide, a, &logits);
	for (int i = 0; i < s->num_lanes && ok; i++)
		ok = lay_out_lane(&s->lanes[i], a, most);
	for (int i = 0; i < 2 && ok; i++)
		ok = lay_out_operand(&s->qkv[i], a, &most->qkv) && lay_out_operand(&s->kv[i], a, &most->kv);
	return ok;
}

static bool lay_out(engine_session *s, arena *a)
{
	const engine *e = s->e;
	const blip2_config *c = &e->m->config;
	const size_t n = (size_t)s->max_batch, patches = (size_t)blip2_num_patches(c), queries = (size_t)c->num_query_tokens;
	const size_t len = queries + (size_t)s->max_text_len;
	const size_t dv = (size_t)e->m->vision.hidden, dq = (size_t)e->m->qformer.hidden, dt = (size_t)e->m->text.hidden;
	needs most = {.lanes = s->num_lanes, .queries = 1, .kv = {1, 1}}; /* nothing of no bytes */
	need_layer(&most, &e->patches, n * patches);
	/* a lane's share of rows begins and ends in the middle of samples, and its patches with it: one more than their share */
	raise(&most.in, (share_of(&most, n * patches) + 1) * e->patches.in);
	raise(&most.raw, (share_of(&most, n * patches) + 1) * e->patches.out);
	raise(&most.rows, share_of(&most, n * patches) + 1);
	need_stack(&most, &e->vision, n, 1 + patches, 0);
	need_stack(&most, &e->qformer, n, queries, 1 + patches);
	need_layer(&most, &e->projection, n * queries);
	need_stack(&most, &e->text, n, len, 0);
	return lay_out_lanes(s, a, &most) && arena_floats(a, &s->pixels, n * patches, e->patches.in) &&
	       arena_floats(a, &s->embedded, n * patches, dv) && arena_floats(a, &s->vision_x, n * (1 + patches), dv) &&
	       arena_floats(a, &s->query_x, n * queries, dq) && arena_floats(a, &s->query_first, queries, dq) &&
	       arena_floats(a, &s->projected, n * queries, dt) && arena_floats(a, &s->text_x, n * len, dt) &&
	       arena_floats(a, &s->final_rows, (size_t)s->max_rows, dt) && arena_floats(a, &s->mask, n * len, len) &&
	       (s->positions = arena_alloc(a, n * len * sizeof *s->positions));
}

static wn_code check_sizes(const engine *e, int max_batch, int max_text_len, int max_rows, wn_error *err)
{
	const blip2_config *c = &e->m->config;
	if (max_batch < 1 || max_batch > 65536 || max_text_len < 1 || max_rows < 1)
		return wn_fail(err, WN_INVALID, "a session needs a batch of 1 to 65536, one text token and one row of logits, found %d, %d and %d",
			       max_batch, max_text_len, max_rows);
	if (max_rows > (int64_t)max_batch * (c->num_query_tokens + (int64_t)max_text_len))
		return wn_fail(err, WN_INVALID, "%d rows of logits, %d samples of %d queries and %d tokens have fewer", max_rows, max_batch,
			       c->num_query_tokens, max_text_len);
	if (max_text_len > c->max_position_embeddings - c->num_query_tokens)
		return wn_fail(err, WN_TOO_LARGE, "%d queries and %d text tokens exceed max_position_embeddings %d", c->num_query_tokens,
			       max_text_len, c->max_position_embeddings);
	return WN_OK;
}

/* The threads that a region of this thread really gets, but no more than have something to do. */
static int count_lanes(const engine *e, int max_batch)
{
	const int rows = max_batch * (1 + blip2_num_patches(&e->m->config)), most = 1 + rows / LANE_ROWS;
	int threads = omp_get_max_threads();
	threads = threads < most ? threads : most;
#pragma omp parallel num_threads(threads)
#pragma omp single
	threads = omp_get_num_threads();
	return threads;
}

static wn_code open_lanes(engine_session *s, wn_error *err)
{
	wn_code rc = packed_runner_open(&s->wide.runner, err);
	s->wide.s = s;
	for (int i = 0; i < s->num_lanes && !rc; i++) {
		s->lanes[i].s = s;
		s->lanes[i].id = i;
		rc = packed_runner_open(&s->lanes[i].runner, err);
	}
	return rc;
}

wn_code engine_session_open(engine_session **out, const engine *e, int max_batch, int max_text_len, int max_rows, wn_error *err)
{
	arena dry = {0};
	*out = NULL;
	wn_code rc = check_sizes(e, max_batch, max_text_len, max_rows, err);
	if (rc)
		return rc;
	engine_session *s = calloc(1, sizeof *s);
	if (!s)
		return wn_fail(err, WN_NOMEM, "no memory for a session");
	*s = (engine_session){.e = e, .max_batch = max_batch, .max_text_len = max_text_len, .max_rows = max_rows,
			       .num_lanes = count_lanes(e, max_batch)};
	s->lanes = calloc((size_t)s->num_lanes, sizeof *s->lanes);
	rc = s->lanes ? WN_OK : wn_fail(err, WN_NOMEM, "no memory for a session");
	if (!rc)
		rc = lay_out(s, &dry) ? arena_open(&s->memory, dry.peak, err)
				      : wn_fail(err, WN_TOO_LARGE, "a session of batch %d overflows memory", max_batch);
	if (!rc && !lay_out(s, &s->memory))
		rc = wn_fail(err, WN_INTERNAL, "a session's layout changed between measuring and mapping");
	if (!rc)
		rc = open_lanes(s, err);
	if (!rc)
		rc = engine_prepare_queries(s, err);
	if (rc)
		engine_session_close(&s);
	*out = s;
	return rc;
}

void engine_session_close(engine_session **s)
{
	if (!*s)
		return;
	for (int i = 0; i < (*s)->num_lanes && (*s)->lanes; i++)
		packed_runner_close(&(*s)->lanes[i].runner);
	packed_runner_close(&(*s)->wide.runner);
	arena_close(&(*s)->memory);
	free((*s)->lanes);
	free(*s);
	*s = NULL;
}

size_t engine_session_bytes(const engine_session *s) { return s->memory.size + (size_t)s->num_lanes * sizeof *s->lanes; }

int engine_session_created(const engine_session *s)
{
	int created = packed_runner_created(s->wide.runner);
	for (int i = 0; i < s->num_lanes; i++)
		created += packed_runner_created(s->lanes[i].runner);
	return created;
}
