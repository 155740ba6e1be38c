/* image_cache.c: see image_cache.h. Decoders are plain threads that take sample numbers from one atomic counter; each
 * writes its own square and then its own flag. The first error stops all. */
#include "prune/image_cache.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "model/image.h"

#define MAGIC "winnow image cache 1"
#define MAX_THREADS 64
#define MAX_IMAGE_BYTES ((size_t)64 << 20)

typedef struct header {
	char magic[32];
	char key[DIGEST_SIZE];
	char boot_id[40];  /* of the boot whose flags may be believed while complete is 0 */
	uint64_t count;
	uint32_t side;
	uint32_t complete; /* every square is in the file and was synced */
	char reserved[4096 - 32 - DIGEST_SIZE - 40 - 16];
} header;
_Static_assert(sizeof(header) == 4096, "pixels start on a page");

typedef struct job {
	const dataset *d;
	uint8_t *flags, *pixels;
	int side;
	atomic_size_t next, done;
	atomic_bool stop;
	pthread_mutex_t lock; /* guards err */
	wn_error err;
} job;

static wn_code decode_one(job *j, size_t i, wn_error *err)
{
	char path[PATH_MAX];
	char *bytes = NULL;
	size_t len = 0;
	image img = {0};
	wn_code rc = dataset_image_path(j->d, i, path, sizeof path, err);
	if (rc)
		return rc;
	rc = file_read(path, MAX_IMAGE_BYTES, &bytes, &len, err);
	if (!rc) {
		rc = image_decode(&img, bytes, len, NULL, err);
		if (!rc)
			rc = image_resize(j->pixels + i * (size_t)j->side * (size_t)j->side * 3, j->side, j->side, &img, err);
		if (rc)
			wn_fail_prefix(err, "%s", path);
	}
	image_free(&img);
	free(bytes);
	return rc;
}

static void *decoder(void *arg)
{
	job *j = arg;
	for (size_t i; !atomic_load(&j->stop) && (i = atomic_fetch_add(&j->next, 1)) < j->d->count;) {
		if (!j->flags[i]) {
			wn_error err = {0};
			if (decode_one(j, i, &err)) {
				pthread_mutex_lock(&j->lock);
				wn_fail(&j->err, err.code, "%s", err.message);
				pthread_mutex_unlock(&j->lock);
				atomic_store(&j->stop, true);
				break;
			}
			j->flags[i] = 1;
		}
		atomic_fetch_add(&j->done, 1);
	}
	return NULL;
}

static wn_code decode_all(job *j, int threads, image_cache_progress progress, void *ctx, wn_error *err)
{
	pthread_t ids[MAX_THREADS];
	int started = 0;
	if (threads < 1)
		threads = 1;
	if (threads > MAX_THREADS)
		threads = MAX_THREADS;
	while (started < threads && pthread_create(&ids[started], NULL, decoder, j) == 0)
		started++;
	if (started == 0)
		return wn_fail(err, WN_IO, "cannot start a decoder thread");
	bool cancelled = false;
	while (progress && atomic_load(&j->done) < j->d->count && !atomic_load(&j->stop)) {
		if (progress(ctx, atomic_load(&j->done), j->d->count)) {
			cancelled = true;
			atomic_store(&j->stop, true);
		}
		nanosleep(&(struct timespec){.tv_nsec = 20 * 1000 * 1000}, NULL);
	}
	for (int i = 0; i < started; i++)
		pthread_join(ids[i], NULL);
	if (j->err.code)
		return wn_fail(err, j->err.code, "%s", j->err.message);
	return cancelled ? wn_fail(err, WN_CANCELLED, "stopped while decoding images") : WN_OK;
}

static void read_boot_id(char out[40])
{
	memset(out, 0, 40);
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	ssize_t n = read(fd, out, 36);
	if (n != 36)
		memset(out, 0, 40);
	close(fd);
}

/* Digest of what the squares depend on. Sizes stand for contents: hashing every image would cost as much as reading it. */
static wn_code make_key(char key[DIGEST_SIZE], const dataset *d, int side, wn_error *err)
{
	char path[PATH_MAX];
	size_t len = DIGEST_SIZE + (d->count + 2) * sizeof(int64_t);
	char *buf = calloc(1, len);
	if (!buf)
		return wn_fail(err, WN_NOMEM, "no memory for a digest of %zu files", d->count);
	memcpy(buf, d->digest, DIGEST_SIZE);
	int64_t *sizes = (int64_t *)(void *)(buf + DIGEST_SIZE);
	sizes[0] = side;
	sizes[1] = (int64_t)d->count;
	wn_code rc = WN_OK;
	for (size_t i = 0; !rc && i < d->count; i++) {
		struct stat st;
		rc = dataset_image_path(d, i, path, sizeof path, err);
		if (!rc && stat(path, &st))
			rc = wn_fail(err, errno == ENOENT ? WN_NOT_FOUND : WN_IO, "%s: %s (named by %s/metadata.jsonl)", path,
				     strerror(errno), d->dir);
		if (!rc)
			sizes[i + 2] = st.st_size;
	}
	if (!rc)
		digest_memory(key, buf, len);
	free(buf);
	return rc;
}

static bool header_matches(const header *h, const header *want)
{
	return !memcmp(h->magic, want->magic, sizeof h->magic) && !memcmp(h->key, want->key, sizeof h->key) &&
	       h->count == want->count && h->side == want->side &&
	       (h->complete == 1 || (want->boot_id[0] && !memcmp(h->boot_id, want->boot_id, sizeof h->boot_id)));
}

static bool same_file(const struct stat *a, const struct stat *b) { return a->st_dev == b->st_dev && a->st_ino == b->st_ino; }

/* Opens and locks the cache at `path`, or an empty file in its place when what is there is another cache. That one is
 * unlinked, never cut: another run may still have it mapped. *fd_out is the caller's to close, also on failure. */
static wn_code open_locked(const char *path, const header *want, size_t size, bool *usable, int *fd_out, wn_error *err)
{
	for (;;) {
		struct stat st, named;
		int fd = *fd_out = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
		if (fd < 0 || flock(fd, LOCK_EX) || fstat(fd, &st))
			return wn_fail(err, WN_IO, "%s: %s", path, strerror(errno));
		const bool current = !stat(path, &named) && same_file(&st, &named); /* else replaced while we waited */
		header found = {0};
		*usable = current && (size_t)st.st_size == size && pread(fd, &found, sizeof found, 0) == sizeof found &&
			  header_matches(&found, want);
		if (*usable || (current && st.st_size == 0))
			return WN_OK;
		if (current && unlink(path))
			return wn_fail(err, WN_IO, "%s: %s", path, strerror(errno));
		close(fd);
		*fd_out = -1;
	}
}

/* Maps `path` with room for everything; a file that is not this cache is started anew. The lock that *fd_out holds makes a
 * second run that shares the cache wait until this one has filled it. */
static wn_code map_file(image_cache *c, const char *path, const header *want, int *fd_out, wn_error *err)
{
	bool usable = false;
	wn_code rc = open_locked(path, want, c->map_size, &usable, fd_out, err);
	const int fd = *fd_out;
	if (!rc && !usable) {
		/* Blocks are reserved now: a full disk is an error here, not a SIGBUS in the middle of decoding. */
		int e = posix_fallocate(fd, 0, (off_t)c->map_size);
		if (!e && pwrite(fd, want, sizeof *want, 0) != (ssize_t)sizeof *want)
			e = errno ? errno : EIO;
		if (e)
			rc = wn_fail(err, WN_IO, "%s: cannot reserve %zu bytes: %s", path, c->map_size, strerror(e));
	}
	if (!rc) {
		void *p = mmap(NULL, c->map_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (p == MAP_FAILED)
			rc = wn_fail(err, WN_IO, "%s: mmap of %zu bytes: %s", path, c->map_size, strerror(errno));
		else
			c->map = p;
	}
	return rc;
}

wn_code image_cache_open(image_cache *out, const char *path, const dataset *d, int side, int threads,
			 image_cache_progress progress, void *ctx, wn_error *err)
{
	*out = (image_cache){.count = d->count, .side = side};
	size_t square, pixels;
	size_t flags = (d->count + 4095) / 4096 * 4096;
	if (side < 1 || side > 4096)
		return wn_fail(err, WN_INVALID, "image cache: side %d, expected 1 to 4096", side);
	square = (size_t)side * (size_t)side * 3;
	if (__builtin_mul_overflow(square, d->count, &pixels) || pixels > (size_t)1 << 42)
		return wn_fail(err, WN_TOO_LARGE, "image cache: %zu images of %d x %d are too large", d->count, side, side);
	out->map_size = sizeof(header) + flags + pixels;

	header want = {.magic = MAGIC, .count = d->count, .side = (uint32_t)side};
	read_boot_id(want.boot_id);
	job j = {.d = d, .side = side, .lock = PTHREAD_MUTEX_INITIALIZER};
	int fd = -1;
	wn_code rc = make_key(want.key, d, side, err);
	if (!rc)
		rc = map_file(out, path, &want, &fd, err);
	if (rc)
		goto done;
	header *h = (header *)(void *)out->map;
	j.flags = out->map + sizeof(header);
	j.pixels = j.flags + flags;
	out->pixels = j.pixels;
	if (h->complete != 1) {
		for (size_t i = 0; i < d->count; i++)
			out->decoded += !j.flags[i];
		rc = decode_all(&j, threads, progress, ctx, err);
		if (!rc && msync(out->map, out->map_size, MS_SYNC))
			rc = wn_fail(err, WN_IO, "%s: %s", path, strerror(errno));
		if (!rc)
			h->complete = 1;
	}
	if (!rc)
		mprotect(out->map, out->map_size, PROT_READ); /* a stray write becomes a crash, not a wrong pixel */
done:
	if (fd >= 0) {
		flock(fd, LOCK_UN); /* closing alone would not: the map keeps the open file, and with it the lock */
		close(fd);
	}
	pthread_mutex_destroy(&j.lock);
	if (rc)
		image_cache_close(out);
	return rc;
}

void image_cache_close(image_cache *c)
{
	if (c->map)
		munmap(c->map, c->map_size);
	*c = (image_cache){0};
}
