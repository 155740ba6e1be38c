/* test_training.c: the trainer's file against the one that `tokenizers` trained and saved. */
#include "helpers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

static const char *const specials[] = {"<s>", "<pad>", "</s>", "<unk>"};
static char out_path[] = "/tmp/winnow-tokenizer-XXXXXX";

static char *train(const char *texts, const bpe_trainer_options *opt, size_t *len)
{
	text_lines l = read_lines(texts);
	wn_error err = {0};
	if (bpe_train(out_path, (const char *const *)l.line, l.count, opt, &err) != WN_OK)
		fail_msg("%s", err.message);
	free_lines(&l);
	return read_path(out_path, len);
}

/* Few letters: every count is shared by many pairs, and special tokens that merges spell again. */
static void ties_are_broken_as_by_tokenizers(void **state)
{
	static const char *const odd[] = {"ab", "</s>", "aba"};
	size_t len, want_len;
	char *got = train("ties.txt",
	                  &(bpe_trainer_options){.vocab_size = 520, .special_tokens = odd, .num_special_tokens = 3,
	                                         .min_frequency = 1, .bos_token = "</s>"},
	                  &len);
	char *want = read_data("ties.json", &want_len);
	assert_int_equal(len, want_len);
	assert_memory_equal(got, want, len);
	free(want);
	free(got);
}

static void mixed_text_gives_the_same_file(void **state)
{
	size_t len, want_len;
	char *got = train("lines.txt",
	                  &(bpe_trainer_options){.vocab_size = 2000, .special_tokens = specials, .num_special_tokens = 4}, &len);
	char *want = read_data("mixed.json", &want_len);
	/* The golden is stored without white space. */
	json_t *root = json_loadb(got, len, 0, NULL);
	assert_non_null(root);
	char *compact = json_dumps(root, JSON_COMPACT);
	assert_int_equal(strlen(compact), want_len);
	assert_memory_equal(compact, want, want_len);
	free(compact);
	json_decref(root);
	free(want);
	free(got);
}

static void trained_file_encodes_as_the_golden(void **state)
{
	size_t len;
	wn_error err = {0};
	free(train("lines.txt", &(bpe_trainer_options){.vocab_size = 2000, .special_tokens = specials, .num_special_tokens = 4},
	           &len));
	tokenizer *ours, *golden = open_data("mixed.json");
	assert_int_equal(tokenizer_open(&ours, out_path, &err), WN_OK);
	text_lines l = read_lines("added_lines.txt");
	for (size_t i = 0; i < l.count; i++) {
		int32_t a[4096], b[4096];
		size_t na, nb;
		assert_int_equal(tokenizer_encode(ours, l.line[i], strlen(l.line[i]), true, a, 4096, &na, NULL), WN_OK);
		assert_int_equal(tokenizer_encode(golden, l.line[i], strlen(l.line[i]), true, b, 4096, &nb, NULL), WN_OK);
		assert_int_equal(na, nb);
		assert_memory_equal(a, b, na * sizeof *a);
	}
	free_lines(&l);
	tokenizer_close(&ours);
	tokenizer_close(&golden);
}

static void without_texts_the_bytes_remain(void **state)
{
	tokenizer *t;
	assert_int_equal(bpe_train(out_path, NULL, 0, &(bpe_trainer_options){.vocab_size = 5000}, NULL), WN_OK);
	assert_int_equal(tokenizer_open(&t, out_path, NULL), WN_OK);
	assert_int_equal(tokenizer_vocab_size(t), 256);
	tokenizer_close(&t);
	assert_int_equal(bpe_train(out_path, (const char *const[]){"aa aa"}, 1,
	                           &(bpe_trainer_options){.vocab_size = 5000, .bos_token = "</s>", .special_tokens = specials,
	                                                  .num_special_tokens = 4}, NULL), WN_OK);
	assert_int_equal(tokenizer_open(&t, out_path, NULL), WN_OK);
	int32_t ids[8];
	size_t count;
	assert_int_equal(tokenizer_encode(t, "aa", 2, true, ids, 8, &count, NULL), WN_OK);
	assert_int_equal(count, 2);
	assert_int_equal(ids[0], 2);
	assert_int_equal(ids[1], tokenizer_token_id(t, "aa"));
	tokenizer_close(&t);
}

static void refused(const bpe_trainer_options *opt, const char *text, wn_code code, const char *message)
{
	wn_error err = {0};
	assert_int_equal(bpe_train(out_path, &text, 1, opt, &err), code);
	if (!strstr(err.message, message))
		fail_msg("\"%s\" does not say \"%s\"", err.message, message);
}

static void bad_options_are_refused(void **state)
{
	static const char *const twice[] = {"<s>", "<s>"}, *const empty[] = {""}, *const broken[] = {"\xff"};
	refused(&(bpe_trainer_options){.vocab_size = 255}, "a", WN_INVALID, "vocab_size 255: expected at least 256");
	refused(&(bpe_trainer_options){.vocab_size = 259, .special_tokens = specials, .num_special_tokens = 4}, "a", WN_INVALID,
	        "vocab_size 259: expected at least 260");
	refused(&(bpe_trainer_options){.vocab_size = SIZE_MAX}, "a", WN_TOO_LARGE, "expected at most 1048576");
	refused(&(bpe_trainer_options){.vocab_size = 300, .special_tokens = twice, .num_special_tokens = 2}, "a", WN_INVALID,
	        "special_tokens[1]: \"<s>\" occurs twice");
	refused(&(bpe_trainer_options){.vocab_size = 300, .special_tokens = empty, .num_special_tokens = 1}, "a", WN_INVALID,
	        "special_tokens[0]: empty");
	refused(&(bpe_trainer_options){.vocab_size = 300, .special_tokens = broken, .num_special_tokens = 1}, "a", WN_INVALID,
	        "special_tokens[0]: invalid UTF-8");
	refused(&(bpe_trainer_options){.vocab_size = 300, .bos_token = "</s>"}, "a", WN_INVALID, "bos_token \"</s>\"");
	refused(&(bpe_trainer_options){.vocab_size = 300}, "ab\xe4\xb8", WN_INVALID, "training text 0: invalid UTF-8 at byte 2");
	wn_error err = {0};
	assert_int_equal(bpe_train("/nonexistent/dir/t.json", NULL, 0, &(bpe_trainer_options){.vocab_size = 300}, &err),
	                 WN_NOT_FOUND);
	assert_non_null(strstr(err.message, "/nonexistent/dir/t.json"));
}

static int make_file(void **state)
{
	int fd = mkstemp(out_path);
	return fd < 0 ? -1 : close(fd);
}

static int remove_file(void **state) { return unlink(out_path); }

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ties_are_broken_as_by_tokenizers),   cmocka_unit_test(mixed_text_gives_the_same_file),
		cmocka_unit_test(trained_file_encodes_as_the_golden), cmocka_unit_test(without_texts_the_bytes_remain),
		cmocka_unit_test(bad_options_are_refused),
	};
	return cmocka_run_group_tests(tests, make_file, remove_file);
}
