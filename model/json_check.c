/* json_check.c: see json_check.h. */
#include "model/json_check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json_text.h"

const char *json_show(char buf[64], const json_t *v)
{
	if (!v)
		return "nothing";
	char *text = json_write(v, JSON_COMPACT | JSON_ENCODE_ANY);
	if (text && strlen(text) < 64)
		strcpy(buf, text);
	else
		strcpy(buf, json_is_object(v) ? "an object" : json_is_array(v) ? "an array" : "a long string");
	free(text);
	return buf;
}

wn_code json_bad(wn_error *err, const char *where, const char *key, const json_t *v, const char *expected)
{
	char buf[64];
	return wn_fail(err, WN_INVALID, "%s%s: found %s, expected %s", where, key, json_show(buf, v), expected);
}

wn_code json_check_keys(const json_t *object, const char *where, const char *const *known, wn_error *err)
{
	const char *key;
	json_t *v;
	json_object_foreach((json_t *)object, key, v)
	{
		size_t i = 0;
		while (known[i] && strcmp(known[i], key) != 0)
			i++;
		if (known[i])
			continue;
		char list[200] = "";
		for (i = 0; known[i]; i++)
			snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i ? ", " : "", known[i]);
		return wn_fail(err, WN_INVALID, "%s%.64s: found an unknown key, expected %s", where, key, list);
	}
	return WN_OK;
}
