/* json_check.h: what the readers of JSON files (config.json, winnow.json, plan.json) say about a value that is not what they
 * expect. */
#ifndef WINNOW_MODEL_JSON_CHECK_H
#define WINNOW_MODEL_JSON_CHECK_H

#include <jansson.h>

#include "base/error.h"

/* `v` as a message shows it: its JSON in buf, cut to what fits on a line; NULL is "nothing". */
const char *json_show(char buf[64], const json_t *v);

/* WN_INVALID: "<where><key>: found <v>, expected <expected>". */
wn_code json_bad(wn_error *err, const char *where, const char *key, const json_t *v, const char *expected);

/* Every key of `object` must be in the NULL-terminated list: WN_INVALID names the first that is not, behind `where`. */
wn_code json_check_keys(const json_t *object, const char *where, const char *const *known, wn_error *err);

#endif
