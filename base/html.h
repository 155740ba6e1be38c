/* html.h: a self-contained page: escaping, its frame and style, paragraphs and tables.
 *
 * Written to a FILE (open_memstream, mostly); a write that fails shows in ferror, which is looked at once at the end. The page has
 * no script and refers to nothing outside (its own policy forbids it), follows the reader's light or dark scheme, and prints.
 * Whatever comes from outside goes through html_text: names of labels, files and directories are a stranger's. The page is
 * well-formed XML too, so any XML parser can check it. */
#ifndef WINNOW_BASE_HTML_H
#define WINNOW_BASE_HTML_H

#include <stdio.h>

#include "base/number_text.h"

/* Escaped for text and for quoted attributes. What is not UTF-8, and characters XML does not have, become U+FFFD. */
void html_text(FILE *f, const char *text);
/* At most `columns` columns wide, else ended by "…". */
void html_text_fit(FILE *f, const char *text, int columns);
/* Columns of a text: wide (East Asian) characters and emoji are 2. */
int text_columns(const char *text);

void html_page_open(FILE *f, const char *title);
void html_page_close(FILE *f);

void html_section_open(FILE *f, const char *id, const char *title);
void html_section_close(FILE *f);

/* A paragraph of formatted text, escaped; cut beyond 4000 bytes. */
void html_paragraph(FILE *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The same, small: sources, assumptions, what is missing. */
void html_note(FILE *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Headers end with NULL. The first column is text, and so are those whose header begins with a '|' (not shown); others are numbers. */
void html_table_open(FILE *f, const char *const *headers);
void html_table_close(FILE *f);
void html_row_open(FILE *f, const char *name);
void html_cell(FILE *f, const char *text);
void html_cell_number(FILE *f, number_text t);
void html_row_close(FILE *f);

/* A large figure with a caption; inside html_cards_open/close. */
void html_cards_open(FILE *f);
void html_card(FILE *f, const char *figure, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void html_cards_close(FILE *f);

#endif
