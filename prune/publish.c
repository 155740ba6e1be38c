/* publish.c: see publish.h.
 *
 * The cheap checks come first (names, files, permissions), then the load with its digests, then the forwards, then the copy;
 * a mistake costs no wait. The source is read through one descriptor: a trainer that exchanges its best/ meanwhile cannot
 * mix two models, and what was copied is compared with the digests that were checked.
 *
 * A live publisher holds a flock on its hidden directory. That tells it from a dead one also across containers, where
 * process ids say nothing; where flock does not work on directories (NFS), the age of a day decides alone. */
#include "prune/publish.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/digest.h"
#include "base/file.h"
#include "model/self_test.h"

#define MANIFEST "winnow.json"
#define HIDDEN ".publish-"
#define LEFTOVER_AGE (24 * 60 * 60) /* seconds */
#define DIR_MODE 0755
#define FILE_MODE 0644

static wn_code without_slashes(char *out, size_t size, const char *path, wn_error *err)
{
	size_t n = strlen(path);
	while (n > 1 && path[n - 1] == '/')
		n--;
	if (n == 0 || n >= size)
		return wn_fail(err, WN_INVALID, "%.100s: expected a path of 1 to %zu bytes", path, size - 1);
	memcpy(out, path, n);
	out[n] = 0;
	return WN_OK;
}

/* Its entries from the first, whatever was read through dir_fd before; NULL with errno. */
static DIR *list(int dir_fd)
{
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
	if (!d && fd >= 0)
		close(fd);
	return d;
}

static bool is_dots(const char *name) { return !strcmp(name, ".") || !strcmp(name, ".."); }

/* ---- the registry ---- */

/* Version number of an entry's name, 0 for every other name. */
static int parse_version(const char *s)
{
	size_t n = strspn(s, "0123456789");
	return n > 0 && n <= 9 && s[n] == 0 && s[0] != '0' ? atoi(s) : 0;
}

/* Whatever has the name of a version takes its number, also what no server would load. */
static int largest_version(int name_fd)
{
	int best = 0;
	DIR *d = list(name_fd);
	if (!d)
		return 0;
	for (struct dirent *e; (e = readdir(d));) {
		int v = parse_version(e->d_name);
		best = v > best ? v : best;
	}
	closedir(d);
	return best;
}

/* REGISTRY/NAME, not through a link: the server would refuse it. *fd is -1 when it is absent. */
static wn_code open_name(const publication *p, int *fd, wn_error *err)
{
	struct stat st;
	const char *name = p->options.name;
	const int root = p->root_fd_plus_1 - 1;
	*fd = openat(root, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (*fd >= 0 || errno == ENOENT)
		return WN_OK;
	int e = errno;
	if (fstatat(root, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISDIR(st.st_mode))
		return wn_fail(err, WN_INVALID, "%s/%s: found a %s, expected a directory", p->registry, name,
		               S_ISLNK(st.st_mode) ? "symbolic link" : "file");
	return wn_fail(err, WN_IO, "%s/%s: cannot open the directory: %s", p->registry, name, strerror(e));
}

static wn_code refuse_taken(const publication *p, int version, wn_error *err)
{
	return wn_fail(err, WN_INVALID, "%s/%s/%d: exists already; a published version is never replaced", p->registry,
	               p->options.name, version);
}

/* The number to try first. */
static wn_code plan_version(publication *p, int name_fd, wn_error *err)
{
	char text[16];
	struct stat st;
	p->version = p->options.version;
	if (!p->version && (p->version = (name_fd >= 0 ? largest_version(name_fd) : 0) + 1) > PUBLISH_MAX_VERSION)
		return wn_fail(err, WN_TOO_LARGE, "%s/%s: found version %d, no larger number is left", p->registry, p->options.name,
		               PUBLISH_MAX_VERSION);
	snprintf(text, sizeof text, "%d", p->version);
	if (name_fd >= 0 && p->options.version && fstatat(name_fd, text, &st, AT_SYMLINK_NOFOLLOW) == 0)
		return refuse_taken(p, p->version, err);
	return WN_OK;
}

static wn_code check_registry(publication *p, wn_error *err)
{
	int name_fd;
	int root = open(p->registry, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (root < 0 && errno == ENOENT)
		return wn_fail(err, WN_NOT_FOUND, "%s: no such directory, expected the registry (mkdir it, if it is to be a new one)",
		               p->registry);
	if (root < 0)
		return wn_fail(err, errno == ENOTDIR ? WN_INVALID : WN_IO, "%s: cannot open the registry: %s", p->registry,
		               strerror(errno));
	p->root_fd_plus_1 = root + 1;
	wn_code rc = open_name(p, &name_fd, err);
	if (rc)
		return rc;
	if (faccessat(name_fd >= 0 ? name_fd : root, ".", W_OK | X_OK, AT_EACCESS) != 0)
		rc = wn_fail(err, WN_IO, "%s%s%s: not writable: %s", p->registry, name_fd >= 0 ? "/" : "",
		             name_fd >= 0 ? p->options.name : "", strerror(errno));
	else
		rc = plan_version(p, name_fd, err);
	if (name_fd >= 0)
		close(name_fd);
	return rc;
}

/* ---- the model ---- */

/* Regular files, all named in winnow.json: what nobody hashed is not published, and a server refuses links. */
static wn_code check_entries(publication *p, const json_t *files, wn_error *err)
{
	const int dir_fd = p->source_fd_plus_1 - 1;
	wn_code rc = WN_OK;
	DIR *d = list(dir_fd);
	if (!d)
		return wn_fail(err, WN_IO, "%s: cannot list the directory: %s", p->model_dir, strerror(errno));
	for (struct dirent *e; rc == WN_OK && (e = readdir(d));) {
		struct stat st;
		if (is_dots(e->d_name))
			continue;
		if (fstatat(dir_fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0)
			rc = wn_fail(err, WN_IO, "%s/%s: %s", p->model_dir, e->d_name, strerror(errno));
		else if (!S_ISREG(st.st_mode))
			rc = wn_fail(err, WN_INVALID, "%s/%s: found a %s, expected regular files only", p->model_dir, e->d_name,
			             S_ISLNK(st.st_mode) ? "symbolic link" : S_ISDIR(st.st_mode) ? "directory" : "special file");
		else if (strcmp(e->d_name, MANIFEST) != 0 && !json_object_get(files, e->d_name))
			rc = wn_fail(err, WN_INVALID, "%s/%s: found a file that winnow.json does not name, expected none", p->model_dir,
			             e->d_name);
		else
			p->bytes += (uint64_t)st.st_size;
	}
	closedir(d);
	return rc;
}

/* What can be said without loading a weight. */
static wn_code check_directory(publication *p, wn_error *err)
{
	char path[PATH_MAX];
	wn_error local = {0};
	manifest m = {0};
	int fd = open(p->model_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return wn_fail(err, errno == ENOENT ? WN_NOT_FOUND : errno == ENOTDIR ? WN_INVALID : WN_IO,
		               "%s: cannot open the model directory: %s", p->model_dir, strerror(errno));
	p->source_fd_plus_1 = fd + 1;
	snprintf(path, sizeof path, "%s/" MANIFEST, p->model_dir);
	wn_code rc = manifest_read(&m, path, &local);
	if (rc == WN_NOT_FOUND)
		return wn_fail(err, rc, "%s: found no such file; only a classifier with prompt and labels can be published", path);
	if (rc)
		return wn_fail(err, rc, "%s", local.message);
	if (m.num_labels == 0)
		rc = wn_fail(err, WN_INVALID, "%s: labels: found none; only a classifier can be published", path);
	else if (!m.files || json_object_size(m.files) == 0)
		rc = wn_fail(err, WN_INVALID, "%s: files: found none, expected the SHA-256 of every file", path);
	else
		rc = check_entries(p, m.files, err);
	manifest_close(&m);
	return rc;
}

/* Loads with digests and asks for answers. */
static wn_code check_answers(publication *p, wn_error *err)
{
	const classifier_options opt = {.load.verify_digests = true};
	classifier_session *s = NULL;
	wn_code rc = classifier_open(&p->classifier, p->model_dir, &opt, err);
	if (rc)
		return rc;
	const checkpoint *ck = classifier_checkpoint(p->classifier);
	p->parameters = blip2_parameter_count(ck->model);
	p->renamed = strcmp(ck->manifest.name, p->options.name) != 0;
	if ((rc = classifier_session_open(&s, p->classifier, 1, err)) == WN_OK)
		rc = ck->manifest.self_test ? self_test_run(p->classifier, s, &ck->manifest, err)
		                            : self_test_make(&p->self_test, p->classifier, s, err);
	if (rc)
		wn_fail_prefix(err, "%.200s%s", p->model_dir, ck->manifest.self_test ? "/" MANIFEST : "");
	classifier_session_close(&s);
	return rc;
}

wn_code publish_open(publication *p, const publish_options *o, wn_error *err)
{
	wn_code rc;
	*p = (publication){.options = *o};
	if (!manifest_name_is_valid(o->name))
		rc = wn_fail(err, WN_INVALID, "name: found \"%.64s\", expected 1 to 64 of A-Z a-z 0-9 . _ -, not starting with a dot",
		             o->name);
	else if (o->version < 0 || o->version > PUBLISH_MAX_VERSION)
		rc = wn_fail(err, WN_INVALID, "version: found %d, expected 1 to %d", o->version, PUBLISH_MAX_VERSION);
	else if ((rc = without_slashes(p->model_dir, sizeof p->model_dir, o->model_dir, err)) == WN_OK &&
	         (rc = without_slashes(p->registry, sizeof p->registry, o->registry, err)) == WN_OK &&
	         (rc = check_registry(p, err)) == WN_OK && (rc = check_directory(p, err)) == WN_OK)
		rc = check_answers(p, err);
	if (rc)
		publish_close(p);
	return rc;
}

void publish_close(publication *p)
{
	if (p->source_fd_plus_1)
		close(p->source_fd_plus_1 - 1);
	if (p->root_fd_plus_1)
		close(p->root_fd_plus_1 - 1);
	json_decref(p->self_test);
	classifier_close(&p->classifier);
	memset(p, 0, sizeof *p);
}

/* ---- hidden directories ---- */

typedef struct staging {
	int name_fd, fd;         /* REGISTRY/NAME and the hidden directory in it; -1: not open */
	char name[64];           /* .publish-PID-RANDOM */
	char path[PATH_MAX];
} staging;

static bool is_leftover(int fd)
{
	struct stat st;
	if (fstat(fd, &st) != 0 || time(NULL) - st.st_mtime < LEFTOVER_AGE)
		return false;
	return flock(fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK;
}

/* Returns how many it removed. A failure is no reason to refuse a publish: nothing serves them. */
static int remove_leftovers(int name_fd)
{
	int count = 0;
	DIR *d = list(name_fd);
	if (!d)
		return 0;
	for (struct dirent *e; (e = readdir(d));) {
		if (strncmp(e->d_name, HIDDEN, strlen(HIDDEN)) != 0)
			continue;
		int fd = openat(name_fd, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0)
			continue;
		count += is_leftover(fd) && file_remove_dir(name_fd, e->d_name); /* publishers put only files there */
		close(fd);
	}
	closedir(d);
	return count;
}

/* Opens REGISTRY/NAME, made when it is the name's first version; open to readers whatever the umask says. */
static wn_code open_or_make_name(const publication *p, int *fd, wn_error *err)
{
	const bool made = mkdirat(p->root_fd_plus_1 - 1, p->options.name, DIR_MODE) == 0;
	if (!made && errno != EEXIST)
		return wn_fail(err, WN_IO, "%s/%s: cannot create: %s", p->registry, p->options.name, strerror(errno));
	wn_code rc = open_name(p, fd, err);
	if (rc == WN_OK && *fd < 0)
		rc = wn_fail(err, WN_IO, "%s/%s: removed while it was published to", p->registry, p->options.name);
	if (rc == WN_OK && made && fchmod(*fd, DIR_MODE) != 0)
		rc = wn_fail(err, WN_IO, "%s/%s: cannot set its mode: %s", p->registry, p->options.name, strerror(errno));
	return rc;
}

static wn_code staging_open(staging *s, publication *p, wn_error *err)
{
	unsigned long long random = 0;
	wn_code rc = open_or_make_name(p, &s->name_fd, err);
	if (rc)
		return rc;
	p->leftovers_removed = remove_leftovers(s->name_fd);
	if (getrandom(&random, sizeof random, 0) != sizeof random)
		random = (unsigned long long)time(NULL); /* the pid and O_EXCL do the rest */
	snprintf(s->name, sizeof s->name, HIDDEN "%ld-%016llx", (long)getpid(), random);
	if (snprintf(s->path, sizeof s->path, "%s/%s/%s", p->registry, p->options.name, s->name) >= (int)sizeof s->path)
		return wn_fail(err, WN_TOO_LARGE, "%.100s: path too long", p->registry);
	if (mkdirat(s->name_fd, s->name, DIR_MODE) != 0)
		return wn_fail(err, WN_IO, "%s: cannot create: %s", s->path, strerror(errno));
	s->fd = openat(s->name_fd, s->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (s->fd < 0 || fchmod(s->fd, DIR_MODE) != 0)
		return wn_fail(err, WN_IO, "%s: cannot open: %s", s->path, strerror(errno));
	(void)flock(s->fd, LOCK_EX | LOCK_NB); /* where it does not work the age must do, see is_leftover */
	return WN_OK;
}

/* Removes what was not renamed. */
static void staging_close(staging *s, bool renamed)
{
	if (s->fd >= 0 && !renamed)
		file_remove_dir(s->name_fd, s->name);
	if (s->fd >= 0)
		close(s->fd);
	if (s->name_fd >= 0)
		close(s->name_fd);
}

/* ---- copying ---- */

/* Mode first: the sync is to cover it. */
static wn_code seal(int fd, const staging *s, const char *name, wn_error *err)
{
	if (fchmod(fd, FILE_MODE) != 0 || fsync(fd) != 0)
		return wn_fail(err, WN_IO, "%s/%s: cannot sync: %s", s->path, name, strerror(errno));
	return WN_OK;
}

static wn_code write_all(int fd, const char *data, size_t len, const staging *s, const char *name, wn_error *err)
{
	while (len > 0) {
		ssize_t n = write(fd, data, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return wn_fail(err, WN_IO, "%s/%s: cannot write: %s", s->path, name, strerror(errno));
		data += n;
		len -= (size_t)n;
	}
	return WN_OK;
}

static wn_code copy_bytes(const publication *p, const staging *s, const char *name, int in, int out, wn_error *err)
{
	char buf[64 * 1024];
	for (;;) {
		if (p->options.stop && *p->options.stop)
			return wn_fail(err, WN_CANCELLED, "interrupted; nothing was published");
		ssize_t n = read(in, buf, sizeof buf);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return wn_fail(err, WN_IO, "%s/%s: cannot read: %s", p->model_dir, name, strerror(errno));
		if (n == 0)
			return WN_OK;
		wn_code rc = write_all(out, buf, (size_t)n, s, name, err);
		if (rc)
			return rc;
	}
}

/* Copies one file and reads the copy back against its digest. */
static wn_code copy_file(const publication *p, const staging *s, const char *name, const char *digest, wn_error *err)
{
	char path[PATH_MAX], found[DIGEST_SIZE];
	struct stat st;
	wn_code rc;
	int out = -1;
	if (snprintf(path, sizeof path, "%s/%s", s->path, name) >= (int)sizeof path)
		return wn_fail(err, WN_TOO_LARGE, "%.100s/%.100s: path too long", p->registry, name);
	int in = openat(p->source_fd_plus_1 - 1, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (in < 0 || fstat(in, &st) != 0 || !S_ISREG(st.st_mode)) {
		rc = wn_fail(err, WN_IO, "%s/%s: removed or replaced while it was published", p->model_dir, name);
		goto done;
	}
	out = openat(s->fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, FILE_MODE);
	if (out < 0)
		rc = wn_fail(err, WN_IO, "%s: cannot create: %s", path, strerror(errno));
	else if ((rc = copy_bytes(p, s, name, in, out, err)) == WN_OK && (rc = seal(out, s, name, err)) == WN_OK &&
	         (rc = digest_file(found, path, err)) == WN_OK && strcmp(found, digest) != 0)
		rc = wn_fail(err, WN_INVALID, "%s/%s: changed while it was published: copied %s, expected %s", p->model_dir, name,
		             found, digest);
done:
	if (in >= 0)
		close(in);
	if (out >= 0 && close(out) != 0 && rc == WN_OK)
		rc = wn_fail(err, WN_IO, "%s: cannot write: %s", path, strerror(errno));
	return rc;
}

/* winnow.json: the model's own, with the name it is published under and a self test. */
static wn_code write_manifest(const publication *p, const staging *s, wn_error *err)
{
	char path[PATH_MAX];
	manifest m = classifier_checkpoint(p->classifier)->manifest; /* borrowed parts: not closed here */
	snprintf(m.name, sizeof m.name, "%s", p->options.name);
	if (p->self_test)
		m.self_test = p->self_test;
	if (snprintf(path, sizeof path, "%s/" MANIFEST, s->path) >= (int)sizeof path)
		return wn_fail(err, WN_TOO_LARGE, "%.100s: path too long", p->registry);
	wn_code rc = manifest_write(&m, path, err);
	if (rc)
		return rc;
	int fd = openat(s->fd, MANIFEST, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return wn_fail(err, WN_IO, "%s: cannot open: %s", path, strerror(errno));
	rc = seal(fd, s, MANIFEST, err);
	close(fd);
	return rc;
}

/* EINVAL: a file system that cannot sync directories; nothing more can be promised there. */
static bool sync_dir(int fd) { return fsync(fd) == 0 || errno == EINVAL; }

static wn_code fill(const publication *p, const staging *s, wn_error *err)
{
	const json_t *files = classifier_checkpoint(p->classifier)->manifest.files;
	const char *name;
	json_t *digest;
	wn_code rc;
	json_object_foreach((json_t *)files, name, digest)
		if ((rc = copy_file(p, s, name, json_string_value(digest), err)))
			return rc;
	if ((rc = write_manifest(p, s, err)) == WN_OK && !sync_dir(s->fd))
		rc = wn_fail(err, WN_IO, "%s: cannot sync: %s", s->path, strerror(errno));
	return rc;
}

/* rename that replaces nothing, not even an empty directory. */
static int rename_new(int dir_fd, const char *from, const char *to)
{
	struct stat st;
	if (renameat2(dir_fd, from, dir_fd, to, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EINVAL && errno != ENOSYS)
		return -1;
	/* A file system without it: a version of another publisher is never empty, and rename fails on it. */
	if (fstatat(dir_fd, to, &st, AT_SYMLINK_NOFOLLOW) == 0) {
		errno = EEXIST;
		return -1;
	}
	return renameat(dir_fd, from, dir_fd, to);
}

/* The moment it becomes visible. A number that another publisher took meanwhile is skipped. */
static wn_code move_into_place(publication *p, const staging *s, wn_error *err)
{
	char text[16];
	wn_code rc = plan_version(p, s->name_fd, err);
	if (rc)
		return rc;
	for (;; p->version++) {
		snprintf(text, sizeof text, "%d", p->version);
		if (rename_new(s->name_fd, s->name, text) == 0)
			return WN_OK;
		if (errno != EEXIST && errno != ENOTEMPTY)
			return wn_fail(err, WN_IO, "%s/%s/%s: cannot rename the finished copy: %s", p->registry, p->options.name, text,
			               strerror(errno));
		if (p->options.version || p->version == PUBLISH_MAX_VERSION)
			return refuse_taken(p, p->version, err);
	}
}

wn_code publish_commit(publication *p, wn_error *err)
{
	staging s = {.name_fd = -1, .fd = -1};
	bool renamed = false;
	wn_code rc = staging_open(&s, p, err);
	if (rc == WN_OK && (rc = fill(p, &s, err)) == WN_OK && (rc = move_into_place(p, &s, err)) == WN_OK)
		renamed = true;
	/* The root as well: the name may be new in it. */
	if (renamed && (!sync_dir(s.name_fd) || !sync_dir(p->root_fd_plus_1 - 1)))
		rc = wn_fail(err, WN_IO, "%s/%s/%d: published, but its directory cannot be synced: %s", p->registry, p->options.name,
		             p->version, strerror(errno));
	staging_close(&s, renamed);
	return rc;
}
