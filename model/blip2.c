/* blip2.c: a session's memory, and the forward of the three stacks in it.
 *
 *   patches -> vision stack -> post_layernorm --encoder rows--> Q-Former stack over LN(query_tokens)
 *   -> language_projection -> [queries | embedded text] + positions -> text stack -> final_layer_norm -> rows of logits
 *
 * The session is laid out twice by the same code: on a dry arena to learn the size, then for real. The scratch of the three
 * stacks' backwards is one region, since they never run at the same time. */
#include "model/blip2.h"

#include <stdlib.h>
#include <string.h>

#include "model/blip2_internal.h"
#include "model/embedding.h"
#include "model/linear.h"
#include "model/dnn.h"
#include "model/norm.h"
#include "model/ops.h"
#include "model/parallel.h"
#include "model/text_layout.h"

blip2_session_options blip2_session_defaults(void)
{
	return (blip2_session_options){.max_batch = 1, .max_text_len = 64, .training = false, .use_vision = true};
}

static bool take_norm(norm_state *s, arena *a, size_t rows, size_t d)
{
	return arena_floats(a, &s->out, rows, d) && arena_floats(a, &s->mean, rows, 1) && arena_floats(a, &s->rstd, rows, 1);
}

static bool lay_out_backward(blip2_session *s, arena *a, int n, int vision_rows, int queries, int len)
{
	const blip2 *m = s->m;
	size_t dv = (size_t)m->vision.hidden, dq = (size_t)m->qformer.hidden, dt = (size_t)m->text.hidden;
	size_t rows = (size_t)n * (size_t)len, vrows = (size_t)n * (size_t)vision_rows;
	if (!arena_floats(a, &s->d_text, rows, dt) || !arena_floats(a, &s->d_norm, rows, dt) ||
	    !arena_floats(a, &s->d_query, (size_t)n * (size_t)queries, dq) || !arena_floats(a, &s->d_vision, vrows, dv) ||
	    !arena_floats(a, &s->d_vision_norm, vrows, dv))
		return false;
	size_t mark = arena_mark(a), most = mark;
	struct {
		const stack *stack;
		block_scratch *scratch;
		int len;
	} each[] = {{&m->vision, &s->vision_scratch, vision_rows},
	            {&m->qformer, &s->qformer_scratch, queries},
	            {&m->text, &s->text_scratch, len}};
	for (int i = 0; i < 3; i++) {
		arena_release(a, mark);
		if (!block_scratch_alloc(each[i].scratch, a, each[i].stack->blocks, each[i].stack->num_blocks, n, each[i].len, vision_rows))
			return false;
		most = a->used > most ? a->used : most;
	}
	a->used = most;
	return true;
}

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* Rows of logits that are made at a time. */
static size_t logit_rows(const blip2_session_options *o) { return larger(LOGIT_CHUNK, (size_t)o->max_loss_rows); }

/* Floats of the largest operand of any layer: what bf16 rounds into scratch. */
static size_t largest_operand(const blip2 *m, int n, int vision_rows, int queries, int len, size_t logits)
{
	const blip2_config *c = &m->config;
	struct {
		const stack *stack;
		int len;
	} each[] = {{&m->vision, vision_rows}, {&m->qformer, queries}, {&m->text, len}};
	size_t most = logits * larger((size_t)c->vocab_size, (size_t)m->text.hidden);
	most = larger(most, (size_t)n * (size_t)queries * larger((size_t)m->qformer.hidden, (size_t)m->text.hidden));
	most = larger(most, (size_t)n * (size_t)vision_rows * (size_t)m->vision.hidden);
	most = larger(most, (size_t)n * (size_t)vision_rows * 3 * (size_t)c->patch_size * (size_t)c->patch_size);
	for (int i = 0; i < 3; i++)
		for (int j = 0; j < each[i].stack->num_blocks; j++) {
			const block *b = &each[i].stack->blocks[j];
			size_t inner = (size_t)b->self.num_heads * (size_t)b->self.head_dim;
			size_t cross = (size_t)b->cross.num_heads * (size_t)b->cross.head_dim;
			size_t width = larger(larger(3 * inner, (size_t)b->ffn_dim), larger((size_t)b->hidden, cross));
			most = larger(most, (size_t)n * (size_t)each[i].len * width);
			most = larger(most, (size_t)n * (size_t)vision_rows * larger(2 * cross, (size_t)b->cross.kv_width));
		}
	return most;
}

static bool lay_out(blip2_session *s, arena *a)
{
	const blip2 *m = s->m;
	const blip2_config *c = &m->config;
	int n = s->opt.max_batch, patches = blip2_num_patches(c), queries = c->num_query_tokens, len = queries + s->opt.max_text_len;
	size_t dv = (size_t)m->vision.hidden, dq = (size_t)m->qformer.hidden, dt = (size_t)m->text.hidden;
	size_t prows = (size_t)n * (size_t)patches, vrows = prows + (size_t)n, qrows = (size_t)n * (size_t)queries;
	size_t trows = (size_t)n * (size_t)len, token_count = (size_t)n * (size_t)s->opt.max_text_len;
	const size_t logits = logit_rows(&s->opt);
	const bool training = s->opt.training, keep = training || s->opt.keep_hidden;

	bool ok = arena_floats(a, &s->patches, prows, 3 * (size_t)c->patch_size * (size_t)c->patch_size) &&
	          arena_floats(a, &s->embedded, prows, dv) && arena_floats(a, &s->vision_x, vrows, dv) &&
	          stack_state_alloc(&s->vision, a, &m->vision, n, 1 + patches, 0, keep) &&
	          take_norm(&s->vision_norm, a, vrows, dv) && take_norm(&s->query_norm, a, (size_t)queries, dq) &&
	          arena_floats(a, &s->query_x, qrows, dq) &&
	          stack_state_alloc(&s->qformer, a, &m->qformer, n, queries, 1 + patches, keep) &&
	          arena_floats(a, &s->projected, qrows, dt) && arena_floats(a, &s->text_x, trows, dt) &&
	          stack_state_alloc(&s->text, a, &m->text, n, len, 0, keep) && take_norm(&s->text_norm, a, trows, dt) &&
	          arena_floats(a, &s->mask, trows, (size_t)len) && arena_floats(a, &s->logit_in, logits, dt) &&
	          arena_floats(a, &s->logit_d, logits, dt) && arena_floats(a, &s->logits, logits, (size_t)c->vocab_size);
	ok = ok && (s->positions = arena_alloc(a, trows * sizeof *s->positions)) &&
	     (s->rows = arena_alloc(a, token_count * sizeof *s->rows)) &&
	     (s->targets = arena_alloc(a, token_count * sizeof *s->targets));
	if (ok && s->opt.bf16) {
		size_t operand = largest_operand(m, n, 1 + patches, queries, len, logits);
		s->cx.shadow = arena_alloc(a, m->weights_count * sizeof *s->cx.shadow);
		s->cx.x16 = arena_alloc(a, operand * sizeof *s->cx.x16);
		s->cx.dy16 = arena_alloc(a, operand * sizeof *s->cx.dy16);
		ok = s->cx.shadow && s->cx.x16 && s->cx.dy16;
	}
	return ok && (!training || lay_out_backward(s, a, n, 1 + patches, queries, len));
}

wn_code blip2_session_open(blip2_session **out, const blip2 *m, const blip2_session_options *opt, wn_error *err)
{
	*out = NULL;
	if (m->without_matrices)
		return wn_fail(err, WN_INTERNAL, "this model's matrices were packed for an engine and are not here");
	if (opt->max_batch < 1 || opt->max_batch > 65536 || opt->max_text_len < 1)
		return wn_fail(err, WN_INVALID, "a session needs a batch of 1 to 65536 and at least one text token, found %d and %d",
		               opt->max_batch, opt->max_text_len);
	const int positions = m->config.max_position_embeddings, room = positions - m->config.num_query_tokens;
	if (opt->max_text_len > room)
		return wn_fail(err, WN_TOO_LARGE, "%d queries and %d text tokens exceed max_position_embeddings %d",
		               m->config.num_query_tokens, opt->max_text_len, positions);
	if (opt->max_loss_rows < 0 || (int64_t)opt->max_loss_rows > (int64_t)opt->max_batch * (m->config.num_query_tokens + opt->max_text_len))
		return wn_fail(err, WN_INVALID, "max_loss_rows: found %d, more than a batch has", opt->max_loss_rows);
	/* Rows are counted in int32_t: logits' rows, labels, patches. */
	const int64_t patches = 1 + (int64_t)blip2_num_patches(&m->config), len = m->config.num_query_tokens + opt->max_text_len;
	if (opt->max_batch * (patches > len ? patches : len) > INT32_MAX)
		return wn_fail(err, WN_TOO_LARGE, "a batch of %d with %lld rows a sample: more rows than %d", opt->max_batch,
		               (long long)(patches > len ? patches : len), INT32_MAX);
	blip2_session *s = calloc(1, sizeof *s);
	if (!s)
		return wn_fail(err, WN_NOMEM, "no memory for a session");
	s->m = m;
	s->opt = *opt;
	s->cx.bf16 = opt->bf16;
	s->cx.weights = m->weights;
	arena dry = {0};
	wn_code code = lay_out(s, &dry) ? arena_open(&s->memory, dry.peak, err)
	                                : wn_fail(err, WN_TOO_LARGE, "a session of batch %d overflows memory", opt->max_batch);
	if (code == WN_OK && !lay_out(s, &s->memory))
		code = wn_fail(err, WN_INTERNAL, "a session's layout changed between measuring and mapping");
	if (code) {
		blip2_session_close(&s);
		return code;
	}
	*out = s;
	return WN_OK;
}

void blip2_session_close(blip2_session **s)
{
	if (!s || !*s)
		return;
	arena_close(&(*s)->memory);
	free(*s);
	*s = NULL;
}

void blip2_vision_forward(blip2_session *s, const blip2_batch *b)
{
	const blip2 *m = s->m;
	const blip2_config *c = &m->config;
	int patches = s->patches_seen;
	size_t d = (size_t)m->vision.hidden, rows = (size_t)b->n * (size_t)(1 + patches);
	if (!s->opt.use_vision) {
		memset(s->vision_norm.out, 0, rows * d * sizeof(float));
		return;
	}
	patches_gather(s->patches, b->pixel_values, b->n, c->image_size, c->patch_size, s->kept, patches);
	linear_forward(&s->cx, s->embedded, s->patches, m->weights + m->patch_weight, NULL, (size_t)b->n * (size_t)patches,
	               3 * (size_t)c->patch_size * (size_t)c->patch_size, d);
	vision_rows_forward(s->vision_x, s->embedded, m->weights + m->patch_bias, m->weights + m->class_embedding,
	                    m->weights + m->vision_position, b->n, s->kept, patches, d);
	block_run run = {.cx = &s->cx, .n = b->n, .len = 1 + patches};
	s->vision_last = stack_forward(&m->vision, m->weights, &s->vision, s->vision_x, &run);
	norm_forward(s->vision_norm.out, s->vision_norm.mean, s->vision_norm.rstd, s->vision_last, m->weights + m->vision_norm.weight,
	             m->weights + m->vision_norm.bias, rows, d, c->vision.layer_norm_eps);
}

block_run blip2_qformer_run(const blip2_session *s)
{
	return (block_run){.cx = &s->cx,
	                   .n = s->n,
	                   .len = s->m->config.num_query_tokens,
	                   .encoder = s->vision_norm.out,
	                   .encoder_len = 1 + blip2_num_patches(&s->m->config)};
}

static void qformer_forward(blip2_session *s)
{
	const blip2 *m = s->m;
	size_t queries = (size_t)m->config.num_query_tokens, d = (size_t)m->qformer.hidden;
	norm_forward(s->query_norm.out, s->query_norm.mean, s->query_norm.rstd, m->weights + m->query_tokens,
	             m->weights + m->query_norm.weight, m->weights + m->query_norm.bias, queries, d, m->config.qformer.layer_norm_eps);
	for (int i = 0; i < s->n; i++)
		memcpy(s->query_x + (size_t)i * queries * d, s->query_norm.out, queries * d * sizeof(float));
	block_run run = blip2_qformer_run(s);
	s->qformer_last = stack_forward(&m->qformer, m->weights, &s->qformer, s->query_x, &run);
}

block_run blip2_text_run(const blip2_session *s)
{
	return (block_run){.cx = &s->cx,
	                   .n = s->n, .len = s->len, .mask = s->use_mask ? s->mask : NULL};
}

static void text_forward(blip2_session *s, const blip2_batch *b)
{
	const blip2 *m = s->m;
	size_t queries = (size_t)m->config.num_query_tokens, d = (size_t)m->text.hidden, len = (size_t)s->len;
	linear_forward(&s->cx, s->projected, s->qformer_last, m->weights + m->projection_weight, m->weights + m->projection_bias,
	               (size_t)s->n * queries, (size_t)m->qformer.hidden, d);
	for (int i = 0; i < s->n; i++)
		memcpy(s->text_x + (size_t)i * len * d, s->projected + (size_t)i * queries * d, queries * d * sizeof(float));
	text_rows_forward(s->text_x, m->weights + m->token_embedding, m->weights + m->text_position, b->input_ids, s->positions, s->n,
	                  (int)queries, s->t, d);
	block_run run = blip2_text_run(s);
	s->text_last = stack_forward(&m->text, m->weights, &s->text, s->text_x, &run);
	norm_forward(s->text_norm.out, s->text_norm.mean, s->text_norm.rstd, s->text_last, m->weights + m->text_norm.weight,
	             m->weights + m->text_norm.bias, (size_t)s->n * len, d, m->config.text.layer_norm_eps);
}

/* Checks a batch, takes its sizes, and rounds the weights as they are now when products run in bf16. */
wn_code blip2_begin(blip2_session *s, const blip2_batch *b, wn_error *err)
{
	wn_code code = text_check(b, s->opt.max_batch, s->opt.max_text_len, s->m->config.vocab_size, err);
	if (code)
		return code;
	s->n = b->n;
	s->t = b->text_len;
	s->len = s->m->config.num_query_tokens + b->text_len;
	s->kept = NULL;
	s->patches_seen = blip2_num_patches(&s->m->config);
	if (s->cx.bf16) {
		PARALLEL_RANGE(s->m->weights_count, 16384, i0, i1)
		ops->to_bf16(s->cx.shadow + i0, s->m->weights + i0, i1 - i0);
	}
	return WN_OK;
}

wn_code blip2_forward(blip2_session *s, const blip2_batch *b, wn_error *err)
{
	wn_code code = blip2_begin(s, b, err);
	if (code)
		return code;
	text_positions(s->positions, b, s->m->config.num_query_tokens);
	s->use_mask = text_needs_mask(b);
	if (s->use_mask)
		text_mask(s->mask, b, s->m->config.num_query_tokens);
	blip2_vision_forward(s, b);
	qformer_forward(s);
	text_forward(s, b);
	return WN_OK;
}

blip2_block_view blip2_view_block(const blip2_session *s, component which, int index)
{
	const blip2 *m = s->m;
	const stack *stacks[] = {&m->vision, &m->qformer, &m->text};
	const stack_state *states[] = {&s->vision, &s->qformer, &s->text};
	const int lens[] = {1 + s->patches_seen, m->config.num_query_tokens, s->len};
	if (which == COMPONENT_VISION && !s->opt.use_vision)
		return (blip2_block_view){0}; /* never ran */
	const bool cross = stacks[which]->blocks[index].cross.num_heads > 0;
	const block_state *st = &states[which]->states[index];
	return (blip2_block_view){
		.rows = (size_t)s->n * (size_t)lens[which],
		.input = states[which]->inputs[index],
		.output = states[which]->inputs[index + 1],
		.ffn = st->act,
		.self_qkv = st->self.qkv,
		.self_context = st->self.context,
		.cross_q = cross ? st->cross.qkv : NULL,
		.cross_kv = cross ? st->cross.kv : NULL,
		.cross_context = cross ? st->cross.context : NULL,
		.encoder_rows = cross ? (size_t)s->n * (size_t)(1 + s->patches_seen) : 0,
	};
}

const float *blip2_vision_hidden(const blip2_session *s) { return s->vision_norm.out; }
const float *blip2_qformer_hidden(const blip2_session *s) { return s->qformer_last; }
const float *blip2_text_hidden(const blip2_session *s) { return s->text_norm.out; }

/* Gathers rows of the final hidden states and multiplies them with the tied embedding. out [count][V]. */
void blip2_logits_of(const blip2_session *s, const int32_t *rows, size_t count, float *out)
{
	size_t d = (size_t)s->m->text.hidden;
	for (size_t i = 0; i < count; i++)
		memcpy(s->logit_in + i * d, s->text_norm.out + (size_t)rows[i] * d, d * sizeof(float));
	linear_forward(&s->cx, out, s->logit_in, s->m->weights + s->m->token_embedding, NULL, count, d, (size_t)s->m->config.vocab_size);
}

void blip2_logits(const blip2_session *s, const int32_t *rows, size_t count, float *out)
{
	for (size_t i = 0; i < count; i += LOGIT_CHUNK)
		blip2_logits_of(s, rows + i, count - i < LOGIT_CHUNK ? count - i : LOGIT_CHUNK, out + i * (size_t)s->m->config.vocab_size);
}

static double stack_flops(const stack_config *c, double len, double encoder_len, double encoder_width)
{
	double total = 0;
	for (int i = 0; i < c->num_hidden_layers; i++) {
		const block_widths *w = &c->blocks[i];
		double inner = (double)w->num_heads * w->head_dim, cross = (double)w->cross_num_heads * w->cross_head_dim, d = c->hidden_size;
		total += 2 * len * d * inner * 4 + 4 * len * len * inner;
		if (cross > 0)
			total += 2 * len * d * cross * 2 + 2 * encoder_len * encoder_width * cross * 2 + 4 * len * encoder_len * cross;
		total += 4 * len * d * w->ffn_dim;
	}
	return total;
}

double blip2_flops(const blip2_config *c, component which, int text_len, int logit_rows)
{
	double patches = blip2_num_patches(c), queries = c->num_query_tokens, dv = c->vision.hidden_size, dt = c->text.hidden_size;
	switch (which) {
	case COMPONENT_VISION:
		return 2 * patches * 3 * c->patch_size * c->patch_size * dv + stack_flops(&c->vision, 1 + patches, 0, 0);
	case COMPONENT_QFORMER:
		return stack_flops(&c->qformer, queries, 1 + patches, dv) + 2 * queries * c->qformer.hidden_size * dt;
	default:
		return stack_flops(&c->text, queries + text_len, 0, 0) + 2.0 * logit_rows * dt * c->vocab_size;
	}
}

double blip2_request_flops(const blip2_config *c, int text_len, int logit_rows)
{
	double total = 0;
	for (int i = 0; i < NUM_COMPONENTS; i++)
		total += blip2_flops(c, (component)i, text_len, logit_rows);
	return total;
}
