/* cmd_forward.c: `forward` and `grad`, the commands that let outsiders check the engine tensor by tensor.
 *
 * The whole batch is read, the engine runs it in chunks that fit a memory budget, and every result is kept until the file is
 * written at once (safetensors_write replaces it atomically). The loss is the mean over the whole batch's labels, so a
 * chunk's gradient is weighted by its share of them. One thread drives; the engine uses its OpenMP team. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/blip2.h"
#include "model/checkpoint.h"
#include "model/engine.h"
#include "model/safetensors.h"
#include "prune/commands.h"
#include "prune/options.h"

#define CHUNK_BUDGET ((size_t)1 << 30) /* bytes of activations */

/* The tensors of IN, checked and converted. */
typedef struct inputs {
	int n, text_len;
	const tensor *pixels;  /* [n][3][H][W], in the file's map */
	int32_t *input_ids;    /* [n][T], owned */
	uint8_t *mask;         /* [n][T], owned, NULL when absent */
	int32_t *labels;       /* [n][T], owned, NULL when absent */
} inputs;

static void inputs_free(inputs *in)
{
	free(in->input_ids);
	free(in->mask);
	free(in->labels);
	memset(in, 0, sizeof *in);
}

/* Element i of an I64 or I32 tensor, which may be unaligned. */
static int64_t integer_at(const tensor *t, size_t i)
{
	int64_t wide;
	int32_t narrow;
	if (t->dtype == DTYPE_I64) {
		memcpy(&wide, (const char *)t->data + i * sizeof wide, sizeof wide);
		return wide;
	}
	memcpy(&narrow, (const char *)t->data + i * sizeof narrow, sizeof narrow);
	return narrow;
}

static wn_code bad_shape(const char *name, const tensor *t, const char *expected, wn_error *err)
{
	char found[160] = "";
	size_t n = 0;
	for (int i = 0; i < t->rank && n < sizeof found; i++)
		n += (size_t)snprintf(found + n, sizeof found - n, "%s%lld", i ? ", " : "", (long long)t->shape[i]);
	return wn_fail(err, WN_INVALID, "%s: found %s [%s], expected %s", name, dtype_name(t->dtype), found, expected);
}

/* A tensor of whole numbers with shape [n, T]. */
static wn_code check_integers(const tensor *t, const char *name, const inputs *in, wn_error *err)
{
	char expected[64];
	snprintf(expected, sizeof expected, "I64 [%d, %d]", in->n, in->text_len);
	if ((t->dtype != DTYPE_I64 && t->dtype != DTYPE_I32) || t->rank != 2 || t->shape[0] != in->n || t->shape[1] != in->text_len)
		return bad_shape(name, t, expected, err);
	return WN_OK;
}

/* Token ids in [0, vocab), or -100 as well when `ignored` may stand there. Returns a malloc'ed copy through *out. */
static wn_code read_ids(int32_t **out, const tensor *t, const char *name, const inputs *in, int vocab, bool ignored,
                        wn_error *err)
{
	wn_code rc = check_integers(t, name, in, err);
	if (rc)
		return rc;
	const size_t count = (size_t)in->n * (size_t)in->text_len;
	if (!(*out = malloc(count * sizeof **out)))
		return wn_fail(err, WN_NOMEM, "%s: out of memory", name);
	for (size_t i = 0; i < count; i++) {
		int64_t v = integer_at(t, i);
		if ((v < 0 || v >= vocab) && !(ignored && v == -100))
			return wn_fail(err, WN_INVALID, "%s: element [%zu, %zu] is %lld, expected 0 to %d%s", name,
			               i / (size_t)in->text_len, i % (size_t)in->text_len, (long long)v, vocab - 1,
			               ignored ? " or -100" : "");
		(*out)[i] = (int32_t)v;
	}
	return WN_OK;
}

static wn_code read_mask(inputs *in, const tensor *t, wn_error *err)
{
	wn_code rc = check_integers(t, "attention_mask", in, err);
	if (rc)
		return rc;
	const size_t count = (size_t)in->n * (size_t)in->text_len;
	if (!(in->mask = malloc(count)))
		return wn_fail(err, WN_NOMEM, "attention_mask: out of memory");
	for (size_t i = 0; i < count; i++) {
		int64_t v = integer_at(t, i);
		if (v != 0 && v != 1)
			return wn_fail(err, WN_INVALID, "attention_mask: element [%zu, %zu] is %lld, expected 0 or 1",
			               i / (size_t)in->text_len, i % (size_t)in->text_len, (long long)v);
		in->mask[i] = (uint8_t)v;
	}
	return WN_OK;
}

/* Takes what `forward` and `grad` need out of the file, checked against the model. */
static wn_code read_inputs(inputs *in, const safetensors *st, const blip2_config *c, bool need_labels, wn_error *err)
{
	char expected[64];
	const tensor *ids = safetensors_find(st, "input_ids"), *mask = safetensors_find(st, "attention_mask");
	const tensor *labels = safetensors_find(st, "labels"), *px = safetensors_find(st, "pixel_values");
	wn_code rc;
	if (!px || !ids || (need_labels && !labels))
		return wn_fail(err, WN_NOT_FOUND, "%s: missing from the input file", !px ? "pixel_values" : !ids ? "input_ids" : "labels");
	snprintf(expected, sizeof expected, "F32 [n, 3, %d, %d]", c->image_size, c->image_size);
	if (px->dtype != DTYPE_F32 || px->rank != 4 || px->shape[0] < 1 || px->shape[0] > 1 << 20 || px->shape[1] != 3 ||
	    px->shape[2] != c->image_size || px->shape[3] != c->image_size)
		return bad_shape("pixel_values", px, expected, err);
	in->pixels = px;
	in->n = (int)px->shape[0];
	snprintf(expected, sizeof expected, "I64 [%d, T] with T of 1 to %d", in->n, c->max_position_embeddings);
	if (ids->rank != 2 || ids->shape[0] != in->n || ids->shape[1] < 1 || ids->shape[1] > c->max_position_embeddings)
		return bad_shape("input_ids", ids, expected, err);
	in->text_len = (int)ids->shape[1];
	if ((rc = read_ids(&in->input_ids, ids, "input_ids", in, c->vocab_size, false, err)) ||
	    (mask && (rc = read_mask(in, mask, err))))
		return rc;
	return labels && need_labels ? read_ids(&in->labels, labels, "labels", in, c->vocab_size, true, err) : WN_OK;
}

/* Floats of activation a sample takes, as if nothing were reused: the chunk size only has to be safe. */
static double sample_floats(const blip2_config *c, int text_len)
{
	const double grid = c->image_size / c->patch_size, patches = grid * grid + 1;
	const double len[] = {patches, c->num_query_tokens, c->num_query_tokens + text_len};
	double total = 3.0 * c->image_size * c->image_size * 2;
	for (int s = 0; s < NUM_COMPONENTS; s++) {
		const stack_config *stack = shape_stack(c, (component)s);
		for (int i = 0; i < stack->num_hidden_layers; i++) {
			const block_widths *w = &stack->blocks[i];
			total += len[s] * (8.0 * stack->hidden_size + 6.0 * w->num_heads * w->head_dim + 3.0 * w->ffn_dim) +
			         2.0 * w->num_heads * len[s] * len[s] + w->cross_num_heads * len[s] * patches +
			         2.0 * w->cross_num_heads * w->cross_head_dim * patches;
		}
	}
	return total + len[2] * c->vocab_size;
}

static int chunk_size(const blip2_config *c, int n, int text_len)
{
	double fit = (double)CHUNK_BUDGET / sizeof(float) / sample_floats(c, text_len);
	return fit < 1 ? 1 : fit < n ? (int)fit : n;
}

/* Samples [first, first + n) as a batch; their pixels are copied into `pixels`, since a file's map may be unaligned. */
static blip2_batch slice(const inputs *in, int first, int n, float *pixels, size_t sample_pixels)
{
	const size_t at = (size_t)first * (size_t)in->text_len;
	memcpy(pixels, (const char *)in->pixels->data + (size_t)first * sample_pixels * sizeof(float),
	       (size_t)n * sample_pixels * sizeof(float));
	return (blip2_batch){.n = n, .text_len = in->text_len, .pixel_values = pixels, .input_ids = in->input_ids + at,
	                     .attention_mask = in->mask ? in->mask + at : NULL, .labels = in->labels ? in->labels + at : NULL};
}

/* ---- forward ---- */

typedef struct outputs {
	float *vision, *qformer, *logits;
	size_t vision_sample, qformer_sample, logits_sample; /* floats a sample */
} outputs;

/* f32 runs as it is trained, other precisions as they are served. */
typedef struct forward_run {
	blip2_session *plain;
	engine *engine;
	engine_session *packed;
} forward_run;

static wn_code forward_open(forward_run *r, const blip2 *m, precision p, int max_batch, int text_len, wn_error *err)
{
	blip2_session_options opt = blip2_session_defaults();
	opt.max_batch = max_batch;
	opt.max_text_len = text_len;
	if (p == PRECISION_F32)
		return blip2_session_open(&r->plain, m, &opt, err);
	wn_code rc = engine_open(&r->engine, m, &(engine_options){.precision = p}, err);
	return rc ? rc : engine_session_open(&r->packed, r->engine, max_batch, text_len,
					     max_batch * (blip2_get_config(m)->num_query_tokens + text_len), err);
}

static void forward_close(forward_run *r)
{
	blip2_session_close(&r->plain);
	engine_session_close(&r->packed);
	engine_close(&r->engine);
}

/* Logits of all rows, [n * len], at `logits`. */
static wn_code forward_batch(forward_run *r, const blip2_batch *b, const int32_t *rows, size_t count, float *logits, wn_error *err)
{
	if (r->packed)
		return engine_run(r->packed, b, rows, count, logits, err);
	wn_code rc = blip2_forward(r->plain, b, err);
	if (!rc)
		blip2_logits(r->plain, rows, count, logits);
	return rc;
}

static wn_code forward_chunks(outputs *o, const blip2 *m, precision p, const inputs *in, wn_error *err)
{
	const blip2_config *c = blip2_get_config(m);
	const int chunk = chunk_size(c, in->n, in->text_len), len = c->num_query_tokens + in->text_len;
	const size_t sample_pixels = 3 * (size_t)c->image_size * (size_t)c->image_size;
	forward_run r = {0};
	wn_code rc;
	float *pixels = malloc((size_t)chunk * sample_pixels * sizeof *pixels);
	int32_t *rows = malloc((size_t)chunk * (size_t)len * sizeof *rows);
	if (!pixels || !rows) {
		rc = wn_fail(err, WN_NOMEM, "out of memory for a chunk of %d samples", chunk);
		goto done;
	}
	for (int i = 0; i < chunk * len; i++)
		rows[i] = i;
	rc = forward_open(&r, m, p, chunk, in->text_len, err);
	for (int first = 0; first < in->n && rc == WN_OK; first += chunk) {
		const int n = in->n - first < chunk ? in->n - first : chunk;
		const blip2_batch b = slice(in, first, n, pixels, sample_pixels);
		const size_t at = (size_t)first, k = (size_t)n * sizeof(float);
		if ((rc = forward_batch(&r, &b, rows, (size_t)n * (size_t)len, o->logits + at * o->logits_sample, err)))
			break;
		memcpy(o->vision + at * o->vision_sample, r.packed ? engine_vision_hidden(r.packed) : blip2_vision_hidden(r.plain),
		       k * o->vision_sample);
		memcpy(o->qformer + at * o->qformer_sample, r.packed ? engine_qformer_hidden(r.packed) : blip2_qformer_hidden(r.plain),
		       k * o->qformer_sample);
	}
done:
	forward_close(&r);
	free(rows);
	free(pixels);
	return rc;
}

static wn_code forward_to_file(const blip2 *m, precision p, const inputs *in, const char *path, wn_error *err)
{
	const blip2_config *c = blip2_get_config(m);
	const int grid = c->image_size / c->patch_size, patches = grid * grid + 1, len = c->num_query_tokens + in->text_len;
	outputs o = {.vision_sample = (size_t)patches * (size_t)c->vision.hidden_size,
	             .qformer_sample = (size_t)c->num_query_tokens * (size_t)c->qformer.hidden_size,
	             .logits_sample = (size_t)len * (size_t)c->vocab_size};
	const size_t n = (size_t)in->n;
	o.vision = calloc(n * o.vision_sample, sizeof(float));
	o.qformer = calloc(n * o.qformer_sample, sizeof(float));
	o.logits = calloc(n * o.logits_sample, sizeof(float));
	wn_code rc;
	if (!o.vision || !o.qformer || !o.logits)
		rc = wn_fail(err, WN_NOMEM, "out of memory for the results of %d samples", in->n);
	else
		rc = forward_chunks(&o, m, p, in, err);
	if (rc == WN_OK) {
		const safetensors_entry entries[] = {
			{"vision_last_hidden_state", {DTYPE_F32, 3, {in->n, patches, c->vision.hidden_size}, o.vision}},
			{"qformer_last_hidden_state", {DTYPE_F32, 3, {in->n, c->num_query_tokens, c->qformer.hidden_size}, o.qformer}},
			{"logits", {DTYPE_F32, 3, {in->n, len, c->vocab_size}, o.logits}},
		};
		rc = safetensors_write(path, entries, 3, err);
	}
	free(o.vision);
	free(o.qformer);
	free(o.logits);
	return rc;
}

/* ---- grad ---- */

/* Labels that count: not ignored, and not at position 0, which nothing predicts (HF's shift). */
static int count_labels(const inputs *in, int first, int n)
{
	int count = 0;
	for (int i = first; i < first + n; i++)
		for (int t = 1; t < in->text_len; t++)
			count += in->labels[(size_t)i * (size_t)in->text_len + (size_t)t] != -100;
	return count;
}

static wn_code grad_chunks(float *grads, float *loss, const blip2 *m, const inputs *in, wn_error *err)
{
	const blip2_config *c = blip2_get_config(m);
	const int chunk = chunk_size(c, in->n, in->text_len), total = count_labels(in, 0, in->n);
	const size_t sample_pixels = 3 * (size_t)c->image_size * (size_t)c->image_size;
	blip2_session *s = NULL;
	blip2_session_options opt = blip2_session_defaults();
	opt.max_batch = chunk;
	opt.max_text_len = in->text_len;
	opt.training = true;
	double sum = 0;
	wn_code rc;
	float *pixels = malloc((size_t)chunk * sample_pixels * sizeof *pixels);
	if (!pixels) {
		rc = wn_fail(err, WN_NOMEM, "out of memory for a chunk of %d samples", chunk);
		goto done;
	}
	if (total == 0) {
		rc = wn_fail(err, WN_INVALID, "labels: every element behind the first column is -100, expected a token to predict");
		goto done;
	}
	if ((rc = blip2_session_open(&s, m, &opt, err)))
		goto done;
	for (int first = 0; first < in->n && rc == WN_OK; first += chunk) {
		const int n = in->n - first < chunk ? in->n - first : chunk;
		const double share = (double)count_labels(in, first, n) / total;
		float chunk_loss = 0;
		if (share == 0)
			continue; /* its mean would be 0/0 */
		const blip2_batch b = slice(in, first, n, pixels, sample_pixels);
		if ((rc = blip2_forward(s, &b, err)) == WN_OK)
			rc = blip2_backward(s, &b, (float)share, grads, &chunk_loss, NULL, NULL, err);
		sum += share * chunk_loss;
	}
	*loss = (float)sum;
done:
	blip2_session_close(&s);
	free(pixels);
	return rc;
}

static wn_code grad_to_file(const blip2 *m, const inputs *in, const char *path, wn_error *err)
{
	const size_t n = blip2_num_params(m);
	float loss = 0;
	float *grads = calloc(blip2_weights_count(m), sizeof *grads);
	safetensors_entry *entries = calloc(n + 1, sizeof *entries);
	wn_code rc;
	if (!grads || !entries)
		rc = wn_fail(err, WN_NOMEM, "out of memory for the gradients");
	else
		rc = grad_chunks(grads, &loss, m, in, err);
	if (rc == WN_OK) {
		entries[0] = (safetensors_entry){"loss", {DTYPE_F32, 1, {1}, &loss}};
		for (size_t i = 0; i < n; i++) {
			const param *p = blip2_param(m, i);
			entries[i + 1] = (safetensors_entry){p->name, {.dtype = DTYPE_F32, .rank = p->rank, .data = grads + p->offset}};
			memcpy(entries[i + 1].tensor.shape, p->shape, (size_t)p->rank * sizeof *p->shape);
		}
		rc = safetensors_write(path, entries, n + 1, err);
	}
	free(entries);
	free(grads);
	return rc;
}

/* ---- the commands ---- */

/* p: of a forward. */
static int run(const command_info *info, const char *model, const char *in_path, const char *out_path, bool gradients, precision p)
{
	const checkpoint_options opt = {.skip_digest = true};
	checkpoint ck = {0};
	safetensors *st = NULL;
	inputs in = {0};
	wn_error err = {0};
	wn_code rc = checkpoint_load(&ck, model, &opt, &err);
	if (rc == WN_OK)
		rc = safetensors_open(&st, in_path, &err);
	if (rc == WN_OK && (rc = read_inputs(&in, st, blip2_get_config(ck.model), gradients, &err)))
		wn_fail_prefix(&err, "%.200s", in_path);
	if (rc == WN_OK)
		rc = gradients ? grad_to_file(ck.model, &in, out_path, &err) : forward_to_file(ck.model, p, &in, out_path, &err);
	inputs_free(&in);
	safetensors_close(&st);
	checkpoint_close(&ck);
	return rc ? command_fail(info, &err) : EXIT_DONE;
}

int cmd_forward(int argc, char **argv)
{
	const char *model = NULL, *in = NULL, *out = NULL, *precision_name = "f32";
	const option_spec options[] = {
		{"model", OPTION_STRING, &model, "DIR", "model directory", .required = true},
		{"in", OPTION_STRING, &in, "FILE", "safetensors with pixel_values, input_ids, [attention_mask]", .required = true},
		{"out", OPTION_STRING, &out, "FILE", "where the hidden states and logits go", .required = true},
		{"precision", OPTION_CHOICE, &precision_name, "P", "f32 (default), bf16 or int8", .choices = "f32 bf16 int8"},
		{0}};
	const command_info info = {"forward", "hidden states and logits of every position",
	                           "winnow-prune forward --model teacher --in batch.safetensors --out result.safetensors", options};
	int rc = options_parse(&info, argc, argv);
	if (rc != OPTIONS_OK)
		return rc == OPTIONS_HELP ? EXIT_DONE : EXIT_USAGE;
	return run(&info, model, in, out, false, (precision)precision_of(precision_name));
}

int cmd_grad(int argc, char **argv)
{
	const char *model = NULL, *in = NULL, *out = NULL;
	const option_spec options[] = {
		{"model", OPTION_STRING, &model, "DIR", "model directory", .required = true},
		{"in", OPTION_STRING, &in, "FILE", "safetensors with pixel_values, input_ids, labels, [attention_mask]", .required = true},
		{"out", OPTION_STRING, &out, "FILE", "where loss and gradients go", .required = true},
		{0}};
	const command_info info = {"grad", "the loss and its gradient for every parameter, by the parameter's name",
	                           "winnow-prune grad --model teacher --in batch.safetensors --out gradients.safetensors", options};
	int rc = options_parse(&info, argc, argv);
	if (rc != OPTIONS_OK)
		return rc == OPTIONS_HELP ? EXIT_DONE : EXIT_USAGE;
	return run(&info, model, in, out, true, PRECISION_F32);
}
