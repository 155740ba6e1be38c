/* A directory of its own for every test program, removed at its end. */
#ifndef WINNOW_TESTS_TEMP_DIR_H
#define WINNOW_TESTS_TEMP_DIR_H

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char temp_dir[64];

static int temp_dir_make(void **state)
{
	strcpy(temp_dir, "/tmp/winnow-test-XXXXXX");
	return mkdtemp(temp_dir) ? 0 : -1;
}

static inline void remove_tree(int parent, const char *name)
{
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	if (!d) {
		unlinkat(parent, name, 0);
		return;
	}
	for (struct dirent *e; (e = readdir(d));)
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			remove_tree(fd, e->d_name);
	closedir(d);
	unlinkat(parent, name, AT_REMOVEDIR);
}

static int temp_dir_remove(void **state)
{
	remove_tree(AT_FDCWD, temp_dir);
	return 0;
}

/* Path of `name` in the directory; valid until eight more are asked for. */
static inline const char *temp_path(const char *name)
{
	static char buf[8][512];
	static unsigned next;
	char *p = buf[next++ % 8];
	snprintf(p, sizeof buf[0], "%s/%s", temp_dir, name);
	return p;
}

/* Plain stdio, not the code under test. */
static inline const char *temp_file(const char *name, const void *data, size_t len)
{
	const char *path = temp_path(name);
	FILE *f = fopen(path, "wb");
	if (!f || fwrite(data, 1, len, f) != len || fclose(f) != 0)
		abort();
	return path;
}

static inline int temp_dir_entries(void)
{
	DIR *d = opendir(temp_dir);
	int n = 0;
	for (struct dirent *e; (e = readdir(d));)
		n++;
	closedir(d);
	return n - 2;
}

#endif
