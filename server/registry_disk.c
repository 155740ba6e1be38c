/* registry_disk.c: see registry_disk.h. */
#include "server/registry_disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/manifest.h"

int disk_version_number(const char *s)
{
	size_t n = strspn(s, "0123456789");
	return n > 0 && n <= 9 && s[n] == 0 && s[0] != '0' ? atoi(s) : 0;
}

/* ---- opening ---- */

int disk_open_root(const char *root, wn_error *err)
{
	int fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		wn_fail(err, errno == ENOENT ? WN_NOT_FOUND : WN_IO, "%s: cannot open the model registry: %s", root,
			strerror(errno));
	return fd;
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

int disk_open_model(int root_fd, const char *root, const char *name, wn_error *err)
{
	char shown[PATH_MAX];
	if (!manifest_name_is_valid(name)) {
		wn_fail(err, WN_INVALID,
			"model.name: found \"%.64s\", expected [A-Za-z0-9._-]{1,64} without a leading dot", name);
		return -1;
	}
	snprintf(shown, sizeof shown, "%s/%s", root, name);
	return open_directory(root_fd, name, shown, err);
}

int disk_open_version(int model_fd, const char *root, const char *name, int version, wn_error *err)
{
	char shown[PATH_MAX], number[16];
	snprintf(number, sizeof number, "%d", version);
	snprintf(shown, sizeof shown, "%s/%s/%s", root, name, number);
	return open_directory(model_fd, number, shown, err);
}

/* ---- listing ---- */

/* Its entries from the first, whatever was read through fd before; NULL with errno. */
static DIR *list(int dir_fd)
{
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
	if (!d && fd >= 0)
		close(fd);
	return d;
}

static bool is_directory(int at, const char *name, bool or_link)
{
	struct stat st;
	return fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	       (S_ISDIR(st.st_mode) || (or_link && S_ISLNK(st.st_mode)));
}

static int by_number(const void *a, const void *b)
{
	int x = *(const int *)a, y = *(const int *)b;
	return (x > y) - (x < y);
}

wn_code disk_list_versions(int model_fd, int **out, size_t *count, wn_error *err)
{
	size_t room = 0;
	*out = NULL;
	*count = 0;
	DIR *d = list(model_fd);
	if (!d)
		return wn_fail(err, WN_IO, "cannot list the model's versions: %s", strerror(errno));
	wn_code code = WN_OK;
	for (struct dirent *e; code == WN_OK && (errno = 0, e = readdir(d));) {
		int number = disk_version_number(e->d_name);
		if (number == 0 || !is_directory(model_fd, e->d_name, true))
			continue;
		if (*count == room) {
			room = room ? 2 * room : 16;
			int *more = realloc(*out, room * sizeof **out);
			if (!more) {
				code = wn_fail(err, WN_NOMEM, "out of memory for a list of versions");
				break;
			}
			*out = more;
		}
		(*out)[(*count)++] = number;
	}
	if (code == WN_OK && errno != 0)
		code = wn_fail(err, WN_IO, "cannot list the model's versions: %s", strerror(errno));
	closedir(d);
	if (*count > 0)
		qsort(*out, *count, sizeof **out, by_number);
	return code;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

wn_code disk_list_names(int root_fd, char ***out, size_t *count, wn_error *err)
{
	size_t room = 0;
	*out = NULL;
	*count = 0;
	DIR *d = list(root_fd);
	if (!d)
		return wn_fail(err, WN_IO, "cannot list the model registry: %s", strerror(errno));
	wn_code code = WN_OK;
	for (struct dirent *e; code == WN_OK && (errno = 0, e = readdir(d));) {
		if (!manifest_name_is_valid(e->d_name) || !is_directory(root_fd, e->d_name, false))
			continue;
		if (*count == room) {
			room = room ? 2 * room : 16;
			char **more = realloc(*out, room * sizeof **out);
			if (more)
				*out = more;
			else
				code = WN_NOMEM;
		}
		if (code != WN_OK || !((*out)[*count] = strdup(e->d_name)))
			code = wn_fail(err, WN_NOMEM, "out of memory for a list of models");
		else
			(*count)++;
	}
	if (code == WN_OK && errno != 0)
		code = wn_fail(err, WN_IO, "cannot list the model registry: %s", strerror(errno));
	closedir(d);
	if (*count > 0)
		qsort(*out, *count, sizeof **out, by_name);
	return code;
}

/* ---- looking at one version ---- */

/* FNV-1a. */
static uint64_t hash(uint64_t h, const void *data, size_t len)
{
	const unsigned char *p = data;
	for (size_t i = 0; i < len; i++)
		h = (h ^ p[i]) * 0x100000001b3u;
	return h;
}

static uint64_t hash_file(const char *name, const struct stat *st)
{
	const uint64_t facts[] = {st->st_dev,
				  st->st_ino,
				  st->st_mode,
				  (uint64_t)st->st_size,
				  (uint64_t)st->st_mtim.tv_sec,
				  (uint64_t)st->st_mtim.tv_nsec,
				  (uint64_t)st->st_ctim.tv_sec,
				  (uint64_t)st->st_ctim.tv_nsec};
	return hash(hash(0xcbf29ce484222325u, name, strlen(name)), facts, sizeof facts);
}

wn_code disk_look(disk_state *out, int version_fd, const char *shown, bool any_file, wn_error *err)
{
	struct stat st;
	*out = (disk_state){0};
	DIR *d = list(version_fd);
	if (!d || fstat(version_fd, &st) != 0) {
		wn_fail(err, WN_IO, "%s: cannot list the directory: %s", shown, strerror(errno));
		if (d)
			closedir(d);
		return WN_IO;
	}
	/* The directory's identity, not its times: a rename of it changes those. Files are summed, so that their order
	 * in the directory does not count. */
	const uint64_t identity[] = {st.st_dev, st.st_ino};
	out->fingerprint = hash(0xcbf29ce484222325u, identity, sizeof identity);
	wn_code code = WN_OK;
	for (struct dirent *e; (errno = 0, e = readdir(d));) { /* to the end even after an error: the fingerprint is of everything */
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		if (fstatat(version_fd, e->d_name, &st, any_file ? 0 : AT_SYMLINK_NOFOLLOW) != 0) {
			if (!any_file)
				code = wn_fail(err, WN_IO, "%s/%s: %s", shown, e->d_name, strerror(errno));
			continue;
		}
		if (!any_file && !S_ISREG(st.st_mode))
			code =
			    wn_fail(err, WN_INVALID, "%s/%s: found a %s, expected regular files only", shown, e->d_name,
				    S_ISLNK(st.st_mode)   ? "symbolic link"
				    : S_ISDIR(st.st_mode) ? "directory"
							  : "special file");
		out->fingerprint += hash_file(e->d_name, &st);
		out->bytes += S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
		out->has_manifest |= strcmp(e->d_name, "winnow.json") == 0;
	}
	if (errno != 0)
		code = wn_fail(err, WN_IO, "%s: cannot list the directory: %s", shown, strerror(errno));
	closedir(d);
	return code;
}
