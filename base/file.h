/* file.h: whole small files in, whole files out.
 *
 * For configurations, tokenizers, images and manifests; weights are mapped (model/safetensors.h). Stateless. */
#ifndef WINNOW_BASE_FILE_H
#define WINNOW_BASE_FILE_H

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

#endif
