/* repository.c: see repository.h. */
#include "server/repository.h"

#include <stdio.h>
#include <string.h>

#include "base/json_text.h"
#include "server/answers.h"
#include "server/registry_disk.h"

/* The body as an object; an empty one is an empty object. NULL when r has been failed. */
static json_t *parse_object(request *r)
{
	json_error_t e;
	json_t *root = r->body.len == 0
			   ? json_object()
			   : json_read((const char *)r->body.data, r->body.len, JSON_REJECT_DUPLICATES, &e);
	if (json_is_object(root))
		return root;
	if (root)
		request_fail(r, REASON_BAD_FIELD, "expected a JSON object");
	else if (r->body.len == 0 || json_read_code(&e) == WN_NOMEM)
		request_no_memory(r);
	else
		request_fail(r, REASON_BAD_JSON, "line %d: %s", e.line, e.text);
	json_decref(root);
	return NULL;
}

reason repository_parse_index(request *r, bool *ready_only)
{
	const char *key;
	json_t *v, *root = parse_object(r);
	*ready_only = false;
	json_object_foreach(root, key, v)
	{
		if (strcmp(key, "ready") != 0)
			request_fail(r, REASON_UNKNOWN_FIELD, "found an unknown member, expected ready");
		else if (!json_is_boolean(v))
			request_fail(r, REASON_BAD_FIELD, "ready: expected true or false");
		*ready_only = json_is_true(v);
	}
	json_decref(root);
	return r->outcome;
}

/* A version as the protocol spells it, a string; a number does no harm. */
static void parse_version(request *r, model_command *c, const json_t *v)
{
	json_int_t n = json_is_integer(v) ? json_integer_value(v) : 0;
	c->version = json_is_string(v)                ? disk_version_number(json_string_value(v))
		     : n > 0 && n <= DISK_MAX_VERSION ? (int)n
						      : 0;
	if (c->version == 0)
		request_fail(r, REASON_BAD_FIELD, "parameters.version: expected a number from 1 to %d",
			     DISK_MAX_VERSION);
}

static void parse_parameter(request *r, model_command *c, const char *key, const json_t *v)
{
	const char *text = json_string_value(v);
	if (strcmp(key, "version") == 0) {
		parse_version(r, c, v);
	} else if (c->kind == COMMAND_LOAD && strcmp(key, "percent") == 0) {
		json_int_t n = json_integer_value(v); /* 0 for what is no integer */
		c->percent = n >= 1 && n <= 100 ? (int)n : 0;
		if (c->percent == 0)
			request_fail(r, REASON_BAD_FIELD, "parameters.percent: expected a number from 1 to 100");
	} else if (c->kind == COMMAND_LOAD && strcmp(key, "mode") == 0) {
		c->mode = text && strcmp(text, "shadow") == 0 ? TRIAL_SHADOW : TRIAL_CANARY;
		if (!text || strcmp(text, trial_mode_name(c->mode)) != 0)
			request_fail(r, REASON_BAD_FIELD, "parameters.mode: expected canary or shadow");
	} else {
		request_fail(r, REASON_UNKNOWN_FIELD, "parameters: found an unknown member, expected version%s",
			     c->kind == COMMAND_LOAD ? ", percent or mode" : "");
	}
}

reason repository_parse_command(request *r, model_command *c)
{
	const char *key;
	json_t *v, *root = parse_object(r), *parameters = json_object_get(root, "parameters");
	json_object_foreach(root, key, v)
	{
		if (strcmp(key, "parameters") != 0)
			request_fail(r, REASON_UNKNOWN_FIELD, "found an unknown member, expected parameters");
		else if (!json_is_object(v))
			request_fail(r, REASON_BAD_FIELD, "parameters: expected an object");
	}
	json_object_foreach(parameters, key, v) parse_parameter(r, c, key, v);
	snprintf(r->served_name, sizeof r->served_name, "%s", c->name);
	if (c->version)
		snprintf(r->served_version, sizeof r->served_version, "%d", c->version);
	if (c->percent && !c->version)
		request_fail(r, REASON_MISSING_FIELD, "parameters.version is missing: which version is to be tried?");
	if (json_object_get(parameters, "mode") && !c->percent)
		request_fail(r, REASON_MISSING_FIELD, "parameters.percent is missing: how much of the traffic?");
	json_decref(root);
	return r->outcome;
}

char *repository_answer_index(manager *m, bool ready_only) { return answer_dump(manager_index(m, ready_only)); }

char *repository_answer_command(const model_command *c)
{
	char version[MODEL_VERSION_SIZE];
	snprintf(version, sizeof version, "%d", c->answers);
	json_t *o = c->answers ? json_pack("{s:s, s:s, s:s}", "name", c->name, "version", version, "state", "READY")
			       : json_pack("{s:s, s:s}", "name", c->name, "state", "UNAVAILABLE");
	if (o && *c->detail && json_object_set_new(o, "warning", json_string(c->detail)) != 0) {
		json_decref(o);
		o = NULL;
	}
	return answer_dump(o);
}
