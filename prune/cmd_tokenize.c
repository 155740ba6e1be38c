/* cmd_tokenize.c: lines of text to token ids and back, for checking the tokenizer against `tokenizers`. */
#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include "model/tokenizer.h"
#include "prune/commands.h"
#include "prune/options.h"

/* A growing id buffer, kept over the lines. */
typedef struct id_buffer {
	int32_t *ids;
	size_t capacity;
} id_buffer;

static wn_code reserve(id_buffer *b, size_t capacity, wn_error *err)
{
	if (capacity <= b->capacity)
		return WN_OK;
	int32_t *grown = realloc(b->ids, capacity * sizeof *grown);
	if (!grown)
		return wn_fail(err, WN_NOMEM, "out of memory for %zu tokens", capacity);
	b->ids = grown;
	b->capacity = capacity;
	return WN_OK;
}

static wn_code encode_line(const tokenizer *t, const char *line, size_t len, bool add_special, id_buffer *b, wn_error *err)
{
	size_t count = 0;
	wn_error local = {0};
	wn_code rc = reserve(b, len + 16, err);
	if (rc)
		return rc;
	rc = tokenizer_encode(t, line, len, add_special, b->ids, b->capacity, &count, &local);
	if (rc == WN_TOO_LARGE && count > b->capacity) {
		if ((rc = reserve(b, count, err)))
			return rc;
		memset(&local, 0, sizeof local);
		rc = tokenizer_encode(t, line, len, add_special, b->ids, b->capacity, &count, &local);
	}
	if (rc)
		return wn_fail(err, rc, "%s", local.message);
	for (size_t i = 0; i < count; i++)
		printf(i ? " %d" : "%d", b->ids[i]);
	putchar('\n');
	return WN_OK;
}

static wn_code decode_line(const tokenizer *t, const char *line, id_buffer *b, wn_error *err)
{
	size_t count = 0;
	const size_t vocab = tokenizer_vocab_size(t);
	wn_code rc;
	for (const char *p = line + strspn(line, " \t\r"); *p; p += strspn(p, " \t\r")) {
		char *end;
		errno = 0;
		long v = strtol(p, &end, 10);
		if (end == p || errno || (*end && !strchr(" \t\r", *end)) || v < 0 || (size_t)v >= vocab)
			return wn_fail(err, WN_INVALID, "found \"%.*s\", expected a token id from 0 to %zu", (int)strcspn(p, " \t\r"), p,
			               vocab - 1);
		if (count == b->capacity && (rc = reserve(b, 2 * count + 64, err)))
			return rc;
		b->ids[count++] = (int32_t)v;
		p = end;
	}
	char *text = NULL;
	if ((rc = tokenizer_decode(t, b->ids, count, &text, err)))
		return rc;
	puts(text);
	free(text);
	return WN_OK;
}

static wn_code convert_lines(const tokenizer *t, FILE *in, bool decode, bool add_special, wn_error *err)
{
	char *line = NULL;
	size_t capacity = 0;
	id_buffer ids = {0};
	wn_code rc = reserve(&ids, 64, err);
	ssize_t len;
	for (size_t number = 1; rc == WN_OK && (len = getline(&line, &capacity, in)) >= 0; number++) {
		if (len > 0 && line[len - 1] == '\n')
			line[--len] = 0;
		rc = decode ? decode_line(t, line, &ids, err) : encode_line(t, line, (size_t)len, add_special, &ids, err);
		if (rc)
			wn_fail_prefix(err, "line %zu", number);
	}
	if (rc == WN_OK && ferror(in))
		rc = wn_fail(err, WN_IO, "standard input: %s", strerror(errno));
	if (rc == WN_OK && fflush(stdout))
		rc = wn_fail(err, WN_IO, "standard output: %s", strerror(errno));
	free(line);
	free(ids.ids);
	return rc;
}

int cmd_tokenize(int argc, char **argv)
{
	const char *model = NULL;
	bool decode = false, no_special = false;
	const option_spec options[] = {
		{"model", OPTION_STRING, &model, "DIR", "directory with a tokenizer.json", .required = true},
		{"decode", OPTION_FLAG, &decode, NULL, "lines of ids to text instead"},
		{"no-special", OPTION_FLAG, &no_special, NULL, "without what the tokenizer's post_processor adds (as prompts are encoded)"},
		{0}};
	const command_info info = {"tokenize", "standard input, line by line, to token ids separated by spaces",
	                           "echo 'hello world' | winnow-prune tokenize --model teacher\n"
	                           "echo '42891 232' | winnow-prune tokenize --model teacher --decode", options};
	int rc = options_parse(&info, argc, argv);
	if (rc != OPTIONS_OK)
		return rc == OPTIONS_HELP ? EXIT_DONE : EXIT_USAGE;
	char path[PATH_MAX];
	wn_error err = {0};
	tokenizer *t = NULL;
	wn_code code = WN_OK;
	if (snprintf(path, sizeof path, "%s/tokenizer.json", model) >= (int)sizeof path)
		code = wn_fail(&err, WN_TOO_LARGE, "--model: path longer than %d bytes", PATH_MAX);
	if (code == WN_OK)
		code = tokenizer_open(&t, path, &err);
	if (code == WN_OK)
		code = convert_lines(t, stdin, decode, !no_special, &err);
	tokenizer_close(&t);
	return code ? command_fail(&info, &err) : EXIT_DONE;
}
