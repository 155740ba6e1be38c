/* safetensors: the input as a .safetensors file, every promised byte read; an input that starts with '{' is the
 * index.json of a directory with two small shards instead. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "model/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint64_t sink;
static char dir[] = "/tmp/winnow-fuzz-XXXXXX";

static void put(const char *name, const void *data, size_t size)
{
	char path[64];
	snprintf(path, sizeof path, "%s/%s", dir, name);
	FILE *f = fopen(path, "wb");
	if (!f || fwrite(data, 1, size, f) != size || fclose(f) != 0)
		abort();
}

static void remove_dir(void)
{
	static const char *const names[] = {"s1", "s2", "model.safetensors.index.json"};
	char path[64];
	for (int i = 0; i < 3; i++) {
		snprintf(path, sizeof path, "%s/%s", dir, names[i]);
		unlink(path);
	}
	rmdir(dir);
}

static void make_dir(void)
{
	static const char a[] = "\x37\0\0\0\0\0\0\0{\"a\":{\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[0,1]}}  x";
	static const char b[] = "\x37\0\0\0\0\0\0\0{\"b\":{\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[0,1]}}  x";
	if (!mkdtemp(dir))
		abort();
	atexit(remove_dir);
	put("s1", a, 8 + 0x37 + 1);
	put("s2", b, 8 + 0x37 + 1);
}

static void touch(const safetensors *st)
{
	for (size_t i = 0; i < safetensors_count(st); i++) {
		const char *name;
		const tensor *t = safetensors_at(st, i, &name);
		size_t n = (size_t)shape_count(t->rank, t->shape) * dtype_size(t->dtype);
		for (size_t k = 0; k < n; k++)
			sink += ((const uint8_t *)t->data)[k];
		if (safetensors_find(st, name) != t)
			abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	safetensors *st = NULL;
	wn_error err = {0};
	char path[64];
	wn_code rc;
	int fd = -1;
	if (size > 0 && data[0] == '{') {
		static int made;
		if (!made++)
			make_dir();
		put("model.safetensors.index.json", data, size);
		rc = safetensors_open_dir(&st, dir, &err);
	} else {
		fd = memfd_create("input", MFD_CLOEXEC);
		if (fd < 0 || write(fd, data, size) != (ssize_t)size)
			abort();
		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
		rc = safetensors_open(&st, path, &err);
	}
	if ((rc == WN_OK) != (st != NULL) || (rc != WN_OK && !*err.message))
		abort();
	if (st)
		touch(st);
	safetensors_close(&st);
	if (fd >= 0)
		close(fd);
	return 0;
}
