/* transfer_fixture.h: a tiny random teacher, the sample ads and a few pictures without labels, in a directory of their own. */
#ifndef WINNOW_TESTS_COMPRESS_TRANSFER_FIXTURE_H
#define WINNOW_TESTS_COMPRESS_TRANSFER_FIXTURE_H

#include "tests/prune/support.h"

#include "model/blip2.h"
#include "prune/compress/transfer.h"

enum { SIZE = 42, QUERIES = 3, VOCAB = 400, ADS = 46, FURTHER_PICTURES = 9 };

typedef struct fixture {
	tokenizer *tokenizer;
	manifest manifest;
	image_processor image_processor;
	dataset dataset;
	image_cache images;     /* of the ads, at the model's size */
	image_cache unlabelled; /* noise */
	uint8_t *noise;
	blip2 *model;
	label_trie trie;
	batch_options batch;
} fixture;

static const char *const FIXTURE_LABELS[][2] = {
	{"compliant", "合规"},         {"weapons", "违禁品"},       {"alcohol_tobacco", "烟酒违规"}, {"gambling", "赌博"},
	{"medical_claim", "医疗违规"}, {"false_claim", "虚假宣传"}, {"mismatch", "图文不符"},        {"clickbait", "诱导点击"},
	{"unreadable", "画质低劣"}};
enum { NUM_FIXTURE_LABELS = sizeof FIXTURE_LABELS / sizeof *FIXTURE_LABELS };

/* Vocabulary: the four special tokens, 256 bytes, and merges of what the ads and the frame say. */
static inline void fixture_tokenizer(fixture *f, const char *dir)
{
	static const char *const specials[] = {"<s>", "<pad>", "</s>", "<unk>"};
	const char *texts[2 * ADS + NUM_FIXTURE_LABELS + 1] = {"内容： 补充： 判定： 内容： 补充： 判定："};
	const bpe_trainer_options o = {.vocab_size = VOCAB, .special_tokens = specials, .num_special_tokens = 4};
	size_t n = 1;
	char path[400];
	for (size_t i = 0; i < f->dataset.count; i++) {
		texts[n++] = f->dataset.samples[i].text;
		texts[n++] = f->dataset.samples[i].assist;
	}
	for (int i = 0; i < NUM_FIXTURE_LABELS; i++)
		texts[n++] = f->manifest.labels[i].verbalizer;
	snprintf(path, sizeof path, "%s/tokenizer.json", dir);
	assert_ok(bpe_train(path, texts, n, &o, err));
	assert_ok(tokenizer_open(&f->tokenizer, path, err));
}

/* Three stacks of different widths, a Q-Former block without cross-attention, and weights that make answers depend strongly
 * on picture and words. */
static inline void fixture_model(fixture *f)
{
	const block_widths wide = {.num_heads = 2, .head_dim = 16, .ffn_dim = 48}, text = {.num_heads = 2, .head_dim = 20, .ffn_dim = 64};
	blip2_config *c = calloc(1, sizeof *c);
	*c = (blip2_config){.image_size = SIZE, .patch_size = 14, .qkv_bias = true, .num_query_tokens = QUERIES,
			    .cross_attention_frequency = 2, .vocab_size = VOCAB, .max_position_embeddings = 160, .bos_token_id = 2,
			    .eos_token_id = 2, .pad_token_id = 1, .initializer_range = 0.25f, .torch_dtype = "float32"};
	c->vision = (stack_config){.hidden_size = 32, .num_hidden_layers = 2, .layer_norm_eps = 1e-6f, .activation = ACTIVATION_GELU,
				   .blocks = {wide, wide}};
	c->qformer = (stack_config){.hidden_size = 32, .num_hidden_layers = 2, .layer_norm_eps = 1e-12f, .activation = ACTIVATION_GELU,
				    .blocks = {wide, wide}};
	c->qformer.blocks[0].cross_num_heads = 2;
	c->qformer.blocks[0].cross_head_dim = 16;
	c->text = (stack_config){.hidden_size = 40, .num_hidden_layers = 3, .layer_norm_eps = 1e-5f, .activation = ACTIVATION_RELU,
				 .blocks = {text, text, text}};
	assert_ok(blip2_create(&f->model, c, err));
	blip2_init_weights(f->model, 3);
	free(c);
}

static inline void fixture_open(fixture *f, const char *dir, int max_text_tokens)
{
	char path[400];
	*f = (fixture){.image_processor = {.size = SIZE, .mean = {0.48f, 0.45f, 0.40f}, .std = {0.27f, 0.26f, 0.28f}, .rescale_factor = 1 / 255.0}};
	manifest *m = &f->manifest;
	snprintf(m->name, sizeof m->name, "tiny");
	m->prompt = strdup("内容：{text} 补充：{assist} 判定：");
	m->max_text_tokens = max_text_tokens;
	m->num_labels = NUM_FIXTURE_LABELS;
	for (int i = 0; i < NUM_FIXTURE_LABELS; i++) {
		snprintf(m->labels[i].name, sizeof m->labels[i].name, "%s", FIXTURE_LABELS[i][0]);
		snprintf(m->labels[i].verbalizer, sizeof m->labels[i].verbalizer, "%s", FIXTURE_LABELS[i][1]);
	}
	assert_ok(dataset_read(&f->dataset, SAMPLES_DIR, "test", m->labels, m->num_labels, DATASET_NEEDS_LABEL, 0, err));
	assert_int_equal(f->dataset.count, ADS);
	fixture_tokenizer(f, dir);
	assert_ok(label_trie_build(&f->trie, f->tokenizer, m, err));
	snprintf(path, sizeof path, "%s/images.rgb", dir);
	assert_ok(image_cache_open(&f->images, path, &f->dataset, SIZE, 1, NULL, NULL, err));
	const size_t bytes = (size_t)FURTHER_PICTURES * SIZE * SIZE * 3;
	f->noise = malloc(bytes);
	rng r = rng_open(9, 9, 9, 9);
	for (size_t i = 0; i < bytes; i++)
		f->noise[i] = (uint8_t)rng_next(&r);
	f->unlabelled = (image_cache){.pixels = f->noise, .count = FURTHER_PICTURES, .side = SIZE};
	fixture_model(f);
	f->batch = (batch_options){.image_processor = f->image_processor, .augment = augment_none()};
}

static inline void fixture_close(fixture *f)
{
	label_trie_close(&f->trie);
	blip2_close(&f->model);
	image_cache_close(&f->images);
	free(f->noise);
	dataset_close(&f->dataset);
	tokenizer_close(&f->tokenizer);
	manifest_close(&f->manifest);
}

static inline transfer_options fixture_options(const fixture *f)
{
	return (transfer_options){.labelled = &f->dataset, .samples = ADS, .ads = &f->dataset, .ad_images = &f->images,
				  .recombined = 100, .unlabelled_images = &f->unlabelled, .unlabelled = FURTHER_PICTURES, .ads_share = 0.4,
				  .batch_size = 6, .seed = 5, .tokenizer = f->tokenizer, .manifest = &f->manifest};
}

#endif
