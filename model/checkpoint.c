/* checkpoint.c: a model directory in, a model out, and back.
 *
 * Loading goes from small to large, so that a lying directory is refused before anything of its claimed size exists:
 * winnow.json (and, when asked, every file's digest), config.json with the manifest's widths, the weight file's header
 * against the shapes the config asks for, and only then the buffer and the conversion into it.
 *
 * Saving writes a sibling directory and renames it into place; a reader sees the old directory or the new one.
 * Both run on the caller's thread; nothing is shared. */
#include "model/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/digest.h"
#include "base/file.h"
#include "base/json_text.h"
#include "model/ops.h"
#include "model/safetensors.h"

#define MAX_INDEX_BYTES (64u << 20) /* model.safetensors.index.json */
#define MAX_TOKENIZER_BYTES (256u << 20)

static bool exists(const char *path)
{
	struct stat st;
	return stat(path, &st) == 0;
}

/* DIR/name into out; too long is an error, never a cut path. */
static wn_code join(char out[PATH_MAX], const char *dir, const char *name, wn_error *err)
{
	if (snprintf(out, PATH_MAX, "%s/%s", dir, name) >= PATH_MAX)
		return wn_fail(err, WN_TOO_LARGE, "%.200s/%s: path longer than %d bytes", dir, name, PATH_MAX);
	return WN_OK;
}

/* ---- digest of the weights ---- */

static int compare_names(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

/* The distinct shard files of an index, sorted, as malloc'ed paths. */
static wn_code list_shards(const char *dir, const json_t *index, char ***out, size_t *count, wn_error *err)
{
	const json_t *map = json_object_get(index, "weight_map");
	size_t total = json_object_size(map), n = 0;
	char **paths = NULL;
	const char *key;
	json_t *value;
	wn_code rc = WN_OK;
	if (total == 0)
		return wn_fail(err, WN_INVALID, "model.safetensors.index.json: weight_map: expected an object with tensors");
	const char **names = calloc(total, sizeof *names);
	paths = calloc(total, sizeof *paths);
	if (!names || !paths) {
		rc = wn_fail(err, WN_NOMEM, "model.safetensors.index.json: out of memory for %zu names", total);
		goto done;
	}
	size_t i = 0;
	json_object_foreach((json_t *)map, key, value) {
		if (!json_is_string(value)) {
			rc = wn_fail(err, WN_INVALID, "model.safetensors.index.json: weight_map.%.100s: expected a file name", key);
			goto done;
		}
		names[i++] = json_string_value(value);
	}
	qsort(names, total, sizeof *names, compare_names);
	for (i = 0; i < total; i++) {
		if (i && !strcmp(names[i], names[i - 1]))
			continue;
		if (asprintf(&paths[n], "%s/%s", dir, names[i]) < 0) {
			paths[n] = NULL;
			rc = wn_fail(err, WN_NOMEM, "model.safetensors.index.json: out of memory");
			goto done;
		}
		n++;
	}
done:
	free(names);
	*out = paths;
	*count = n;
	return rc;
}

/* Same choice of file(s) as safetensors_open_dir; shards are hashed in name order as one stream. */
static wn_code digest_weights(char out[DIGEST_SIZE], const char *dir, wn_error *err)
{
	char path[PATH_MAX], *text = NULL, **paths = NULL;
	size_t len = 0, count = 0;
	json_t *index = NULL;
	json_error_t jerr;
	wn_code rc;
	if ((rc = join(path, dir, "model.safetensors", err)))
		return rc;
	if (exists(path))
		return digest_file(out, path, err);
	if ((rc = join(path, dir, "model.safetensors.index.json", err)) ||
	    (rc = file_read(path, MAX_INDEX_BYTES, &text, &len, err)))
		return rc;
	if (!(index = json_read(text, len, JSON_REJECT_DUPLICATES, &jerr)))
		rc = wn_fail(err, json_read_code(&jerr), "%s:%d: %s", path, jerr.line, jerr.text);
	else if ((rc = list_shards(dir, index, &paths, &count, err)) == WN_OK)
		rc = digest_files(out, (const char *const *)paths, count, err);
	for (size_t i = 0; i < count; i++)
		free(paths[i]);
	free(paths);
	free(text);
	json_decref(index);
	return rc;
}

/* ---- weights ---- */

static wn_code load_weights(checkpoint *ck, const blip2_config *config, const char *dir, const checkpoint_options *o, wn_error *err)
{
	wn_code rc = weight_source_open(&ck->source, &ck->model, config, dir, o->read_weights, err);
	if (rc)
		return rc;
	ck->stored_dtype = weight_source_dtype(ck->source);
	ck->stores_int8 = weight_source_is_quantized(ck->source);
	if (o->leave_weights)
		return WN_OK;
	rc = weight_source_fill(ck->source, err);
	weight_source_close(&ck->source);
	return rc;
}

/* ---- the files around the weights ---- */

static wn_code load_manifest(checkpoint *ck, const char *dir, bool verify, wn_error *err)
{
	char path[PATH_MAX];
	wn_error local = {0};
	wn_code rc = join(path, dir, "winnow.json", err);
	if (rc)
		return rc;
	rc = manifest_read(&ck->manifest, path, &local);
	if (rc == WN_NOT_FOUND)
		return verify ? wn_fail(err, WN_NOT_FOUND, "%s: absent, so there are no digests to verify", path) : WN_OK;
	if (rc)
		return wn_fail(err, rc, "%s", local.message);
	ck->has_manifest = true;
	return verify ? manifest_verify(&ck->manifest, dir, err) : WN_OK;
}

wn_code checkpoint_load_tokenizer(tokenizer **out, const char *dir, const blip2_config *c, wn_error *err)
{
	char path[PATH_MAX];
	*out = NULL;
	wn_code rc = join(path, dir, "tokenizer.json", err);
	if (rc || !exists(path))
		return rc;
	if ((rc = tokenizer_open(out, path, err)))
		return rc;
	size_t size = tokenizer_vocab_size(*out);
	if (size <= (size_t)c->vocab_size)
		return WN_OK;
	tokenizer_close(out);
	return wn_fail(err, WN_INVALID, "%s: ids up to %zu, config.json: vocab_size %d is too small", path, size - 1,
	               c->vocab_size);
}

wn_code checkpoint_load_image_processor(image_processor *out, bool *present, const char *dir, const blip2_config *c,
                                        wn_error *err)
{
	char path[PATH_MAX];
	*present = false;
	wn_code rc = join(path, dir, "preprocessor_config.json", err);
	if (rc)
		return rc;
	if (!exists(path)) {
		if ((rc = image_processor_parse(out, "{}", 2, err)))
			return rc;
		out->size = c->image_size;
		return WN_OK;
	}
	*present = true;
	if ((rc = image_processor_read(out, path, err)))
		return rc;
	if (out->size != c->image_size)
		return wn_fail(err, WN_INVALID, "%s: size %d, config.json: image_size %d; expected the same", path, out->size,
		               c->image_size);
	return WN_OK;
}

wn_code checkpoint_load(checkpoint *out, const char *dir, const checkpoint_options *opt, wn_error *err)
{
	static const checkpoint_options defaults;
	if (!opt)
		opt = &defaults;
	wn_error local = {0};
	wn_code rc;
	struct stat st;
	blip2_config *config = NULL;
	char path[PATH_MAX];
	memset(out, 0, sizeof *out);
	if (stat(dir, &st))
		return wn_fail(err, errno == ENOENT ? WN_NOT_FOUND : WN_IO, "%s: %s", dir, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return wn_fail(err, WN_INVALID, "%s: not a directory, expected a model directory", dir);
	config = calloc(1, sizeof *config);
	if (!config) {
		rc = wn_fail(&local, WN_NOMEM, "out of memory");
		goto failed;
	}
	if ((rc = load_manifest(out, dir, opt->verify_digests, &local)) || (rc = join(path, dir, "config.json", &local)) ||
	    (rc = hf_config_read(config, path, &local)))
		goto failed;
	if (out->has_manifest && (rc = manifest_apply_widths(&out->manifest, config, &local)))
		goto failed;
	if ((rc = checkpoint_load_tokenizer(&out->tokenizer, dir, config, &local)) ||
	    (rc = checkpoint_load_image_processor(&out->image_processor, &out->has_image_processor, dir, config, &local)) ||
	    (rc = load_weights(out, config, dir, opt, &local)))
		goto failed;
	if (!opt->skip_digest && (rc = digest_weights(out->digest, dir, &local)))
		goto failed;
	free(config);
	return WN_OK;
failed:
	/* Every line says which directory, but not twice. */
	wn_fail(err, rc, "%s", local.message);
	if (!strstr(local.message, dir) && err && !strcmp(err->message, local.message))
		wn_fail_prefix(err, "%.200s", dir);
	free(config);
	checkpoint_close(out);
	return rc;
}

void checkpoint_close(checkpoint *c)
{
	weight_source_close(&c->source);
	blip2_close(&c->model);
	tokenizer_close(&c->tokenizer);
	if (c->has_manifest)
		manifest_close(&c->manifest);
	memset(c, 0, sizeof *c);
}

precision checkpoint_precision(const checkpoint *c)
{
	const int p = c->has_manifest && c->manifest.quantization ? precision_of(c->manifest.precision) : -1;
	return p >= 0 ? (precision)p : c->stores_int8 ? PRECISION_INT8 : PRECISION_F32;
}

/* ---- saving ---- */

/* Bytes of a parameter's converted copy, scales included; f32 is written from where it stands. */
static size_t stored_bytes(const param *p, dtype d)
{
	if (d == DTYPE_F32)
		return 0;
	return p->count * dtype_size(d) + (d == DTYPE_I8 ? (size_t)p->shape[0] * sizeof(float) + 64 : 0);
}

/* Rows of s8 at `at`, their scales behind them, on a boundary of floats. */
static void quantize_param(const param *p, const float *w, unsigned char *at, float **scales)
{
	const size_t rows = (size_t)p->shape[0], width = p->count / rows;
	*scales = (float *)(void *)(at + (p->count + 63) / 64 * 64);
	for (size_t r = 0; r < rows; r++)
		(*scales)[r] = ops->quantize((int8_t *)at + r * width, w + r * width, width);
}

static wn_code save_weights(const char *path, const blip2 *m, const dtype *dtypes, wn_error *err)
{
	const size_t n = blip2_num_params(m);
	const float *weights = blip2_weights((blip2 *)m);
	size_t total = 64, count = 0, at = 0;
	for (size_t i = 0; i < n; i++)
		total += (stored_bytes(blip2_param(m, i), dtypes[i]) + 63) / 64 * 64;
	char(*names)[128] = calloc(n, sizeof *names); /* of scales */
	safetensors_entry *entries = calloc(2 * n, sizeof *entries);
	unsigned char *converted = aligned_alloc(64, total);
	wn_code rc = names && entries && converted ? WN_OK : wn_fail(err, WN_NOMEM, "%s: out of memory for %zu bytes", path, total);
	for (size_t i = 0; i < n && !rc; i++) {
		const param *p = blip2_param(m, i);
		safetensors_entry *e = &entries[count++];
		*e = (safetensors_entry){p->name, {.dtype = dtypes[i], .rank = p->rank, .data = converted + at}};
		memcpy(e->tensor.shape, p->shape, (size_t)p->rank * sizeof *p->shape);
		if (dtypes[i] == DTYPE_I8) {
			float *scales;
			quantize_param(p, weights + p->offset, converted + at, &scales);
			snprintf(names[i], sizeof names[i], "%s" WEIGHT_SCALE_SUFFIX, p->name);
			entries[count++] = (safetensors_entry){names[i], {DTYPE_F32, 1, {p->shape[0]}, scales}};
		} else if (dtypes[i] == DTYPE_F32) {
			e->tensor.data = (void *)(uintptr_t)(weights + p->offset);
		} else {
			dtype_from_f32(converted + at, weights + p->offset, dtypes[i], p->count);
		}
		at += (stored_bytes(p, dtypes[i]) + 63) / 64 * 64;
	}
	if (!rc)
		rc = safetensors_write(path, entries, count, err);
	free(converted);
	free(entries);
	free(names);
	return rc;
}

static wn_code save_config(const char *path, const blip2 *m, dtype d, wn_error *err)
{
	blip2_config *c = malloc(sizeof *c);
	if (!c)
		return wn_fail(err, WN_NOMEM, "%s: out of memory", path);
	*c = *blip2_get_config(m);
	snprintf(c->torch_dtype, sizeof c->torch_dtype, "%s",
	         d == DTYPE_BF16 ? "bfloat16" : d == DTYPE_F16 ? "float16" : "float32");
	char *text = hf_config_write(c);
	wn_code rc = text ? file_write_atomic(path, text, strlen(text), err) : wn_fail(err, WN_NOMEM, "%s: out of memory", path);
	free(text);
	free(c);
	return rc;
}

static wn_code save_image_processor(const char *path, const image_processor *ip, wn_error *err)
{
	json_t *root = json_pack("{s:s, s:b, s:b, s:b, s:b, s:i, s:{s:i, s:i}, s:f, s:[f,f,f], s:[f,f,f]}",
	                         "image_processor_type", "BlipImageProcessor", "do_resize", 1, "do_rescale", 1, "do_normalize", 1,
	                         "do_convert_rgb", 1, "resample", 3, "size", "height", ip->size, "width", ip->size,
	                         "rescale_factor", (double)ip->rescale_factor, "image_mean", (double)ip->mean[0],
	                         (double)ip->mean[1], (double)ip->mean[2], "image_std", (double)ip->std[0], (double)ip->std[1],
	                         (double)ip->std[2]);
	/* 9 digits bring every float back exactly. */
	char *text = root ? json_write(root, JSON_INDENT(2) | JSON_SORT_KEYS | JSON_REAL_PRECISION(9)) : NULL;
	wn_code rc = text ? file_write_atomic(path, text, strlen(text), err) : wn_fail(err, WN_NOMEM, "%s: out of memory", path);
	free(text);
	json_decref(root);
	return rc;
}

/* winnow.json for what stands in `dir`: the caller's manifest with widths and digests of its own. */
static wn_code save_manifest(const char *dir, const blip2 *m, const manifest *man, dtype d, wn_error *err)
{
	char path[PATH_MAX];
	manifest copy = *man;
	copy.files = NULL;
	copy.widths = NULL;
	if (!copy.quantization)
		snprintf(copy.precision, sizeof copy.precision, "%s", d == DTYPE_BF16 ? "bf16" : "f32");
	wn_code rc = join(path, dir, "winnow.json", err);
	if (rc == WN_OK)
		rc = manifest_set_widths(&copy, blip2_get_config(m), err);
	if (rc == WN_OK)
		rc = manifest_digest_files(&copy, dir, err);
	if (rc == WN_OK)
		rc = manifest_write(&copy, path, err);
	json_decref(copy.files);
	json_decref(copy.widths);
	return rc;
}

wn_code checkpoint_check_target(const char *dir, wn_error *err)
{
	char path[PATH_MAX];
	struct stat st;
	wn_code rc = join(path, dir, "config.json", err);
	if (rc || lstat(dir, &st))
		return rc;
	if (!S_ISDIR(st.st_mode))
		return wn_fail(err, WN_INVALID, "%s: exists and is not a directory", dir);
	if (exists(path))
		return WN_OK;
	DIR *d = opendir(dir);
	if (!d)
		return wn_fail(err, WN_IO, "%s: %s", dir, strerror(errno));
	struct dirent *e;
	while ((e = readdir(d)) && rc == WN_OK)
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			rc = wn_fail(err, WN_INVALID, "%s: exists and is not a model directory (no config.json): not replaced", dir);
	closedir(d);
	return rc;
}

/* d: what config.json says of all. */
static wn_code save(const char *dir, const blip2 *m, const manifest *man, const image_processor *ip, const char *tokenizer_path, dtype d,
		    const dtype *dtypes, wn_error *err)
{
	char clean[PATH_MAX], tmp[PATH_MAX], path[PATH_MAX];
	wn_code rc;
	size_t len = strlen(dir);
	while (len > 1 && dir[len - 1] == '/')
		len--;
	if (len == 0 || len >= sizeof clean - 16)
		return wn_fail(err, WN_INVALID, "%.200s: expected a directory name of 1 to %d bytes", dir, PATH_MAX - 17);
	snprintf(clean, sizeof clean, "%.*s", (int)len, dir);
	if (!man && !hf_config_is_uniform(blip2_get_config(m)))
		return wn_fail(err, WN_INVALID, "%s: blocks of different widths need a winnow.json, and there is none", clean);
	if ((rc = checkpoint_check_target(clean, err)))
		return rc;
	if ((rc = file_temporary_dir(clean, tmp, err)))
		return rc;
	if ((rc = join(path, tmp, "config.json", err)) || (rc = save_config(path, m, d, err)))
		goto failed;
	if ((rc = join(path, tmp, "model.safetensors", err)) || (rc = save_weights(path, m, dtypes, err)))
		goto failed;
	if (ip && ((rc = join(path, tmp, "preprocessor_config.json", err)) || (rc = save_image_processor(path, ip, err))))
		goto failed;
	if (tokenizer_path && ((rc = join(path, tmp, "tokenizer.json", err)) ||
	                       (rc = file_copy(tokenizer_path, path, MAX_TOKENIZER_BYTES, err))))
		goto failed;
	if (man && (rc = save_manifest(tmp, m, man, d, err)))
		goto failed;
	if ((rc = file_replace_dir(tmp, clean, err)))
		goto failed;
	return WN_OK;
failed:
	file_remove_dir(AT_FDCWD, tmp);
	return rc;
}

wn_code checkpoint_save(const char *dir, const blip2 *m, const manifest *man, const image_processor *ip,
                        const char *tokenizer_path, dtype d, wn_error *err)
{
	const size_t n = blip2_num_params(m);
	if (d != DTYPE_F32 && d != DTYPE_F16 && d != DTYPE_BF16)
		return wn_fail(err, WN_UNSUPPORTED, "%s: dtype %s, expected F32, F16 or BF16", dir, dtype_name(d));
	dtype *dtypes = malloc(n * sizeof *dtypes);
	if (!dtypes)
		return wn_fail(err, WN_NOMEM, "%s: out of memory for %zu tensors", dir, n);
	for (size_t i = 0; i < n; i++)
		dtypes[i] = d;
	wn_code rc = save(dir, m, man, ip, tokenizer_path, d, dtypes, err);
	free(dtypes);
	return rc;
}

wn_code checkpoint_save_quantized(const char *dir, const blip2 *m, const manifest *man, const image_processor *ip,
                                  const char *tokenizer_path, const dtype *dtypes, wn_error *err)
{
	for (size_t i = 0; i < blip2_num_params(m); i++)
		if (dtypes[i] == DTYPE_I8 && blip2_param(m, i)->rank < 2)
			return wn_fail(err, WN_INTERNAL, "%s: %s: only matrices are stored in I8", dir, blip2_param(m, i)->name);
	return save(dir, m, man, ip, tokenizer_path, DTYPE_F32, dtypes, err);
}
