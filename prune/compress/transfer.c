/* transfer.c: see transfer.h. Prompts are a sequence_set over the ads: one encoding for training, evaluation
 * and distillation. */
#include "prune/compress/transfer.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "prune/sample_plan.h"

/* Keys of the uses of the seed. */
#define WALK_ADS         0x6c6162656c6c6564u
#define WALK_FURTHER     0x66757274686572u
#define DRAW_PICTURES    0x70696374757265u
#define DRAW_TURNS       0x7475726e73u
#define DRAW_TEXTS       0x7465787473u
#define DRAW_AUGMENT     0x617567u

struct transfer_set {
	transfer_options o;
	transfer_item *items; /* labelled ads, ads without a label, recombined, pictures without a label */
	size_t count, ads, ad_items; /* ad_items: ads times their views; those with a label come first */
	sequence_set sequences; /* of the ads: prompts */
	int longest;            /* prompt, padded */
	sample_walk as_they_are, further;
	char digest[DIGEST_SIZE];
};

/* ---- the set ---- */

static wn_code check_options(const transfer_options *o, wn_error *err)
{
	const size_t most = o->ads->count < o->ad_images->count ? o->ads->count : o->ad_images->count;
	const size_t labelled = o->labelled->count < most ? o->labelled->count : most;
	const size_t pictures = o->unlabelled_images ? o->unlabelled_images->count : 0;
	if (o->samples < 1 || o->samples > labelled)
		return wn_fail(err, WN_INVALID, "transfer set: %zu labelled ads, expected 1 to %zu", o->samples, labelled);
	if (o->unlabelled_ads > most - o->samples)
		return wn_fail(err, WN_INVALID, "transfer set: %zu ads without a label, expected at most %zu", o->unlabelled_ads,
			       most - o->samples);
	for (size_t i = 0; i < o->samples; i++)
		if (o->labelled->samples[i].label < 0 || o->labelled->samples[i].label >= o->manifest->num_labels)
			return wn_fail(err, WN_INTERNAL, "transfer set: labelled ad %s has no label", o->labelled->samples[i].file_name);
	const size_t ads = o->samples + o->unlabelled_ads;
	if (o->recombined > ads * (ads - 1))
		return wn_fail(err, WN_INVALID, "transfer set: %zu recombined items, but %zu ads have only %zu pairs", o->recombined, ads,
			       ads * (ads - 1));
	if (o->unlabelled && !pictures)
		return wn_fail(err, WN_INVALID, "transfer set: %zu unlabelled items, but no pictures for them", o->unlabelled);
	const size_t items = ads * (size_t)(o->views > 0 ? o->views : 1) + o->recombined + o->unlabelled;
	if (items > UINT32_MAX)
		return wn_fail(err, WN_TOO_LARGE, "transfer set: %zu items are too many", items);
	if (!(o->ads_share > 0 && o->ads_share <= 1))
		return wn_fail(err, WN_INVALID, "transfer set: share of ads %g, expected more than 0 and at most 1", o->ads_share);
	if (o->views < 0 || (o->views > 0 && !o->augment))
		return wn_fail(err, WN_INTERNAL, "transfer set: %d views, %s augmentation", o->views, o->augment ? "with" : "without");
	if (o->batch_size < 1)
		return wn_fail(err, WN_INVALID, "transfer set: batches of %d, expected at least 1", o->batch_size);
	return WN_OK;
}

static wn_code encode_prompts(transfer_set *t, wn_error *err)
{
	dataset first = *t->o.ads;
	first.count = t->ads;
	const sequence_spec spec = {.tokenizer = t->o.tokenizer, .manifest = t->o.manifest, .end_token = -1, .prompts_only = true,
				    .max_len = INT_MAX};
	wn_code rc = sequence_set_build(&t->sequences, &first, &spec, err);
	int longest = 0;
	for (size_t i = 0; !rc && i < t->ads; i++)
		longest = t->sequences.prompt_len[i] > longest ? t->sequences.prompt_len[i] : longest;
	t->longest = label_trie_prompt_len(longest, t->o.manifest->max_text_tokens);
	return rc;
}

/* Ads are put in a circle in random order. In a round every picture takes the words of the ad that stands `turn` places
 * further on; every round has a turn of its own. */
static void recombine(transfer_item *items, size_t count, size_t ads, uint64_t seed, uint32_t *circle, uint32_t *turns)
{
	rng r = rng_open(seed, DRAW_PICTURES, 0, 0);
	rng_permutation(&r, circle, ads);
	r = rng_open(seed, DRAW_TURNS, 0, 0);
	rng_permutation(&r, turns, ads - 1);
	for (size_t i = 0; i < count; i++) {
		const size_t place = i % ads, turn = 1 + turns[i / ads];
		items[i] = (transfer_item){.image = circle[place], .text = circle[(place + turn) % ads], .label = -1};
	}
}

/* All views of ads [from, to): of all of them the first, then the second … */
static transfer_item *list_ads(const transfer_set *t, transfer_item *at, size_t from, size_t to)
{
	for (int v = 0; v == 0 || v < t->o.views; v++)
		for (size_t i = from; i < to; i++)
			*at++ = (transfer_item){.image = (uint32_t)i, .text = (uint32_t)i, .plain = t->o.views > 0 && v == 0,
						.label = i < t->o.samples ? t->o.labelled->samples[i].label : -1};
	return at;
}

static wn_code list_items(transfer_set *t, wn_error *err)
{
	const transfer_options *o = &t->o;
	t->count = t->ad_items + o->recombined + o->unlabelled;
	t->items = calloc(t->count, sizeof *t->items);
	uint32_t *scratch = calloc(t->ads, 2 * sizeof *scratch);
	if (!t->items || !scratch) {
		free(scratch);
		return wn_fail(err, WN_NOMEM, "no memory for a transfer set of %zu items", t->count);
	}
	transfer_item *at = t->items;
	at = list_ads(t, at, 0, o->samples);
	at = list_ads(t, at, o->samples, t->ads);
	recombine(at, o->recombined, t->ads, o->seed, scratch, scratch + t->ads);
	at += o->recombined;
	for (size_t i = 0; i < o->unlabelled; i++) {
		rng r = rng_open(o->seed, DRAW_TEXTS, i, 0);
		*at++ = (transfer_item){.source = 1, .image = (uint32_t)(i % o->unlabelled_images->count), .text = (uint32_t)rng_below(&r, t->ads), .label = -1};
	}
	free(scratch);
	return WN_OK;
}

static void digest_pictures(char out[DIGEST_SIZE], const image_cache *c, size_t count)
{
	digest_memory(out, count ? image_cache_at(c, 0) : NULL, count * (count ? (size_t)c->side * (size_t)c->side * 3 : 0));
}

/* How an item's picture is augmented belongs to the digest where that is drawn once. */
static wn_code add_views(transfer_set *t, wn_error *err)
{
	const augment_options *a = t->o.augment;
	char text[DIGEST_SIZE + 256];
	const int n = snprintf(text, sizeof text, "%s views %d seed %llu: %a %a %a %a %a %a %a %a", t->digest, t->o.views,
			       (unsigned long long)t->o.seed, a->crop_scale_min, a->crop_ratio_max, a->flip, a->brightness, a->contrast,
			       a->saturation, a->cutout, a->cutout_max);
	if (n >= (int)sizeof text)
		return wn_fail(err, WN_INTERNAL, "transfer set: digest's text is cut short");
	digest_memory(t->digest, text, (size_t)n);
	return WN_OK;
}

static wn_code make_digest(transfer_set *t, wn_error *err)
{
	const transfer_options *o = &t->o;
	const sequence_set *s = &t->sequences;
	struct {
		char items[DIGEST_SIZE], starts[DIGEST_SIZE], lengths[DIGEST_SIZE], ids[DIGEST_SIZE];
		char ads[DIGEST_SIZE], unlabelled[DIGEST_SIZE];
	} parts;
	int32_t(*rows)[4] = calloc(t->count, sizeof *rows); /* without the gaps of transfer_item */
	if (!rows)
		return wn_fail(err, WN_NOMEM, "no memory for a transfer set of %zu items", t->count);
	for (size_t i = 0; i < t->count; i++) {
		const transfer_item *it = &t->items[i];
		const int32_t row[4] = {it->source, (int32_t)it->image, (int32_t)it->text, it->label};
		memcpy(rows[i], row, sizeof row);
	}
	digest_memory(parts.items, rows, t->count * sizeof *rows);
	digest_memory(parts.starts, s->start, (s->count + 1) * sizeof *s->start);
	digest_memory(parts.lengths, s->prompt_len, s->count * sizeof *s->prompt_len);
	digest_memory(parts.ids, s->ids, s->start[s->count] * sizeof *s->ids);
	digest_pictures(parts.ads, o->ad_images, t->ads);
	const size_t pictures = o->unlabelled ? o->unlabelled_images->count : 0;
	digest_pictures(parts.unlabelled, o->unlabelled_images, pictures < o->unlabelled ? pictures : o->unlabelled);
	digest_memory(t->digest, &parts, sizeof parts);
	free(rows);
	return o->views > 0 ? add_views(t, err) : WN_OK;
}

wn_code transfer_open(transfer_set **out, const transfer_options *o, wn_error *err)
{
	*out = NULL;
	wn_code rc = check_options(o, err);
	if (rc)
		return rc;
	transfer_set *t = calloc(1, sizeof *t);
	if (!t)
		return wn_fail(err, WN_NOMEM, "no memory for a transfer set");
	t->o = *o;
	t->ads = o->samples + o->unlabelled_ads;
	t->ad_items = t->ads * (size_t)(o->views > 0 ? o->views : 1);
	rc = encode_prompts(t, err);
	if (!rc)
		rc = list_items(t, err);
	if (!rc)
		rc = make_digest(t, err);
	if (!rc)
		rc = sample_walk_open(&t->as_they_are, t->ad_items, o->seed, WALK_ADS, err);
	if (!rc && t->count > t->ad_items)
		rc = sample_walk_open(&t->further, t->count - t->ad_items, o->seed, WALK_FURTHER, err);
	if (rc)
		transfer_close(&t);
	*out = t;
	return rc;
}

void transfer_close(transfer_set **t)
{
	if (!*t)
		return;
	sequence_set_close(&(*t)->sequences);
	sample_walk_close(&(*t)->as_they_are);
	sample_walk_close(&(*t)->further);
	free((*t)->items);
	free(*t);
	*t = NULL;
}

size_t transfer_count(const transfer_set *t) { return t->count; }
size_t transfer_labelled(const transfer_set *t) { return t->ad_items / t->ads * t->o.samples; }
bool transfer_is_fixed(const transfer_set *t) { return t->o.views > 0; }
const transfer_item *transfer_get(const transfer_set *t, size_t i) { return &t->items[i]; }
int transfer_longest_prompt(const transfer_set *t) { return t->longest; }
const char *transfer_digest(const transfer_set *t) { return t->digest; }

int transfer_prompt(const transfer_set *t, size_t i, const int32_t **ids)
{
	const uint32_t text = t->items[i].text;
	*ids = t->sequences.ids + t->sequences.start[text];
	return t->sequences.prompt_len[text];
}

static int prompt_len(const transfer_set *t, uint32_t item) { return t->sequences.prompt_len[t->items[item].text]; }

/* Ads as they are in the first `steps` steps; what is left of a batch are further items. */
static int64_t ads_before(const transfer_set *t, int64_t steps)
{
	return sample_share(steps, t->o.batch_size, t->further.count ? t->o.ads_share : 1);
}

void transfer_step(transfer_set *t, int64_t step, uint32_t *items)
{
	const int64_t a0 = ads_before(t, step), f0 = step * t->o.batch_size - a0;
	const int ads = (int)(ads_before(t, step + 1) - a0);
	for (int i = 0; i < t->o.batch_size; i++) {
		const uint32_t item = i < ads ? sample_walk_at(&t->as_they_are, (uint64_t)(a0 + i))
					      : (uint32_t)t->ad_items + sample_walk_at(&t->further, (uint64_t)(f0 + i - ads));
		const int len = prompt_len(t, item);
		int at = i; /* insertion keeps equals in the order they were drawn in */
		for (; at > 0 && prompt_len(t, items[at - 1]) < len; at--)
			items[at] = items[at - 1];
		items[at] = item;
	}
}

/* ---- batches ---- */

wn_code label_batch_open(label_batch *b, int max_n, int max_prompt, int image_size, const label_trie *trie, wn_error *err)
{
	*b = (label_batch){.max_n = max_n, .max_len = max_prompt + trie->tail_len, .image_size = image_size, .trie = trie};
	size_t tokens, pixels;
	if (max_n < 1 || max_prompt < 1 || image_size < 1 ||
	    __builtin_mul_overflow((size_t)max_n, (size_t)b->max_len, &tokens) ||
	    __builtin_mul_overflow((size_t)max_n * 3, (size_t)image_size * (size_t)image_size, &pixels) || pixels > (size_t)1 << 34)
		return wn_fail(err, WN_TOO_LARGE, "a batch of %d samples, %d prompt tokens, %d pixels a side is too large", max_n,
			       max_prompt, image_size);
	const size_t n = (size_t)max_n;
	b->pixel_values = malloc(pixels * sizeof *b->pixel_values);
	b->input_ids = malloc(tokens * sizeof *b->input_ids);
	b->attention_mask = malloc(tokens);
	b->labels = malloc(n * sizeof *b->labels);
	b->items = malloc(n * sizeof *b->items);
	b->pictures = malloc(n * sizeof *b->pictures);
	if (b->pixel_values && b->input_ids && b->attention_mask && b->labels && b->items && b->pictures)
		return WN_OK;
	label_batch_close(b);
	return wn_fail(err, WN_NOMEM, "no memory for a batch of %d samples", max_n);
}

void label_batch_close(label_batch *b)
{
	free(b->pixel_values);
	free(b->input_ids);
	free(b->attention_mask);
	free(b->labels);
	free(b->items);
	free(b->pictures);
	*b = (label_batch){0};
}

wn_code label_batch_fill(label_batch *b, const transfer_set *t, const uint32_t *items, int n, const batch_options *o, int64_t step,
                         int32_t pad_id, wn_error *err)
{
	int longest = 1;
	if (n < 1 || n > b->max_n)
		return wn_fail(err, WN_INTERNAL, "batch of %d samples, opened for %d", n, b->max_n);
	if (o->image_processor.size != b->image_size)
		return wn_fail(err, WN_INTERNAL, "batch of %d pixels a side, opened for %d", o->image_processor.size, b->image_size);
	for (int i = 0; i < n; i++) {
		if (items[i] >= t->count)
			return wn_fail(err, WN_INTERNAL, "item %u of a transfer set of %zu", (unsigned)items[i], t->count);
		longest = prompt_len(t, items[i]) > longest ? prompt_len(t, items[i]) : longest;
	}
	b->n = n;
	b->prompt_len = label_trie_prompt_len(longest, t->o.manifest->max_text_tokens);
	b->text_len = b->prompt_len + b->trie->tail_len;
	if (b->text_len > b->max_len)
		return wn_fail(err, WN_INTERNAL, "batch of %d tokens, opened for %d", b->text_len, b->max_len);
	for (int i = 0; i < n; i++) {
		const transfer_item *it = &t->items[items[i]];
		const size_t at = (size_t)i * (size_t)b->text_len;
		const int32_t *ids;
		const int len = transfer_prompt(t, items[i], &ids);
		label_trie_lay_out(b->trie, b->input_ids + at, b->attention_mask + at, ids, len, b->prompt_len, pad_id);
		b->labels[i] = it->label;
		b->items[i] = items[i];
		b->pictures[i] = (batch_item){.images = it->source ? t->o.unlabelled_images : t->o.ad_images,
					      .index = it->image,
					      .key = rng_open(t->o.seed, DRAW_AUGMENT, t->o.views > 0 ? 0 : (uint64_t)step, items[i]),
					      .plain = it->plain};
	}
	return batch_fill_pixels(b->pixel_values, b->pictures, n, o, err);
}

blip2_batch label_batch_view(const label_batch *b)
{
	return (blip2_batch){.n = b->n,
			     .text_len = b->text_len,
			     .pixel_values = b->pixel_values,
			     .input_ids = b->input_ids,
			     .attention_mask = b->attention_mask,
			     .tail_len = b->trie->tail_len,
			     .tail_parent = b->trie->tail_parent};
}

size_t label_batch_rows(const label_batch *b, int queries, int32_t *rows)
{
	const size_t each = 1 + (size_t)b->trie->tail_len;
	for (int i = 0; i < b->n; i++)
		label_trie_rows(b->trie, rows + (size_t)i * each, i, queries, b->prompt_len);
	return (size_t)b->n * each;
}
