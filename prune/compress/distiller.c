/* distiller.c: see distiller.h. */
#include "prune/compress/distiller.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/dnn.h"
#include "prune/adamw_model.h"
#include "prune/memory_check.h"

struct distiller {
	const workspace *w;
	importance_method method;  /* of scores */
	teacher *teacher;          /* may be NULL */
	blip2 *student;
	const teacher_map *map;
	const blip2_config *shape;
	adamw adamw;               /* for steps */
	float *grads;              /* for steps and TAYLOR */
	blip2_session *session;
	label_batch batch;
	distill_scratch *scratch;
	int micro_batch, tail_rows;
	uint32_t *items, *next;    /* [batch_size]: of this step and the next */
	int32_t *rows;             /* [micro_batch * tail_rows]: of logits */
	int *query_rows, *text_rows; /* student row -> teacher row, for the batch at hand */
	/* of the backward at hand */
	distill_weights weights;
	distill_terms *terms;
	int num_blocks;            /* whose outputs are matched */
};

/* ---- opening ---- */

bool distiller_needs_teacher(const compress_config *c, double hidden)
{
	return c->loss.kl > 0 || c->loss.pair > 0 || c->loss.relation > 0 || hidden > 0;
}

static wn_code create(distiller **out, const workspace *w, blip2 *student, wn_error *err)
{
	const compress_config *c = w->config;
	distiller *d = *out = calloc(1, sizeof *d);
	if (!d)
		return wn_fail(err, WN_NOMEM, "no memory for a distiller");
	*d = (distiller){.w = w, .student = student, .shape = blip2_get_config(student), .weights = c->loss,
			 .micro_batch = c->micro_batch ? c->micro_batch : c->batch_size, .tail_rows = 1 + w->trie.tail_len};
	d->num_blocks = d->shape->vision.num_hidden_layers + d->shape->qformer.num_hidden_layers + d->shape->text.num_hidden_layers;
	return WN_OK;
}

/* What a forward needs; training: and what a backward needs. */
static wn_code open_batches(distiller *d, bool training, wn_error *err)
{
	const workspace *w = d->w;
	const size_t n = (size_t)d->micro_batch, loss_rows = n * (size_t)d->tail_rows;
	blip2_session_options so = blip2_session_defaults();
	so.max_batch = d->micro_batch;
	so.training = training;
	so.keep_hidden = true;
	so.max_loss_rows = training ? (int)loss_rows : 0;
	so.bf16 = w->config->precision && dnn_has_bf16();
	wn_code rc = label_batch_open(&d->batch, d->micro_batch, transfer_longest_prompt(w->transfer), w->teacher.image_processor.size,
				      &w->trie, err);
	if (!rc) {
		so.max_text_len = d->batch.max_len;
		rc = blip2_session_open(&d->session, d->student, &so, err);
	}
	if (!rc && training)
		rc = distill_scratch_open(&d->scratch, d->micro_batch, &w->trie, (size_t)d->shape->vocab_size, err);
	d->items = calloc((size_t)w->config->batch_size, sizeof *d->items);
	d->next = calloc((size_t)w->config->batch_size, sizeof *d->next);
	d->rows = calloc(loss_rows, sizeof *d->rows);
	d->query_rows = calloc(n * (size_t)d->shape->num_query_tokens, sizeof *d->query_rows);
	d->text_rows = calloc(n * (size_t)(d->shape->num_query_tokens + d->batch.max_len), sizeof *d->text_rows);
	if (!rc && (!d->items || !d->next || !d->rows || !d->query_rows || !d->text_rows))
		rc = wn_fail(err, WN_NOMEM, "no memory for a batch of %d", w->config->batch_size);
	return rc;
}

/* The teacher stands in memory beside the student, unless it is the one that is scored. */
static wn_code check_memory(const distiller *d, int copies, wn_error *err)
{
	const blip2 *full = d->w->teacher.model;
	return memory_check(d->student == full ? "teacher" : "student", blip2_weights_count(d->student), copies,
			    d->student == full ? 0 : blip2_weights_count(full), err);
}

wn_code distiller_open(distiller **out, const workspace *w, teacher *t, blip2 *student, const teacher_map *map, double hidden,
                       wn_error *err)
{
	wn_code rc = create(out, w, student, err);
	if (rc)
		return rc;
	distiller *d = *out;
	d->teacher = t;
	d->map = map;
	d->weights.hidden = hidden;
	rc = check_memory(d, MEMORY_OF_STEPS, err);
	if (!rc)
		rc = open_batches(d, true, err);
	if (!rc)
		rc = adamw_open_model(&d->adamw, &d->grads, &w->config->adamw, student, err);
	if (rc)
		distiller_close(out);
	return rc;
}

wn_code distiller_open_scores(distiller **out, const workspace *w, blip2 *model, importance_method method, wn_error *err)
{
	const bool gradients = method == IMPORTANCE_TAYLOR;
	wn_code rc = create(out, w, model, err);
	if (rc)
		return rc;
	distiller *d = *out;
	d->method = method;
	d->weights = (distill_weights){.nll = 1, .temperature = 1, .margin = 1};
	if (gradients)
		rc = check_memory(d, MEMORY_OF_GRADIENTS, err);
	if (!rc && (gradients || method == IMPORTANCE_ACTIVATION))
		rc = open_batches(d, gradients, err);
	if (!rc && gradients && !(d->grads = aligned_alloc(64, (blip2_weights_count(model) * sizeof *d->grads + 63) / 64 * 64)))
		rc = wn_fail(err, WN_NOMEM, "no memory for %zu gradients", blip2_weights_count(model));
	if (rc)
		distiller_close(out);
	return rc;
}

void distiller_close(distiller **d)
{
	if (!d || !*d)
		return;
	blip2_session_close(&(*d)->session);
	label_batch_close(&(*d)->batch);
	distill_scratch_close(&(*d)->scratch);
	adamw_close(&(*d)->adamw);
	free((*d)->grads);
	free((*d)->items);
	free((*d)->next);
	free((*d)->rows);
	free((*d)->query_rows);
	free((*d)->text_rows);
	free(*d);
	*d = NULL;
}

adamw *distiller_adamw(distiller *d) { return &d->adamw; }

/* ---- one micro-batch ---- */

/* Which row of the teacher's stacks each of the student's corresponds to: it has all of the student's queries and then some,
 * and the same text behind them. Padding is compared with nothing. */
static void map_rows(distiller *d)
{
	const int teacher_queries = blip2_get_config(d->w->teacher.model)->num_query_tokens, queries = d->shape->num_query_tokens;
	const int text = d->batch.text_len, len = queries + text, teacher_len = teacher_queries + text;
	for (int i = 0; i < d->batch.n; i++) {
		for (int q = 0; q < queries; q++) {
			d->query_rows[i * queries + q] = i * teacher_queries + d->map->queries[q];
			d->text_rows[i * len + q] = i * teacher_len + d->map->queries[q];
		}
		for (int t = 0; t < text; t++)
			d->text_rows[i * len + queries + t] =
				d->batch.attention_mask[(size_t)i * (size_t)text + (size_t)t] ? i * teacher_len + teacher_queries + t : -1;
	}
}

static void logits_gradient(void *ctx, float *logits)
{
	distiller *d = ctx;
	const float *answers = d->teacher ? teacher_logits(d->teacher) : NULL;
	distill_logits(d->scratch, logits, answers, d->batch.labels, d->batch.n, d->w->config->batch_size, &d->weights, d->terms);
}

static void hidden_gradient(void *ctx, component which, int index, float *grad)
{
	distiller *d = ctx;
	const blip2_block_view view = blip2_view_block(d->session, which, index);
	const blip2_config *tc = blip2_get_config(d->w->teacher.model);
	const int widths[] = {d->shape->vision.hidden_size, d->shape->qformer.hidden_size, d->shape->text.hidden_size};
	const int teacher_widths[] = {tc->vision.hidden_size, tc->qformer.hidden_size, tc->text.hidden_size};
	const int *const to_row[] = {NULL, d->query_rows, d->text_rows};
	const hidden_map map = {.rows = view.rows, .to_row = to_row[which], .width = widths[which],
				.teacher_width = teacher_widths[which], .to_dim = d->map->hidden[which]};
	const double share = (double)d->batch.n / d->w->config->batch_size / d->num_blocks;
	const double loss = hidden_match(grad, view.output, teacher_hidden(d->teacher, which, d->map->blocks[which][index]), &map,
					 d->weights.hidden * share);
	d->terms->hidden += share * loss;
	d->terms->total += d->weights.hidden * share * loss;
}

static wn_code forward(distiller *d, const uint32_t *items, int n, int64_t step, blip2_batch *view, wn_error *err)
{
	wn_code rc = label_batch_fill(&d->batch, d->w->transfer, items, n, &d->w->batch_options, step, d->shape->pad_token_id, err);
	*view = label_batch_view(&d->batch);
	return rc ? rc : blip2_forward(d->session, view, err);
}

/* Adds the gradient of the weighted loss over the items, cut into micro-batches, to d->grads. */
static wn_code accumulate(distiller *d, int count, int64_t step, wn_error *err)
{
	int labelled = 0;
	for (int i = 0; i < count; i++)
		labelled += d->items[i] < transfer_labelled(d->w->transfer);
	d->weights.labelled_share = (double)labelled / count;
	wn_code rc = WN_OK;
	for (int from = 0; !rc && from < count; from += d->micro_batch) {
		blip2_batch view;
		rc = forward(d, d->items + from, count - from < d->micro_batch ? count - from : d->micro_batch, step, &view, err);
		if (!rc && d->teacher)
			rc = teacher_run(d->teacher, &d->batch, err);
		if (rc)
			break;
		const bool hidden = d->weights.hidden > 0;
		if (hidden)
			map_rows(d);
		const blip2_loss loss = {.rows = d->rows, .count = label_batch_rows(&d->batch, d->shape->num_query_tokens, d->rows),
					 .logits = logits_gradient, .hidden = hidden ? hidden_gradient : NULL, .ctx = d};
		rc = blip2_backward_loss(d->session, &view, &loss, d->grads, err);
	}
	return rc;
}

static void zero_grads(distiller *d) { memset(d->grads, 0, blip2_weights_count(d->student) * sizeof *d->grads); }

wn_code distiller_step(distiller *d, int64_t step, double lr, distill_result *out, wn_error *err)
{
	const compress_config *c = d->w->config;
	*out = (distill_result){0};
	d->terms = &out->terms;
	transfer_step(d->w->transfer, step, d->items);
	if (d->teacher) {
		transfer_step(d->w->transfer, step + 1, d->next);
		teacher_prefetch(d->teacher, d->next, c->batch_size);
	}
	zero_grads(d);
	wn_code rc = accumulate(d, c->batch_size, step, err);
	if (rc)
		return rc;
	out->grad_norm = grad_norm(d->grads, blip2_weights_count(d->student));
	out->skipped = !isfinite(out->grad_norm) || !isfinite(out->terms.total);
	if (!out->skipped)
		adamw_step(&d->adamw, blip2_weights(d->student), d->grads, lr, grad_clip_scale(out->grad_norm, c->clip_norm));
	return WN_OK;
}

/* ---- scores ---- */

/* Items of the b-th batch of labelled ads, from the first on, round and round. */
static void take_labelled(distiller *d, int b)
{
	const size_t size = (size_t)d->w->config->batch_size, labelled = transfer_labelled(d->w->transfer);
	for (size_t i = 0; i < size; i++)
		d->items[i] = (uint32_t)(((size_t)b * size + i) % labelled);
}

static wn_code add_gradients(distiller *d, int b, float *elements, wn_error *err)
{
	zero_grads(d);
	wn_code rc = accumulate(d, d->w->config->batch_size, b, err);
	if (!rc)
		taylor_add(elements, blip2_weights(d->student), d->grads, blip2_weights_count(d->student));
	return rc;
}

static wn_code add_activations(distiller *d, int b, structure_scores *s, wn_error *err)
{
	const int size = d->w->config->batch_size;
	wn_code rc = WN_OK;
	for (int from = 0; !rc && from < size; from += d->micro_batch) {
		blip2_batch view;
		rc = forward(d, d->items + from, size - from < d->micro_batch ? size - from : d->micro_batch, b, &view, err);
		if (!rc)
			structure_scores_add_activations(s, d->student, d->session);
	}
	return rc;
}

static wn_code score_batches(distiller *d, int batches, float *elements, structure_scores *s, wn_error *err)
{
	distill_terms unused = {0};
	wn_code rc = WN_OK;
	d->terms = &unused;
	for (int b = 0; !rc && b < batches; b++) {
		if (d->w->stop && *d->w->stop) {
			rc = wn_fail(err, WN_CANCELLED, "stopped while scoring, behind %d of %d batches", b, batches);
			break;
		}
		take_labelled(d, b);
		rc = elements ? add_gradients(d, b, elements, err) : add_activations(d, b, s, err);
	}
	d->terms = NULL;
	return rc;
}

wn_code distiller_score(distiller *d, int batches, structure_scores *s, wn_error *err)
{
	const size_t count = blip2_weights_count(d->student);
	if (d->method == IMPORTANCE_RANDOM) {
		structure_scores_random(s, (uint64_t)d->w->config->seed);
		return WN_OK;
	}
	if (d->method == IMPORTANCE_MAGNITUDE) {
		structure_scores_from_elements(s, d->student, NULL);
		return WN_OK;
	}
	if (d->method == IMPORTANCE_ACTIVATION)
		return score_batches(d, batches, NULL, s, err);
	float *elements = calloc(count, sizeof *elements);
	wn_code rc = elements ? score_batches(d, batches, elements, s, err) : wn_fail(err, WN_NOMEM, "no memory for %zu scores", count);
	if (!rc)
		structure_scores_from_elements(s, d->student, elements);
	free(elements);
	return rc;
}
