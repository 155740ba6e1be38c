/* helpers.h: golden files of this directory in memory. Failures end the test through cmocka. */
#ifndef WINNOW_TESTS_TOKENIZER_HELPERS_H
#define WINNOW_TESTS_TOKENIZER_HELPERS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "model/tokenizer.h"

/* A file whole, NUL-terminated; the caller frees. data_path joins DATA_DIR and a name into a static buffer. */
const char *data_path(const char *name);
char *read_data(const char *name, size_t *len);
char *read_path(const char *path, size_t *len);

/* The lines of a text file, each NUL-terminated inside `data`. */
typedef struct text_lines {
	char *data;
	char **line;
	size_t count;
} text_lines;
text_lines read_lines(const char *name);
void free_lines(text_lines *l);

/* Unsigned LEB128 at data[*at]. */
uint32_t read_leb(const unsigned char *data, size_t len, size_t *at);

tokenizer *open_data(const char *name);

#endif
