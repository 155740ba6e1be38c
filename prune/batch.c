/* batch.c: see batch.h. */
#include "prune/batch.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "model/prompt.h"

int batch_round_len(int len, int max_len)
{
	int rounded = (len + BATCH_TEXT_MULTIPLE - 1) / BATCH_TEXT_MULTIPLE * BATCH_TEXT_MULTIPLE;
	return rounded < max_len ? rounded : max_len;
}

/* One sequence into ids (room for PROMPT_MAX_TOKENS * 2). */
static wn_code encode_sample(const sequence_spec *spec, const sample *s, const int32_t *caption_prompt, int caption_prompt_len,
			     int32_t *ids, int *prompt_len, int *len, wn_error *err)
{
	wn_code rc;
	if (!spec->caption_prompt) {
		const manifest *m = spec->manifest;
		if (!spec->prompts_only && (s->label < 0 || s->label >= m->num_labels))
			return wn_fail(err, WN_INTERNAL, "sample without a label");
		int answer = 0;
		rc = prompt_encode(spec->tokenizer, m->prompt, m->max_text_tokens, spec->blank_text ? "" : s->text,
				   spec->blank_text ? "" : s->assist, ids, prompt_len, err);
		if (!rc && !spec->prompts_only)
			rc = prompt_encode_verbalizer(spec->tokenizer, m->labels[s->label].verbalizer, ids + *prompt_len, &answer,
						      err);
		*len = *prompt_len + answer;
	} else {
		size_t n = 0;
		memcpy(ids, caption_prompt, (size_t)caption_prompt_len * sizeof *ids);
		*prompt_len = caption_prompt_len;
		wn_error local = {0};
		rc = tokenizer_encode(spec->tokenizer, s->caption, strlen(s->caption), false, ids + *prompt_len,
				      (size_t)spec->max_caption_tokens, &n, &local);
		if (rc == WN_TOO_LARGE) { /* a caption may be cut: its head is what matters */
			rc = WN_OK;
			n = (size_t)spec->max_caption_tokens;
		} else if (rc) {
			return wn_fail(err, rc, "caption: %s", local.message);
		}
		*len = *prompt_len + (int)n;
	}
	if (rc)
		return rc;
	if (spec->end_token >= 0)
		ids[(*len)++] = spec->end_token;
	if (*len > spec->max_len)
		return wn_fail(err, WN_TOO_LARGE, "%d tokens with its answer, but max_position_embeddings leaves room for %d", *len,
			       spec->max_len);
	return WN_OK;
}

wn_code sequence_set_build(sequence_set *out, const dataset *d, const sequence_spec *spec, wn_error *err)
{
	*out = (sequence_set){.count = d->count};
	int32_t ids[PROMPT_MAX_TOKENS * 2], frame[256];
	size_t frame_len = 0, capacity = 0;
	wn_code rc = WN_OK;
	if (spec->max_caption_tokens > PROMPT_MAX_TOKENS - 257)
		return wn_fail(err, WN_TOO_LARGE, "max_caption_tokens: found %d, expected at most %d", spec->max_caption_tokens,
			       PROMPT_MAX_TOKENS - 257);
	if (spec->caption_prompt &&
	    (rc = tokenizer_encode(spec->tokenizer, spec->caption_prompt, strlen(spec->caption_prompt), false, frame, 256, &frame_len,
				   err)))
		return wn_fail_prefix(err, "caption_prompt");
	if (spec->caption_prompt && frame_len == 0)
		return wn_fail(err, WN_INVALID, "caption_prompt: empty, expected text");
	out->start = calloc(d->count + 1, sizeof *out->start);
	out->prompt_len = calloc(d->count, sizeof *out->prompt_len);
	if (!out->start || !out->prompt_len)
		rc = wn_fail(err, WN_NOMEM, "no memory for %zu sequences", d->count);
	for (size_t i = 0; !rc && i < d->count; i++) {
		int prompt_len = 0, len = 0;
		rc = encode_sample(spec, &d->samples[i], frame, (int)frame_len, ids, &prompt_len, &len, err);
		if (rc) {
			wn_fail_prefix(err, "%s/metadata.jsonl: %s", d->dir, d->samples[i].file_name);
			break;
		}
		if (out->start[i] + (size_t)len > capacity) {
			capacity = (out->start[i] + (size_t)len) * 2 + 4096;
			int32_t *grown = realloc(out->ids, capacity * sizeof *grown);
			if (!grown) {
				rc = wn_fail(err, WN_NOMEM, "no memory for %zu tokens", capacity);
				break;
			}
			out->ids = grown;
		}
		memcpy(out->ids + out->start[i], ids, (size_t)len * sizeof *ids);
		out->start[i + 1] = out->start[i] + (size_t)len;
		out->prompt_len[i] = (uint16_t)prompt_len;
		if (len > out->longest)
			out->longest = len;
	}
	if (rc)
		sequence_set_close(out);
	return rc;
}

void sequence_set_close(sequence_set *s)
{
	free(s->ids);
	free(s->start);
	free(s->prompt_len);
	*s = (sequence_set){0};
}

wn_code batch_open(batch *b, int max_n, int max_len, int size, wn_error *err)
{
	*b = (batch){.max_n = max_n, .max_len = max_len};
	size_t tokens, pixels;
	if (max_n < 1 || max_len < 1 || size < 1 || __builtin_mul_overflow((size_t)max_n, (size_t)max_len, &tokens) ||
	    __builtin_mul_overflow((size_t)max_n * 3, (size_t)size * (size_t)size, &pixels) || pixels > (size_t)1 << 34)
		return wn_fail(err, WN_TOO_LARGE, "a batch of %d samples, %d tokens, %d pixels a side is too large", max_n, max_len,
			       size);
	b->pixel_values = malloc(pixels * sizeof(float));
	b->input_ids = malloc(tokens * sizeof(int32_t));
	b->labels = malloc(tokens * sizeof(int32_t));
	b->attention_mask = malloc(tokens);
	if (b->pixel_values && b->input_ids && b->labels && b->attention_mask)
		return WN_OK;
	batch_close(b);
	return wn_fail(err, WN_NOMEM, "no memory for a batch of %d samples", max_n);
}

void batch_close(batch *b)
{
	free(b->pixel_values);
	free(b->input_ids);
	free(b->labels);
	free(b->attention_mask);
	*b = (batch){0};
}

static void fill_tokens(batch *b, const batch_item *items, int32_t pad_id)
{
	int longest = 1;
	for (int i = 0; i < b->n; i++) {
		int len = sequence_len(items[i].sequences, items[i].index);
		longest = len > longest ? len : longest;
	}
	const int T = b->text_len = batch_round_len(longest, b->max_len);
	b->label_tokens = 0;
	for (int i = 0; i < b->n; i++) {
		const sequence_set *s = items[i].sequences;
		const int32_t *ids = s->ids + s->start[items[i].index];
		const int len = sequence_len(s, items[i].index), prompt = s->prompt_len[items[i].index];
		for (int t = 0; t < T; t++) {
			size_t at = (size_t)i * (size_t)T + (size_t)t;
			b->input_ids[at] = t < len ? ids[t] : pad_id;
			b->attention_mask[at] = t < len;
			b->labels[at] = t >= prompt && t < len ? ids[t] : LABEL_IGNORED;
		}
		b->label_tokens += len - prompt;
	}
}

static wn_code fill_picture(float *out, const batch_item *it, const batch_options *o, wn_error *err)
{
	const int size = o->image_processor.size;
	if (o->blank_images) {
		memset(out, 0, (size_t)3 * (size_t)size * (size_t)size * sizeof *out); /* normalised: the mean colour */
		return WN_OK;
	}
	const uint8_t *square = image_cache_at(it->images, it->index);
	if (o->augment_on && !it->plain) {
		augment_image(out, &o->image_processor, square, it->images->side, &o->augment, it->key);
		return WN_OK;
	}
	image img = {.width = it->images->side, .height = it->images->side, .rgb = (uint8_t *)(uintptr_t)square}; /* only read */
	return image_preprocess(out, &o->image_processor, &img, err);
}

wn_code batch_fill_pixels(float *out, const batch_item *items, int n, const batch_options *o, wn_error *err)
{
	const size_t image_floats = (size_t)3 * (size_t)o->image_processor.size * (size_t)o->image_processor.size;
	atomic_int failed = WN_OK;
#pragma omp parallel for schedule(dynamic, 1)
	for (int i = 0; i < n; i++) {
		wn_code rc = fill_picture(out + (size_t)i * image_floats, &items[i], o, NULL);
		if (rc)
			atomic_store(&failed, (int)rc);
	}
	if (failed)
		return wn_fail(err, (wn_code)failed, "cannot preprocess a batch of %d images", n);
	return WN_OK;
}

wn_code batch_fill(batch *b, const batch_item *items, int n, const batch_options *o, int32_t pad_id, wn_error *err)
{
	if (n < 1 || n > b->max_n)
		return wn_fail(err, WN_INTERNAL, "batch of %d samples, opened for %d", n, b->max_n);
	for (int i = 0; i < n; i++)
		if (sequence_len(items[i].sequences, items[i].index) > b->max_len)
			return wn_fail(err, WN_INTERNAL, "sequence of %d tokens, batch opened for %d",
				       sequence_len(items[i].sequences, items[i].index), b->max_len);
	b->n = n;
	fill_tokens(b, items, pad_id);
	return batch_fill_pixels(b->pixel_values, items, n, o, err);
}

blip2_batch batch_view(const batch *b)
{
	return (blip2_batch){.n = b->n,
			     .text_len = b->text_len,
			     .pixel_values = b->pixel_values,
			     .input_ids = b->input_ids,
			     .attention_mask = b->attention_mask,
			     .labels = b->labels};
}
