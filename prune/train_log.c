/* train_log.c: see train_log.h. */
#include "prune/train_log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

wn_code train_log_open(train_log *l, const char *path, int64_t keep_bytes, wn_error *err)
{
	*l = (train_log){0};
	struct stat st;
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0)
		return wn_fail(err, WN_IO, "%s: %s", path, strerror(errno));
	if (fstat(fd, &st) || st.st_size < keep_bytes) {
		wn_fail(err, WN_INVALID, "%s: %lld bytes, expected at least the %lld its checkpoint saw", path, (long long)st.st_size,
			(long long)keep_bytes);
		close(fd);
		return WN_INVALID;
	}
	l->path = strdup(path);
	if (ftruncate(fd, keep_bytes) || lseek(fd, 0, SEEK_END) < 0 || !l->path || !(l->file = fdopen(fd, "w"))) {
		wn_fail(err, WN_IO, "%s: %s", path, strerror(errno));
		close(fd);
		train_log_close(l);
		return WN_IO;
	}
	wn_code rc = file_sync_parent(path, err); /* it may be new */
	if (rc)
		train_log_close(l);
	return rc;
}

wn_code train_log_write(train_log *l, json_t *row, wn_error *err)
{
	if (!row)
		return wn_fail(err, WN_NOMEM, "%s: no memory for a line", l->path);
	int bad = json_dumpf(row, l->file, JSON_COMPACT | JSON_REAL_PRECISION(9)) || fputc('\n', l->file) == EOF || fflush(l->file);
	json_decref(row);
	return bad ? wn_fail(err, WN_IO, "%s: cannot write: %s", l->path, strerror(errno)) : WN_OK;
}

wn_code train_log_sync(train_log *l, int64_t *bytes, wn_error *err)
{
	const off_t at = ftello(l->file);
	if (at < 0 || fsync(fileno(l->file)))
		return wn_fail(err, WN_IO, "%s: cannot sync: %s", l->path, strerror(errno));
	*bytes = (int64_t)at;
	return WN_OK;
}

void train_log_close(train_log *l)
{
	if (l->file)
		fclose(l->file);
	free(l->path);
	*l = (train_log){0};
}
