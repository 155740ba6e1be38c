/* teacher_cache.c: see teacher_cache.h. */
#include "prune/compress/teacher_cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "prune/run_dir.h"

#define MAGIC        "winnow teacher outputs"
#define FORMAT       2
#define RECORD_ALIGN 64
#define WAIT_NS      100000000L /* between two looks at another process's lock */
#define KEEP_SECONDS (7 * 24 * 60 * 60) /* of a beginning that its maker may come back to */
#define PREFIX       "teacher-"
#define WRITING      ".bin.writing"

typedef struct header {
	char magic[32];
	char key[DIGEST_SIZE];
	uint32_t format, reserved;
	uint64_t count, bytes, done;
} header;
#define HEADER_BYTES ((sizeof(header) + RECORD_ALIGN - 1) / RECORD_ALIGN * RECORD_ALIGN)

/* start[i] of record i, start[count] the file's size; false when that overflows. start may be NULL. */
static bool lay_out(const size_t *sizes, size_t count, size_t *start, size_t *bytes)
{
	size_t at = HEADER_BYTES;
	for (size_t i = 0; i < count; i++) {
		if (start)
			start[i] = at;
		if (__builtin_add_overflow(at, sizes[i], &at) || __builtin_add_overflow(at, RECORD_ALIGN - 1, &at) || at > SIZE_MAX / 4)
			return false;
		at = at / RECORD_ALIGN * RECORD_ALIGN;
	}
	if (start)
		start[count] = at;
	*bytes = at;
	return true;
}

size_t teacher_cache_bytes(const size_t *sizes, size_t count)
{
	size_t bytes;
	return lay_out(sizes, count, NULL, &bytes) ? bytes : SIZE_MAX;
}

static header make_header(const teacher_cache *c, size_t done)
{
	header h = {.magic = MAGIC, .format = FORMAT, .count = c->count, .bytes = c->start[c->count], .done = done};
	memcpy(h.key, c->key, sizeof h.key);
	return h;
}

/* Is `found` of this key's file, finished or not? */
static bool is_ours(const header *found, const teacher_cache *c)
{
	return !memcmp(found->key, c->key, sizeof c->key) && found->count == c->count && found->bytes == c->start[c->count];
}

/* The header, when there is one. */
static bool read_header(int fd, header *out)
{
	return pread(fd, out, sizeof *out, 0) == sizeof *out && !strncmp(out->magic, MAGIC, sizeof out->magic);
}

/* ---- a complete file ---- */

/* Maps the file at c->path. WN_NOT_FOUND: there is none; WN_INVALID: it is not this cache. */
static wn_code map_complete(teacher_cache *c, wn_error *err)
{
	struct stat st;
	header found = {0};
	const size_t bytes = c->start[c->count];
	wn_code rc = WN_OK;
	int fd = open(c->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return wn_fail(err, errno == ENOENT ? WN_NOT_FOUND : WN_IO, "%s: %s", c->path, strerror(errno));
	if (fstat(fd, &st))
		rc = wn_fail(err, WN_IO, "%s: %s", c->path, strerror(errno));
	else if (!S_ISREG(st.st_mode))
		rc = wn_fail(err, WN_IO, "%s: expected a regular file", c->path);
	else if (!read_header(fd, &found))
		rc = wn_fail(err, WN_INVALID, "%s: not a file of teacher outputs", c->path);
	else if (found.format != FORMAT)
		rc = wn_fail(err, WN_INVALID, "%s: found format %u, expected %d", c->path, (unsigned)found.format, FORMAT);
	else if (!is_ours(&found, c))
		rc = wn_fail(err, WN_INVALID, "%s: holds the outputs of another teacher or transfer set", c->path);
	else if ((size_t)st.st_size != bytes)
		rc = wn_fail(err, WN_INVALID, "%s: found %lld bytes, expected %zu", c->path, (long long)st.st_size, bytes);
	else if (found.done != c->count)
		rc = wn_fail(err, WN_INVALID, "%s: found %llu records, expected %zu", c->path, (unsigned long long)found.done, c->count);
	if (!rc) {
		void *p = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
		if (p == MAP_FAILED)
			rc = wn_fail(err, WN_IO, "%s: mmap of %zu bytes: %s", c->path, bytes, strerror(errno));
		else
			c->map = p;
	}
	close(fd);
	return rc;
}

void teacher_cache_prefetch(const teacher_cache *c, size_t i)
{
	const size_t page = (size_t)sysconf(_SC_PAGESIZE), from = c->start[i] / page * page;
	madvise((void *)(uintptr_t)(c->map + from), c->start[i + 1] - from, MADV_WILLNEED); /* advice: nothing is lost when it fails */
}

/* ---- making one ---- */

static wn_code wait_for_lock(const teacher_cache *c, int fd, const teacher_cache_options *o, wn_error *err)
{
	for (bool told = false; flock(fd, LOCK_EX | LOCK_NB); told = true) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return wn_fail(err, WN_IO, "%s: cannot lock: %s", c->temporary, strerror(errno));
		if (o->stop && *o->stop)
			return wn_fail(err, WN_CANCELLED, "stopped while another process made %s", c->path);
		if (o->out && !told)
			fprintf(o->out, "waiting for another process to finish %s\n", c->path);
		nanosleep(&(struct timespec){.tv_nsec = WAIT_NS}, NULL);
	}
	return WN_OK;
}

/* Opens and locks the temporary. *ours: it still has its name, so nobody finished or removed it while we waited. */
static wn_code take_temporary(teacher_cache *c, const teacher_cache_options *o, bool *ours, wn_error *err)
{
	struct stat st, named;
	int fd = open(c->temporary, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
	if (fd < 0)
		return wn_fail(err, WN_IO, "%s: cannot create: %s", c->temporary, strerror(errno));
	wn_code rc = wait_for_lock(c, fd, o, err);
	*ours = !rc && !fstat(fd, &st) && !stat(c->temporary, &named) && st.st_dev == named.st_dev && st.st_ino == named.st_ino;
	if (*ours)
		c->fd_plus_1 = fd + 1;
	else
		close(fd);
	return rc;
}

static void drop_temporary(teacher_cache *c)
{
	unlink(c->temporary); /* before the lock goes: whoever gets it then sees that the name is gone */
	close(c->fd_plus_1 - 1);
	c->fd_plus_1 = 0;
	c->done = 0;
}

static wn_code write_at(teacher_cache *c, const void *data, size_t len, size_t at, wn_error *err)
{
	const char *p = data;
	while (len > 0) {
		ssize_t n = pwrite(c->fd_plus_1 - 1, p, len, (off_t)at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return wn_fail(err, WN_IO, "%s: cannot write: %s", c->temporary, strerror(errno));
		p += n;
		at += (size_t)n;
		len -= (size_t)n;
	}
	return WN_OK;
}

static wn_code write_header(teacher_cache *c, size_t done, wn_error *err)
{
	const header h = make_header(c, done);
	wn_code rc = write_at(c, &h, sizeof h, 0, err);
	if (!rc)
		c->done = done;
	return rc;
}

/* A temporary of another key: is its maker gone, and not to be waited for? */
static bool is_abandoned(int dir, const char *name, int fd, off_t *bytes)
{
	struct stat st, named;
	header h;
	if (flock(fd, LOCK_EX | LOCK_NB) || fstat(fd, &st) || fstatat(dir, name, &named, AT_SYMLINK_NOFOLLOW) ||
	    st.st_dev != named.st_dev || st.st_ino != named.st_ino || !S_ISREG(st.st_mode))
		return false;
	*bytes = st.st_blocks * 512;
	const bool useful = read_header(fd, &h) && h.format == FORMAT && h.done > 0;
	return !useful || time(NULL) - st.st_mtime > KEEP_SECONDS;
}

static bool is_temporary(const char *name)
{
	const size_t n = strlen(name), before = strlen(PREFIX), behind = strlen(WRITING);
	return n > before + behind && !strncmp(name, PREFIX, before) && !strcmp(name + n - behind, WRITING);
}

/* What other keys' makers left. */
static void sweep(const teacher_cache *c, const teacher_cache_options *o)
{
	const char *own = strrchr(c->temporary, '/') + 1;
	DIR *d = opendir(o->dir);
	if (!d)
		return;
	for (struct dirent *e; (e = readdir(d));) {
		off_t bytes;
		if (!is_temporary(e->d_name) || !strcmp(e->d_name, own))
			continue;
		int fd = openat(dirfd(d), e->d_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
		if (fd < 0)
			continue;
		if (is_abandoned(dirfd(d), e->d_name, fd, &bytes) && !unlinkat(dirfd(d), e->d_name, 0) && o->out)
			fprintf(o->out, "removed %s/%s, %.1f MiB that an interrupted run left\n", o->dir, e->d_name,
				(double)bytes / (1 << 20));
		close(fd);
	}
	closedir(d);
}

/* Goes on with the beginning that is there, or takes room for everything now: a full disk is an error before the work, not after it. */
static wn_code begin(teacher_cache *c, const teacher_cache_options *o, wn_error *err)
{
	const int fd = c->fd_plus_1 - 1;
	const size_t bytes = c->start[c->count];
	struct stat st;
	header h;
	sweep(c, o);
	if (!fstat(fd, &st) && (size_t)st.st_size == bytes && read_header(fd, &h) && h.format == FORMAT && is_ours(&h, c) &&
	    h.done <= c->count) {
		c->done = h.done;
		if (o->out && c->done)
			fprintf(o->out, "%zu of %zu records are in %s already\n", c->done, c->count, c->temporary);
		return WN_OK;
	}
	int e = ftruncate(fd, 0) ? errno : posix_fallocate(fd, 0, (off_t)bytes);
	if (e)
		return wn_fail(err, WN_IO, "%s: cannot reserve %zu bytes: %s", c->temporary, bytes, strerror(e));
	if (o->out)
		fprintf(o->out, "%s takes %.1f MiB\n", c->path, (double)bytes / (1 << 20));
	return write_header(c, 0, err);
}

/* The complete file, or a locked temporary. */
static wn_code open_either(teacher_cache *c, const teacher_cache_options *o, wn_error *err)
{
	for (bool told = false;;) {
		wn_error why = {0};
		wn_code rc = map_complete(c, &why);
		if (rc == WN_OK) {
			if (c->fd_plus_1)
				drop_temporary(c); /* another process was faster */
			return WN_OK;
		}
		if (rc != WN_NOT_FOUND && rc != WN_INVALID)
			return wn_fail(err, rc, "%s", why.message);
		if (rc == WN_INVALID && o->out && !told)
			fprintf(o->out, "%s: making it anew\n", why.message);
		told |= rc == WN_INVALID;
		if (c->fd_plus_1) /* locked, and looked again: it is ours to make */
			return begin(c, o, err);
		for (bool ours = false; !ours;)
			if ((rc = take_temporary(c, o, &ours, err)))
				return rc;
	}
}

/* Names and places; nothing is opened. */
static wn_code prepare(teacher_cache *c, const teacher_cache_options *o, wn_error *err)
{
	size_t bytes;
	*c = (teacher_cache){.count = o->count};
	if (!digest_is_valid(o->key))
		return wn_fail(err, WN_INTERNAL, "teacher outputs: \"%.80s\" is not a digest", o->key);
	memcpy(c->key, o->key, sizeof c->key);
	c->start = calloc(o->count + 1, sizeof *c->start);
	if (asprintf(&c->path, "%s/" PREFIX "%s.bin", o->dir, strchr(o->key, ':') + 1) < 0)
		c->path = NULL;
	if (asprintf(&c->temporary, "%s/" PREFIX "%s" WRITING, o->dir, strchr(o->key, ':') + 1) < 0)
		c->temporary = NULL;
	if (!c->start || !c->path || !c->temporary)
		return wn_fail(err, WN_NOMEM, "no memory for an index of %zu records", o->count);
	if (!lay_out(o->sizes, o->count, c->start, &bytes))
		return wn_fail(err, WN_TOO_LARGE, "%s: %zu records are too large", c->path, o->count);
	return WN_OK;
}

wn_code teacher_cache_open(teacher_cache *c, const teacher_cache_options *o, wn_error *err)
{
	wn_code rc = prepare(c, o, err);
	if (!rc)
		rc = run_dir_make(o->dir, err);
	if (!rc)
		rc = open_either(c, o, err);
	if (rc)
		teacher_cache_close(c);
	return rc;
}

wn_code teacher_cache_find(teacher_cache *c, const teacher_cache_options *o, wn_error *err)
{
	wn_code rc = prepare(c, o, err);
	if (!rc)
		rc = map_complete(c, err);
	if (rc)
		teacher_cache_close(c);
	return rc;
}

wn_code teacher_cache_write(teacher_cache *c, size_t i, const void *record, size_t len, wn_error *err)
{
	if (len > c->start[i + 1] - c->start[i])
		return wn_fail(err, WN_INTERNAL, "%s: record %zu has %zu bytes, its room is %zu", c->temporary, i, len,
			       c->start[i + 1] - c->start[i]);
	return write_at(c, record, len, c->start[i], err);
}

/* The count is written behind a barrier: on disk it never runs ahead of the records. */
wn_code teacher_cache_sync(teacher_cache *c, size_t done, wn_error *err)
{
	if (fdatasync(c->fd_plus_1 - 1))
		return wn_fail(err, WN_IO, "%s: cannot sync: %s", c->temporary, strerror(errno));
	return write_header(c, done, err);
}

/* Without a sync of the directory: should a power cut undo the rename, the file has its other name and is finished at once. */
wn_code teacher_cache_commit(teacher_cache *c, wn_error *err)
{
	wn_code rc = teacher_cache_sync(c, c->count, err);
	if (!rc && fsync(c->fd_plus_1 - 1))
		rc = wn_fail(err, WN_IO, "%s: cannot sync: %s", c->temporary, strerror(errno));
	if (!rc && rename(c->temporary, c->path))
		rc = wn_fail(err, WN_IO, "%s: cannot rename to the final name: %s", c->temporary, strerror(errno));
	if (rc)
		return rc;
	close(c->fd_plus_1 - 1);
	c->fd_plus_1 = 0;
	return map_complete(c, err);
}

void teacher_cache_close(teacher_cache *c)
{
	if (c->fd_plus_1 && c->done)
		close(c->fd_plus_1 - 1);
	else if (c->fd_plus_1)
		drop_temporary(c);
	if (c->map)
		munmap((void *)(uintptr_t)c->map, c->start[c->count]);
	free(c->start);
	free(c->path);
	free(c->temporary);
	*c = (teacher_cache){0};
}
