/* config_value.h: one value of a configuration table, between its text and its struct field. Used by yaml_config.c only. */
#ifndef WINNOW_BASE_CONFIG_VALUE_H
#define WINNOW_BASE_CONFIG_VALUE_H

#include "base/yaml_config.h"

typedef enum scalar_style {
	SCALAR_PLAIN,  /* from a file, unquoted: may be null, a number, … */
	SCALAR_QUOTED, /* from a file, quoted or a block: a string and nothing else */
	SCALAR_RAW     /* a default or a `--set` value: whatever the key's type makes of it */
} scalar_style;

/* Stores text[0..len) (NUL-terminated) in the key's field. WN_INVALID without a message when it does not fit (the caller knows
 * the line; describe_* below say the rest), WN_NOMEM; the field is unchanged then. Not for lists and sections. */
wn_code config_value_assign(const config_key *k, void *cfg, const char *text, size_t len, scalar_style style);

/* Takes over items (malloc'ed, as its strings) as the key's list. */
void config_value_assign_list(const config_key *k, void *cfg, char **items, size_t count);

/* "an integer from 1 to 65535", into buf. */
const char *config_value_expected(const config_key *k, char *buf, size_t size);
/* "nothing", "\"abc\"", "the quoted string \"8080\"". */
const char *config_value_found(const config_key *k, const char *text, scalar_style style, char *buf, size_t size);

bool config_value_is_null(const char *text);
void config_value_free(const config_key *k, void *cfg);
bool config_value_equal(const config_key *k, const void *a, const void *b);
/* As YAML on one line; cfg NULL prints the default. */
void config_value_print(const config_key *k, const void *cfg, FILE *out);

#endif
