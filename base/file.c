/* file.c: see file.h. Plain system calls; every descriptor is close-on-exec and closed on every path out. */
#include "base/file.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

wn_code file_read(const char *path, size_t max_bytes, char **out, size_t *len, wn_error *err)
{
	char *buf = NULL;
	size_t used = 0;
	struct stat st;
	wn_code rc = WN_OK;

	*out = NULL;
	*len = 0;
	/* O_NONBLOCK: opening a pipe nobody writes to must not hang before fstat can refuse it. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return wn_fail(err, errno == ENOENT || errno == ENOTDIR ? WN_NOT_FOUND : WN_IO, "%s: cannot open: %s", path,
		               strerror(errno));
	if (fstat(fd, &st) != 0) {
		rc = wn_fail(err, WN_IO, "%s: cannot stat: %s", path, strerror(errno));
		goto out;
	}
	if (!S_ISREG(st.st_mode)) {
		rc = wn_fail(err, WN_INVALID, "%s: found a %s, expected a regular file", path,
		             S_ISDIR(st.st_mode) ? "directory" : "special file");
		goto out;
	}
	if ((uint64_t)st.st_size > max_bytes || (uint64_t)st.st_size >= SIZE_MAX) {
		rc = wn_fail(err, WN_TOO_LARGE, "%s: found %lld bytes, expected at most %zu", path, (long long)st.st_size,
		             max_bytes);
		goto out;
	}
	size_t size = (size_t)st.st_size;
	buf = malloc(size + 1);
	if (!buf) {
		rc = wn_fail(err, WN_NOMEM, "%s: out of memory for %zu bytes", path, size);
		goto out;
	}
	while (used < size) { /* a file that shrinks meanwhile ends early, one that grows is cut: both are what was there */
		ssize_t n = read(fd, buf + used, size - used);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			rc = wn_fail(err, WN_IO, "%s: cannot read: %s", path, strerror(errno));
			goto out;
		}
		if (n == 0)
			break;
		used += (size_t)n;
	}
	buf[used] = '\0';
	*out = buf;
	*len = used;
	buf = NULL;
out:
	free(buf);
	close(fd);
	return rc;
}

/* Makes a rename durable; without it a power cut may bring the old directory entry back. */
wn_code file_sync_parent(const char *path, wn_error *err)
{
	wn_code rc = WN_OK;
	const char *slash = strrchr(path, '/');
	char dir[PATH_MAX]; /* nothing is allocated: the rename has happened, and must not be called a failure for want of memory */
	if (!slash)
		strcpy(dir, ".");
	else if (snprintf(dir, sizeof dir, "%.*s", slash == path ? 1 : (int)(slash - path), path) >= (int)sizeof dir)
		return wn_fail(err, WN_TOO_LARGE, "%.100s: path longer than %d bytes", path, PATH_MAX);
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	/* EINVAL: a file system that cannot sync directories; nothing more can be promised there. */
	if (fd < 0 || (fsync(fd) != 0 && errno != EINVAL))
		rc = wn_fail(err, WN_IO, "%s: cannot sync its directory: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
	return rc;
}

wn_code file_writer_open(file_writer *w, const char *path, wn_error *err)
{
	static atomic_uint serial; /* two threads writing the same name must not share a temporary */
	memset(w, 0, sizeof *w);
	const char *slash = strrchr(path, '/');
	const char *name = slash ? slash + 1 : path;
	if (!*name)
		return wn_fail(err, WN_INVALID, "\"%s\": expected the name of a file to write", path);
	w->path = strdup(path);
	/* A leading dot: whoever lists the directory for model files skips what a crash may leave. */
	if (!w->path || asprintf(&w->temporary, "%.*s.%s.%ld-%u.tmp", (int)(name - path), path, name, (long)getpid(),
	                         atomic_fetch_add(&serial, 1)) < 0) {
		w->temporary = NULL;
		file_writer_abort(w);
		return wn_fail(err, WN_NOMEM, "%s: out of memory", path);
	}
	int fd = open(w->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	if (fd < 0 && errno == EEXIST) { /* left by a killed process that had our pid */
		unlink(w->temporary);
		fd = open(w->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	}
	if (fd < 0) {
		wn_code rc = wn_fail(err, errno == ENOENT ? WN_NOT_FOUND : WN_IO, "%s: cannot create: %s", path, strerror(errno));
		file_writer_abort(w);
		return rc;
	}
	w->fd_plus_1 = fd + 1;
	return WN_OK;
}

wn_code file_writer_append(file_writer *w, const void *data, size_t len, wn_error *err)
{
	const char *p = data;
	while (len > 0) {
		ssize_t n = write(w->fd_plus_1 - 1, p, len > (1u << 30) ? (1u << 30) : len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return wn_fail(err, WN_IO, "%s: cannot write: %s", w->path, strerror(errno));
		p += n;
		len -= (size_t)n;
	}
	return WN_OK;
}

wn_code file_writer_commit(file_writer *w, wn_error *err)
{
	wn_code rc = WN_OK;
	if (fsync(w->fd_plus_1 - 1) != 0) {
		rc = wn_fail(err, WN_IO, "%s: cannot sync: %s", w->path, strerror(errno));
		goto out;
	}
	int fd = w->fd_plus_1 - 1;
	w->fd_plus_1 = 0;
	if (close(fd) != 0) {
		rc = wn_fail(err, WN_IO, "%s: cannot close: %s", w->path, strerror(errno));
		goto out;
	}
	if (rename(w->temporary, w->path) != 0) {
		rc = wn_fail(err, WN_IO, "%s: cannot rename the finished temporary: %s", w->path, strerror(errno));
		goto out;
	}
	free(w->temporary);
	w->temporary = NULL;
	rc = file_sync_parent(w->path, err);
out:
	file_writer_abort(w);
	return rc;
}

void file_writer_abort(file_writer *w)
{
	if (w->fd_plus_1) {
		close(w->fd_plus_1 - 1);
		unlink(w->temporary);
	} else if (w->temporary && w->path) {
		unlink(w->temporary);
	}
	free(w->temporary);
	free(w->path);
	memset(w, 0, sizeof *w);
}

wn_code file_write_atomic(const char *path, const void *data, size_t len, wn_error *err)
{
	file_writer w;
	wn_code rc = file_writer_open(&w, path, err);
	if (rc == WN_OK)
		rc = file_writer_append(&w, data, len, err);
	if (rc == WN_OK)
		rc = file_writer_commit(&w, err);
	file_writer_abort(&w);
	return rc;
}

wn_code file_copy(const char *from, const char *to, size_t max_bytes, wn_error *err)
{
	char *data = NULL;
	size_t len = 0;
	wn_code rc = file_read(from, max_bytes, &data, &len, err);
	if (rc == WN_OK)
		rc = file_write_atomic(to, data, len, err);
	free(data);
	return rc;
}

/* ---- directories ---- */

#define DIR_SUFFIX ".tmp-XXXXXX"
#define DIR_MARK   ".tmp-"
#define OLD_SUFFIX ".old"

wn_code file_temporary_dir(const char *path, char out[PATH_MAX], wn_error *err)
{
	if (snprintf(out, PATH_MAX, "%s" DIR_SUFFIX, path) >= PATH_MAX)
		return wn_fail(err, WN_TOO_LARGE, "%.200s: path too long", path);
	if (!mkdtemp(out))
		return wn_fail(err, errno == ENOENT ? WN_NOT_FOUND : WN_IO, "%s: cannot create: %s", out, strerror(errno));
	chmod(out, 0755); /* mkdtemp's 0700 would lock other readers (the server's user) out */
	return WN_OK;
}

wn_code file_replace_dir(const char *temporary, const char *path, wn_error *err)
{
	char old[PATH_MAX];
	const char *replaced = NULL;
	if (snprintf(old, sizeof old, "%s" OLD_SUFFIX, temporary) >= (int)sizeof old)
		return wn_fail(err, WN_TOO_LARGE, "%.200s: path too long", temporary);
	if (rename(temporary, path) != 0) {
		if (errno != ENOTEMPTY && errno != EEXIST)
			return wn_fail(err, WN_IO, "%s: cannot rename the finished temporary: %s", path, strerror(errno));
		replaced = temporary;
		if (renameat2(AT_FDCWD, temporary, AT_FDCWD, path, RENAME_EXCHANGE) != 0) {
			replaced = old;
			if (rename(path, old) != 0)
				return wn_fail(err, WN_IO, "%s: cannot rename: %s", path, strerror(errno));
			if (rename(temporary, path) != 0) {
				const int e = errno;
				rename(old, path);
				return wn_fail(err, WN_IO, "%s: cannot rename the finished temporary: %s", path, strerror(e));
			}
		}
	}
	wn_code rc = file_sync_parent(path, err); /* before the old files go */
	if (replaced)
		file_remove_dir(AT_FDCWD, replaced);
	return rc;
}

bool file_remove_dir(int at, const char *path)
{
	int fd = openat(at, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
	for (struct dirent *e; d && (e = readdir(d));)
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			unlinkat(fd, e->d_name, 0);
	if (d)
		closedir(d);
	else if (fd >= 0)
		close(fd);
	return unlinkat(at, path, AT_REMOVEDIR) == 0;
}

typedef struct leftover {
	const char *name; /* [len] of what was to be written */
	size_t len;
	bool is_dir, is_old;
} leftover;

/* NAME.tmp-XXXXXX[.old], as file_temporary_dir and file_replace_dir name them. */
static bool parse_dir(leftover *out, const char *entry)
{
	size_t len = strlen(entry);
	const size_t suffix = strlen(DIR_SUFFIX), mark = strlen(DIR_MARK), old = strlen(OLD_SUFFIX);
	*out = (leftover){.name = entry, .is_dir = true};
	out->is_old = len > old && strcmp(entry + len - old, OLD_SUFFIX) == 0;
	if (out->is_old)
		len -= old;
	if (len <= suffix || strncmp(entry + len - suffix, DIR_MARK, mark) != 0)
		return false;
	for (size_t i = len - suffix + mark; i < len; i++)
		if (!isalnum((unsigned char)entry[i]))
			return false;
	out->len = len - suffix;
	return true;
}

/* Steps back over digits and the character before them; NULL when it is not `before`. */
static const char *back_over_number(const char *begin, const char *end, char before)
{
	const char *p = end;
	while (p > begin && isdigit((unsigned char)p[-1]))
		p--;
	return p < end && p > begin && p[-1] == before ? p - 1 : NULL;
}

/* .NAME.PID-SERIAL.tmp, as file_writer_open names it. */
static bool parse_file(leftover *out, const char *entry)
{
	const size_t len = strlen(entry), suffix = strlen(".tmp");
	if (entry[0] != '.' || len <= suffix || strcmp(entry + len - suffix, ".tmp") != 0)
		return false;
	const char *end = back_over_number(entry + 1, entry + len - suffix, '-');
	if (!end || !(end = back_over_number(entry + 1, end, '.')))
		return false;
	*out = (leftover){.name = entry + 1, .len = (size_t)(end - entry - 1)};
	return out->len > 0;
}

static bool put_back(int dir, const char *entry, const leftover *l)
{
	char name[NAME_MAX + 1];
	struct stat st;
	snprintf(name, sizeof name, "%.*s", (int)l->len, l->name);
	return fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0 && errno == ENOENT && renameat(dir, entry, dir, name) == 0;
}

int file_sweep(const char *dir, const char *name)
{
	int count = 0;
	DIR *d = opendir(dir);
	if (!d)
		return 0;
	for (struct dirent *e; (e = readdir(d));) {
		leftover l;
		if (!parse_dir(&l, e->d_name) && !parse_file(&l, e->d_name))
			continue;
		if (name && (strlen(name) != l.len || strncmp(name, l.name, l.len) != 0))
			continue;
		if (l.is_old && put_back(dirfd(d), e->d_name, &l))
			count++;
		else if (l.is_dir)
			count += file_remove_dir(dirfd(d), e->d_name);
		else
			count += unlinkat(dirfd(d), e->d_name, 0) == 0;
	}
	closedir(d);
	return count;
}
