/* test_goldens.c: encode and decode against ids that the real `tokenizers` library produced (make_goldens.py). */
#include "helpers.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <utf8proc.h>

#include "model/pretokenize.h"

#define MAX_IDS 4096

/* Compares the ids of every golden line; returns how many lines there were. */
static size_t check_ids(const char *name, const char *texts, bool special)
{
	char file[64];
	size_t len, at = 0, lines = 0;
	snprintf(file, sizeof file, "%s.json", name);
	tokenizer *t = open_data(file);
	snprintf(file, sizeof file, "%s.ids", name);
	unsigned char *golden = (unsigned char *)read_data(file, &len);
	text_lines l = read_lines(texts);
	for (; at < len; lines++) {
		int32_t ids[MAX_IDS];
		size_t count, want = read_leb(golden, len, &at);
		wn_error err = {0};
		assert_true(lines < l.count);
		const char *s = l.line[lines];
		if (tokenizer_encode(t, s, strlen(s), special, ids, MAX_IDS, &count, &err) != WN_OK)
			fail_msg("%s line %zu: %s", texts, lines + 1, err.message);
		for (size_t i = 0; i < want; i++) {
			int32_t id = (int32_t)read_leb(golden, len, &at);
			if (i >= count || ids[i] != id)
				fail_msg("%s on %s line %zu \"%s\": id %zu is %d, expected %d", name, texts, lines + 1, s, i,
				         i < count ? ids[i] : -1, id);
		}
		if (count != want)
			fail_msg("%s on %s line %zu \"%s\": %zu ids, expected %zu", name, texts, lines + 1, s, count, want);
	}
	free_lines(&l);
	free(golden);
	tokenizer_close(&t);
	return lines;
}

static void ids_of_mixed_text(void **state) { assert_int_equal(check_ids("mixed", "lines.txt", false), 2187); }
static void ids_with_opt_template_and_old_merges(void **state) { assert_int_equal(check_ids("opt", "lines.txt", true), 2187); }
static void ids_with_added_tokens_and_prefix_space(void **state)
{
	assert_int_equal(check_ids("added", "added_lines.txt", true), 516);
}
static void ids_without_regex_with_ignore_merges(void **state)
{
	assert_int_equal(check_ids("whole", "added_lines.txt", true), 300);
}
static void ids_of_bytes_outside_the_vocabulary(void **state)
{
	assert_int_equal(check_ids("unk", "added_lines.txt", false), 150);
	assert_int_equal(check_ids("fuse", "added_lines.txt", false), 150);
	assert_int_equal(check_ids("drop", "added_lines.txt", false), 150);
}

static void decoding_restores_every_line(void **state)
{
	tokenizer *t = open_data("mixed.json");
	text_lines l = read_lines("lines.txt");
	for (size_t i = 0; i < l.count; i++) {
		int32_t ids[MAX_IDS];
		size_t count, len;
		char *text;
		assert_int_equal(tokenizer_encode(t, l.line[i], strlen(l.line[i]), false, ids, MAX_IDS, &count, NULL), WN_OK);
		assert_int_equal(tokenizer_decode_bytes(t, ids, count, &text, &len, NULL), WN_OK);
		assert_int_equal(len, strlen(l.line[i]));
		assert_string_equal(text, l.line[i]);
		free(text);
	}
	free_lines(&l);
	tokenizer_close(&t);
}

/* Random ids: broken UTF-8 in all places, ids that no token has. */
static void decoding_replaces_broken_sequences(void **state)
{
	tokenizer *t = open_data("mixed.json");
	size_t len, at = 0, cases = 0;
	unsigned char *golden = (unsigned char *)read_data("decode.bin", &len);
	for (; at < len; cases++) {
		int32_t ids[16];
		size_t count = read_leb(golden, len, &at), got;
		char *text;
		assert_true(count <= 16);
		for (size_t i = 0; i < count; i++)
			ids[i] = (int32_t)read_leb(golden, len, &at);
		size_t want = read_leb(golden, len, &at);
		assert_int_equal(tokenizer_decode_bytes(t, ids, count, &text, &got, NULL), WN_OK);
		assert_int_equal(got, want);
		assert_memory_equal(text, golden + at, want);
		at += want;
		free(text);
	}
	assert_int_equal(cases, 400);
	free(golden);
	tokenizer_close(&t);
}

static void zero_bytes_survive(void **state)
{
	tokenizer *t = open_data("mixed.json");
	int32_t ids[16];
	size_t count, len;
	char *text;
	assert_int_equal(tokenizer_encode(t, "a\0b", 3, false, ids, 16, &count, NULL), WN_OK);
	assert_int_equal(tokenizer_decode_bytes(t, ids, count, &text, &len, NULL), WN_OK);
	assert_int_equal(len, 3);
	assert_memory_equal(text, "a\0b", 4);
	free(text);
	tokenizer_close(&t);
}

/* Class (L, N, S, O) and \w of one code point, seen through the interface. */
static void class_of(uint32_t c, char kind[2])
{
	char s[6];
	int n = (int)utf8proc_encode_char((utf8proc_int32_t)c, (utf8proc_uint8_t *)s + 1);
	kind[0] = 'S';
	for (const char *probe = "aL1N!O"; *probe; probe += 2) {
		s[0] = probe[0];
		if (pretokenize_next(s, (size_t)n + 1, 0, false) == (size_t)n + 1)
			kind[0] = probe[1];
	}
	kind[1] = char_is_word(c) ? 'w' : '-';
}

static void classes_of_all_code_points(void **state)
{
	text_lines l = read_lines("classes.txt");
	size_t run = 0;
	/* A utf8proc beyond Unicode 16 may know more letters than the library that made the golden. */
	bool newer = atoi(utf8proc_unicode_version()) > 16;
	assert_true(l.count > 2000);
	for (uint32_t c = 0; c < 0x110000; c++) {
		char kind[2];
		if (c >= 0xd800 && c < 0xe000)
			continue;
		if (run + 1 < l.count && strtoul(l.line[run + 1], NULL, 16) == c)
			run++;
		const char *want = strchr(l.line[run], ' ') + 1;
		class_of(c, kind);
		if (memcmp(kind, want, 2) != 0 && !(newer && want[0] == 'O'))
			fail_msg("U+%04X is %.2s, expected %.2s", c, kind, want);
		assert_true(char_is_space(c) == (want[0] == 'S'));
	}
	assert_int_equal(run, l.count - 1);
	free_lines(&l);
}

static void byte_characters_are_a_bijection(void **state)
{
	for (int b = 0; b < 256; b++)
		assert_int_equal(char_to_byte(byte_to_char((unsigned char)b)), b);
	int known = 0;
	for (uint32_t c = 0; c < 0x1000; c++)
		known += char_to_byte(c) >= 0;
	assert_int_equal(known, 256);
	assert_int_equal(byte_to_char(' '), 0x120);
	assert_int_equal(byte_to_char('\n'), 0x10a);
}

static void lookups(void **state)
{
	tokenizer *t = open_data("added.json");
	assert_int_equal(tokenizer_token_id(t, "<s>"), 0);
	assert_int_equal(tokenizer_token_id(t, "</s>"), 2);
	assert_int_equal(tokenizer_token_id(t, "!"), 4);
	assert_int_equal(tokenizer_token_id(t, "<mask>"), 420);
	assert_int_equal(tokenizer_token_id(t, "absent"), -1);
	assert_int_equal(tokenizer_vocab_size(t), 434);
	tokenizer_close(&t);
	assert_null(t);
	tokenizer_close(&t);
}

static void too_little_room_keeps_the_first_ids(void **state)
{
	tokenizer *t = open_data("opt.json");
	int32_t all[64], some[3] = {-7, -7, -7};
	size_t count, need;
	wn_error err = {0};
	const char *s = "SALE 50% offer";
	assert_int_equal(tokenizer_encode(t, s, strlen(s), true, all, 64, &count, NULL), WN_OK);
	assert_true(count > 3);
	assert_int_equal(all[0], 2); /* </s> in front */
	assert_int_equal(tokenizer_encode(t, s, strlen(s), true, some, 2, &need, &err), WN_TOO_LARGE);
	assert_int_equal(need, count);
	assert_int_equal(some[0], all[0]);
	assert_int_equal(some[1], all[1]);
	assert_int_equal(some[2], -7);
	assert_int_equal(tokenizer_encode(t, s, strlen(s), true, NULL, 0, &need, NULL), WN_TOO_LARGE);
	assert_int_equal(need, count);
	tokenizer_close(&t);
}

/* A single word of the largest text: seconds when quadratic by the thousand. */
static void long_words_take_linear_time(void **state)
{
	tokenizer *t = open_data("ties.json");
	size_t n = TOKENIZER_MAX_TEXT, count, small;
	char *s = malloc(n);
	int32_t *ids = malloc(n * sizeof *ids);
	struct timespec a, b;
	assert_non_null(s);
	assert_non_null(ids);
	uint32_t seed = 1;
	for (size_t i = 0; i < n; i++)
		s[i] = "ab"[(seed = seed * 1664525u + 1013904223u) >> 31];
	clock_gettime(CLOCK_MONOTONIC, &a);
	assert_int_equal(tokenizer_encode(t, s, n, false, ids, n, &count, NULL), WN_OK);
	clock_gettime(CLOCK_MONOTONIC, &b);
	assert_true(b.tv_sec - a.tv_sec < 30);
	assert_in_range(count, n / 64, n / 2);
	/* White space, and matches of added tokens side by side, in one long run. */
	memset(s, ' ', n);
	assert_int_equal(tokenizer_encode(t, s, n, false, ids, n, &count, NULL), WN_OK);
	assert_int_equal(tokenizer_encode(t, s, n + 1, false, ids, n, &small, NULL), WN_TOO_LARGE);
	assert_int_equal(small, 0);
	free(s);
	free(ids);
	tokenizer_close(&t);
}

typedef struct shared_use {
	const tokenizer *t;
	const text_lines *lines;
	uint64_t sum;
} shared_use;

static void *encode_all(void *arg)
{
	shared_use *u = arg;
	for (size_t i = 0; i < u->lines->count; i++) {
		int32_t ids[MAX_IDS];
		size_t count;
		if (tokenizer_encode(u->t, u->lines->line[i], strlen(u->lines->line[i]), true, ids, MAX_IDS, &count, NULL) != WN_OK)
			return arg;
		for (size_t k = 0; k < count; k++)
			u->sum = u->sum * 31 + (uint64_t)ids[k];
	}
	return NULL;
}

static void threads_share_one_tokenizer(void **state)
{
	tokenizer *t = open_data("added.json");
	text_lines l = read_lines("added_lines.txt");
	shared_use use[4];
	pthread_t thread[4];
	for (int i = 0; i < 4; i++) {
		use[i] = (shared_use){t, &l, 0};
		assert_int_equal(pthread_create(&thread[i], NULL, encode_all, &use[i]), 0);
	}
	for (int i = 0; i < 4; i++) {
		void *failed;
		pthread_join(thread[i], &failed);
		assert_null(failed);
		assert_true(use[i].sum == use[0].sum && use[i].sum != 0);
	}
	free_lines(&l);
	tokenizer_close(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ids_of_mixed_text),
		cmocka_unit_test(ids_with_opt_template_and_old_merges),
		cmocka_unit_test(ids_with_added_tokens_and_prefix_space),
		cmocka_unit_test(ids_without_regex_with_ignore_merges),
		cmocka_unit_test(ids_of_bytes_outside_the_vocabulary),
		cmocka_unit_test(decoding_restores_every_line),
		cmocka_unit_test(decoding_replaces_broken_sequences),
		cmocka_unit_test(zero_bytes_survive),
		cmocka_unit_test(classes_of_all_code_points),
		cmocka_unit_test(byte_characters_are_a_bijection),
		cmocka_unit_test(lookups),
		cmocka_unit_test(too_little_room_keeps_the_first_ids),
		cmocka_unit_test(long_words_take_linear_time),
		cmocka_unit_test(threads_share_one_tokenizer),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
