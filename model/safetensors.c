/* safetensors.c: see safetensors.h.
 *
 * open:  map the file -> header length against the file size -> JSON (jansson: UTF-8 and duplicate names checked) ->
 *        each tensor's dtype, shape and offsets against each other -> all offsets in order must tile the data exactly.
 * shard: the same per file, then every name of the index must be in the shard it names, and the other way round.
 *
 * Tensor names stay in the parsed headers, which live as long as the maps. Nothing is written after open, so any number
 * of threads may read. */
#include "model/safetensors.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json_text.h"

/* The reference library stops at 100 MB, which a hostile file turns into gigabytes of JSON nodes; a BLIP-2 header has some
 * 200 KB. */
#define MAX_HEADER ((uint64_t)8 << 20)
#define MAX_INDEX ((size_t)8 << 20)
#define MAX_SHARDS 1024

typedef struct shard {
	char *path;         /* as opened, for messages */
	unsigned char *map; /* whole file, read-only */
	size_t size;
	json_t *header; /* owns the names */
} shard;

typedef struct named_tensor {
	const char *name;
	size_t shard;
	uint64_t begin, end; /* bytes within the data section */
	tensor tensor;
} named_tensor;

struct safetensors {
	shard *shards;
	size_t num_shards;
	named_tensor *tensors; /* sorted by name */
	size_t count;
	bool copy; /* shards are read, not mapped */
};

/* The file's content as it is now, in anonymous memory: nobody can take its pages away. */
static wn_code read_into(void *p, shard *s, int fd, wn_error *err)
{
	for (size_t done = 0; done < s->size;) {
		ssize_t n = read(fd, (char *)p + done, s->size - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return wn_fail(err, n < 0 ? WN_IO : WN_INVALID, "%s: cannot read: %s", s->path,
			               n < 0 ? strerror(errno) : "the file became shorter meanwhile");
		done += (size_t)n;
	}
	return WN_OK;
}

static wn_code map_file(shard *s, int dirfd, const char *name, bool follow, bool copy, wn_error *err)
{
	struct stat st;
	wn_code rc = WN_OK;
	int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | (follow ? 0 : O_NOFOLLOW));
	if (fd < 0 && errno == ELOOP && !follow)
		return wn_fail(err, WN_UNSUPPORTED,
		               "%s: found a symbolic link, expected a regular file (copy the directory with cp -rL)", s->path);
	if (fd < 0)
		return wn_fail(err, errno == ENOENT || errno == ENOTDIR ? WN_NOT_FOUND : WN_IO, "%s: cannot open: %s", s->path,
		               strerror(errno));
	if (fstat(fd, &st) != 0) {
		rc = wn_fail(err, WN_IO, "%s: cannot stat: %s", s->path, strerror(errno));
		goto out;
	}
	if (!S_ISREG(st.st_mode)) {
		rc = wn_fail(err, WN_INVALID, "%s: found a %s, expected a regular file", s->path,
		             S_ISDIR(st.st_mode) ? "directory" : "special file");
		goto out;
	}
	if (st.st_size < 8) {
		rc = wn_fail(err, WN_INVALID, "%s: found %lld bytes, expected at least the 8 of the header length", s->path,
		             (long long)st.st_size);
		goto out;
	}
	if ((uint64_t)st.st_size > SIZE_MAX / 2) {
		rc = wn_fail(err, WN_TOO_LARGE, "%s: %lld bytes cannot be mapped", s->path, (long long)st.st_size);
		goto out;
	}
	s->size = (size_t)st.st_size;
	void *p = copy ? mmap(NULL, s->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
	               : mmap(NULL, s->size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (p == MAP_FAILED) {
		rc = wn_fail(err, WN_IO, "%s: cannot map %zu bytes: %s", s->path, s->size, strerror(errno));
		goto out;
	}
	s->map = p;
	if (copy)
		rc = read_into(p, s, fd, err);
out:
	close(fd);
	return rc;
}

static const char *json_kind(const json_t *v)
{
	static const char *const kind[] = {[JSON_OBJECT] = "an object",   [JSON_ARRAY] = "an array", [JSON_STRING] = "a string",
	                                   [JSON_INTEGER] = "an integer", [JSON_REAL] = "a real",    [JSON_TRUE] = "true",
	                                   [JSON_FALSE] = "false",        [JSON_NULL] = "null"};
	return v ? kind[json_typeof(v)] : "nothing";
}

static wn_code parse_dtype(dtype *out, const char *path, const char *name, const char *s, wn_error *err)
{
	static const char *const foreign[] = {"F64", "I16", "U16", "U32", "U64", "C64", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F4"};
	for (int d = DTYPE_F32; d <= DTYPE_BOOL; d++)
		if (strcmp(s, dtype_name((dtype)d)) == 0) {
			*out = (dtype)d;
			return WN_OK;
		}
	bool known = false;
	for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++)
		known = known || strcmp(s, foreign[i]) == 0;
	return wn_fail(err, known ? WN_UNSUPPORTED : WN_INVALID,
	               "%s: tensor \"%s\": found dtype \"%s\", expected F32, F16, BF16, I64, I32, I8, U8 or BOOL", path, name, s);
}

/* One header entry: {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}. */
static wn_code parse_tensor(named_tensor *t, const char *path, const json_t *v, wn_error *err)
{
	const json_t *jd = json_object_get(v, "dtype"), *js = json_object_get(v, "shape"),
	             *jo = json_object_get(v, "data_offsets");
	if (!json_is_object(v) || !json_is_string(jd) || !json_is_array(js) || !json_is_array(jo) || json_array_size(jo) != 2)
		return wn_fail(err, WN_INVALID,
		               "%s: tensor \"%s\": found %s, expected an object with dtype (string), shape (array) and data_offsets "
		               "(array of 2)",
		               path, t->name, json_kind(v));
	wn_code rc = parse_dtype(&t->tensor.dtype, path, t->name, json_string_value(jd), err);
	if (rc != WN_OK)
		return rc;
	if (json_array_size(js) > TENSOR_MAX_RANK)
		return wn_fail(err, WN_UNSUPPORTED, "%s: tensor \"%s\": found %zu dimensions, expected at most %d", path, t->name,
		               json_array_size(js), TENSOR_MAX_RANK);
	t->tensor.rank = (int)json_array_size(js);
	for (int i = 0; i < t->tensor.rank; i++) {
		const json_t *d = json_array_get(js, (size_t)i);
		if (!json_is_integer(d) || json_integer_value(d) < 0)
			return wn_fail(err, WN_INVALID, "%s: tensor \"%s\": shape[%d]: found %s, expected an integer >= 0", path, t->name,
			               i, json_is_integer(d) ? "a negative number" : json_kind(d));
		t->tensor.shape[i] = json_integer_value(d);
	}
	int64_t count = shape_count(t->tensor.rank, t->tensor.shape);
	if (count < 0)
		return wn_fail(err, WN_INVALID, "%s: tensor \"%s\": the shape has more than 2^48 elements", path, t->name);
	for (size_t i = 0; i < 2; i++) {
		const json_t *o = json_array_get(jo, i);
		if (!json_is_integer(o) || json_integer_value(o) < 0)
			return wn_fail(err, WN_INVALID, "%s: tensor \"%s\": data_offsets[%zu]: found %s, expected an integer >= 0", path,
			               t->name, i, json_is_integer(o) ? "a negative number" : json_kind(o));
	}
	t->begin = (uint64_t)json_integer_value(json_array_get(jo, 0));
	t->end = (uint64_t)json_integer_value(json_array_get(jo, 1));
	uint64_t need = (uint64_t)count * dtype_size(t->tensor.dtype);
	if (t->end < t->begin || t->end - t->begin != need)
		return wn_fail(err, WN_INVALID,
		               "%s: tensor \"%s\": found data_offsets [%llu, %llu], expected %llu bytes for its %s shape", path,
		               t->name, (unsigned long long)t->begin, (unsigned long long)t->end, (unsigned long long)need,
		               dtype_name(t->tensor.dtype));
	return WN_OK;
}

static int by_offset(const void *a, const void *b)
{
	const named_tensor *x = a, *y = b;
	if (x->begin != y->begin)
		return x->begin < y->begin ? -1 : 1;
	return x->end < y->end ? -1 : x->end > y->end; /* empty tensors before the one they share a start with */
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const named_tensor *)a)->name, ((const named_tensor *)b)->name);
}

/* The tensors of one file, in offset order, must cover its data section without overlap, hole or rest. */
static wn_code check_tiling(named_tensor *t, size_t n, const char *path, uint64_t data_size, wn_error *err)
{
	uint64_t at = 0;
	qsort(t, n, sizeof *t, by_offset);
	for (size_t i = 0; i < n; i++) {
		if (t[i].end > data_size)
			return wn_fail(err, WN_INVALID, "%s: tensor \"%s\": data ends at byte %llu, expected at most the file's %llu",
			               path, t[i].name, (unsigned long long)t[i].end, (unsigned long long)data_size);
		if (t[i].begin != at)
			return wn_fail(err, WN_INVALID, "%s: tensor \"%s\": data starts at byte %llu, expected %llu (%s)", path,
			               t[i].name, (unsigned long long)t[i].begin, (unsigned long long)at,
			               t[i].begin < at ? "it overlaps another tensor" : "a hole before it");
		at = t[i].end;
	}
	if (at != data_size)
		return wn_fail(err, WN_INVALID, "%s: found %llu bytes of tensor data, expected the header's %llu", path,
		               (unsigned long long)data_size, (unsigned long long)at);
	return WN_OK;
}

static wn_code check_metadata(const json_t *meta, const char *path, wn_error *err)
{
	const char *key;
	json_t *v;
	if (!json_is_object(meta))
		return wn_fail(err, WN_INVALID, "%s: __metadata__: found %s, expected an object of strings", path, json_kind(meta));
	json_object_foreach((json_t *)meta, key, v)
		if (!json_is_string(v))
			return wn_fail(err, WN_INVALID, "%s: __metadata__.%s: found %s, expected a string", path, key, json_kind(v));
	return WN_OK;
}

/* Header of shard `index` -> its tensors, appended to st. */
static wn_code parse_shard(safetensors *st, size_t index, wn_error *err)
{
	shard *s = &st->shards[index];
	uint64_t header_len;
	memcpy(&header_len, s->map, sizeof header_len);
	header_len = le64toh(header_len);
	if (header_len > s->size - 8)
		return wn_fail(err, WN_INVALID, "%s: found a header length of %llu, expected at most the file's remaining %zu bytes",
		               s->path, (unsigned long long)header_len, s->size - 8);
	if (header_len > MAX_HEADER)
		return wn_fail(err, WN_TOO_LARGE, "%s: found a header length of %llu, expected at most %llu", s->path,
		               (unsigned long long)header_len, (unsigned long long)MAX_HEADER);
	if (header_len == 0 || s->map[8] != '{')
		return wn_fail(err, WN_INVALID, "%s: the header does not start with '{'", s->path);
	json_error_t je;
	s->header = json_read((const char *)s->map + 8, (size_t)header_len, JSON_REJECT_DUPLICATES, &je);
	if (!s->header)
		return wn_fail(err, json_read_code(&je),
		               "%s: header at byte %d: %s", s->path, je.position, je.text);
	const json_t *meta = json_object_get(s->header, "__metadata__");
	if (meta) {
		wn_code rc = check_metadata(meta, s->path, err);
		if (rc != WN_OK)
			return rc;
	}

	size_t n = json_object_size(s->header) - (meta ? 1 : 0);
	named_tensor *grown = realloc(st->tensors, (st->count + n + 1) * sizeof *grown);
	if (!grown)
		return wn_fail(err, WN_NOMEM, "%s: out of memory for %zu tensors", s->path, n);
	st->tensors = grown;
	named_tensor *first = st->tensors + st->count;
	const char *key;
	json_t *v;
	size_t i = 0;
	json_object_foreach(s->header, key, v)
	{
		if (v == meta)
			continue;
		named_tensor *t = &first[i++];
		memset(t, 0, sizeof *t);
		t->name = key;
		t->shard = index;
		wn_code rc = parse_tensor(t, s->path, v, err);
		if (rc != WN_OK)
			return rc;
	}
	uint64_t data_size = s->size - 8 - header_len;
	wn_code rc = check_tiling(first, n, s->path, data_size, err);
	if (rc != WN_OK)
		return rc;
	for (i = 0; i < n; i++)
		first[i].tensor.data = s->map + 8 + header_len + first[i].begin;
	st->count += n;
	return WN_OK;
}

/* Sorts all tensors by name; the same name in two shards is refused. */
static wn_code index_names(safetensors *st, wn_error *err)
{
	qsort(st->tensors, st->count, sizeof *st->tensors, by_name);
	for (size_t i = 1; i < st->count; i++)
		if (strcmp(st->tensors[i - 1].name, st->tensors[i].name) == 0)
			return wn_fail(err, WN_INVALID, "%s: tensor \"%s\" is also in %s, expected it once",
			               st->shards[st->tensors[i].shard].path, st->tensors[i].name,
			               st->shards[st->tensors[i - 1].shard].path);
	return WN_OK;
}

static wn_code add_shard(safetensors *st, int dirfd, const char *dir, const char *name, wn_error *err)
{
	shard *s = &st->shards[st->num_shards];
	memset(s, 0, sizeof *s);
	if (dir ? asprintf(&s->path, "%s/%s", dir, name) < 0 : !(s->path = strdup(name))) {
		s->path = NULL;
		return wn_fail(err, WN_NOMEM, "%s: out of memory", name);
	}
	st->num_shards++; /* from here on close() releases it */
	wn_code rc = map_file(s, dirfd, name, dir == NULL, st->copy, err);
	if (rc == WN_OK)
		rc = parse_shard(st, st->num_shards - 1, err);
	return rc;
}

static safetensors *allocate(size_t shards, bool copy)
{
	safetensors *st = calloc(1, sizeof *st);
	if (st && !(st->shards = calloc(shards, sizeof *st->shards))) {
		free(st);
		return NULL;
	}
	if (st)
		st->copy = copy;
	return st;
}

wn_code safetensors_open(safetensors **out, const char *path, wn_error *err)
{
	*out = NULL;
	safetensors *st = allocate(1, false);
	if (!st)
		return wn_fail(err, WN_NOMEM, "%s: out of memory", path);
	wn_code rc = add_shard(st, AT_FDCWD, NULL, path, err);
	if (rc == WN_OK)
		rc = index_names(st, err);
	if (rc == WN_OK)
		*out = st;
	else
		safetensors_close(&st);
	return rc;
}

/* A shard's name comes from a file and becomes a path: only a plain name, as save_pretrained writes it. */
static bool plain_name(const char *s)
{
	size_t n = strlen(s);
	if (n == 0 || n > 255 || s[0] == '.' || strchr(s, '/'))
		return false;
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f)
			return false;
	return true;
}

static int by_string(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Distinct file names of the weight map, sorted; *names is malloc'ed, the strings belong to the map. */
static wn_code shard_names(const char ***names, size_t *count, json_t *map, const char *path, wn_error *err)
{
	size_t n = json_object_size(map), i = 0;
	const char *key, **list = malloc((n + 1) * sizeof *list);
	json_t *v;
	*names = list;
	*count = 0;
	if (!list)
		return wn_fail(err, WN_NOMEM, "%s: out of memory for %zu names", path, n);
	json_object_foreach(map, key, v)
	{
		if (!json_is_string(v))
			return wn_fail(err, WN_INVALID, "%s: weight_map.%s: found %s, expected a file name", path, key, json_kind(v));
		list[i] = json_string_value(v);
		if (!plain_name(list[i]))
			return wn_fail(err, WN_INVALID, "%s: weight_map.%s: found \"%s\", expected a plain file name", path, key, list[i]);
		i++;
	}
	qsort(list, n, sizeof *list, by_string);
	for (i = 0; i < n; i++)
		if (i == 0 || strcmp(list[i], list[*count - 1]) != 0)
			list[(*count)++] = list[i];
	if (*count == 0)
		return wn_fail(err, WN_INVALID, "%s: weight_map is empty", path);
	if (*count > MAX_SHARDS)
		return wn_fail(err, WN_TOO_LARGE, "%s: found %zu shards, expected at most %d", path, *count, MAX_SHARDS);
	return WN_OK;
}

/* Index and shards must say the same, name by name: the teacher must be what its index describes. */
static wn_code check_index(const safetensors *st, json_t *map, const char *path, wn_error *err)
{
	const char *key;
	json_t *v;
	for (size_t i = 0; i < st->count; i++)
		if (!json_object_get(map, st->tensors[i].name))
			return wn_fail(err, WN_INVALID, "%s: tensor \"%s\" is not in %s", st->shards[st->tensors[i].shard].path,
			               st->tensors[i].name, path);
	json_object_foreach(map, key, v)
	{
		named_tensor want = {.name = key};
		const named_tensor *t = bsearch(&want, st->tensors, st->count, sizeof want, by_name);
		const char *file = t ? strrchr(st->shards[t->shard].path, '/') + 1 : NULL;
		if (!t || strcmp(file, json_string_value(v)) != 0)
			return wn_fail(err, t ? WN_INVALID : WN_NOT_FOUND, "%s: tensor \"%s\": expected in %s, found %s", path, key,
			               json_string_value(v), t ? file : "nowhere");
	}
	return WN_OK;
}

static wn_code open_sharded(safetensors **out, int dirfd, const char *dir, bool copy, wn_error *err)
{
	char *path = NULL, *text = NULL;
	size_t len = 0, count = 0;
	json_t *root = NULL;
	json_error_t je;
	const char **names = NULL;
	safetensors *st = NULL;
	wn_code rc;

	if (asprintf(&path, "%s/model.safetensors.index.json", dir) < 0) {
		path = NULL;
		rc = wn_fail(err, WN_NOMEM, "%s: out of memory", dir);
		goto out;
	}
	if (faccessat(dirfd, "model.safetensors.index.json", F_OK, AT_SYMLINK_NOFOLLOW) != 0 && errno == ENOENT) {
		rc = wn_fail(err, WN_NOT_FOUND, "%s: found neither model.safetensors nor model.safetensors.index.json", dir);
		goto out;
	}
	if ((rc = file_read(path, MAX_INDEX, &text, &len, err)) != WN_OK)
		goto out;
	root = json_read(text, len, JSON_REJECT_DUPLICATES, &je);
	if (!root) {
		rc = wn_fail(err, json_read_code(&je), "%s:%d: %s", path, je.line, je.text);
		goto out;
	}
	json_t *map = json_object_get(root, "weight_map");
	if (!json_is_object(map)) {
		rc = wn_fail(err, WN_INVALID, "%s: weight_map: found %s, expected an object", path, json_kind(map));
		goto out;
	}
	if ((rc = shard_names(&names, &count, map, path, err)) != WN_OK)
		goto out;
	if (!(st = allocate(count, copy))) {
		rc = wn_fail(err, WN_NOMEM, "%s: out of memory", path);
		goto out;
	}
	for (size_t i = 0; i < count; i++)
		if ((rc = add_shard(st, dirfd, dir, names[i], err)) != WN_OK)
			goto out;
	if ((rc = index_names(st, err)) != WN_OK || (rc = check_index(st, map, path, err)) != WN_OK)
		goto out;
	*out = st;
	st = NULL;
out:
	safetensors_close(&st);
	free(names);
	json_decref(root);
	free(text);
	free(path);
	return rc;
}

static wn_code open_dir(safetensors **out, const char *dir, bool copy, wn_error *err)
{
	*out = NULL;
	int dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dirfd < 0)
		return wn_fail(err, errno == ENOENT ? WN_NOT_FOUND : WN_IO, "%s: cannot open the directory: %s", dir,
		               strerror(errno));
	wn_code rc;
	struct stat st_;
	if (fstatat(dirfd, "model.safetensors", &st_, AT_SYMLINK_NOFOLLOW) == 0) {
		safetensors *st = allocate(1, copy);
		rc = st ? add_shard(st, dirfd, dir, "model.safetensors", err) : wn_fail(err, WN_NOMEM, "%s: out of memory", dir);
		if (rc == WN_OK)
			rc = index_names(st, err);
		if (rc == WN_OK)
			*out = st;
		else
			safetensors_close(&st);
	} else {
		rc = open_sharded(out, dirfd, dir, copy, err);
	}
	close(dirfd);
	return rc;
}

wn_code safetensors_open_dir(safetensors **out, const char *dir, wn_error *err) { return open_dir(out, dir, false, err); }

wn_code safetensors_read_dir(safetensors **out, const char *dir, wn_error *err) { return open_dir(out, dir, true, err); }

void safetensors_close(safetensors **pst)
{
	safetensors *st = *pst;
	if (!st)
		return;
	for (size_t i = 0; i < st->num_shards; i++) {
		if (st->shards[i].map)
			munmap(st->shards[i].map, st->shards[i].size);
		json_decref(st->shards[i].header);
		free(st->shards[i].path);
	}
	free(st->shards);
	free(st->tensors);
	free(st);
	*pst = NULL;
}

size_t safetensors_count(const safetensors *st)
{
	return st->count;
}

const tensor *safetensors_at(const safetensors *st, size_t i, const char **name)
{
	if (name)
		*name = st->tensors[i].name;
	return &st->tensors[i].tensor;
}

const tensor *safetensors_find(const safetensors *st, const char *name)
{
	named_tensor want = {.name = name};
	const named_tensor *t = st->count ? bsearch(&want, st->tensors, st->count, sizeof want, by_name) : NULL;
	return t ? &t->tensor : NULL;
}

size_t safetensors_num_files(const safetensors *st)
{
	return st->num_shards;
}

const char *safetensors_file(const safetensors *st, size_t i)
{
	return st->shards[i].path;
}

const char *safetensors_metadata(const safetensors *st, const char *key)
{
	return json_string_value(json_object_get(json_object_get(st->shards[0].header, "__metadata__"), key));
}

/* ---- writing ---- */

static int write_order(const void *a, const void *b)
{
	const safetensors_entry *x = *(const safetensors_entry *const *)a, *y = *(const safetensors_entry *const *)b;
	size_t sx = dtype_size(x->tensor.dtype), sy = dtype_size(y->tensor.dtype);
	if (sx != sy)
		return sx > sy ? -1 : 1;
	return strcmp(x->name, y->name);
}

/* Adds one entry at *offset to the header and moves *offset behind it. */
static wn_code describe(json_t *header, const safetensors_entry *e, uint64_t *offset, const char *path, wn_error *err)
{
	if (!e->name || !*e->name || strcmp(e->name, "__metadata__") == 0)
		return wn_fail(err, WN_INVALID, "%s: found a tensor named \"%s\"", path, e->name ? e->name : "");
	if (json_object_get(header, e->name))
		return wn_fail(err, WN_INVALID, "%s: tensor \"%s\" is given twice", path, e->name);
	int64_t count = e->tensor.rank < 0 || e->tensor.rank > TENSOR_MAX_RANK ? -1 : shape_count(e->tensor.rank, e->tensor.shape);
	if (count < 0 || (count > 0 && !e->tensor.data))
		return wn_fail(err, WN_INVALID, "%s: tensor \"%s\" has %s", path, e->name, count < 0 ? "an impossible shape" : "no data");
	uint64_t bytes = (uint64_t)count * dtype_size(e->tensor.dtype);
	if (bytes > (uint64_t)INT64_MAX - *offset)
		return wn_fail(err, WN_TOO_LARGE, "%s: tensor \"%s\": the file would pass 2^63 bytes", path, e->name);
	json_t *shape = json_array();
	bool ok = shape != NULL;
	for (int i = 0; ok && i < e->tensor.rank; i++)
		ok = json_array_append_new(shape, json_integer(e->tensor.shape[i])) == 0;
	json_t *v = ok ? json_pack("{s:s, s:O, s:[I,I]}", "dtype", dtype_name(e->tensor.dtype), "shape", shape, "data_offsets",
	                           (json_int_t)*offset, (json_int_t)(*offset + bytes))
	               : NULL;
	json_decref(shape);
	if (!v || json_object_set_new(header, e->name, v) != 0) /* fails on a name that is not UTF-8, or without memory */
		return wn_fail(err, WN_INVALID, "%s: tensor \"%s\": cannot describe it (its name must be UTF-8)", path, e->name);
	*offset += bytes;
	return WN_OK;
}

/* Length and header, padded with spaces so that the data starts 64-byte aligned in the file. */
static wn_code write_header(file_writer *w, const json_t *header, const char *path, wn_error *err)
{
	static const char spaces[64] = "                                                                ";
	char *text = json_write(header, JSON_COMPACT);
	if (!text)
		return wn_fail(err, WN_NOMEM, "%s: out of memory for the header", path);
	size_t len = strlen(text), pad = (64 - (8 + len) % 64) % 64;
	uint64_t le = htole64(len + pad);
	wn_code rc;
	if (len + pad > MAX_HEADER)
		rc = wn_fail(err, WN_TOO_LARGE, "%s: the header would be %zu bytes, expected at most %llu", path, len + pad,
		             (unsigned long long)MAX_HEADER);
	else if ((rc = file_writer_append(w, &le, sizeof le, err)) == WN_OK &&
	         (rc = file_writer_append(w, text, len, err)) == WN_OK)
		rc = file_writer_append(w, spaces, pad, err);
	free(text);
	return rc;
}

wn_code safetensors_write(const char *path, const safetensors_entry *entries, size_t count, wn_error *err)
{
	file_writer w = {0};
	uint64_t offset = 0;
	wn_code rc = WN_OK;
	json_t *header = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
	const safetensors_entry **order = malloc((count + 1) * sizeof *order);
	if (!header || !order) {
		rc = wn_fail(err, WN_NOMEM, "%s: out of memory for %zu tensors", path, count);
		goto out;
	}
	for (size_t i = 0; i < count; i++)
		order[i] = &entries[i];
	for (size_t i = 0; i < count; i++)
		if (!entries[i].name) {
			rc = wn_fail(err, WN_INVALID, "%s: tensor %zu has no name", path, i);
			goto out;
		}
	qsort(order, count, sizeof *order, write_order);
	for (size_t i = 0; i < count; i++)
		if ((rc = describe(header, order[i], &offset, path, err)) != WN_OK)
			goto out;
	if ((rc = file_writer_open(&w, path, err)) != WN_OK || (rc = write_header(&w, header, path, err)) != WN_OK)
		goto out;
	for (size_t i = 0; i < count; i++) {
		const tensor *t = &order[i]->tensor;
		size_t bytes = (size_t)shape_count(t->rank, t->shape) * dtype_size(t->dtype);
		if ((rc = file_writer_append(&w, t->data, bytes, err)) != WN_OK)
			goto out;
	}
	rc = file_writer_commit(&w, err);
out:
	file_writer_abort(&w);
	free(order);
	json_decref(header);
	return rc;
}
