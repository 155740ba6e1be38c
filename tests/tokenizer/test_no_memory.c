/* test_no_memory.c: fails the k-th allocation for every k; each call then reports WN_NOMEM, leaks nothing (under the
 * address sanitizer) and leaves no file behind. An encode of ordinary words makes no allocation at all. */
#include "helpers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static long countdown = -1; /* allocations until one fails; negative: none does */
static long calls;

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);

static int refuse(void)
{
	calls++;
	return countdown >= 0 && countdown-- == 0;
}

void *__wrap_malloc(size_t n) { return refuse() ? NULL : __real_malloc(n); }
void *__wrap_calloc(size_t n, size_t size) { return refuse() ? NULL : __real_calloc(n, size); }
void *__wrap_realloc(void *p, size_t n) { return refuse() ? NULL : __real_realloc(p, n); }

static void parsing_survives_every_failure(void **state)
{
	size_t len;
	char *json = read_data("added.json", &len);
	for (long k = 0;; k++) {
		tokenizer *t;
		wn_error err = {0};
		countdown = k;
		wn_code rc = tokenizer_parse(&t, json, len, &err);
		bool done = countdown >= 0; /* k was beyond the last allocation */
		countdown = -1;
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
		countdown = k;
		wn_code rc = bpe_train(path, texts, 3, &opt, &err);
		bool done = countdown >= 0;
		countdown = -1;
		if (done) {
			assert_int_equal(rc, WN_OK);
			assert_int_equal(unlink(path), 0);
			assert_true(k > 20);
			break;
		}
		if (rc != WN_NOMEM)
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
	countdown = 0;
	assert_int_equal(tokenizer_encode(t, word, sizeof word, false, ids, 1000, &count, NULL), WN_NOMEM);
	assert_int_equal(tokenizer_encode(t, word, sizeof word, false, ids, 1000, &count, NULL), WN_OK);
	countdown = 0;
	assert_int_equal(tokenizer_decode(t, ids, count, &text, NULL), WN_NOMEM);
	assert_null(text);
	countdown = -1;
	tokenizer_close(&t);
}

static void ordinary_text_allocates_nothing(void **state)
{
	tokenizer *t = open_data("added.json");
	text_lines l = read_lines("added_lines.txt");
	long before = calls;
	for (size_t i = 0; i < l.count; i++) {
		int32_t ids[4096];
		size_t count;
		assert_int_equal(tokenizer_encode(t, l.line[i], strlen(l.line[i]), true, ids, 4096, &count, NULL), WN_OK);
	}
	assert_int_equal(calls, before);
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
