/* file.h: whole small files in, whole files out, and directories of files that appear whole.
 *
 * For configurations, tokenizers, images and manifests; weights are mapped (model/safetensors.h). Stateless. */
#ifndef WINNOW_BASE_FILE_H
#define WINNOW_BASE_FILE_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

/* Reads a regular file whole. *out is malloc'ed, the caller frees, and has a NUL behind its *len bytes. A file larger than
 * max_bytes is WN_TOO_LARGE before anything is allocated; absent: WN_NOT_FOUND; not a regular file (a directory, a pipe that
 * would block): WN_INVALID. Errors name the path. */
wn_code file_read(const char *path, size_t max_bytes, char **out, size_t *len, wn_error *err);

/* Replaces `path` by the len bytes of data: temporary in the same directory, fsync, rename, fsync of the directory. A reader
 * (or a power cut) sees the old file or the new one, never a part. */
wn_code file_write_atomic(const char *path, const void *data, size_t len, wn_error *err);

/* The same in pieces, for writers that stream: open, any number of appends, then commit. file_writer_abort removes the
 * temporary and is safe after a commit or on a zeroed writer, so it fits a cleanup label. */
typedef struct file_writer {
	int fd_plus_1;    /* 0: not open */
	char *path;       /* final name, owned */
	char *temporary;  /* owned */
} file_writer;
wn_code file_writer_open(file_writer *w, const char *path, wn_error *err);
wn_code file_writer_append(file_writer *w, const void *data, size_t len, wn_error *err);
wn_code file_writer_commit(file_writer *w, wn_error *err);
void file_writer_abort(file_writer *w);

/* Copies a regular file of at most max_bytes, atomically. */
wn_code file_copy(const char *from, const char *to, size_t max_bytes, wn_error *err);

/* Makes the directory entry of `path` itself durable (its contents are fsync's business). */
wn_code file_sync_parent(const char *path, wn_error *err);

/* ---- a directory of plain files that appears whole: made under another name, filled, moved to its own ---- */

/* Makes the empty directory PATH.tmp-XXXXXX (0755) for what is to stand at `path`; its name goes into out. */
wn_code file_temporary_dir(const char *path, char out[PATH_MAX], wn_error *err);
/* Moves `temporary` to `path` and makes that durable. What stood there is exchanged in one step and then removed: whoever looks,
 * after a kill too, sees the old directory or the new one. A file system without the exchange has a moment without `path`, its old
 * directory meanwhile being TEMPORARY.old: file_sweep brings it back. After a failure `temporary` is the caller's to remove. */
wn_code file_replace_dir(const char *temporary, const char *path, wn_error *err);
/* Removes a directory of plain files, `path` seen from the directory `at` (a descriptor or AT_FDCWD). Follows no link. False when it,
 * or something in it, stays. */
bool file_remove_dir(int at, const char *path);
/* Clears `dir` of what killed writers of `name` (NULL: of any name) left in it: temporaries of the two kinds above; and puts
 * NAME.tmp-XXXXXX.old back when NAME itself is gone. Only for whoever holds the lock under which these names are written.
 * Returns how many there were. */
int file_sweep(const char *dir, const char *name);

#endif
