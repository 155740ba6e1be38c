/* registry.c: see registry.h.
 *
 * The version's directory is opened once; everything is read through /proc/self/fd/N of that descriptor, so that what
 * was checked (a real directory, regular files only) is what is loaded, even when somebody renames things meanwhile. */
#include "server/registry.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct registry {
	pthread_mutex_t lock; /* guards current: taking a reference and replacing the pointer exclude each other */
	served_model *current;
};

static bool is_version(const char *s)
{
	size_t n = strspn(s, "0123456789");
	return n > 0 && n <= 9 && s[n] == 0 && s[0] != '0';
}

/* 0 when there is no version. */
static long latest_version(int dir_fd)
{
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
	if (!d) {
		if (fd >= 0)
			close(fd);
		return 0;
	}
	long best = 0;
	for (struct dirent *e; (e = readdir(d));) {
		struct stat st;
		if (!is_version(e->d_name) || fstatat(dir_fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
		    !S_ISDIR(st.st_mode))
			continue;
		long v = atol(e->d_name);
		best = v > best ? v : best;
	}
	closedir(d);
	return best;
}

static int open_directory(int at, const char *name, const char *shown, wn_error *err)
{
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0) {
		int e = errno;
		struct stat st;
		if (fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(st.st_mode))
			wn_fail(err, WN_INVALID, "%s: found a symbolic link, expected a directory", shown);
		else
			wn_fail(err, e == ENOENT ? WN_NOT_FOUND : WN_IO, "%s: cannot open the directory: %s", shown,
				strerror(e));
	}
	return fd;
}

/* Regular files only: a link could point outside the root, a pipe could block the load for ever. */
static wn_code check_files(int dir_fd, const char *shown, wn_error *err)
{
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
	if (!d) {
		if (fd >= 0)
			close(fd);
		return wn_fail(err, WN_IO, "%s: cannot list the directory: %s", shown, strerror(errno));
	}
	wn_code code = WN_OK;
	for (struct dirent *e; code == WN_OK && (e = readdir(d));) {
		struct stat st;
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		if (fstatat(dir_fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0)
			code = wn_fail(err, WN_IO, "%s/%s: %s", shown, e->d_name, strerror(errno));
		else if (!S_ISREG(st.st_mode))
			code =
			    wn_fail(err, WN_INVALID, "%s/%s: found a %s, expected regular files only", shown, e->d_name,
				    S_ISLNK(st.st_mode)   ? "symbolic link"
				    : S_ISDIR(st.st_mode) ? "directory"
							  : "special file");
	}
	closedir(d);
	return code;
}

/* Descriptor of the version's directory; shown gets its path for messages, version its number. */
static int open_version(const server_config *c, char *shown, size_t shown_size, char version[24], wn_error *err)
{
	if (!manifest_name_is_valid(c->model_name)) {
		wn_fail(err, WN_INVALID,
			"model.name: found \"%.64s\", expected [A-Za-z0-9._-]{1,64} without a leading dot",
			c->model_name);
		return -1;
	}
	int result = -1, model_fd = -1;
	int root_fd = open(c->registry_root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (root_fd < 0) {
		wn_fail(err, errno == ENOENT ? WN_NOT_FOUND : WN_IO, "%s: cannot open the model registry: %s",
			c->registry_root, strerror(errno));
		return -1;
	}
	snprintf(shown, shown_size, "%s/%s", c->registry_root, c->model_name);
	model_fd = open_directory(root_fd, c->model_name, shown, err);
	if (model_fd < 0)
		goto done;
	if (strcmp(c->model_version, "latest") == 0) {
		long v = latest_version(model_fd);
		if (v == 0) {
			wn_fail(err, WN_NOT_FOUND, "%s: found no version directory, expected names such as 1 or 2",
				shown);
			goto done;
		}
		snprintf(version, 24, "%ld", v);
	} else {
		snprintf(version, 24, "%s", c->model_version);
	}
	snprintf(shown, shown_size, "%s/%s/%s", c->registry_root, c->model_name, version);
	result = open_directory(model_fd, version, shown, err);
done:
	if (model_fd >= 0)
		close(model_fd);
	close(root_fd);
	return result;
}

/* The last number in a path such as registry/ad-audit/3/, else "0". */
static void version_of_path(const char *path, char version[24])
{
	size_t n = strlen(path);
	while (n > 0 && path[n - 1] == '/')
		n--;
	size_t start = n;
	while (start > 0 && path[start - 1] != '/')
		start--;
	snprintf(version, 24, "%.*s", (int)(n - start > 23 ? 23 : n - start), path + start);
	if (!is_version(version))
		snprintf(version, 24, "0");
}

/* Messages name the path the operator knows, not the descriptor the files were read through. */
static void show_path(wn_error *err, const char *internal, const char *shown)
{
	char *at = err ? strstr(err->message, internal) : NULL;
	if (!at)
		return;
	wn_error fixed = {0};
	wn_fail(&fixed, err->code, "%.*s%s%s", (int)(at - err->message), err->message, shown, at + strlen(internal));
	*err = fixed;
}

static wn_code open_sessions(served_model *m, const server_config *c, wn_error *err)
{
	for (int i = 0; i < c->instances; i++, m->instances++)
		if (classifier_session_open(&m->sessions[i], m->classifier, c->max_batch, err) != WN_OK)
			return wn_fail_prefix(err, "inference instance %d", i);
	return WN_OK;
}

static void model_free(served_model *m)
{
	for (int i = 0; i < m->instances; i++)
		classifier_session_close(&m->sessions[i]);
	classifier_close(&m->classifier);
	free(m);
}

static wn_code load_model(served_model **out, int dir_fd, const char *shown, const char *version,
			  const server_config *c, wn_error *err)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/self/fd/%d", dir_fd);
	served_model *m = calloc(1, sizeof *m);
	if (!m)
		return wn_fail(err, WN_NOMEM, "%s: out of memory", shown);
	atomic_init(&m->references, 1);
	checkpoint_options opt = {.verify_digests = c->verify_digests};
	wn_code code = classifier_open(&m->classifier, path, &opt, err);
	if (code == WN_OK)
		code = open_sessions(m, c, err);
	if (code != WN_OK) {
		show_path(err, path, shown);
		if (err && !strstr(err->message, shown))
			wn_fail_prefix(err, "%s", shown);
		model_free(m);
		return code;
	}
	const checkpoint *ckpt = classifier_checkpoint(m->classifier);
	snprintf(m->name, sizeof m->name, "%s", *c->model_dir ? ckpt->manifest.name : c->model_name);
	snprintf(m->version, sizeof m->version, "%s", version);
	snprintf(m->digest, sizeof m->digest, "%s", ckpt->digest);
	*out = m;
	return WN_OK;
}

wn_code registry_open(registry **out, const server_config *c, wn_error *err)
{
	char shown[1024], version[24];
	int fd = -1;
	registry *r = *out = calloc(1, sizeof *r);
	if (!r)
		return wn_fail(err, WN_NOMEM, "out of memory for the model registry");
	pthread_mutex_init(&r->lock, NULL);
	if (*c->model_dir) {
		snprintf(shown, sizeof shown, "%s", c->model_dir);
		fd = open(c->model_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd < 0)
			wn_fail(err, errno == ENOENT ? WN_NOT_FOUND : WN_IO, "%s: cannot open the model directory: %s",
				shown, strerror(errno));
		version_of_path(c->model_dir, version);
	} else {
		fd = open_version(c, shown, sizeof shown, version, err);
	}
	wn_code code = fd < 0 ? (err ? err->code : WN_IO) : WN_OK;
	/* An operator's own directory may hold links (a cache of downloads does); under the registry root nothing may.
	 */
	if (code == WN_OK && !*c->model_dir)
		code = check_files(fd, shown, err);
	if (code == WN_OK)
		code = load_model(&r->current, fd, shown, version, c, err);
	if (fd >= 0)
		close(fd);
	if (code != WN_OK)
		registry_close(out);
	return code;
}

void registry_close(registry **rp)
{
	registry *r = *rp;
	if (!r)
		return;
	*rp = NULL;
	registry_release(&r->current);
	pthread_mutex_destroy(&r->lock);
	free(r);
}

served_model *registry_acquire(registry *r)
{
	pthread_mutex_lock(&r->lock);
	served_model *m = r->current;
	if (m)
		atomic_fetch_add(&m->references, 1);
	pthread_mutex_unlock(&r->lock);
	return m;
}

void registry_release(served_model **mp)
{
	served_model *m = *mp;
	*mp = NULL;
	if (m && atomic_fetch_sub(&m->references, 1) == 1)
		model_free(m);
}
