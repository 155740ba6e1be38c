/* test_errors.c: every refusal names its key; no prefix of a file is taken for the file; no bad text gets ids. */
#include "helpers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEMPLATE \
	"{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"</s>\",\"type_id\":0}}," \
	"{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"special_tokens\":{\"</s>\":{\"id\":\"</s>\",\"ids\":[0]}}}"

/* The smallest file with all its parts; bytes beyond a, b and the space have no token. */
static const char base[] =
	"{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,"
	"\"added_tokens\":[{\"id\":0,\"content\":\"</s>\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"
	"\"normalized\":false,\"special\":true}],\"normalizer\":null,"
	"\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true},"
	"\"post_processor\":" TEMPLATE ",\"decoder\":{\"type\":\"ByteLevel\"},"
	"\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,\"byte_fallback\":false,"
	"\"vocab\":{\"</s>\":0,\"a\":1,\"b\":2,\"\xc4\xa0\":3,\"ab\":4,\"\xc4\xa0" "ab\":5},"
	"\"merges\":[[\"a\",\"b\"],[\"\xc4\xa0\",\"ab\"]]}}";

/* base with its first `from` replaced by `to`. */
static char *edited(const char *from, const char *to)
{
	const char *at = strstr(base, from);
	if (!at)
		fail_msg("\"%s\" is not in the base file", from);
	char *s = malloc(sizeof base + strlen(to));
	assert_non_null(s);
	sprintf(s, "%.*s%s%s", (int)(at - base), base, to, at + strlen(from));
	return s;
}

static void base_file_works(void **state)
{
	tokenizer *t;
	int32_t ids[8];
	size_t count;
	wn_error err = {0};
	if (tokenizer_parse(&t, base, sizeof base - 1, &err) != WN_OK)
		fail_msg("%s", err.message);
	assert_int_equal(tokenizer_encode(t, "ab ab</s>c", 10, true, ids, 8, &count, NULL), WN_OK);
	assert_int_equal(count, 4);
	assert_memory_equal(ids, ((int32_t[]){0, 4, 5, 0}), 16);
	tokenizer_close(&t);
}

static const struct {
	const char *from, *to;
	wn_code code;
	const char *message;
} edits[] = {
	{"\"1.0\"", "\"2.0\"", WN_UNSUPPORTED, "version: found \"2.0\""},
	{"\"normalizer\":null", "\"normalizer\":{\"type\":\"NFC\"}", WN_UNSUPPORTED, "normalizer.type: found NFC"},
	{"\"added_tokens\":[", "\"added_tokens\":3,\"x\":[", WN_INVALID, "added_tokens: found integer"},
	{"\"added_tokens\":[", "\"added_tokens\":[7,", WN_INVALID, "added_tokens[0].content: found nothing"},
	{"\"content\":\"</s>\"", "\"content\":\"\"", WN_INVALID, "added_tokens[0].content"},
	{"\"lstrip\":false,", "", WN_INVALID, "added_tokens[0].lstrip: found nothing, expected true or false"},
	{"\"special\":true", "\"special\":1", WN_INVALID, "added_tokens[0].special: found integer"},
	{"[{\"id\":0", "[{\"id\":1", WN_INVALID, "\"</s>\" has id 1, expected 0"},
	{"[{\"id\":0", "[{\"id\":-1", WN_INVALID, "\"</s>\" has id -1"},
	{"[{\"id\":0", "[{\"id\":\"0\"", WN_INVALID, "the id of \"</s>\" is string"},
	{"\"content\":\"</s>\"", "\"content\":\"<new>\"", WN_INVALID, "\"<new>\" has id 0, expected 6 (the next after model.vocab)"},
	{"\"added_tokens\":[",
	 "\"added_tokens\":[{\"id\":0,\"content\":\"</s>\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"
	 "\"normalized\":true,\"special\":true},", WN_INVALID, "added_tokens[1]: \"</s>\" occurs twice"},
	{"\"pre_tokenizer\":{\"type\":\"ByteLevel\"", "\"pre_tokenizer\":{\"type\":\"Metaspace\"", WN_UNSUPPORTED,
	 "pre_tokenizer.type: found Metaspace"},
	{"\"pre_tokenizer\":{", "\"pre_tokenizer\":null,\"x\":{", WN_INVALID, "pre_tokenizer: found null"},
	{"\"add_prefix_space\":false", "\"add_prefix_space\":0", WN_INVALID, "pre_tokenizer.add_prefix_space: found integer"},
	{"\"decoder\":{\"type\":\"ByteLevel\"}", "\"decoder\":{\"type\":\"BPEDecoder\"}", WN_UNSUPPORTED, "decoder.type: found BPEDecoder"},
	{"\"decoder\":{\"type\":\"ByteLevel\"},", "", WN_NOT_FOUND, "decoder: missing"},
	{"\"model\":", "\"mobel\":", WN_NOT_FOUND, "model: missing"},
	{"\"model\":{\"type\":\"BPE\"", "\"model\":{\"type\":\"WordPiece\"", WN_UNSUPPORTED, "model.type: found WordPiece"},
	{"\"dropout\":null", "\"dropout\":0.1", WN_UNSUPPORTED, "model.dropout"},
	{"\"dropout\":null", "\"end_of_word_suffix\":\"</w>\"", WN_UNSUPPORTED, "model.end_of_word_suffix: found \"</w>\""},
	{"\"dropout\":null", "\"continuing_subword_prefix\":3", WN_UNSUPPORTED, "model.continuing_subword_prefix: found \"integer\""},
	{"\"byte_fallback\":false", "\"byte_fallback\":true", WN_UNSUPPORTED, "model.byte_fallback: found true"},
	{"\"unk_token\":null", "\"unk_token\":\"<unk>\"", WN_INVALID, "model.unk_token: \"<unk>\" is not in model.vocab"},
	{"\"unk_token\":null", "\"unk_token\":[]", WN_INVALID, "model.unk_token: found array"},
	{"\"unk_token\":null", "\"fuse_unk\":null", WN_INVALID, "model.fuse_unk: found null"},
	{"\"vocab\":{", "\"vocal\":{", WN_NOT_FOUND, "model: vocab: missing"},
	{"\"vocab\":{", "\"vocab\":{},\"x\":{", WN_INVALID, "model.vocab: 0 entries"},
	{"\"a\":1", "\"a\":2", WN_INVALID, "id 2 belongs to both \"a\" and \"b\""},
	{"\"a\":1", "\"a\":-3", WN_INVALID, "\"a\" has id -3"},
	{"\"a\":1", "\"a\":2097152", WN_TOO_LARGE, "\"a\" has id 2097152, expected 0 to 2097151"},
	{"\"a\":1", "\"a\":4294967297", WN_TOO_LARGE, "\"a\" has id 4294967297"},
	{"\"a\":1", "\"a\":99999999999999999999999", WN_INVALID, "malformed JSON at line 1"},
	{"\"a\":1", "\"a\":1.0", WN_INVALID, "the id of \"a\" is real"},
	{"\"a\":1", "\"a\":1,\"a\":6", WN_INVALID, "duplicate object key"},
	{"\"merges\":", "\"margin\":", WN_NOT_FOUND, "model.merges: found nothing"},
	{"[\"a\",\"b\"]", "[\"a\",\"z\"]", WN_INVALID, "model.merges[0]: \"z\" is not in model.vocab"},
	{"[\"a\",\"b\"]", "[\"b\",\"a\"]", WN_INVALID, "model.merges[0]: the result \"ba\" is not in model.vocab"},
	{"[\"a\",\"b\"]", "[\"a\",\"b\",\"a\"]", WN_INVALID, "model.merges[0]: found an array of 3"},
	{"[\"a\",\"b\"]", "[\"a\",2]", WN_INVALID, "model.merges[0][1]: found integer"},
	{"[\"a\",\"b\"]", "\"a b\"", WN_INVALID, "model.merges[1]: found array"},
	{"[[\"a\",\"b\"],[", "[\"a b\",\"ab\"],\"x\":[[", WN_INVALID, "model.merges[1]: \"ab\", expected two tokens"},
	{"[[\"a\",\"b\"],[", "[\"a b c\"],\"x\":[[", WN_INVALID, "model.merges[0]: \"a b c\", expected two tokens"},
	{"\"type\":\"TemplateProcessing\"", "\"type\":\"Template\"", WN_UNSUPPORTED, "post_processor.type: found Template"},
	{"\"single\":[", "\"single\":3,\"x\":[", WN_INVALID, "post_processor.single: found integer"},
	{"\"single\":[", "\"single\":[{\"Sequence\":{\"id\":\"A\"}},", WN_UNSUPPORTED, "the text occurs 2 times"},
	{"{\"Sequence\":{\"id\":\"A\"", "{\"Sequence\":{\"id\":\"B\"", WN_INVALID, "post_processor.single[1]"},
	{"\"special_tokens\":{\"</s>\"", "\"special_tokens\":{\"<s>\"", WN_INVALID, "no ids for \"</s>\""},
	{"\"ids\":[0]", "\"ids\":[6]", WN_INVALID, "\"</s>\" has id 6, which no token has"},
	{"\"ids\":[0]", "\"ids\":[1e3]", WN_INVALID, "the id of \"</s>\" is real"},
	{"\"post_processor\":", "\"post_processor\":{\"type\":\"RobertaProcessing\",\"cls\":[\"x\",0],\"sep\":3},\"x\":", WN_INVALID,
	 "post_processor.sep: expected"},
};

static void bad_files_are_refused_by_name(void **state)
{
	for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
		char *json = edited(edits[i].from, edits[i].to);
		tokenizer *t = (tokenizer *)1;
		wn_error err = {0};
		wn_code rc = tokenizer_parse(&t, json, strlen(json), &err);
		if (rc != edits[i].code || !strstr(err.message, edits[i].message))
			fail_msg("%s -> %s: code %d \"%s\", expected %d \"%s\"", edits[i].from, edits[i].to, rc, err.message, edits[i].code,
			         edits[i].message);
		assert_null(t);
		free(json);
	}
}

static void no_prefix_of_a_file_is_a_file(void **state)
{
	for (size_t len = 0; len < sizeof base - 1; len++) {
		tokenizer *t;
		wn_error err = {0};
		char *part = malloc(len + 1); /* its own block: a read past the end is seen */
		memcpy(part, base, len);
		assert_int_equal(tokenizer_parse(&t, part, len, &err), WN_INVALID);
		assert_non_null(strstr(err.message, "malformed JSON at line 1"));
		assert_null(t);
		free(part);
	}
}

static void flipped_bytes_do_no_harm(void **state)
{
	uint32_t seed = 1;
	char *json = malloc(sizeof base);
	for (int i = 0; i < 4000; i++) {
		tokenizer *t;
		memcpy(json, base, sizeof base);
		for (int k = 0; k < 3; k++) {
			seed = seed * 1664525u + 1013904223u;
			json[seed % (sizeof base - 1)] = "\"\\{}[]:,0a \xff"[seed >> 20 & 7];
		}
		if (tokenizer_parse(&t, json, sizeof base - 1, NULL) == WN_OK) {
			size_t count;
			tokenizer_encode(t, "ab ab</s>", 9, true, NULL, 0, &count, NULL);
		}
		tokenizer_close(&t);
	}
	free(json);
}

/* "Sequence" inside "Sequence" without end, and more special tokens than have room. */
static void nested_processors_are_bounded(void **state)
{
	char to[4096] = "\"post_processor\":";
	for (int i = 0; i < 10; i++)
		strcat(to, "{\"type\":\"Sequence\",\"processors\":[");
	strcat(to, TEMPLATE);
	for (int i = 0; i < 10; i++)
		strcat(to, "]}");
	strcat(to, ",\"x\":");
	char *json = edited("\"post_processor\":", to);
	tokenizer *t;
	assert_int_equal(tokenizer_parse(&t, json, strlen(json), NULL), WN_UNSUPPORTED);
	free(json);
	strcpy(to, "\"ids\":[0");
	for (int i = 0; i < 64; i++)
		strcat(to, ",0");
	strcat(to, "]");
	json = edited("\"ids\":[0]", to);
	assert_int_equal(tokenizer_parse(&t, json, strlen(json), NULL), WN_TOO_LARGE);
	free(json);
}

static void long_tokens_are_refused(void **state)
{
	char *to = malloc(6000);
	strcpy(to, "\"a\":1,\"");
	memset(to + 7, 'a', 4097);
	strcpy(to + 7 + 4097, "\":6");
	char *json = edited("\"a\":1", to);
	tokenizer *t;
	wn_error err = {0};
	assert_int_equal(tokenizer_parse(&t, json, strlen(json), &err), WN_TOO_LARGE);
	assert_non_null(strstr(err.message, "a token of 4097 bytes"));
	free(json);
	free(to);
}

static void invalid_utf8_text_is_refused_with_its_place(void **state)
{
	static const struct {
		const char *text;
		size_t len;
		const char *message;
	} cases[] = {
		{"ab\xff", 3, "invalid UTF-8 at byte 2 (0xff)"},        {"\x80", 1, "byte 0 (0x80)"},
		{"a\xc0\x80", 3, "byte 1 (0xc0)"},                      {"\xe4\xb8", 2, "byte 0 (0xe4)"},
		{"a\xed\xa0\x80", 4, "byte 1 (0xed)"},                  {"\xf4\x90\x80\x80", 4, "byte 0 (0xf4)"},
		{"\xf0\x8f\xbf\xbf", 4, "byte 0 (0xf0)"},               {"\xe0\x9f\xbf", 3, "byte 0 (0xe0)"},
		{"ab \xf0\x9f\x98", 6, "invalid UTF-8 at byte 3 (0xf0)"},
	};
	tokenizer *t;
	assert_int_equal(tokenizer_parse(&t, base, sizeof base - 1, NULL), WN_OK);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		int32_t ids[8];
		size_t count = 99;
		wn_error err = {0};
		assert_int_equal(tokenizer_encode(t, cases[i].text, cases[i].len, true, ids, 8, &count, &err), WN_INVALID);
		assert_int_equal(count, 0);
		if (!strstr(err.message, cases[i].message))
			fail_msg("\"%s\" does not say \"%s\"", err.message, cases[i].message);
	}
	tokenizer_close(&t);
}

static void bad_ids_are_refused(void **state)
{
	tokenizer *t;
	char *text;
	wn_error err = {0};
	assert_int_equal(tokenizer_parse(&t, base, sizeof base - 1, NULL), WN_OK);
	assert_int_equal(tokenizer_decode(t, (int32_t[]){1, -1}, 2, &text, &err), WN_INVALID);
	assert_string_equal(err.message, "ids[1]: -1, expected 0 or more");
	assert_null(text);
	assert_int_equal(tokenizer_decode(t, (int32_t[]){1, INT32_MAX, 6, 5}, 4, &text, NULL), WN_OK);
	assert_string_equal(text, "a ab");
	free(text);
	tokenizer_close(&t);
}

static void absent_file_is_named(void **state)
{
	tokenizer *t;
	wn_error err = {0};
	assert_int_equal(tokenizer_open(&t, data_path("absent.json"), &err), WN_NOT_FOUND);
	assert_non_null(strstr(err.message, "absent.json"));
	memset(&err, 0, sizeof err);
	assert_int_equal(tokenizer_open(&t, data_path("lines.txt"), &err), WN_INVALID);
	assert_non_null(strstr(err.message, "lines.txt: malformed JSON at line 1"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(base_file_works),
		cmocka_unit_test(bad_files_are_refused_by_name),
		cmocka_unit_test(no_prefix_of_a_file_is_a_file),
		cmocka_unit_test(flipped_bytes_do_no_harm),
		cmocka_unit_test(nested_processors_are_bounded),
		cmocka_unit_test(long_tokens_are_refused),
		cmocka_unit_test(invalid_utf8_text_is_refused_with_its_place),
		cmocka_unit_test(bad_ids_are_refused),
		cmocka_unit_test(absent_file_is_named),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
