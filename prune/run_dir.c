/* run_dir.c: see run_dir.h. */
#include "prune/run_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json_text.h"
#include "prune/train_state.h"

#define MAX_MANIFEST_BYTES ((size_t)16 << 20)

wn_code run_dir_path(const char *dir, const char *name, char *buf, wn_error *err)
{
	if (snprintf(buf, PATH_MAX, "%s/%s", dir, name) >= PATH_MAX / 2)
		return wn_fail(err, WN_TOO_LARGE, "run_dir: path longer than %d bytes", PATH_MAX / 2);
	return WN_OK;
}

wn_code run_dir_make(const char *path, wn_error *err)
{
	char buf[PATH_MAX];
	if (snprintf(buf, sizeof buf, "%s", path) >= (int)sizeof buf)
		return wn_fail(err, WN_TOO_LARGE, "%.100s…: path too long", path);
	for (char *p = buf + 1;; p++) {
		if (*p && *p != '/')
			continue;
		char end = *p;
		*p = 0;
		if (mkdir(buf, 0755) && errno != EEXIST)
			return wn_fail(err, WN_IO, "%s: %s", buf, strerror(errno));
		*p = end;
		if (!end)
			return WN_OK;
	}
}

/* Each killed save leaves a whole model. In DIR only a run's own names are swept: a report is written there without the lock. */
static void sweep(const char *dir)
{
	static const char *const names[] = {"best", "last", "export", "manifest.json", "plan.json", "tokenizer.json"};
	static const char *const below[] = {"iterations", "state"};
	char path[PATH_MAX];
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		file_sweep(dir, names[i]);
	for (size_t i = 0; i < sizeof below / sizeof *below; i++)
		if (run_dir_path(dir, below[i], path, NULL) == WN_OK)
			file_sweep(path, NULL);
}

wn_code run_dir_lock(const char *dir, int *fd, wn_error *err)
{
	char path[PATH_MAX];
	wn_code rc = run_dir_make(dir, err);
	if (!rc)
		rc = run_dir_path(dir, "lock", path, err);
	if (rc)
		return rc;
	*fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	if (*fd < 0)
		return wn_fail(err, WN_IO, "%s: %s", path, strerror(errno));
	if (flock(*fd, LOCK_EX | LOCK_NB)) {
		close(*fd);
		return wn_fail(err, WN_IO, "%s: another process is working in this directory", dir);
	}
	sweep(dir);
	return WN_OK;
}

wn_code run_dir_read_manifest(json_t **out, const char *dir, wn_error *err)
{
	char path[PATH_MAX], *text = NULL;
	size_t len = 0;
	json_error_t je;
	*out = NULL;
	wn_code rc = run_dir_path(dir, "manifest.json", path, err);
	if (rc || access(path, F_OK))
		return rc;
	if ((rc = file_read(path, MAX_MANIFEST_BYTES, &text, &len, err)))
		return rc;
	*out = json_read(text, len, 0, &je);
	free(text);
	return *out ? WN_OK : wn_fail(err, json_read_code(&je), "%s: %s", path, je.text);
}

/* A run goes on as what it is. */
static wn_code check_command(const char *dir, const char *command, wn_error *err)
{
	json_t *manifest;
	wn_code rc = run_dir_read_manifest(&manifest, dir, err);
	const char *found = json_string_value(json_object_get(manifest, "command"));
	if (!rc && manifest && strcmp(found ? found : "train", command) != 0)
		rc = wn_fail(err, WN_INVALID, "run_dir: cannot resume: %s holds a run of winnow-prune %.40s, not of %s", dir,
			     found ? found : "train", command);
	json_decref(manifest);
	return rc;
}

wn_code run_dir_open(const char *dir, const char *command, bool resume, int *fd_plus_1, wn_error *err)
{
	int fd;
	wn_code rc = run_dir_lock(dir, &fd, err);
	if (rc)
		return rc;
	if (resume)
		rc = check_command(dir, command, err);
	else if (train_state_exists(dir))
		rc = wn_fail(err, WN_INVALID, "run_dir: %s already holds a run: add --resume to continue it, or choose another directory", dir);
	if (rc)
		close(fd);
	else
		*fd_plus_1 = fd + 1;
	return rc;
}

static wn_code check_same_run(const char *path, const json_t *old, const json_t *identity, wn_error *err)
{
	const char *key;
	json_t *value;
	json_object_foreach((json_t *)(uintptr_t)identity, key, value)
		if (!json_equal(value, json_object_get(json_object_get(old, "identity"), key)))
			return wn_fail(err, WN_INVALID, "%s: cannot resume: \"%s\" is not what the run began with", path, key);
	return WN_OK;
}

wn_code run_dir_write_manifest(const char *dir, const char *command, const json_t *identity, const char *config, bool check, bool dry,
			       char digest[DIGEST_SIZE], wn_error *err)
{
	char path[PATH_MAX];
	wn_code rc = run_dir_path(dir, "manifest.json", path, err);
	if (rc)
		return rc;
	char *id_text = json_write(identity, JSON_SORT_KEYS | JSON_COMPACT);
	json_t *all = json_pack("{s:i, s:s*, s:s, s:O, s:s}", "format", 1, "command", command, "winnow", WINNOW_VERSION, "identity",
				identity, "config", config);
	char *text = all ? json_write(all, JSON_INDENT(2)) : NULL;
	if (!text || !id_text)
		rc = wn_fail(err, WN_NOMEM, "no memory for the run's manifest");
	else
		digest_memory(digest, id_text, strlen(id_text));
	json_t *old = NULL; /* says how the run began */
	if (!rc && check && !dry)
		rc = run_dir_read_manifest(&old, dir, err);
	if (!rc && old)
		rc = check_same_run(path, old, identity, err);
	else if (!rc && !dry)
		rc = file_write_atomic(path, text, strlen(text), err);
	json_decref(old);
	free(text);
	free(id_text);
	json_decref(all);
	return rc;
}
