/* registry_disk.h: the registry as it lies on disk: NAME/VERSION/ directories under one root.
 *
 * Names are manifest.h's, versions numbers from 1 to DISK_MAX_VERSION; whatever else lies there is ignored. Everything
 * below the root is reached with openat and without following a symbolic link, so that no entry can lead outside. A
 * version is opened once and read through that descriptor: what was looked at is what is loaded, even when somebody
 * renames things meanwhile. Stateless; `shown` is the path that messages name. */
#ifndef WINNOW_SERVER_REGISTRY_DISK_H
#define WINNOW_SERVER_REGISTRY_DISK_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define DISK_MAX_VERSION 999999999

/* The number that a version's name stands for; 0 when it is none ("01", "1.tmp", "99x"). */
int disk_version_number(const char *name);

/* Descriptors, which the caller closes; -1 with *err. The root itself may be a link. */
int disk_open_root(const char *root, wn_error *err);
int disk_open_model(int root_fd, const char *root, const char *name, wn_error *err);
int disk_open_version(int model_fd, const char *root, const char *name, int version, wn_error *err);

/* Version numbers in ascending order, symbolic links included, which disk_open_version refuses by name: somebody takes them for
 * versions. *out is malloc'ed (NULL when there are none). */
wn_code disk_list_versions(int model_fd, int **out, size_t *count, wn_error *err);
/* Names of directories that could be models, sorted; *out and its strings are malloc'ed. */
wn_code disk_list_names(int root_fd, char ***out, size_t *count, wn_error *err);

typedef struct disk_state {
	uint64_t
	    fingerprint; /* of every file's name, identity, size and times: another one means that something changed */
	uint64_t bytes;  /* of all files */
	bool has_manifest; /* winnow.json is there: it is written last, or comes with the rename */
} disk_state;

/* Regular files only, WN_INVALID otherwise: a link could point outside the root, a pipe could block a load for ever.
 * With any_file (a directory outside the registry) nothing is refused. */
wn_code disk_look(disk_state *out, int version_fd, const char *shown, bool any_file, wn_error *err);

#endif
