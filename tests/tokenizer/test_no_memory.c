/* test_no_memory.c: fails the k-th allocation for every k; each call then reports WN_NOMEM, leaks nothing (under the
 * address sanitizer) and leaves no file behind. An encode of ordinary words makes no allocation at all. */
#include "helpers.h"

#include "failing_calls.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void parsing_survives_every_failure(void **state)
{
	size_t len;
	char *json = read_data("added.json", &len);
	for (long k = 0;; k++) {
		tokenizer *t;
		wn_error err = {0};
		failing_calls_arm(CALLS_OWN | CALLS_JANSSON, k + 1);
		wn_code rc = tokenizer_parse(&t, json, len, &err);
		const bool done = !failing_calls_disarm(); /* k was beyond the last call */
		if (done) {
			assert_int_equal(rc, WN_OK);
			assert_true(k > 20);
			tokenizer_close(&t);
			break;
		}
		assert_int_equal(rc, WN_NOMEM);
		assert_null(t);
		assert_true(err.message[0] != '\0');
	}
	free(json);
}

static void training_survives_every_failure(void **state)
{
	char dir[] = "/tmp/winnow-nomem-XXXXXX", path[64];
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/tokenizer.json", dir);
	const char *texts[] = {"abab abab cdcd cdcd abcd abcd abcd", "ab ab abab aaaa aaaa", "xyzzy xyzzy"};
	const char *specials[] = {"</s>"};
	bpe_trainer_options opt = {.vocab_size = 270, .special_tokens = specials, .num_special_tokens = 1};
	for (long k = 0;; k++) {
		wn_error err = {0};
		failing_calls_arm(CALLS_OWN, k + 1);
		wn_code rc = bpe_train(path, texts, 3, &opt, &err);
		const bool done = !failing_calls_disarm();
		if (done) {
			assert_int_equal(rc, WN_OK);
			assert_int_equal(unlink(path), 0);
			assert_true(k > 20);
			break;
		}
		if (rc != WN_NOMEM && rc != WN_IO) /* a stream or a directory that cannot be had */
			fail_msg("allocation %ld: code %d, %s", k, rc, err.message);
		assert_int_equal(access(path, F_OK), -1);
	}
	assert_int_equal(rmdir(dir), 0); /* no temporary stayed either */
}

static void long_words_and_decoding_survive(void **state)
{
	tokenizer *t = open_data("mixed.json");
	char word[1000];
	int32_t ids[1000];
	size_t count;
	char *text;
	memset(word, 'a', sizeof word);
	failing_calls_arm(CALLS_OWN, 1);
	assert_int_equal(tokenizer_encode(t, word, sizeof word, false, ids, 1000, &count, NULL), WN_NOMEM);
	assert_int_equal(tokenizer_encode(t, word, sizeof word, false, ids, 1000, &count, NULL), WN_OK);
	failing_calls_arm(CALLS_OWN, 1);
	assert_int_equal(tokenizer_decode(t, ids, count, &text, NULL), WN_NOMEM);
	assert_null(text);
	failing_calls_disarm();
	tokenizer_close(&t);
}

static void ordinary_text_allocates_nothing(void **state)
{
	tokenizer *t = open_data("added.json");
	text_lines l = read_lines("added_lines.txt");
	failing_calls_arm(CALLS_OWN, 1);
	for (size_t i = 0; i < l.count; i++) {
		int32_t ids[4096];
		size_t count;
		assert_int_equal(tokenizer_encode(t, l.line[i], strlen(l.line[i]), true, ids, 4096, &count, NULL), WN_OK);
	}
	assert_false(failing_calls_disarm());
	free_lines(&l);
	tokenizer_close(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parsing_survives_every_failure),
		cmocka_unit_test(training_survives_every_failure),
		cmocka_unit_test(long_words_and_decoding_survive),
		cmocka_unit_test(ordinary_text_allocates_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
