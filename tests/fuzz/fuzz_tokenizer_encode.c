/* fuzz_tokenizer_encode.c: any bytes as text, through four tokenizers that differ in what the text can reach: the regex,
 * the prefix space, ignore_merges, added tokens with every flag. Without tokens that eat white space or a prefix space,
 * decode(encode(text)) must be the text; and a call without room must count what a call with room writes. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/pretokenize.h"
#include "model/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const flag[] = {"false", "true"};

static void put_added(FILE *f, int id, const char *content, int single_word, int lstrip, int rstrip, int normalized)
{
	fprintf(f,
	        "%s{\"id\":%d,\"content\":\"%s\",\"single_word\":%s,\"lstrip\":%s,\"rstrip\":%s,\"normalized\":%s,"
	        "\"special\":false}",
	        id == 264 ? "" : ",", id, content, flag[single_word], flag[lstrip], flag[rstrip], flag[normalized]);
}

/* Bit 0: prefix space and stripping tokens (no round trip); bit 1: no regex, ignore_merges. */
static tokenizer *make(int variant)
{
	static const char *const merges[][2] = {{"a", "a"}, {"aa", "aa"}, {"a", "b"}, {"aa", "b"}, {"\xc4\xa0", "a"},
	                                        {"aaaa", "aab"}, {"\xc4\xa0" "a", "ab"}, {"b", "ab"}};
	char *json = NULL;
	size_t len = 0;
	int strip = variant & 1, whole = variant >> 1 & 1, id = 0;
	FILE *f = open_memstream(&json, &len);
	fprintf(f, "{\"added_tokens\":[");
	put_added(f, 264, "<m>", 0, strip, 0, 0);
	put_added(f, 265, "<m>x", 0, 0, strip, 0);
	put_added(f, 258, "ab", 1, 0, 0, 1);
	put_added(f, 266, " ", 1, strip, strip, 1);
	put_added(f, 267, "\xe7\xba\xa2", 0, strip, strip, 1);
	fprintf(f,
	        "],\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":%s,\"use_regex\":%s},"
	        "\"post_processor\":{\"type\":\"ByteLevel\"},\"decoder\":{\"type\":\"ByteLevel\"},"
	        "\"model\":{\"ignore_merges\":%s,\"vocab\":{",
	        flag[strip], flag[!whole], flag[whole]);
	for (int b = 0; b < 256; b++) {
		char utf8[2];
		int n = byte_to_utf8((unsigned char)b, utf8);
		fprintf(f, "\"%s%.*s\":%d,", b == '"' || b == '\\' ? "\\" : "", n, utf8, id++);
	}
	for (int i = 0; i < 8; i++)
		fprintf(f, "\"%s%s\":%d%s", merges[i][0], merges[i][1], id++, i < 7 ? "," : "");
	fprintf(f, "},\"merges\":[");
	for (int i = 0; i < 8; i++)
		fprintf(f, "[\"%s\",\"%s\"]%s", merges[i][0], merges[i][1], i < 7 ? "," : "");
	fprintf(f, "]}}");
	fclose(f);
	tokenizer *t;
	wn_error err = {0};
	if (tokenizer_parse(&t, json, len, &err) != WN_OK) {
		fprintf(stderr, "%s\n", err.message);
		abort();
	}
	free(json);
	return t;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static tokenizer *variants[4];
	const char *text = (const char *)data;
	bool valid = utf8_valid_prefix(text, size) == size;
	int32_t *ids = malloc((2 * size + 2) * sizeof *ids); /* a byte gives at most itself and a prefix space */
	if (!ids)
		return 0;
	for (int v = 0; v < 4; v++) {
		size_t count, need, len;
		char *out;
		if (!variants[v])
			variants[v] = make(v);
		wn_code rc = tokenizer_encode(variants[v], text, size, false, ids, 2 * size + 2, &count, NULL);
		if (rc != (valid ? WN_OK : WN_INVALID))
			abort();
		if (!valid)
			continue;
		rc = tokenizer_encode(variants[v], text, size, false, NULL, 0, &need, NULL);
		if (need != count || rc != (count ? WN_TOO_LARGE : WN_OK))
			abort();
		if (tokenizer_decode_bytes(variants[v], ids, count, &out, &len, NULL) != WN_OK)
			abort();
		if (!(v & 1) && (len != size || (size && memcmp(out, text, size) != 0)))
			abort();
		free(out);
	}
	free(ids);
	return 0;
}
