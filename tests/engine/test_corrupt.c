/* test_corrupt.c: model directories that lie, are cut off or do not fit. Each must give one clear line, in the library and as
 * the program's exit code 1, and never a crash. */
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "golden.h"
#include "program.h"

#define BROKEN "broken-model" /* in the test's working directory */
#define MAX_TENSORS 400

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw) { return remove(path); }

static void copy_file(const char *to, const char *from)
{
	char *bytes = NULL;
	size_t len = 0;
	wn_error err = {0};
	assert_ok(file_read(from, 1 << 26, &bytes, &len, &err), &err);
	assert_ok(file_write_atomic(to, bytes, len, &err), &err);
	free(bytes);
}

/* A fresh copy of a golden directory's config, weights and manifest. */
static void fresh(const char *name)
{
	static const char *const files[] = {"config.json", "model.safetensors", "model.safetensors.index.json", "winnow.json"};
	char to[128];
	nftw(BROKEN, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	assert_int_equal(mkdir(BROKEN, 0755), 0);
	for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
		snprintf(to, sizeof to, "%s/%s", BROKEN, files[i]);
		if (access(golden_path(name, files[i]), R_OK) == 0)
			copy_file(to, golden_path(name, files[i]));
	}
	for (int i = 1; i < 5; i++) {
		char shard[64];
		snprintf(shard, sizeof shard, "model-%05d-of-00004.safetensors", i);
		snprintf(to, sizeof to, "%s/%s", BROKEN, shard);
		if (access(golden_path(name, shard), R_OK) == 0)
			copy_file(to, golden_path(name, shard));
	}
}

/* The library refuses the directory with one line that contains word (NULL: any), or loads it when may_load. */
static void expect(const char *word, bool may_load)
{
	checkpoint ck;
	wn_error err = {0};
	const wn_code rc = checkpoint_load(&ck, BROKEN, NULL, &err);
	if (rc == WN_OK) {
		checkpoint_close(&ck);
		if (!may_load)
			fail_msg("loaded, expected a line with \"%s\"", word ? word : "");
		return;
	}
	assert_true(err.message[0]);
	assert_null(strchr(err.message, '\n'));
	assert_null(ck.model); /* zeroed */
	if (word && !strstr(err.message, word))
		fail_msg("expected \"%s\" in: %s", word, err.message);
}

/* The same through the program. */
static void expect_program(const char *word)
{
	outcome o;
	expect(word, false);
	RUN(&o, "inspect", "--model", BROKEN);
	assert_refused(&o, 1, word);
}

static void replace_in(const char *file, const char *from, const char *to)
{
	char path[128], *text = NULL;
	size_t len = 0;
	wn_error err = {0};
	snprintf(path, sizeof path, "%s/%s", BROKEN, file);
	assert_ok(file_read(path, 1 << 20, &text, &len, &err), &err);
	char *at = strstr(text, from);
	assert_non_null(at);
	char *changed = malloc(len + strlen(to) + 1);
	const size_t head = (size_t)(at - text);
	memcpy(changed, text, head);
	strcpy(changed + head, to);
	strcat(changed, at + strlen(from));
	assert_ok(file_write_atomic(path, changed, strlen(changed), &err), &err);
	free(changed);
	free(text);
}

/* Rewrites the weights with one tensor dropped (as_name NULL), renamed, reshaped, retyped, or with one more. */
static void rewrite_weights(const char *name, const char *as_name, const tensor *as_tensor, const safetensors_entry *extra)
{
	safetensors *st = NULL;
	wn_error err = {0};
	safetensors_entry entries[MAX_TENSORS];
	size_t n = 0;
	assert_ok(safetensors_open(&st, golden_path("base", "model.safetensors"), &err), &err);
	for (size_t i = 0; i < safetensors_count(st); i++) {
		const tensor *t = safetensors_at(st, i, &entries[n].name);
		entries[n].tensor = *t;
		if (name && !strcmp(entries[n].name, name)) {
			if (!as_name)
				continue;
			entries[n].name = as_name;
			if (as_tensor)
				entries[n].tensor = *as_tensor;
		}
		n++;
	}
	if (extra)
		entries[n++] = *extra;
	assert_ok(safetensors_write(BROKEN "/model.safetensors", entries, n, &err), &err);
	safetensors_close(&st);
}

static void wrong_tensors_are_named(void **state)
{
	static const char *const fc1 = "vision_model.encoder.layers.1.mlp.fc1.weight";
	static float zeros[64 * 64];
	static int8_t bytes[40 * 24];
	fresh("base");
	rewrite_weights(fc1, NULL, NULL, NULL);
	expect_program(fc1);
	rewrite_weights(fc1, "vision_model.encoder.layers.9.mlp.fc1.weight", NULL, NULL);
	expect_program(fc1);
	rewrite_weights(fc1, fc1, &(tensor){DTYPE_F32, 2, {24, 40}, zeros}, NULL); /* transposed */
	expect_program("[24, 40]");
	rewrite_weights(fc1, fc1, &(tensor){DTYPE_F32, 1, {960}, zeros}, NULL);
	expect_program(fc1);
	rewrite_weights(fc1, fc1, &(tensor){DTYPE_I8, 2, {40, 24}, bytes}, NULL);
	expect_program("I8");
	rewrite_weights(NULL, NULL, NULL, &(safetensors_entry){"vision_model.surprise", {DTYPE_F32, 1, {3}, zeros}});
	expect_program("vision_model.surprise");
	/* A head that is not the embedding is another model. */
	rewrite_weights(NULL, NULL, NULL, &(safetensors_entry){"language_model.lm_head.weight", {DTYPE_F32, 2, {61, 32}, zeros}});
	expect_program("lm_head");
	float nan_bias[40] = {[7] = 0.0f / 0.0f};
	rewrite_weights("vision_model.encoder.layers.1.mlp.fc1.bias", "vision_model.encoder.layers.1.mlp.fc1.bias",
	                &(tensor){DTYPE_F32, 1, {40}, nan_bias}, NULL);
	expect_program("element 7");
	/* Unchanged, it loads: the tests above refuse for their own reason. */
	rewrite_weights(NULL, NULL, NULL, NULL);
	expect(NULL, true);
	rewrite_weights(NULL, NULL, NULL, &(safetensors_entry){"qformer.embeddings.position_ids", {DTYPE_F32, 1, {3}, zeros}});
	checkpoint ck;
	wn_error err = {0};
	assert_ok(checkpoint_load(&ck, BROKEN, NULL, &err), &err);
	checkpoint_close(&ck);
}

static void configs_that_do_not_fit_the_weights_are_refused(void **state)
{
	static const struct {
		const char *from, *to, *word;
	} cases[] = {
		{"\"hidden_size\": 24", "\"hidden_size\": 48", ""},
		{"\"ffn_dim\": 56", "\"ffn_dim\": 57", "fc1"},
		{"\"num_query_tokens\": 5", "\"num_query_tokens\": 6", "query_tokens"},
		{"\"image_size\": 20", "\"image_size\": 24", "position_embedding"},
		{"\"patch_size\": 4", "\"patch_size\": 5", "embeddings"},
		{"\"num_hidden_layers\": 3", "\"num_hidden_layers\": 2", "layer.2"},
		{"\"cross_attention_frequency\": 2", "\"cross_attention_frequency\": 1", "crossattention"},
		{"\"vocab_size\": 61,", "\"vocab_size\": 1000000000,", "vocab_size"}, /* the text's: the Q-Former's ends its object */
		{"\"vocab_size\": 61,", "\"vocab_size\": 200000,", "parameters"}, /* caught before its buffer is asked for */
		{"\"hidden_size\": 32", "\"hidden_size\": 1000000000000", "hidden_size"},
		{"\"model_type\": \"blip-2\"", "\"model_type\": \"llava\"", "llava"},
		{"\"num_attention_heads\": 3", "\"num_attention_heads\": 0", "num_attention_heads"},
		{"{", "", ""},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		fresh("base");
		replace_in("config.json", cases[i].from, cases[i].to);
		expect_program(cases[i].word);
	}
}

static void missing_files_are_named(void **state)
{
	outcome o;
	fresh("base");
	unlink(BROKEN "/config.json");
	expect_program("config.json");
	fresh("base");
	unlink(BROKEN "/model.safetensors");
	expect_program("model.safetensors");
	fresh("sharded");
	unlink(BROKEN "/model-00003-of-00004.safetensors");
	expect_program("model-00003-of-00004.safetensors");
	fresh("base");
	RUN(&o, "tokenize", "--model", BROKEN);
	assert_refused(&o, 1, "tokenizer.json");
	RUN(&o, "classify", "--model", BROKEN, "--image", "x.jpg", "--text", "x");
	assert_refused(&o, 1, "winnow.json");
	RUN(&o, "forward", "--model", BROKEN, "--in", "absent.safetensors", "--out", "never.safetensors");
	assert_refused(&o, 1, "absent.safetensors");
	fresh("widths");
	replace_in("winnow.json", "\"num_heads\": 3", "\"num_heads\": 300000");
	expect_program("num_heads");
	fresh("widths");
	unlink(BROKEN "/winnow.json"); /* config.json alone describes other shapes */
	expect_program("shape");
}

/* Every length class of a cut file, and single flipped bits all over header and data: refused or, where the bit only changes
 * a weight, loaded; never a crash. */
static void cut_and_flipped_weights_never_crash(void **state)
{
	char *bytes = NULL;
	size_t len = 0;
	wn_error err = {0};
	fresh("single");
	assert_ok(file_read(golden_path("single", "model.safetensors"), 1 << 24, &bytes, &len, &err), &err);
	uint64_t header = 0;
	memcpy(&header, bytes, 8);
	for (size_t cut = 0; cut < len; cut += cut < 16 || cut > len - 8 ? 1 : 97) {
		assert_ok(file_write_atomic(BROKEN "/model.safetensors", bytes, cut, &err), &err);
		expect("", false);
	}
	uint32_t seed = 1;
	for (int i = 0; i < 600; i++) {
		/* The header length first, then the header, then anywhere. */
		const size_t span = i < 64 ? 8 : i < 500 ? (size_t)header + 8 : len;
		seed = seed * 1664525u + 1013904223u;
		const size_t at = i < 64 ? (size_t)i / 8 : (size_t)(seed >> 8) % span;
		const char bit = (char)(1 << (i < 64 ? i % 8 : (int)(seed >> 4) % 8));
		bytes[at] ^= bit;
		assert_ok(file_write_atomic(BROKEN "/model.safetensors", bytes, len, &err), &err);
		expect("", i >= 64);
		bytes[at] ^= bit;
	}
	free(bytes);
}

/* A manifest's digests catch what the shapes cannot: one flipped bit of a weight. */
static void a_flipped_weight_fails_the_digest(void **state)
{
	checkpoint ck;
	wn_error err = {0};
	const checkpoint_options verify = {.verify_digests = true};
	const char *dir = "digest-model";
	assert_ok(checkpoint_load(&ck, golden_path("widths", ""), NULL, &err), &err);
	assert_ok(checkpoint_save(dir, ck.model, &ck.manifest, &ck.image_processor, NULL, DTYPE_F32, &err), &err);
	checkpoint_close(&ck);
	assert_ok(checkpoint_load(&ck, dir, &verify, &err), &err);
	checkpoint_close(&ck);
	FILE *f = fopen("digest-model/model.safetensors", "r+");
	assert_non_null(f);
	fseek(f, -6, SEEK_END);
	const int byte = fgetc(f);
	fseek(f, -6, SEEK_END);
	fputc(byte ^ 1, f);
	fclose(f);
	assert_int_equal(checkpoint_load(&ck, dir, &verify, &err), WN_INVALID);
	assert_non_null(strstr(err.message, "model.safetensors"));
}

/* --out never costs somebody's files. */
static void saving_replaces_checkpoints_only(void **state)
{
	checkpoint ck;
	wn_error err = {0};
	const char *dir = "not-a-checkpoint";
	assert_ok(checkpoint_load(&ck, golden_path("single", ""), NULL, &err), &err);
	nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	assert_int_equal(mkdir(dir, 0755), 0);
	assert_ok(file_write_atomic("not-a-checkpoint/thesis.txt", "years of work", 13, &err), &err);
	assert_int_equal(checkpoint_save(dir, ck.model, NULL, &ck.image_processor, NULL, DTYPE_F32, &err), WN_INVALID);
	assert_non_null(strstr(err.message, "not a model directory"));
	assert_int_equal(access("not-a-checkpoint/thesis.txt", F_OK), 0);
	checkpoint_close(&ck);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(wrong_tensors_are_named),
		cmocka_unit_test(configs_that_do_not_fit_the_weights_are_refused),
		cmocka_unit_test(missing_files_are_named),
		cmocka_unit_test(cut_and_flipped_weights_never_crash),
		cmocka_unit_test(a_flipped_weight_fails_the_digest),
		cmocka_unit_test(saving_replaces_checkpoints_only),
	};
	program_is(argc > 1 ? argv[1] : "winnow-prune");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
