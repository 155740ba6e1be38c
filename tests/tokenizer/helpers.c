#include "helpers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *data_path(const char *name)
{
	static char path[4096];
	snprintf(path, sizeof path, "%s/%s", DATA_DIR, name);
	return path;
}

char *read_path(const char *path, size_t *len)
{
	FILE *f = fopen(path, "rb");
	if (!f)
		fail_msg("%s: cannot open", path);
	fseek(f, 0, SEEK_END);
	long n = ftell(f);
	rewind(f);
	char *data = malloc((size_t)n + 1);
	assert_non_null(data);
	assert_int_equal(fread(data, 1, (size_t)n, f), n);
	fclose(f);
	data[n] = '\0';
	*len = (size_t)n;
	return data;
}

char *read_data(const char *name, size_t *len) { return read_path(data_path(name), len); }

text_lines read_lines(const char *name)
{
	size_t len;
	text_lines l = {.data = read_data(name, &len)};
	for (size_t i = 0; i < len; i++)
		l.count += l.data[i] == '\n';
	l.line = malloc(l.count * sizeof *l.line);
	assert_non_null(l.line);
	char *s = l.data;
	for (size_t i = 0; i < l.count; i++) {
		char *end = strchr(s, '\n');
		assert_non_null(end); /* no NUL inside the file */
		*end = '\0';
		l.line[i] = s;
		s = end + 1;
	}
	return l;
}

void free_lines(text_lines *l)
{
	free(l->line);
	free(l->data);
}

uint32_t read_leb(const unsigned char *data, size_t len, size_t *at)
{
	uint32_t v = 0;
	for (int shift = 0;; shift += 7) {
		assert_true(*at < len && shift < 32);
		unsigned char b = data[(*at)++];
		v |= (uint32_t)(b & 0x7f) << shift;
		if (b < 0x80)
			return v;
	}
}

tokenizer *open_data(const char *name)
{
	wn_error err = {0};
	tokenizer *t;
	if (tokenizer_open(&t, data_path(name), &err) != WN_OK)
		fail_msg("%s", err.message);
	return t;
}
