/* run_reader.c: see run_reader.h. Which files there are and the log's lines; what is in them: run_parse.c. */
#include "prune/report/run_reader.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/json_text.h"
#include "prune/report/run_parse.h"

#define MAX_FILE ((size_t)64 << 20) /* manifest, plan, ablation */
#define MAX_LINE ((size_t)4 << 20)  /* an iteration of 256 classes is 0.1 MB */

static wn_code run_path(char path[PATH_MAX], const run *r, const char *name, wn_error *err)
{
	int n = snprintf(path, PATH_MAX, "%s/%s", r->dir, name);
	return n < 0 || n >= PATH_MAX ? wn_fail(err, WN_INVALID, "%.100s…: the path is too long", r->dir) : WN_OK;
}

/* Keeps the reference of j for what borrows from it. */
static wn_code keep(run *r, json_t *j, wn_error *err)
{
	return json_array_append_new(r->documents, j) ? wn_fail(err, WN_NOMEM, "%s: no memory for the run", r->dir) : WN_OK;
}

/* *out: an object that r keeps; NULL when the file is absent and that is no mistake. */
static wn_code read_object(run *r, const char *name, bool required, json_t **out, wn_error *err)
{
	char path[PATH_MAX], *text = NULL;
	size_t len = 0;
	json_error_t je;
	struct stat st;
	*out = NULL;
	wn_code rc = run_path(path, r, name, err);
	if (rc)
		return rc;
	if (!required && stat(path, &st) && errno == ENOENT)
		return WN_OK;
	if ((rc = file_read(path, MAX_FILE, &text, &len, err)))
		return rc == WN_NOT_FOUND ? wn_fail_prefix(err, "not a run of train or compress") : rc;
	json_t *j = json_read(text, len, 0, &je);
	free(text);
	if (!j)
		return wn_fail(err, json_read_code(&je), "%s line %d: %s", path, je.line, je.text);
	if ((rc = keep(r, j, err)))
		return rc;
	if (!json_is_object(j))
		return wn_fail(err, WN_INVALID, "%s: expected a JSON object", path);
	const json_t *format = json_object_get(j, "format");
	if (format && json_integer_value(format) != 1)
		return wn_fail(err, WN_UNSUPPORTED, "%s: \"format\" is %.0f, expected 1", path, json_number_value(format));
	*out = j;
	return WN_OK;
}

static wn_code read_manifest(run *r, wn_error *err)
{
	json_t *j;
	wn_code rc = read_object(r, "manifest.json", true, &j, err);
	if (rc)
		return rc;
	const char *command = run_string(j, "command");
	r->compression = command && !strcmp(command, "compress");
	if (command && !r->compression && strcmp(command, "train") != 0)
		return wn_fail(err, WN_UNSUPPORTED, "%s/manifest.json: \"command\" is \"%.60s\", expected \"compress\" or \"train\"", r->dir,
		               command);
	r->winnow = run_string(j, "winnow");
	r->config = run_string(j, "config");
	if (json_is_object(json_object_get(j, "identity")))
		r->identity = json_object_get(j, "identity");
	return WN_OK;
}

/* Line `number`, without its newline when it had one (`whole`). */
static wn_code read_line(run *r, const char *path, long number, const char *line, size_t len, bool whole, wn_error *err)
{
	json_error_t je;
	if (strspn(line, " \t\r") == len)
		return WN_OK;
	json_t *j = json_read(line, len, 0, &je);
	if (!j && !whole && json_read_code(&je) != WN_NOMEM) {
		r->cut_line = true; /* killed while it wrote, or still writing */
		return WN_OK;
	}
	if (!j)
		return wn_fail(err, json_read_code(&je), "%s line %ld: %s", path, number, je.text);
	bool keep_it = false;
	wn_code rc = json_is_object(j) ? run_parse_event(r, j, &keep_it, err)
	                               : wn_fail(err, WN_INVALID, "%s line %ld: expected a JSON object", path, number);
	if (rc || !keep_it) {
		json_decref(j);
		return rc;
	}
	return keep(r, j, err);
}

static wn_code read_log(run *r, wn_error *err)
{
	char path[PATH_MAX], *line = NULL;
	size_t size = 0;
	struct stat st;
	wn_code rc = run_path(path, r, "log.jsonl", err);
	if (rc)
		return rc;
	if (stat(path, &st))
		return wn_fail(err, errno == ENOENT ? WN_NOT_FOUND : WN_IO, "%s: %s", path,
		               errno == ENOENT ? "not found: the run has logged nothing yet" : strerror(errno));
	if (!S_ISREG(st.st_mode))
		return wn_fail(err, WN_INVALID, "%s: not a regular file", path);
	FILE *f = fopen(path, "re");
	if (!f)
		return wn_fail(err, WN_IO, "%s: %s", path, strerror(errno));
	ssize_t len;
	for (long number = 1; !rc && (len = getline(&line, &size, f)) > 0; number++) {
		const bool whole = line[len - 1] == '\n';
		if (whole)
			line[--len] = 0;
		if ((size_t)len > MAX_LINE)
			rc = wn_fail(err, WN_TOO_LARGE, "%s line %ld: %zd bytes, expected at most %zu", path, number, len, MAX_LINE);
		else
			rc = read_line(r, path, number, line, (size_t)len, whole, err);
	}
	if (!rc && ferror(f))
		rc = wn_fail(err, WN_IO, "%s: %s", path, strerror(errno));
	free(line);
	fclose(f);
	return rc;
}

wn_code run_open(run *out, const char *dir, wn_error *err)
{
	*out = (run){.dir = dir, .final_teacher_ms = NAN, .documents = json_array()};
	json_t *plan = NULL, *ablation = NULL;
	wn_code rc = out->documents ? read_manifest(out, err) : wn_fail(err, WN_NOMEM, "%s: no memory for the run", dir);
	if (!rc)
		rc = read_object(out, "plan.json", false, &plan, err);
	if (!rc && plan)
		rc = run_parse_plan(out, plan, err);
	if (!rc)
		rc = read_log(out, err);
	if (!rc)
		rc = run_join_plan(out, plan, err);
	if (!rc)
		rc = read_object(out, "ablation.json", false, &ablation, err);
	if (!rc && ablation)
		rc = run_parse_ablation(out, ablation, err);
	if (rc)
		run_close(out);
	return rc;
}

void run_close(run *r)
{
	for (size_t i = 0; i < r->num_memory; i++)
		free(r->memory[i]);
	free(r->memory);
	free(r->iterations);
	free(r->steps);
	free(r->segments);
	free(r->validations);
	json_decref(r->documents);
	*r = (run){0};
}
