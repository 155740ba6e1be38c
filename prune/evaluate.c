/* evaluate.c: see evaluate.h. One session is opened per evaluation: they are rare, and it need not keep memory between. */
#include "prune/evaluate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Samples that are evaluated. */
static size_t eval_count(const eval_data *d)
{
	return d->limit && d->limit < d->dataset->count ? d->limit : d->dataset->count;
}

static wn_code check_cancelled(const eval_data *d, wn_error *err)
{
	return d->cancelled && d->cancelled(d->ctx) ? wn_fail(err, WN_CANCELLED, "evaluation stopped") : WN_OK;
}

/* Longest first would need less padding, but the order of results is the data set's: callers index by it. */
static int take_items(const eval_data *d, size_t from, size_t count, batch_item *items)
{
	int n = (int)(count - from < (size_t)d->batch_size ? count - from : (size_t)d->batch_size);
	for (int i = 0; i < n; i++)
		items[i] = (batch_item){.sequences = d->sequences, .images = d->images, .index = from + (size_t)i};
	return n;
}

/* probs [eval_count][num_labels] */
static wn_code evaluate_labels(const eval_data *d, const classifier *c, float *probs, wn_error *err)
{
	const size_t count = eval_count(d), labels = (size_t)classifier_num_labels(c);
	const int size = d->batch->image_processor.size;
	const size_t image_floats = (size_t)3 * (size_t)size * (size_t)size;
	batch b = {0};
	classifier_session *s = NULL;
	classifier_input *in = calloc((size_t)d->batch_size, sizeof *in);
	batch_item *items = calloc((size_t)d->batch_size, sizeof *items);
	wn_code rc = in && items ? WN_OK : wn_fail(err, WN_NOMEM, "no memory for a batch of %d", d->batch_size);
	if (!rc)
		rc = batch_open(&b, d->batch_size, d->sequences->longest, size, err);
	if (!rc)
		rc = classifier_session_open(&s, c, d->batch_size, err);
	for (size_t from = 0; !rc && from < count;) {
		int n = take_items(d, from, count, items);
		rc = check_cancelled(d, err);
		if (!rc)
			rc = batch_fill(&b, items, n, d->batch, 0, err);
		for (int i = 0; i < n; i++) {
			const sequence_set *q = d->sequences;
			in[i] = (classifier_input){.pixel_values = b.pixel_values + (size_t)i * image_floats,
						   .prompt_ids = q->ids + q->start[from + (size_t)i],
						   .prompt_len = q->prompt_len[from + (size_t)i]};
		}
		if (!rc)
			rc = classifier_run(s, in, n, probs + from * labels, err);
		from += (size_t)n;
	}
	classifier_session_close(&s);
	batch_close(&b);
	free(items);
	free(in);
	return rc;
}

wn_code evaluate_audit(const eval_data *d, const classifier *c, metrics *out, wn_error *err)
{
	const size_t count = eval_count(d), labels = (size_t)classifier_num_labels(c);
	float *probs = calloc(count * labels, sizeof *probs);
	int *truth = calloc(count, sizeof *truth);
	wn_code rc = probs && truth ? WN_OK : wn_fail(err, WN_NOMEM, "no memory for %zu results", count);
	if (!rc)
		rc = evaluate_labels(d, c, probs, err);
	if (!rc) {
		for (size_t i = 0; i < count; i++)
			truth[i] = d->dataset->samples[i].label;
		metrics_compute(out, probs, truth, count, (int)labels);
	}
	free(probs);
	free(truth);
	return rc;
}

typedef struct caption_sums {
	double loss;
	size_t tokens, correct, exact;
} caption_sums;

/* Cross-entropy and hit of one row of logits. */
static int score_row(const float *logits, int vocab, int32_t target, double *loss)
{
	int best = 0;
	double sum = 0;
	for (int v = 1; v < vocab; v++)
		if (logits[v] > logits[best])
			best = v;
	for (int v = 0; v < vocab; v++)
		sum += exp((double)(logits[v] - logits[best]));
	*loss = log(sum) - (double)(logits[target] - logits[best]);
	return best == target;
}

/* rows: room for every token of the batch; logits: one sample's answer. */
static void score_batch(const blip2_session *s, const batch *b, const batch_item *items, const blip2_config *c, int32_t *rows,
			float *logits, caption_sums *sums)
{
	for (int i = 0; i < b->n; i++) {
		const sequence_set *q = items[i].sequences;
		const int prompt = q->prompt_len[items[i].index], answer = sequence_answer_len(q, items[i].index);
		const int32_t *ids = q->ids + q->start[items[i].index];
		for (int k = 0; k < answer; k++) /* the token at prompt + k is predicted one position before */
			rows[k] = i * (c->num_query_tokens + b->text_len) + c->num_query_tokens + prompt + k - 1;
		blip2_logits(s, rows, (size_t)answer, logits);
		int head_hits = 0, head = answer < EVAL_HEAD_TOKENS ? answer : EVAL_HEAD_TOKENS;
		for (int k = 0; k < answer; k++) {
			double loss;
			int hit = score_row(logits + (size_t)k * (size_t)c->vocab_size, c->vocab_size, ids[prompt + k], &loss);
			sums->loss += loss;
			sums->correct += (size_t)hit;
			head_hits += k < head && hit;
		}
		sums->tokens += (size_t)answer;
		sums->exact += head_hits == head;
	}
}

/* The vision stack alone on a batch. The engine has no such forward without a backward: its gradients are of scale 0, into
 * `unused`. */
static wn_code score_vision(blip2_session *s, const blip2_batch *view, float *unused, caption_sums *sums, wn_error *err)
{
	float loss = 0;
	int correct = 0, total = 0;
	wn_code rc = blip2_vision_first(s, view, NULL, 0, 0, unused, &loss, &correct, &total, err);
	sums->loss += (double)loss * total;
	sums->correct += (size_t)correct;
	sums->exact += (size_t)correct;
	sums->tokens += (size_t)total;
	return rc;
}

wn_code evaluate_captions(const eval_data *d, const blip2 *m, int max_len, bool vision_alone, caption_metrics *out, wn_error *err)
{
	const blip2_config *c = blip2_get_config(m);
	const size_t count = eval_count(d);
	const int longest = batch_round_len(d->sequences->longest, max_len);
	*out = (caption_metrics){.count = count};
	batch b = {0};
	blip2_session *s = NULL;
	caption_sums sums = {0};
	batch_item *items = calloc((size_t)d->batch_size, sizeof *items);
	int32_t *rows = calloc((size_t)longest, sizeof *rows);
	float *logits = calloc((size_t)longest * (size_t)c->vocab_size, sizeof *logits);
	float *unused = vision_alone ? calloc(blip2_weights_count(m), sizeof *unused) : NULL;
	wn_code rc = items && rows && logits && (unused || !vision_alone) ? WN_OK
									  : wn_fail(err, WN_NOMEM, "no memory for a batch of %d", d->batch_size);
	if (!rc)
		rc = batch_open(&b, d->batch_size, longest, d->batch->image_processor.size, err);
	blip2_session_options so = blip2_session_defaults();
	so.max_batch = d->batch_size;
	so.max_text_len = longest;
	so.training = vision_alone;
	if (!rc)
		rc = blip2_session_open(&s, m, &so, err);
	for (size_t from = 0; !rc && from < count;) {
		int n = take_items(d, from, count, items);
		rc = check_cancelled(d, err);
		if (!rc)
			rc = batch_fill(&b, items, n, d->batch, c->pad_token_id, err);
		if (!rc) {
			blip2_batch view = batch_view(&b);
			rc = vision_alone ? score_vision(s, &view, unused, &sums, err) : blip2_forward(s, &view, err);
		}
		if (!rc && !vision_alone)
			score_batch(s, &b, items, c, rows, logits, &sums);
		from += (size_t)n;
	}
	if (!rc && sums.tokens && count) {
		out->loss = sums.loss / (double)sums.tokens;
		out->token_accuracy = (double)sums.correct / (double)sums.tokens;
		out->exact_match = (double)sums.exact / (double)count;
	}
	blip2_session_close(&s);
	batch_close(&b);
	free(items);
	free(rows);
	free(logits);
	free(unused);
	return rc;
}
