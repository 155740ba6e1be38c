/* fuzz_files.h: inputs as files, for parsers that read paths.
 *
 * fuzz_file: the whole input under a path that lives as long as its descriptor. fuzz_bundle: an input of several files, each behind
 * a line "== NAME"; only names of the target's own list are written, what stands before the first such line is ignored. */
#ifndef WINNOW_TESTS_FUZZ_FILES_H
#define WINNOW_TESTS_FUZZ_FILES_H

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Close *fd when done. */
static inline const char *fuzz_file(int *fd, const uint8_t *data, size_t size)
{
	static char path[64];
	*fd = memfd_create("input", MFD_CLOEXEC);
	if (*fd < 0 || write(*fd, data, size) != (ssize_t)size)
		abort();
	snprintf(path, sizeof path, "/proc/self/fd/%d", *fd);
	return path;
}

static char fuzz_dir_path[64];

static inline void fuzz_dir_remove(void)
{
	char command[128];
	snprintf(command, sizeof command, "rm -rf '%s'", fuzz_dir_path);
	if (system(command) != 0)
		fprintf(stderr, "%s is left behind\n", fuzz_dir_path);
}

/* A directory of this process' own, removed at its end. */
static inline const char *fuzz_dir(void)
{
	if (!*fuzz_dir_path) {
		strcpy(fuzz_dir_path, "/tmp/winnow-fuzz-XXXXXX");
		if (!mkdtemp(fuzz_dir_path))
			abort();
		atexit(fuzz_dir_remove);
	}
	return fuzz_dir_path;
}

static inline void fuzz_put(const char *name, const uint8_t *data, size_t size)
{
	char path[256];
	snprintf(path, sizeof path, "%s/%s", fuzz_dir(), name);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, data, size) != (ssize_t)size || close(fd) != 0)
		abort();
}

/* The line at data, its length without the end, and where the next begins. */
static inline size_t fuzz_line(const uint8_t *data, size_t size, size_t *len)
{
	const uint8_t *end = memchr(data, '\n', size);
	*len = end ? (size_t)(end - data) : size;
	return end ? *len + 1 : size;
}

/* Index of the name that a line "== NAME" gives, -1 for any other line. */
static inline int fuzz_heading(const uint8_t *line, size_t len, const char *const *names)
{
	for (int i = 0; names[i]; i++)
		if (len == 3 + strlen(names[i]) && memcmp(line, "== ", 3) == 0 && memcmp(line + 3, names[i], len - 3) == 0)
			return i;
	return -1;
}

/* names: ended by NULL. Files of the last input that this one lacks are removed. */
static inline void fuzz_bundle(const uint8_t *data, size_t size, const char *const *names)
{
	char path[256];
	size_t from = 0, len;
	int current = -1;
	for (int i = 0; names[i]; i++) {
		snprintf(path, sizeof path, "%s/%s", fuzz_dir(), names[i]);
		unlink(path);
	}
	for (size_t at = 0; at <= size;) {
		const size_t next = at < size ? at + fuzz_line(data + at, size - at, &len) : size + 1;
		const int heading = at < size ? fuzz_heading(data + at, len, names) : -1;
		if (heading >= 0 || at == size) {
			if (current >= 0)
				fuzz_put(names[current], data + from, at - from);
			current = heading;
			from = next;
		}
		at = next;
	}
}

#endif
