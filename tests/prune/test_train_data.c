/* Splits, image caches, augmentation, token sequences and the order of samples; the failing paths as tables. */
#include "tests/prune/support.h"

#include "base/file.h"
#include "model/prompt.h"
#include "prune/augment.h"
#include "prune/batch.h"
#include "prune/dataset.h"
#include "prune/image_cache.h"
#include "prune/sample_plan.h"

static const label_spec LABELS[] = {{.name = "ok", .verbalizer = "good"}, {.name = "bad", .verbalizer = "evil"}};
static const image_processor IP = {.size = 24, .mean = {0.48f, 0.45f, 0.40f}, .std = {0.27f, 0.26f, 0.28f}, .rescale_factor = 1 / 255.0f};

static char dir[256], split_path[300];

static int open_dir(void **state)
{
	char path[400];
	scratch_open(dir, sizeof dir);
	snprintf(split_path, sizeof split_path, "%s/s", dir);
	snprintf(path, sizeof path, "%s/s/metadata.jsonl", dir);
	return mkdir(split_path, 0755);
}
static int close_dir(void **state)
{
	remove_tree(dir);
	return 0;
}

static void put_metadata(const char *text)
{
	char path[400];
	snprintf(path, sizeof path, "%s/metadata.jsonl", split_path);
	write_text(path, text);
}

static void split_is_read(void **state)
{
	dataset d;
	put_metadata("{\"file_name\":\"a/1.jpg\",\"text\":\"酒\",\"assist\":\"许可\",\"label\":\"bad\",\"caption\":\"c\",\"x\":[1]}\n"
		     "\r\n"
		     "{\"file_name\":\"2..png\",\"text\":\"\",\"assist\":null,\"label\":\"ok\"}"); /* no newline at the end */
	assert_ok(dataset_read(&d, dir, "s", LABELS, 2, DATASET_NEEDS_LABEL, 0, err));
	assert_int_equal(d.count, 2);
	assert_string_equal(d.samples[0].text, "酒");
	assert_string_equal(d.samples[0].assist, "许可");
	assert_int_equal(d.samples[0].label, 1);
	assert_string_equal(d.samples[1].file_name, "2..png");
	assert_string_equal(d.samples[1].assist, "");
	assert_int_equal(d.samples[1].label, 0);
	assert_true(digest_is_valid(d.digest));
	dataset_close(&d);
	assert_ok(dataset_read(&d, dir, "s", LABELS, 2, DATASET_NEEDS_LABEL, 1, err));
	assert_int_equal(d.count, 1);
	dataset_close(&d);
	assert_ok(dataset_read(&d, dir, "s", NULL, 0, 0, 0, err)); /* labels not looked at */
	assert_int_equal(d.samples[0].label, -1);
	dataset_close(&d);
}

static void bad_splits_are_refused_with_their_line(void **state)
{
	static const struct {
		const char *text;
		unsigned needs;
		const char *message;
	} cases[] = {
		{"", DATASET_NEEDS_LABEL, "metadata.jsonl: holds no samples"},
		{"{\"file_name\":\"a\",\"text\":\"t\",\"label\":\"ok\"}\nnot json\n", 1, "metadata.jsonl:2: not a JSON object"},
		{"[1]\n", 1, "metadata.jsonl:1: expected one JSON object"},
		{"{\"text\":\"t\",\"label\":\"ok\"}\n", 1, ":1: \"file_name\" is missing"},
		{"{\"file_name\":7}\n", 1, ":1: \"file_name\" is not a string"},
		{"{\"file_name\":\"/etc/passwd\"}\n", 1, "\"/etc/passwd\" is not a relative path inside"},
		{"{\"file_name\":\"../a\"}\n", 1, "\"../a\" is not a relative path inside"},
		{"{\"file_name\":\"a/../../b\"}\n", 1, "not a relative path inside"},
		{"{\"file_name\":\"a/..\"}\n", 1, "not a relative path inside"},
		{"{\"file_name\":\"./a\"}\n", 1, "not a relative path inside"},
		{"{\"file_name\":\"a//b\"}\n", 1, "not a relative path inside"},
		{"{\"file_name\":\"a/\"}\n", 1, "not a relative path inside"},
		{"{\"file_name\":\"a\\\\b\"}\n", 1, "not a relative path inside"},
		{"{\"file_name\":\"\"}\n", 1, "not a relative path inside"},
		{"{\"file_name\":\"a\\u0000b\"}\n", 1, ":1: not a JSON object"},
		{"{\"file_name\":\"a\",\"file_name\":\"b\"}\n", 1, ":1: not a JSON object: duplicate"},
		{"{\"file_name\":\"a\",\"label\":\"ok\"}\n", 1, ":1: \"text\" is missing"},
		{"{\"file_name\":\"a\",\"text\":\"t\"}\n", 1, ":1: \"label\" is missing"},
		{"{\"file_name\":\"a\",\"text\":\"t\",\"label\":0}\n", 1, ":1: \"label\" is not a string"},
		{"\n\n{\"file_name\":\"a\",\"text\":\"t\",\"label\":\"new\"}\n", 1, ":3: unknown label \"new\", expected one of: ok, bad"},
		{"{\"file_name\":\"a\"}\n", DATASET_NEEDS_CAPTION, ":1: \"caption\" is missing"},
		{"{\"file_name\":\"a\",\"caption\":\"\"}\n", DATASET_NEEDS_CAPTION, ":1: \"caption\" is empty"},
		{"{\"file_name\":\"a\",\"text\":\"\xff\",\"label\":\"ok\"}\n", 1, ":1: not a JSON object"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		dataset d;
		put_metadata(cases[i].text);
		assert_refused(WN_INVALID, cases[i].message, dataset_read(&d, dir, "s", LABELS, 2, cases[i].needs, 0, err));
		assert_null(d.samples);
	}
	dataset d;
	assert_refused(WN_NOT_FOUND, "nowhere/metadata.jsonl", dataset_read(&d, dir, "nowhere", LABELS, 2, 1, 0, err));
}

/* ---- image cache ---- */

static void read_samples(dataset *d) { assert_ok(dataset_read(d, SAMPLES_DIR, "test", NULL, 0, 0, 12, err)); }

static uint8_t *resized(const dataset *d, size_t i, int side)
{
	char path[1024], *bytes;
	size_t len;
	image img;
	uint8_t *out = malloc((size_t)side * (size_t)side * 3);
	assert_ok(dataset_image_path(d, i, path, sizeof path, err));
	assert_ok(file_read(path, 1 << 24, &bytes, &len, err));
	assert_ok(image_decode(&img, bytes, len, NULL, err));
	assert_ok(image_resize(out, side, side, &img, err));
	image_free(&img);
	free(bytes);
	return out;
}

static void cache_holds_what_the_processor_makes(void **state)
{
	dataset d;
	image_cache c;
	char path[400];
	snprintf(path, sizeof path, "%s/cache.rgb", dir);
	read_samples(&d);
	assert_ok(image_cache_open(&c, path, &d, 24, 2, NULL, NULL, err));
	assert_int_equal(c.decoded, d.count);
	for (size_t i = 0; i < d.count; i++) {
		uint8_t *want = resized(&d, i, 24);
		assert_memory_equal(image_cache_at(&c, i), want, 24 * 24 * 3);
		free(want);
	}
	/* image_preprocess of a square of the model's size is image_preprocess of the file: validation equals serving */
	char file[1024], *bytes;
	size_t len;
	image img;
	float direct[3 * 24 * 24], cached[3 * 24 * 24];
	assert_ok(dataset_image_path(&d, 3, file, sizeof file, err));
	assert_ok(file_read(file, 1 << 24, &bytes, &len, err));
	assert_ok(image_decode(&img, bytes, len, NULL, err));
	assert_ok(image_preprocess(direct, &IP, &img, err));
	image square = {.width = 24, .height = 24, .rgb = (uint8_t *)(uintptr_t)image_cache_at(&c, 3)};
	assert_ok(image_preprocess(cached, &IP, &square, err));
	assert_memory_equal(direct, cached, sizeof direct);
	image_free(&img);
	free(bytes);
	image_cache_close(&c);
	dataset_close(&d);
}

static void poke(const char *path, long at, int byte)
{
	FILE *f = fopen(path, "r+b");
	assert_non_null(f);
	assert_int_equal(fseek(f, at, SEEK_SET), 0);
	assert_int_equal(fputc(byte, f), byte);
	fclose(f);
}

/* Offsets in the file: see image_cache.c's header. */
enum { AT_MAGIC = 0, AT_KEY = 32 + 10, AT_BOOT = 32 + 72, AT_COMPLETE = 32 + 72 + 40 + 12, AT_FLAGS = 4096 };

static size_t reopen(const char *path, const dataset *d, int side)
{
	image_cache c;
	assert_ok(image_cache_open(&c, path, d, side, 2, NULL, NULL, err));
	size_t decoded = c.decoded;
	for (size_t i = 0; i < d->count; i++) {
		uint8_t *want = resized(d, i, side);
		assert_memory_equal(image_cache_at(&c, i), want, (size_t)side * (size_t)side * 3);
		free(want);
	}
	image_cache_close(&c);
	return decoded;
}

static void cache_is_reused_resumed_and_rebuilt(void **state)
{
	dataset d;
	char path[400];
	snprintf(path, sizeof path, "%s/cache.rgb", dir);
	read_samples(&d);
	assert_int_equal(reopen(path, &d, 16), 12);
	assert_int_equal(reopen(path, &d, 16), 0);
	/* killed after ten images, same boot: the other two are made */
	poke(path, AT_COMPLETE, 0);
	poke(path, AT_FLAGS + 4, 0);
	poke(path, AT_FLAGS + 9, 0);
	assert_int_equal(reopen(path, &d, 16), 2);
	/* the machine went down before it was complete: flags are not believed */
	poke(path, AT_COMPLETE, 0);
	poke(path, AT_BOOT, 'x');
	assert_int_equal(reopen(path, &d, 16), 12);
	/* complete: another boot does not matter */
	poke(path, AT_BOOT, 'x');
	assert_int_equal(reopen(path, &d, 16), 0);
	poke(path, AT_KEY, 'x');
	assert_int_equal(reopen(path, &d, 16), 12);
	poke(path, AT_MAGIC, 'x');
	assert_int_equal(reopen(path, &d, 16), 12);
	assert_int_equal(reopen(path, &d, 18), 12); /* another side */
	assert_int_equal(truncate(path, 5000), 0);
	assert_int_equal(reopen(path, &d, 18), 12);
	write_text(path, "short");
	assert_int_equal(reopen(path, &d, 18), 12);
	dataset_close(&d);
}

/* Two runs of different sizes point at one cache file: the second takes the name, the first keeps its pixels. */
static void a_cache_in_use_is_replaced_not_cut(void **state)
{
	dataset d;
	image_cache first, second;
	char path[400];
	snprintf(path, sizeof path, "%s/cache.rgb", dir);
	read_samples(&d);
	assert_ok(image_cache_open(&first, path, &d, 24, 2, NULL, NULL, err));
	assert_ok(image_cache_open(&second, path, &d, 16, 2, NULL, NULL, err));
	assert_int_equal(second.decoded, d.count);
	for (size_t i = 0; i < d.count; i++) {
		uint8_t *want = resized(&d, i, 24);
		assert_memory_equal(image_cache_at(&first, i), want, 24 * 24 * 3);
		free(want);
	}
	image_cache_close(&first);
	image_cache_close(&second);
	assert_int_equal(reopen(path, &d, 16), 0);
	dataset_close(&d);
}

static int stop_at_once(void *ctx, size_t done, size_t total) { return 1; }

static void cache_errors_name_the_image(void **state)
{
	dataset d;
	image_cache c;
	char path[400], image_path[400];
	snprintf(path, sizeof path, "%s/cache.rgb", dir);
	put_metadata("{\"file_name\":\"broken.jpg\"}\n");
	assert_ok(dataset_read(&d, dir, "s", NULL, 0, 0, 0, err));
	assert_refused(WN_NOT_FOUND, "s/broken.jpg", image_cache_open(&c, path, &d, 16, 2, NULL, NULL, err));
	snprintf(image_path, sizeof image_path, "%s/broken.jpg", split_path);
	write_text(image_path, "GIF89a no");
	assert_refused(WN_UNSUPPORTED, "s/broken.jpg", image_cache_open(&c, path, &d, 16, 2, NULL, NULL, err));
	assert_null(c.map);
	assert_refused(WN_INVALID, "side 0", image_cache_open(&c, path, &d, 0, 2, NULL, NULL, err));
	assert_refused(WN_IO, "no/such/dir", image_cache_open(&c, "/no/such/dir/c", &d, 16, 2, NULL, NULL, err));
	dataset_close(&d);
	read_samples(&d);
	assert_refused(WN_CANCELLED, "stopped", image_cache_open(&c, path, &d, 500, 1, stop_at_once, NULL, err));
	dataset_close(&d);
}

/* ---- augmentation ---- */

static void fill_noise(uint8_t *p, size_t n)
{
	rng r = rng_open(9, 9, 9, 9);
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)rng_next(&r);
}

static void no_augmentation_is_normalising(void **state)
{
	uint8_t in[24 * 24 * 3];
	float out[3 * 24 * 24], want[3 * 24 * 24];
	fill_noise(in, sizeof in);
	augment_options o = augment_none();
	augment_image(out, &IP, in, 24, &o, rng_open(1, 2, 3, 4));
	image img = {.width = 24, .height = 24, .rgb = in};
	assert_ok(image_preprocess(want, &IP, &img, err));
	for (size_t i = 0; i < 3 * 24 * 24; i++)
		assert_close(out[i], want[i], 2e-6, "pixel", i);
}

static void augmentation_is_a_function_of_its_key(void **state)
{
	uint8_t in[28 * 28 * 3];
	float a[3 * 24 * 24], b[3 * 24 * 24];
	fill_noise(in, sizeof in);
	augment_options o = {.crop_scale_min = 0.6, .crop_ratio_max = 1.2, .flip = 0.5, .brightness = 0.3, .contrast = 0.3,
			     .saturation = 0.3, .cutout = 0.5, .cutout_max = 0.3};
	for (uint64_t k = 0; k < 20; k++) {
		augment_image(a, &IP, in, 28, &o, rng_open(1, 2, 3, k));
		augment_image(b, &IP, in, 28, &o, rng_open(1, 2, 3, k));
		assert_memory_equal(a, b, sizeof a);
		augment_image(b, &IP, in, 28, &o, rng_open(1, 2, 3, k + 1));
		assert_memory_not_equal(a, b, sizeof a);
		for (size_t i = 0; i < 3 * 24 * 24; i++)
			assert_true(isfinite(a[i]) && a[i] > -2.5f && a[i] < 3.0f);
	}
}

static void each_option_does_what_it_says(void **state)
{
	uint8_t in[24 * 24 * 3];
	float plain[3 * 24 * 24], out[3 * 24 * 24];
	fill_noise(in, sizeof in);
	augment_options o = augment_none();
	rng key = rng_open(5, 6, 7, 8);
	augment_image(plain, &IP, in, 24, &o, key);
	o.flip = 1;
	augment_image(out, &IP, in, 24, &o, key);
	for (size_t i = 0; i < 3 * 24 * 24; i++)
		assert_true(out[i] == plain[i / 24 * 24 + 23 - i % 24]);
	o = augment_none();
	o.cutout = 1;
	o.cutout_max = 0.5;
	augment_image(out, &IP, in, 24, &o, key);
	size_t cut = 0, changed = 0;
	for (size_t i = 0; i < 24 * 24; i++) {
		cut += out[i] == 0 && out[i + 576] == 0 && out[i + 1152] == 0;
		changed += out[i] != plain[i];
	}
	assert_int_equal(cut, changed);
	assert_in_range(cut, 9, 144); /* a square of 0.25 to 1 times half the side */
	o = augment_none();
	o.saturation = 1; /* towards grey or to twice the colour: red - blue scales by one factor everywhere it is not clamped */
	o.crop_scale_min = 1;
	memset(in, 0, sizeof in);
	for (size_t i = 0; i < 576; i++) {
		in[3 * i] = 130;
		in[3 * i + 1] = 120;
		in[3 * i + 2] = 110;
	}
	augment_image(out, &IP, in, 24, &o, key);
	float red = (out[0] * IP.std[0] + IP.mean[0]) * 255, green = (out[576] * IP.std[1] + IP.mean[1]) * 255,
	      blue = (out[1152] * IP.std[2] + IP.mean[2]) * 255;
	assert_close(0.299 * red + 0.587 * green + 0.114 * blue, 0.299 * 130 + 0.587 * 120 + 0.114 * 110, 1e-3, "luma", 0);
	assert_close((red - green) / (green - blue), 1, 1e-3, "hue", 0);
}

/* Crops stay inside, keep at least their share, and differ: a ramp shows where its corners came from. */
static void crops_stay_inside(void **state)
{
	uint8_t ramp[200 * 200 * 3];
	image_processor ip = {.size = 100, .mean = {0}, .std = {1, 1, 1}, .rescale_factor = 1};
	for (int i = 0; i < 200 * 200; i++) {
		ramp[3 * i] = (uint8_t)(i % 200);
		ramp[3 * i + 1] = (uint8_t)(i / 200);
		ramp[3 * i + 2] = 0;
	}
	augment_options o = augment_none();
	o.crop_scale_min = 0.5;
	o.crop_ratio_max = 1.3;
	float *out = malloc(3 * 100 * 100 * sizeof *out);
	double smallest = 1, largest = 0;
	for (uint64_t k = 0; k < 200; k++) {
		augment_image(out, &ip, ramp, 200, &o, rng_open(3, 1, 4, k));
		double w = (out[99] - out[0]) / 99 * 100 / 200, h = (out[10000 + 9900] - out[10000]) / 99 * 100 / 200;
		assert_true(out[0] >= 0 && out[99] <= 199 && w <= 1.001 && h <= 1.001 && w / h < 1.32 && h / w < 1.32);
		smallest = fmin(smallest, w * h);
		largest = fmax(largest, w * h);
	}
	free(out);
	assert_true(smallest > 0.44 && smallest < 0.56 && largest > 0.93);
}

/* ---- sequences and batches ---- */

static tokenizer *letters(void)
{
	char path[400];
	static const char *const specials[] = {"<s>", "<pad>", "</s>", "<unk>"}, *const texts[] = {"abc abc good evil"};
	bpe_trainer_options o = {.vocab_size = 300, .special_tokens = specials, .num_special_tokens = 4};
	tokenizer *t = NULL;
	snprintf(path, sizeof path, "%s/tokenizer.json", dir);
	assert_ok(bpe_train(path, texts, 1, &o, err));
	assert_ok(tokenizer_open(&t, path, err));
	return t;
}

static void sequences_are_prompt_answer_end(void **state)
{
	tokenizer *t = letters();
	manifest m = {.prompt = "Q:{text}|{assist} A:", .max_text_tokens = 40, .num_labels = 2};
	memcpy(m.labels, LABELS, sizeof LABELS);
	dataset d;
	put_metadata("{\"file_name\":\"1\",\"text\":\"abc\",\"assist\":\"zz\",\"label\":\"bad\",\"caption\":\"xyzzy\"}\n"
		     "{\"file_name\":\"2\",\"text\":\"\",\"label\":\"ok\",\"caption\":\"q\"}\n");
	assert_ok(dataset_read(&d, dir, "s", LABELS, 2, DATASET_NEEDS_LABEL | DATASET_NEEDS_CAPTION, 0, err));
	sequence_spec spec = {.tokenizer = t, .manifest = &m, .end_token = 2, .max_len = 64, .max_caption_tokens = 3};
	sequence_set s;
	assert_ok(sequence_set_build(&s, &d, &spec, err));
	int32_t want[100];
	int prompt, answer;
	assert_ok(prompt_encode(t, m.prompt, 40, "abc", "zz", want, &prompt, err));
	assert_ok(prompt_encode_verbalizer(t, "evil", want + prompt, &answer, err));
	want[prompt + answer] = 2;
	assert_int_equal(sequence_len(&s, 0), prompt + answer + 1);
	assert_int_equal(s.prompt_len[0], prompt);
	assert_memory_equal(s.ids, want, (size_t)(prompt + answer + 1) * sizeof *want);
	assert_int_equal(sequence_answer_len(&s, 0), answer + 1);

	/* a batch: padded right to a multiple of 8, labels on answers only */
	batch b;
	batch_item items[2] = {{.sequences = &s, .index = 1}, {.sequences = &s, .index = 0}};
	batch_options bo = {.image_processor = IP, .blank_images = true};
	assert_ok(batch_open(&b, 2, 64, IP.size, err));
	memset(b.pixel_values, 0x7f, 2 * 3 * 24 * 24 * sizeof(float));
	assert_ok(batch_fill(&b, items, 2, &bo, 1, err));
	assert_int_equal(b.text_len % 8, 0);
	assert_in_range(b.text_len, s.longest, s.longest + 7);
	int labelled = 0;
	for (int i = 0; i < 2; i++)
		for (int k = 0; k < b.text_len; k++) {
			int at = i * b.text_len + k, len = sequence_len(&s, items[i].index), from = s.prompt_len[items[i].index];
			int32_t id = k < len ? s.ids[s.start[items[i].index] + (size_t)k] : 1;
			assert_int_equal(b.input_ids[at], id);
			assert_int_equal(b.attention_mask[at], k < len);
			assert_int_equal(b.labels[at], k >= from && k < len ? id : -100);
			labelled += b.labels[at] != -100;
		}
	assert_int_equal(labelled, b.label_tokens);
	assert_true(b.pixel_values[0] == 0 && b.pixel_values[2 * 3 * 24 * 24 - 1] == 0);
	assert_refused(WN_INTERNAL, "opened for 2", batch_fill(&b, items, 3, &bo, 1, err));
	batch_close(&b);
	sequence_set_close(&s);

	/* captions: cut at their limit, no text; without an end token; the image-only baseline's empty words */
	spec.caption_prompt = "see:";
	spec.end_token = -1;
	assert_ok(sequence_set_build(&s, &d, &spec, err));
	assert_int_equal(sequence_answer_len(&s, 0), 3);
	assert_int_equal(sequence_answer_len(&s, 1), 1);
	sequence_set_close(&s);
	spec.caption_prompt = NULL;
	spec.blank_text = true;
	assert_ok(sequence_set_build(&s, &d, &spec, err));
	assert_int_equal(s.prompt_len[0], s.prompt_len[1]);
	sequence_set_close(&s);
	spec.max_len = 5;
	assert_refused(WN_TOO_LARGE, "s/metadata.jsonl: 1: ", sequence_set_build(&s, &d, &spec, err));
	spec.caption_prompt = "";
	assert_refused(WN_INVALID, "caption_prompt: empty", sequence_set_build(&s, &d, &spec, err));
	dataset_close(&d);
	tokenizer_close(&t);
}

static void text_length_rounds_up_within_the_room(void **state)
{
	assert_int_equal(batch_round_len(1, 64), 8);
	assert_int_equal(batch_round_len(8, 64), 8);
	assert_int_equal(batch_round_len(9, 64), 16);
	assert_int_equal(batch_round_len(61, 62), 62);
}

/* ---- order of samples ---- */

enum { MAIN = 23, REPLAY = 7, BATCH = 5, PLAN_STEPS = 60 };

static void fake_sequences(sequence_set *s, size_t count, int base)
{
	*s = (sequence_set){.count = count, .start = calloc(count + 1, sizeof(size_t)), .prompt_len = calloc(count, 2)};
	for (size_t i = 0; i < count; i++) {
		s->start[i + 1] = s->start[i] + (size_t)base + i % 4;
		s->prompt_len[i] = (uint16_t)(base - 1);
	}
}

static void plan_visits_every_sample_once_an_epoch(void **state)
{
	sequence_set a, b;
	sample_plan p, again;
	fake_sequences(&a, MAIN, 4);
	fake_sequences(&b, REPLAY, 2);
	assert_ok(sample_plan_open(&p, BATCH, 0.3, 11, 1, &a, NULL, &b, NULL, err));
	assert_ok(sample_plan_open(&again, BATCH, 0.3, 11, 1, &a, NULL, &b, NULL, err));
	int seen_a[MAIN] = {0}, seen_b[REPLAY] = {0}, total_b = 0, total_a = 0;
	for (int s = 0; s < PLAN_STEPS; s++) {
		batch_item items[BATCH], other[BATCH];
		int tokens = sample_plan_step(&p, s, items), sum = 0;
		for (int i = 0; i < BATCH; i++) {
			const bool is_main = items[i].sequences == &a;
			(is_main ? seen_a : seen_b)[items[i].index]++;
			total_a += is_main;
			total_b += !is_main;
			sum += sequence_answer_len(items[i].sequences, items[i].index);
			if (i)
				assert_true(sequence_len(items[i].sequences, items[i].index) <=
					    sequence_len(items[i - 1].sequences, items[i - 1].index));
		}
		assert_int_equal(sum, tokens);
		/* a plan asked out of order, as after a resume, gives the same */
		sample_plan_step(&again, PLAN_STEPS - 1 - s, other);
		sample_plan_step(&again, s, other);
		for (int i = 0; i < BATCH; i++)
			assert_true(other[i].index == items[i].index && other[i].key.state == items[i].key.state);
		int done = total_a / MAIN; /* complete epochs: every sample seen `done` or `done + 1` times */
		for (int i = 0; i < MAIN; i++)
			assert_in_range(seen_a[i], done, done + 1);
		assert_int_equal(sample_plan_epochs(&p, s + 1), done);
	}
	assert_int_equal(total_b, (int)(PLAN_STEPS * BATCH * 0.3));
	for (int i = 0; i < REPLAY; i++)
		assert_in_range(seen_b[i], total_b / REPLAY, total_b / REPLAY + 1);
	sample_plan_close(&p);
	sample_plan_close(&again);
	/* another seed, another order */
	batch_item x[BATCH], y[BATCH];
	assert_ok(sample_plan_open(&p, BATCH, 0, 11, 1, &a, NULL, NULL, NULL, err));
	assert_ok(sample_plan_open(&again, BATCH, 0, 12, 1, &a, NULL, NULL, NULL, err));
	sample_plan_step(&p, 0, x);
	sample_plan_step(&again, 0, y);
	int same = 0;
	for (int i = 0; i < BATCH; i++)
		same += x[i].index == y[i].index;
	assert_true(same < BATCH);
	sample_plan_close(&p);
	sample_plan_close(&again);
	sequence_set_close(&a);
	sequence_set_close(&b);
}

int main(void)
{
#define IN_DIR(f) cmocka_unit_test_setup_teardown(f, open_dir, close_dir)
	const struct CMUnitTest tests[] = {
		IN_DIR(split_is_read),
		IN_DIR(bad_splits_are_refused_with_their_line),
		IN_DIR(cache_holds_what_the_processor_makes),
		IN_DIR(cache_is_reused_resumed_and_rebuilt),
		IN_DIR(a_cache_in_use_is_replaced_not_cut),
		IN_DIR(cache_errors_name_the_image),
		cmocka_unit_test(no_augmentation_is_normalising),
		cmocka_unit_test(augmentation_is_a_function_of_its_key),
		cmocka_unit_test(each_option_does_what_it_says),
		cmocka_unit_test(crops_stay_inside),
		IN_DIR(sequences_are_prompt_answer_end),
		cmocka_unit_test(text_length_rounds_up_within_the_room),
		cmocka_unit_test(plan_visits_every_sample_once_an_epoch),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
