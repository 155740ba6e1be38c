/* engine_run.c: the forward of the three stacks, by all lanes of a session together.
 *
 * Left out, because nobody reads it: in the last block of the language model, everything but keys and values of rows without logits;
 * rows of logits that were not asked for. Done once, because no image changes it: the self-attention of the Q-Former's first block. Work
 * is handed from lane to lane in three places only: attention (engine_attention.c), the projected queries, and the rows of logits. */
#include <string.h>

#include <omp.h>

#include "model/embedding.h"
#include "model/engine_internal.h"
#include "model/norm.h"
#include "model/ops.h"
#include "model/parallel.h"
#include "model/text_layout.h"

row_range lane_share(const engine_lane *l, size_t rows)
{
	const size_t first = parallel_bound(rows, l->id, l->s->num_lanes);
	return (row_range){first, parallel_bound(rows, l->id + 1, l->s->num_lanes) - first};
}

static void run_stack(engine_lane *l, const engine_stack *blocks, float *x, const engine_rows *run)
{
	for (int i = 0; i < blocks->num_blocks; i++)
		engine_block_run(l, &blocks->blocks[i], x, run);
}

/* How many patches stand before row `row` of [n][1 + patches] rows. */
static size_t patches_before(size_t row, size_t patches) { return row - (row + patches) / (1 + patches); }

/* Leaves post_layernorm's output in vision_x. */
static void run_vision(engine_lane *l, const blip2_batch *b)
{
	engine_session *s = l->s;
	const blip2 *m = s->e->m;
	const blip2_config *c = &m->config;
	const int patches = blip2_num_patches(c);
	const size_t d = (size_t)m->vision.hidden;
	const row_range own = lane_share(l, (size_t)b->n * (size_t)(1 + patches));
	const size_t first = patches_before(own.first, (size_t)patches), end = patches_before(own.first + own.count, (size_t)patches);
	const row_source pixels = {.x = s->pixels + first * s->e->patches.in};
	patches_gather_range(s->pixels, b->pixel_values, c->image_size, c->patch_size, NULL, patches, first, end);
	layer_take(l, &s->e->patches, &pixels, end - first);
	layer_write(l, &s->e->patches, end - first, s->embedded + first * d, false);
	vision_rows_range(s->vision_x, s->embedded, m->weights + m->patch_bias, m->weights + m->class_embedding,
			  m->weights + m->vision_position, NULL, patches, d, own.first, own.first + own.count);
	run_stack(l, &s->e->vision, s->vision_x, &(engine_rows){.n = b->n, .len = 1 + patches});
	ops->layer_norm(s->vision_x + own.first * d, NULL, NULL, s->vision_x + own.first * d, m->weights + m->vision_norm.weight,
			m->weights + m->vision_norm.bias, own.count, d, c->vision.layer_norm_eps);
}

/* Leaves the projected queries in `projected`. */
static void run_qformer(engine_lane *l, const blip2_batch *b)
{
	engine_session *s = l->s;
	const blip2 *m = s->e->m;
	const size_t queries = (size_t)m->config.num_query_tokens, d = (size_t)m->qformer.hidden;
	const row_range own = lane_share(l, (size_t)b->n * queries);
	const row_source in = {.x = s->query_x + own.first * d};
	for (size_t r = own.first; r < own.first + own.count; r++)
		memcpy(s->query_x + r * d, s->query_first + r % queries * d, d * sizeof(float));
	const engine_rows run = {.n = b->n, .len = (int)queries, .encoder = s->vision_x, .encoder_len = 1 + blip2_num_patches(&m->config)};
	for (int i = 0; i < s->e->qformer.num_blocks; i++)
		(i ? engine_block_run : engine_block_finish)(l, &s->e->qformer.blocks[i], s->query_x, &run);
	layer_take(l, &s->e->projection, &in, own.count);
	layer_write(l, &s->e->projection, own.count, s->projected + own.first * (size_t)m->text.hidden, false);
}

/* Leaves the last block's output of the wanted rows in final_rows. */
static void run_text(engine_lane *l, const blip2_batch *b, const int32_t *rows, size_t count)
{
	engine_session *s = l->s;
	const blip2 *m = s->e->m;
	const size_t queries = (size_t)m->config.num_query_tokens, d = (size_t)m->text.hidden, len = queries + (size_t)b->text_len;
	const row_range own = lane_share(l, (size_t)b->n * len);
	engine_rows run = {.n = b->n, .len = (int)len, .mask = text_needs_mask(b) ? s->mask : NULL};
	for (size_t r = own.first; r < own.first + own.count; r++) {
		const size_t i = r / len, j = r % len;
		float *row = s->text_x + r * d;
		if (j < queries)
			memcpy(row, s->projected + (i * queries + j) * d, d * sizeof *row);
		else
			engine_token(s->e, b->input_ids[i * (size_t)b->text_len + j - queries], row);
		ops->axpy(row, 1, m->weights + m->text_position + (size_t)s->positions[r] * d, d);
	}
	for (int i = 0; i < s->e->text.num_blocks; i++) {
		if (i == s->e->text.num_blocks - 1) {
			run.kept = rows;
			run.num_kept = count;
			run.kept_x = s->final_rows;
		}
		engine_block_run(l, &s->e->text.blocks[i], s->text_x, &run);
	}
}

typedef struct request {
	const blip2_batch *batch;
	const int32_t *rows;
	size_t count;
} request;

static void run_lane(engine_lane *l, const request *r)
{
	run_vision(l, r->batch);
	run_qformer(l, r->batch);
#pragma omp barrier
	run_text(l, r->batch, r->rows, r->count);
}

static void attend_queries_first(engine_lane *l, const request *r)
{
	const engine *e = l->s->e;
	(void)r;
	engine_block_attend(l, &e->qformer.blocks[0], l->s->query_first, &(engine_rows){.n = 1, .len = e->m->config.num_query_tokens});
}

/* All lanes at once. The products of one are that thread's alone. */
static wn_code run_lanes(engine_session *s, void (*run)(engine_lane *, const request *), const request *r, wn_error *err)
{
	int team = 0;
#pragma omp parallel num_threads(s->num_lanes)
	{
		if (omp_get_num_threads() == s->num_lanes) {
			engine_lane *l = &s->lanes[omp_get_thread_num()];
			omp_set_num_threads(1);
			l->turn = 0;
			run(l, r);
		}
#pragma omp single
		team = omp_get_num_threads();
	}
	return team == s->num_lanes ? WN_OK
				    : wn_fail(err, WN_INTERNAL, "a session opened with %d OpenMP threads got %d of them", s->num_lanes, team);
}

static wn_code check(const engine_session *s, const blip2_batch *b, const int32_t *rows, size_t count, wn_error *err)
{
	const blip2_config *c = &s->e->m->config;
	const size_t all = (size_t)b->n * (size_t)(c->num_query_tokens + b->text_len);
	wn_code rc = text_check(b, s->max_batch, s->max_text_len, c->vocab_size, err);
	if (!rc && (count < 1 || count > (size_t)s->max_rows))
		rc = wn_fail(err, WN_TOO_LARGE, "%zu rows of logits, expected 1 to %d", count, s->max_rows);
	for (size_t i = 0; i < count && !rc; i++)
		if (rows[i] < 0 || (size_t)rows[i] >= all || (i && rows[i] <= rows[i - 1]))
			rc = wn_fail(err, WN_INVALID, "rows[%zu] of logits is %d, expected ascending ones below %zu", i, (int)rows[i], all);
	return rc;
}

/* Asks every runner: each forgets its failure when it is asked. */
static wn_code check_runners(engine_session *s, wn_error *err)
{
	wn_code rc = packed_runner_check(s->wide.runner, err);
	for (int i = 0; i < s->num_lanes; i++) {
		const wn_code lane = packed_runner_check(s->lanes[i].runner, err);
		rc = rc ? rc : lane;
	}
	return rc;
}

wn_code engine_prepare_queries(engine_session *s, wn_error *err)
{
	const blip2 *m = s->e->m;
	norm_forward(s->query_first, NULL, NULL, m->weights + m->query_tokens, m->weights + m->query_norm.weight,
		     m->weights + m->query_norm.bias, (size_t)m->config.num_query_tokens, (size_t)m->qformer.hidden,
		     m->config.qformer.layer_norm_eps);
	wn_code rc = s->e->qformer.num_blocks ? run_lanes(s, attend_queries_first, NULL, err) : WN_OK;
	return rc ? rc : check_runners(s, err);
}

wn_code engine_run(engine_session *s, const blip2_batch *b, const int32_t *rows, size_t count, float *out, wn_error *err)
{
	const blip2 *m = s->e->m;
	const int threads = omp_get_max_threads();
	wn_code rc = check(s, b, rows, count, err);
	if (rc)
		return rc;
	omp_set_num_threads(s->num_lanes); /* one team for everything: libgomp ends threads that a smaller one has no use for */
	text_positions(s->positions, b, m->config.num_query_tokens);
	if (text_needs_mask(b))
		text_mask(s->mask, b, m->config.num_query_tokens);
	rc = run_lanes(s, run_lane, &(request){b, rows, count}, err);
	const row_source last = {.x = s->final_rows, .norm = &m->text_norm, .eps = m->config.text.layer_norm_eps};
	if (!rc) {
		layer_take(&s->wide, &s->e->logits, &last, count);
		layer_write(&s->wide, &s->e->logits, count, out, false);
		rc = check_runners(s, err);
	}
	omp_set_num_threads(threads);
	return rc;
}

int engine_session_threads(const engine_session *s) { return s->num_lanes; }

const float *engine_vision_hidden(const engine_session *s) { return s->vision_x; }
const float *engine_qformer_hidden(const engine_session *s) { return s->query_x; }
