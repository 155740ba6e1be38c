/* run_changes.c: see run_changes.h. */
#include "prune/run_changes.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json_text.h"
#include "prune/run_dir.h"

static json_t *list_json(const string_list *l)
{
	json_t *j = json_array();
	for (size_t i = 0; j && i < l->count; i++)
		if (json_array_append_new(j, json_string(l->items[i]))) {
			json_decref(j);
			return NULL;
		}
	return j;
}

static json_t *value_json(const config_key *k, const void *config)
{
	const void *v = (const char *)config + k->offset;
	switch (k->type) {
	case CONFIG_TYPE_SECTION:
		break;
	case CONFIG_TYPE_BOOL:
		return json_boolean(*(const bool *)v);
	case CONFIG_TYPE_INT:
		return json_integer(*(const int *)v);
	case CONFIG_TYPE_INT64:
		return json_integer(*(const int64_t *)v);
	case CONFIG_TYPE_DOUBLE:
		return json_real(*(const double *)v);
	case CONFIG_TYPE_STRING:
		return json_string(*(char *const *)v);
	case CONFIG_TYPE_ENUM:
		return json_string(k->choices[*(const int *)v]);
	case CONFIG_TYPE_DURATION:
		return json_real((double)*(const int64_t *)v * 1e-9);
	case CONFIG_TYPE_BYTES:
		return json_integer((json_int_t) * (const size_t *)v);
	case CONFIG_TYPE_STRING_LIST:
		return list_json(v);
	}
	return json_null();
}

static bool is_fixed(const char *path, const char *const *fixed)
{
	for (; fixed && *fixed; fixed++) {
		const size_t len = strlen(*fixed);
		if ((*fixed)[len - 1] == '.' ? !strncmp(path, *fixed, len) : !strcmp(path, *fixed))
			return true;
	}
	return false;
}

static wn_code refuse(const char *path, const json_t *old, const json_t *new, wn_error *err)
{
	char *began = json_write(old, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9)), *found = json_write(new, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
	wn_code rc = wn_fail(err, WN_INVALID, "cannot resume: %s: found %.120s, expected %.120s as the run began", path, found ? found : "another",
			     began ? began : "the value");
	free(began);
	free(found);
	return rc;
}

/* Adds one key to *out when its values differ. */
static wn_code compare(json_t **out, const config_key *k, const void *before, const void *now, const char *const *fixed, wn_error *err)
{
	json_t *old = value_json(k, before), *new = value_json(k, now);
	wn_code rc = old && new ? WN_OK : wn_fail(err, WN_NOMEM, "no memory to compare configurations");
	if (!rc && !json_equal(old, new)) {
		if (is_fixed(k->path, fixed))
			rc = refuse(k->path, old, new, err);
		else if ((!*out && !(*out = json_object())) || json_object_set_new(*out, k->path, json_pack("[O, O]", old, new)))
			rc = wn_fail(err, WN_NOMEM, "no memory to compare configurations");
	}
	json_decref(old);
	json_decref(new);
	return rc;
}

static wn_code compare_all(json_t **out, const config_schema *s, const void *now, const char *text, const char *const *fixed, wn_error *err)
{
	void *before = calloc(1, s->size);
	if (!before)
		return wn_fail(err, WN_NOMEM, "no memory for a configuration");
	wn_code rc = config_parse(s, before, "\"config\"", text, strlen(text), err);
	if (rc)
		wn_fail_prefix(err, "cannot resume: this version does not read what the run began with");
	for (size_t i = 0; !rc && i < s->count; i++)
		rc = compare(out, &s->keys[i], before, now, fixed, err);
	config_free(s, before);
	free(before);
	return rc;
}

wn_code run_changes(json_t **out, const config_schema *schema, const void *now, const char *dir, const char *const *fixed, wn_error *err)
{
	json_t *manifest;
	*out = NULL;
	wn_code rc = run_dir_read_manifest(&manifest, dir, err);
	if (rc || !manifest)
		return rc;
	const char *config = json_string_value(json_object_get(manifest, "config"));
	rc = config ? compare_all(out, schema, now, config, fixed, err)
		    : wn_fail(err, WN_INVALID, "config: found nothing, expected the configuration the run began with");
	json_decref(manifest);
	if (rc) {
		json_decref(*out);
		*out = NULL;
		wn_fail_prefix(err, "%s/manifest.json", dir);
	}
	return rc;
}

/* What the log's last resume line says, the caller's; NULL: there is none. */
static wn_code last_changes(json_t **out, const train_log *log, wn_error *err)
{
	char *line = NULL;
	size_t size = 0;
	*out = NULL;
	FILE *f = fopen(log->path, "re");
	if (!f)
		return wn_fail(err, WN_IO, "%s: %s", log->path, strerror(errno));
	wn_code rc = WN_OK;
	while (rc == WN_OK && getline(&line, &size, f) > 0) {
		json_error_t je;
		if (!strstr(line, "\"resume\"")) /* of many lines, few are worth parsing */
			continue;
		json_t *j = json_read(line, strlen(line), 0, &je);
		if (!j && json_read_code(&je) == WN_NOMEM)
			rc = wn_fail(err, WN_NOMEM, "%s: %s", log->path, je.text);
		const char *event = json_string_value(json_object_get(j, "event"));
		if (event && !strcmp(event, "resume")) {
			json_decref(*out);
			*out = json_incref(json_object_get(j, "changed"));
		}
		json_decref(j);
	}
	if (rc == WN_OK && ferror(f))
		rc = wn_fail(err, WN_IO, "%s: %s", log->path, strerror(errno));
	free(line);
	fclose(f);
	return rc;
}

wn_code run_changes_log(train_log *log, const json_t *changed, wn_error *err)
{
	json_t *last, *now = changed ? json_deep_copy(changed) : json_object();
	wn_code rc = last_changes(&last, log, err);
	const bool same = last ? json_equal(last, now) : json_object_size(now) == 0;
	json_decref(last);
	if (!rc && !same)
		return train_log_write(log, json_pack("{s:s, s:o}", "event", "resume", "changed", now), err);
	json_decref(now);
	return rc;
}
