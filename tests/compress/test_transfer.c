/* What a student is distilled on: which items there are, in which order they come, and that a batch of them is what serving
 * scores: its label probabilities are the classifier's. */
#include "tests/compress/transfer_fixture.h"

#include "base/file.h"
#include "model/classifier.h"
#include "model/prompt.h"

static char dir[256];
static fixture f;

static int open_fixture(void **state)
{
	scratch_open(dir, sizeof dir);
	fixture_open(&f, dir, 96);
	return 0;
}
static int close_fixture(void **state)
{
	fixture_close(&f);
	remove_tree(dir);
	return 0;
}

static transfer_set *open_set(const transfer_options *o)
{
	transfer_set *t = NULL;
	assert_ok(transfer_open(&t, o, err));
	return t;
}

/* ---- items ---- */

static void labelled_ads_come_first_as_they_are(void **state)
{
	transfer_options o = fixture_options(&f);
	o.samples = 20;
	transfer_set *t = open_set(&o);
	assert_int_equal(transfer_count(t), 20 + 100 + FURTHER_PICTURES);
	assert_int_equal(transfer_labelled(t), 20);
	for (size_t i = 0; i < 20; i++) {
		const transfer_item *it = transfer_get(t, i);
		assert_true(it->source == 0 && it->image == i && it->text == i && it->label == f.dataset.samples[i].label);
	}
	for (size_t i = 20; i < transfer_count(t); i++)
		assert_true(transfer_get(t, i)->label == -1 && transfer_get(t, i)->text < 20);
	for (size_t i = 0; i < FURTHER_PICTURES; i++) {
		const transfer_item *it = transfer_get(t, 120 + i);
		assert_true(it->source == 1 && it->image == i);
	}
	transfer_close(&t);
}

/* Ads behind the labelled ones: their own words, no label, drawn as often as labelled ones; all ads are recombined. */
static void ads_without_a_label_take_part(void **state)
{
	enum { LABELLED = 5, MORE = 11, ALL = LABELLED + MORE, FURTHER = 30 };
	transfer_options o = fixture_options(&f);
	dataset first = f.dataset;
	first.count = LABELLED;
	o.labelled = &first;
	o.samples = LABELLED;
	o.unlabelled_ads = MORE;
	o.recombined = FURTHER;
	for (size_t i = LABELLED; i < ADS; i++) /* not read */
		f.dataset.samples[i].label = -1;
	transfer_set *t = open_set(&o);
	assert_int_equal(transfer_count(t), ALL + FURTHER + FURTHER_PICTURES);
	assert_int_equal(transfer_labelled(t), LABELLED);
	int words_beyond = 0, pictures_beyond = 0;
	for (size_t i = 0; i < transfer_count(t); i++) {
		const transfer_item *it = transfer_get(t, i);
		assert_int_equal(it->label, i < LABELLED ? first.samples[i].label : -1);
		assert_true(i >= ALL || (it->source == 0 && it->image == i && it->text == i));
		assert_true(it->text < ALL && (it->source || it->image < ALL));
		words_beyond += i >= ALL && it->text >= LABELLED;
		pictures_beyond += i >= ALL && !it->source && it->image >= LABELLED;
	}
	assert_in_range(words_beyond, 1, FURTHER + FURTHER_PICTURES - 1);
	assert_in_range(pictures_beyond, 1, FURTHER - 1);
	/* 20 steps of 6, four tenths of them ads as they are: three rounds of 16 */
	int seen[ALL] = {0};
	for (int step = 0; step < 20; step++) {
		uint32_t items[6];
		transfer_step(t, step, items);
		for (int i = 0; i < 6; i++)
			if (items[i] < ALL)
				seen[items[i]]++;
	}
	for (int i = 0; i < ALL; i++)
		assert_int_equal(seen[i], 3);
	transfer_close(&t);
	o.unlabelled_ads = ADS - LABELLED + 1;
	assert_refused(WN_INVALID, "42 ads without a label, expected at most 41", transfer_open(&t, &o, err));
	for (size_t i = LABELLED; i < ADS; i++)
		f.dataset.samples[i].label = 0;
}

/* More items than pictures: every picture comes again, and not always with the words it had. */
static void further_pictures_come_again(void **state)
{
	enum { ROUNDS = 4 };
	transfer_options o = fixture_options(&f);
	o.recombined = 0;
	o.unlabelled = ROUNDS * FURTHER_PICTURES - 1;
	transfer_set *t = open_set(&o);
	assert_int_equal(transfer_count(t), ADS + ROUNDS * FURTHER_PICTURES - 1);
	int other_words = 0;
	for (size_t i = 0; i < o.unlabelled; i++) {
		const transfer_item *it = transfer_get(t, ADS + i);
		assert_true(it->source == 1 && it->image == i % FURTHER_PICTURES);
		other_words += it->text != transfer_get(t, ADS + it->image)->text;
	}
	assert_true(other_words > 0);
	transfer_close(&t);
}

/* Never a picture's own words, every picture and every text equally often, no pair twice: up to the last of all pairs. */
static void recombination_is_balanced(void **state)
{
	enum { N = 7, PAIRS = N * (N - 1) };
	transfer_options o = fixture_options(&f);
	o.samples = N;
	o.recombined = PAIRS;
	transfer_set *t = open_set(&o);
	int pictures[N] = {0}, texts[N] = {0}, pairs[N][N] = {{0}}, shifted[N] = {0};
	for (int i = 0; i < PAIRS; i++) {
		const transfer_item *it = transfer_get(t, (size_t)(N + i));
		assert_true(it->source == 0 && it->image != it->text);
		assert_int_equal(pairs[it->image][it->text]++, 0);
		assert_int_equal(pictures[it->image]++, i / N);
		assert_int_equal(texts[it->text]++, i / N);
		if (i < N)
			shifted[(it->text + N - it->image) % N]++;
	}
	for (int k = 0; k < N; k++)
		assert_true(shifted[k] < N); /* not the data set's own order, shifted */
	transfer_close(&t);
	o.recombined = PAIRS + 1;
	assert_refused(WN_INVALID, "43 recombined items, but 7 ads have only 42 pairs", transfer_open(&t, &o, err));
	assert_null(t);
}

static bool same_items(const transfer_set *a, const transfer_set *b)
{
	if (transfer_count(a) != transfer_count(b))
		return false;
	for (size_t i = 0; i < transfer_count(a); i++) {
		const transfer_item *x = transfer_get(a, i), *y = transfer_get(b, i);
		if (x->source != y->source || x->image != y->image || x->text != y->text || x->label != y->label)
			return false;
	}
	return true;
}

/* The digest tells sets apart whose items, words or pixels differ, and does not see how they are drawn. */
static void a_set_is_a_function_of_its_options(void **state)
{
	const transfer_options o = fixture_options(&f);
	transfer_set *a = open_set(&o), *b = open_set(&o);
	assert_true(same_items(a, b));
	assert_true(digest_is_valid(transfer_digest(a)));
	assert_string_equal(transfer_digest(a), transfer_digest(b));
	transfer_close(&b);

	transfer_options other = o;
	other.batch_size = 3;
	other.ads_share = 1;
	b = open_set(&other);
	assert_string_equal(transfer_digest(a), transfer_digest(b));
	transfer_close(&b);

	other = o;
	other.seed = 6;
	b = open_set(&other);
	assert_false(same_items(a, b));
	assert_string_not_equal(transfer_digest(a), transfer_digest(b));
	transfer_close(&b);

	other = o;
	other.recombined--;
	b = open_set(&other);
	assert_string_not_equal(transfer_digest(a), transfer_digest(b));
	transfer_close(&b);

	manifest m = f.manifest;
	m.max_text_tokens = 21;
	other = o;
	other.manifest = &m;
	b = open_set(&other);
	assert_true(same_items(a, b));
	assert_string_not_equal(transfer_digest(a), transfer_digest(b));
	transfer_close(&b);

	f.noise[100]++;
	b = open_set(&o);
	assert_true(same_items(a, b));
	assert_string_not_equal(transfer_digest(a), transfer_digest(b));
	transfer_close(&b);
	transfer_close(&a);
}

static void bad_options_are_refused(void **state)
{
	static const struct {
		size_t samples, recombined, unlabelled;
		double share;
		int batch;
		const char *message;
	} cases[] = {
		{0, 0, 0, 1, 4, "0 labelled ads, expected 1 to 46"},
		{47, 0, 0, 1, 4, "47 labelled ads, expected 1 to 46"},
		{1, 1, 0, 1, 4, "1 recombined items, but 1 ads have only 0 pairs"},
		{5, 5, 0, 0, 4, "share of ads 0, expected"},
		{5, 5, 0, 1.01, 4, "share of ads 1.01, expected"},
		{5, 5, 0, NAN, 4, "share of ads"},
		{5, 5, 0, 1, 0, "batches of 0"},
	};
	transfer_options o = fixture_options(&f);
	transfer_set *t;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		o.samples = cases[i].samples;
		o.recombined = cases[i].recombined;
		o.unlabelled = cases[i].unlabelled;
		o.ads_share = cases[i].share;
		o.batch_size = cases[i].batch;
		assert_refused(WN_INVALID, cases[i].message, transfer_open(&t, &o, err));
		assert_null(t);
	}
	o = fixture_options(&f);
	o.unlabelled_images = NULL;
	assert_refused(WN_INVALID, "9 unlabelled items, but no pictures for them", transfer_open(&t, &o, err));
	o.unlabelled = 0;
	f.dataset.samples[3].label = -1;
	assert_refused(WN_INTERNAL, f.dataset.samples[3].file_name, transfer_open(&t, &o, err));
	f.dataset.samples[3].label = 0;
	char *text = f.dataset.samples[7].text;
	f.dataset.samples[7].text = (char[]){"\xff"};
	assert_refused(WN_INVALID, f.dataset.samples[7].file_name, transfer_open(&t, &o, err));
	f.dataset.samples[7].text = text;
}

/* ---- steps ---- */

static void steps_are_functions_of_their_number(void **state)
{
	enum { STEPS = 60 };
	const transfer_options o = fixture_options(&f);
	transfer_set *t = open_set(&o), *again = open_set(&o);
	uint32_t items[6], other[6];
	int labelled = 0, further = 0, *seen = calloc(transfer_count(t), sizeof *seen);
	for (int s = 0; s < STEPS; s++) {
		transfer_step(t, s, items);
		for (int i = 0; i < 6; i++) {
			const int32_t *ids, *before;
			assert_true(items[i] < transfer_count(t));
			seen[items[i]]++;
			labelled += items[i] < ADS;
			further += items[i] >= ADS;
			if (i)
				assert_true(transfer_prompt(t, items[i], &ids) <= transfer_prompt(t, items[i - 1], &before));
		}
		/* asked out of order, as after a resume */
		transfer_step(again, STEPS - 1 - s, other);
		transfer_step(again, s, other);
		assert_memory_equal(items, other, sizeof items);
		assert_int_equal(labelled, (int)((s + 1) * 6 * 0.4)); /* the share, at every step */
		/* every item once before any comes twice */
		for (size_t i = 0; i < transfer_count(t); i++) {
			const int passes = i < ADS ? labelled / ADS : further / (int)(transfer_count(t) - ADS);
			assert_in_range(seen[i], passes, passes + 1);
		}
	}
	assert_true(labelled > 2 * ADS && further > (int)transfer_count(t) - ADS); /* several epochs */
	free(seen);
	transfer_close(&again);
	transfer_options alone = o;
	alone.recombined = alone.unlabelled = 0;
	again = open_set(&alone);
	for (int s = 0; s < STEPS; s++) {
		transfer_step(again, s, other);
		for (int i = 0; i < 6; i++)
			assert_true(other[i] < ADS);
	}
	transfer_close(&again);
	alone = o;
	alone.seed++;
	again = open_set(&alone);
	transfer_step(t, 0, items);
	transfer_step(again, 0, other);
	assert_memory_not_equal(items, other, sizeof items);
	transfer_close(&again);
	transfer_close(&t);
}

/* ---- batches ---- */

/* Labels' probabilities from raw rows of logits, in double precision. */
static void probabilities(const float *logits, double *probs)
{
	double sum = 0;
	for (int l = 0; l < f.trie.num_labels; l++) {
		double score = 0;
		for (int k = f.trie.first_step[l]; k < f.trie.first_step[l + 1]; k++) {
			const float *row = logits + (size_t)f.trie.steps[k].row * VOCAB;
			double total = 0;
			for (int v = 0; v < VOCAB; v++)
				total += exp((double)row[v]);
			score += (double)row[f.trie.steps[k].token] - log(total);
		}
		sum += probs[l] = exp(score);
	}
	for (int l = 0; l < f.trie.num_labels; l++)
		probs[l] /= sum;
}

/* What a server makes of the item: the file's bytes through decoder and processor (or the square that nobody stored). */
static void serve_pixels(const transfer_item *it, float *out)
{
	if (it->source == 1) {
		const image square = {.width = SIZE, .height = SIZE, .rgb = f.noise + (size_t)it->image * SIZE * SIZE * 3};
		assert_ok(image_preprocess(out, &f.image_processor, &square, err));
		return;
	}
	char path[1024], *bytes;
	size_t len;
	image img;
	assert_ok(dataset_image_path(&f.dataset, it->image, path, sizeof path, err));
	assert_ok(file_read(path, 1 << 24, &bytes, &len, err));
	assert_ok(image_decode(&img, bytes, len, NULL, err));
	assert_ok(image_preprocess(out, &f.image_processor, &img, err));
	image_free(&img);
	free(bytes);
}

enum { N = 6, PIXELS = 3 * SIZE * SIZE };

/* Six items of all kinds in one batch, and each alone. */
static void compare_with_serving(const transfer_set *t, const uint32_t *items, int n)
{
	label_batch b;
	classifier *c = NULL;
	classifier_session *cs = NULL;
	blip2_session *s = NULL;
	const size_t each = 1 + (size_t)f.trie.tail_len;
	float *px = malloc((size_t)n * PIXELS * sizeof *px), *probs = calloc((size_t)n * MAX_LABELS, sizeof *probs);
	float *logits = malloc((size_t)n * each * VOCAB * sizeof *logits);
	int32_t *rows = malloc((size_t)n * each * sizeof *rows), ids[N][PROMPT_MAX_TOKENS];
	classifier_input in[N];
	double spread = 0;
	assert_ok(classifier_borrow(&c, f.model, f.tokenizer, &f.image_processor, &f.manifest, err));
	assert_ok(classifier_session_open(&cs, c, n, err));
	for (int i = 0; i < n; i++) {
		const transfer_item *it = transfer_get(t, items[i]);
		const sample *ad = &f.dataset.samples[it->text];
		const int32_t *prompt;
		int count;
		serve_pixels(it, px + (size_t)i * PIXELS);
		assert_ok(classifier_encode_prompt(c, ad->text, ad->assist, ids[i], &count, err));
		assert_int_equal(transfer_prompt(t, items[i], &prompt), count);
		assert_memory_equal(prompt, ids[i], (size_t)count * sizeof *prompt);
		in[i] = (classifier_input){px + (size_t)i * PIXELS, ids[i], count};
	}
	assert_ok(classifier_run(cs, in, n, probs, err));

	blip2_session_options so = blip2_session_defaults();
	assert_ok(label_batch_open(&b, n, transfer_longest_prompt(t), SIZE, &f.trie, err));
	so.max_batch = n;
	so.max_text_len = b.max_len;
	assert_ok(blip2_session_open(&s, f.model, &so, err));
	assert_ok(label_batch_fill(&b, t, items, n, &f.batch, 0, -1, err));
	assert_memory_equal(b.pixel_values, px, (size_t)n * PIXELS * sizeof *px);
	const blip2_batch view = label_batch_view(&b);
	assert_ok(blip2_forward(s, &view, err));
	assert_int_equal(label_batch_rows(&b, QUERIES, rows), (size_t)n * each);
	blip2_logits(s, rows, (size_t)n * each, logits);
	for (int i = 0; i < n; i++) {
		double want[MAX_LABELS];
		probabilities(logits + (size_t)i * each * VOCAB, want);
		for (int l = 0; l < f.trie.num_labels; l++) {
			assert_close(probs[i * f.trie.num_labels + l], want[l], 1e-6, "probability", (size_t)(i * 100 + l));
			spread = fmax(spread, fabs(want[l] - 1.0 / f.trie.num_labels));
		}
		assert_int_equal(b.labels[i], transfer_get(t, items[i])->label);
		assert_int_equal(b.items[i], items[i]);
	}
	assert_true(spread > 0.05); /* otherwise uniform was compared with uniform */
	label_batch_close(&b);
	blip2_session_close(&s);
	classifier_session_close(&cs);
	classifier_close(&c);
	free(px);
	free(probs);
	free(logits);
	free(rows);
}

static void batches_are_what_serving_scores(void **state)
{
	static const uint32_t items[N] = {0, 17, ADS + 3, ADS + 99, ADS + 100, ADS + 108};
	const transfer_options o = fixture_options(&f);
	transfer_set *t = open_set(&o);
	compare_with_serving(t, items, N);
	for (int i = 0; i < N; i++)
		compare_with_serving(t, items + i, 1);
	transfer_close(&t);
}

/* A limit that cuts texts and is no multiple of the bucket: batches end there. */
static void batches_end_at_the_limit(void **state)
{
	uint32_t items[N];
	transfer_options o = fixture_options(&f);
	f.manifest.max_text_tokens = 27;
	transfer_set *t = open_set(&o);
	assert_int_equal(transfer_longest_prompt(t), 27);
	int step = 0;
	const int32_t *ids;
	do
		transfer_step(t, step++, items);
	while (transfer_prompt(t, items[0], &ids) < 27); /* the longest comes first */
	compare_with_serving(t, items, N);
	transfer_close(&t);
}

static void prompts_are_padded_on_the_left(void **state)
{
	const transfer_options o = fixture_options(&f);
	transfer_set *t = open_set(&o);
	label_batch b;
	uint32_t items[N];
	int32_t rows[N * 64];
	int paddings = 0;
	assert_int_equal(transfer_longest_prompt(t) % 8, 0);
	assert_ok(label_batch_open(&b, N, transfer_longest_prompt(t), SIZE, &f.trie, err));
	assert_int_equal(b.max_len, transfer_longest_prompt(t) + f.trie.tail_len);
	assert_true(f.trie.tail_len > 8 && f.trie.tail_len < 63);
	for (int step = 0; step < 20; step++) {
		const int32_t *ids;
		transfer_step(t, step, items);
		assert_ok(label_batch_fill(&b, t, items, N, &f.batch, step, 1, err));
		const int longest = transfer_prompt(t, items[0], &ids);
		assert_int_equal(b.prompt_len, (longest + 7) / 8 * 8);
		assert_int_equal(b.text_len, b.prompt_len + f.trie.tail_len);
		assert_int_equal(label_batch_rows(&b, QUERIES, rows), N * (1 + f.trie.tail_len));
		for (int i = 0; i < N; i++) {
			const int len = transfer_prompt(t, items[i], &ids), padding = b.prompt_len - len;
			paddings += padding > 0;
			for (int k = 0; k < b.text_len; k++) {
				const int at = i * b.text_len + k;
				const int32_t want = k < padding ? 1 : k < b.prompt_len ? ids[k - padding] : f.trie.tail_ids[k - b.prompt_len];
				assert_int_equal(b.input_ids[at], want);
				assert_int_equal(b.attention_mask[at], k >= padding);
			}
			for (int r = 0; r <= f.trie.tail_len; r++)
				assert_int_equal(rows[i * (1 + f.trie.tail_len) + r],
						 i * (QUERIES + b.text_len) + QUERIES + b.prompt_len - 1 + r);
		}
	}
	assert_true(paddings > 10);
	const blip2_batch view = label_batch_view(&b);
	assert_true(view.tail_len == f.trie.tail_len && view.tail_parent == f.trie.tail_parent && !view.labels);
	items[0] = (uint32_t)transfer_count(t);
	assert_refused(WN_INTERNAL, "item 155 of a transfer set of 155", label_batch_fill(&b, t, items, 1, &f.batch, 0, 1, err));
	assert_refused(WN_INTERNAL, "opened for 6", label_batch_fill(&b, t, items, N + 1, &f.batch, 0, 1, err));
	batch_options larger = f.batch;
	larger.image_processor.size++;
	assert_refused(WN_INTERNAL, "43 pixels a side, opened for 42", label_batch_fill(&b, t, items, 1, &larger, 0, 1, err));
	label_batch_close(&b);
	assert_ok(label_batch_open(&b, N, 8, SIZE, &f.trie, err));
	transfer_step(t, 0, items);
	assert_refused(WN_INTERNAL, "opened for", label_batch_fill(&b, t, items, N, &f.batch, 0, 1, err));
	label_batch_close(&b);
	assert_refused(WN_TOO_LARGE, "too large", label_batch_open(&b, 1 << 20, 8, 4096, &f.trie, err));
	transfer_close(&t);
}

/* An item's view in a step does not depend on how the step's batch is cut; another step shows another. */
static void augmentation_follows_step_and_item(void **state)
{
	const transfer_options o = fixture_options(&f);
	transfer_set *t = open_set(&o);
	label_batch whole, part;
	uint32_t items[N];
	batch_options bo = f.batch;
	bo.augment_on = true;
	bo.augment = (augment_options){.crop_scale_min = 0.6, .crop_ratio_max = 1.2, .flip = 0.5, .brightness = 0.3, .contrast = 0.3,
				       .saturation = 0.3, .cutout = 0.5, .cutout_max = 0.3};
	assert_ok(label_batch_open(&whole, N, transfer_longest_prompt(t), SIZE, &f.trie, err));
	assert_ok(label_batch_open(&part, N, transfer_longest_prompt(t), SIZE, &f.trie, err));
	transfer_step(t, 4, items);
	assert_ok(label_batch_fill(&whole, t, items, N, &bo, 4, 1, err));
	for (int i = 0; i < N; i++) {
		const float *want = whole.pixel_values + (size_t)i * PIXELS;
		assert_ok(label_batch_fill(&part, t, items + i, 1, &bo, 4, 1, err));
		assert_memory_equal(part.pixel_values, want, PIXELS * sizeof *want);
		assert_ok(label_batch_fill(&part, t, items + i, 1, &bo, 5, 1, err));
		assert_memory_not_equal(part.pixel_values, want, PIXELS * sizeof *want);
	}
	/* the same picture in two items of a step: two views */
	uint32_t pair[2] = {0, ADS};
	while (transfer_get(t, pair[1])->image != 0)
		pair[1]++;
	assert_ok(label_batch_fill(&part, t, pair, 2, &bo, 4, 1, err));
	assert_memory_not_equal(part.pixel_values, part.pixel_values + PIXELS, PIXELS * sizeof *part.pixel_values);
	bo.augment_on = false;
	assert_ok(label_batch_fill(&part, t, pair, 2, &bo, 4, 1, err));
	assert_memory_equal(part.pixel_values, part.pixel_values + PIXELS, PIXELS * sizeof *part.pixel_values);
	label_batch_close(&whole);
	label_batch_close(&part);
	transfer_close(&t);
}

/* With views an item shows the same in every step: an ad's first view the picture as it is, all others something else. */
static void views_are_drawn_once(void **state)
{
	enum { LABELLED = 3, MORE = 2, ADS_IN_ALL = LABELLED + MORE, VIEWS = 4, AD_ITEMS = ADS_IN_ALL * VIEWS, RECOMBINED = 5 };
	batch_options bo = f.batch, plain = f.batch;
	bo.augment_on = true;
	bo.augment = (augment_options){.crop_scale_min = 0.6, .crop_ratio_max = 1.2, .brightness = 0.3};
	transfer_options o = fixture_options(&f);
	o.samples = LABELLED;
	o.unlabelled_ads = MORE;
	o.recombined = RECOMBINED;
	transfer_set *without = open_set(&o);
	assert_false(transfer_is_fixed(without));
	o.views = VIEWS;
	o.augment = &bo.augment;
	transfer_set *t = open_set(&o);
	assert_true(transfer_is_fixed(t));
	assert_int_equal(transfer_count(t), AD_ITEMS + RECOMBINED + FURTHER_PICTURES);
	assert_int_equal(transfer_labelled(t), LABELLED * VIEWS);
	assert_string_not_equal(transfer_digest(t), transfer_digest(without));
	label_batch b, again;
	assert_ok(label_batch_open(&b, 1, transfer_longest_prompt(t), SIZE, &f.trie, err));
	assert_ok(label_batch_open(&again, 1, transfer_longest_prompt(t), SIZE, &f.trie, err));
	float *first = malloc(ADS_IN_ALL * PIXELS * sizeof *first);
	int as_they_are = 0;
	for (uint32_t i = 0; i < transfer_count(t); i++) {
		const transfer_item *it = transfer_get(t, i);
		assert_int_equal(it->label >= 0, i < LABELLED * VIEWS);
		assert_true(i >= AD_ITEMS || (it->source == 0 && it->image == it->text));
		assert_ok(label_batch_fill(&b, t, &i, 1, &bo, 4, 1, err));
		assert_ok(label_batch_fill(&again, t, &i, 1, &bo, 5, 1, err));
		assert_memory_equal(b.pixel_values, again.pixel_values, PIXELS * sizeof(float));
		assert_ok(label_batch_fill(&again, t, &i, 1, &plain, 5, 1, err));
		const bool same = memcmp(b.pixel_values, again.pixel_values, PIXELS * sizeof(float)) == 0;
		assert_true(same == it->plain);
		as_they_are += same;
		/* the views of an ad differ from each other */
		if (i < AD_ITEMS && same)
			memcpy(first + it->image * PIXELS, b.pixel_values, PIXELS * sizeof *first);
		else if (i < AD_ITEMS)
			assert_memory_not_equal(first + it->image * PIXELS, b.pixel_values, PIXELS * sizeof *first);
	}
	assert_int_equal(as_they_are, ADS_IN_ALL);
	for (uint32_t i = 0; i < LABELLED; i++) /* what scores are taken on */
		assert_true(transfer_get(t, i)->plain && transfer_get(t, i)->image == i);
	free(first);
	label_batch_close(&b);
	label_batch_close(&again);
	transfer_close(&without);
	/* another augmentation, another set */
	bo.augment.brightness = 0.2;
	without = open_set(&o);
	assert_string_not_equal(transfer_digest(t), transfer_digest(without));
	transfer_close(&without);
	transfer_close(&t);
	o.augment = NULL;
	assert_refused(WN_INTERNAL, "4 views, without augmentation", transfer_open(&t, &o, err));
}

int main(void)
{
#define WITH_FIXTURE(test) cmocka_unit_test_setup_teardown(test, open_fixture, close_fixture)
	const struct CMUnitTest tests[] = {
		WITH_FIXTURE(labelled_ads_come_first_as_they_are),
		WITH_FIXTURE(ads_without_a_label_take_part),
		WITH_FIXTURE(further_pictures_come_again),
		WITH_FIXTURE(recombination_is_balanced),
		WITH_FIXTURE(a_set_is_a_function_of_its_options),
		WITH_FIXTURE(bad_options_are_refused),
		WITH_FIXTURE(steps_are_functions_of_their_number),
		WITH_FIXTURE(batches_are_what_serving_scores),
		WITH_FIXTURE(batches_end_at_the_limit),
		WITH_FIXTURE(prompts_are_padded_on_the_left),
		WITH_FIXTURE(augmentation_follows_step_and_item),
		WITH_FIXTURE(views_are_drawn_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
