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
	if (!(index = json_loadb(text, len, JSON_REJECT_DUPLICATES, &jerr)))
		rc = wn_fail(err, WN_INVALID, "%s:%d: %s", path, jerr.line, jerr.text);
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

static bool ends_with(const char *s, const char *end)
{
	size_t a = strlen(s), b = strlen(end);
	return a >= b && !strcmp(s + a - b, end);
}

/* What the config asks for at least: the matrices of all blocks and the token embedding. A config that lies about its
 * sizes is caught by comparing this with the file, before a buffer of that size is asked for. */
static double least_parameters(const blip2_config *c)
{
	double total = (double)c->vocab_size * c->text.hidden_size;
	for (int k = 0; k < NUM_COMPONENTS; k++) {
		const stack_config *s = shape_stack(c, (component)k);
		for (int i = 0; i < s->num_hidden_layers; i++) {
			const block_widths *w = &s->blocks[i];
			double inner = (double)w->num_heads * w->head_dim;
			total += (4 * inner + 2.0 * w->ffn_dim) * s->hidden_size;
		}
	}
	return total;
}

static wn_code check_plausible(const blip2_config *c, const safetensors *st, wn_error *err)
{
	double stored = 0;
	for (size_t i = 0; i < safetensors_count(st); i++) {
		const char *name;
		const tensor *t = safetensors_at(st, i, &name);
		stored += (double)shape_count(t->rank, t->shape);
	}
	if (least_parameters(c) > stored)
		return wn_fail(err, WN_INVALID, "config.json describes at least %.0f parameters, the weight file holds %.0f",
		               least_parameters(c), stored);
	return WN_OK;
}

static void format_shape(char *out, size_t size, int rank, const int64_t *shape)
{
	size_t n = (size_t)snprintf(out, size, "[");
	for (int i = 0; i < rank && n < size; i++)
		n += (size_t)snprintf(out + n, size - n, "%s%lld", i ? ", " : "", (long long)shape[i]);
	if (n < size)
		snprintf(out + n, size - n, "]");
}

static wn_code check_tensor(const param *p, const tensor *t, wn_error *err)
{
	char found[128], expected[128];
	if (!t)
		return wn_fail(err, WN_NOT_FOUND, "tensor %s: missing from the weight file", p->name);
	if (t->dtype != DTYPE_F32 && t->dtype != DTYPE_F16 && t->dtype != DTYPE_BF16)
		return wn_fail(err, WN_UNSUPPORTED, "tensor %s: dtype %s, expected F32, F16 or BF16", p->name, dtype_name(t->dtype));
	if (t->rank == p->rank && !memcmp(t->shape, p->shape, (size_t)p->rank * sizeof *p->shape))
		return WN_OK;
	format_shape(found, sizeof found, t->rank, t->shape);
	format_shape(expected, sizeof expected, p->rank, p->shape);
	return wn_fail(err, WN_INVALID, "tensor %s: shape %s, the config needs %s", p->name, found, expected);
}

static wn_code check_finite(const char *name, const float *w, size_t count, wn_error *err)
{
	/* x - x is 0 for every finite x and NaN otherwise: one branch-free pass, then a search only when it failed. */
	float sum = 0;
	for (size_t i = 0; i < count; i++)
		sum += w[i] - w[i];
	if (sum == 0)
		return WN_OK;
	for (size_t i = 0; i < count; i++)
		if (!isfinite(w[i]))
			return wn_fail(err, WN_INVALID, "tensor %s: element %zu is %f, expected a finite number", name, i, (double)w[i]);
	return WN_OK;
}

/* The language-model head is tied to the token embedding. Some files carry it anyway; one that differs is another model. */
static wn_code check_lm_head(const blip2 *m, const tensor *t, wn_error *err)
{
	const param *p = blip2_find_param(m, "language_model.model.decoder.embed_tokens.weight");
	if (!p)
		return wn_fail(err, WN_INTERNAL, "the model has no token embedding");
	param head = *p;
	snprintf(head.name, sizeof head.name, "language_model.lm_head.weight");
	wn_code rc = check_tensor(&head, t, err);
	if (rc)
		return rc;
	const float *w = blip2_weights((blip2 *)m) + p->offset;
	const size_t width = (size_t)p->shape[1], size = dtype_size(t->dtype);
	float *row = malloc(width * sizeof *row);
	if (!row)
		return wn_fail(err, WN_NOMEM, "tensor %s: out of memory", head.name);
	for (size_t r = 0; rc == WN_OK && r < (size_t)p->shape[0]; r++) {
		dtype_to_f32(row, (const char *)t->data + r * width * size, t->dtype, width);
		if (memcmp(row, w + r * width, width * sizeof *row))
			rc = wn_fail(err, WN_UNSUPPORTED, "tensor %s: row %zu differs from embed_tokens, expected tied embeddings",
			             head.name, r);
	}
	free(row);
	return rc;
}

/* Tensors of the file that no parameter claimed. */
static wn_code check_extra(const blip2 *m, const safetensors *st, wn_error *err)
{
	for (size_t i = 0; i < safetensors_count(st); i++) {
		const char *name;
		const tensor *t = safetensors_at(st, i, &name);
		if (blip2_find_param(m, name) || ends_with(name, ".position_ids"))
			continue;
		if (strcmp(name, "language_model.lm_head.weight"))
			return wn_fail(err, WN_INVALID, "tensor %.200s: no parameter of this config has that name", name);
		wn_code rc = check_lm_head(m, t, err);
		if (rc)
			return rc;
	}
	return WN_OK;
}

static wn_code load_weights(checkpoint *ck, const blip2_config *config, const char *dir, bool read, wn_error *err)
{
	safetensors *st = NULL;
	wn_code rc = read ? safetensors_read_dir(&st, dir, err) : safetensors_open_dir(&st, dir, err);
	if (rc)
		return rc;
	if ((rc = check_plausible(config, st, err)) || (rc = blip2_create(&ck->model, config, err)))
		goto done;
	const size_t n = blip2_num_params(ck->model);
	for (size_t i = 0; i < n && rc == WN_OK; i++) {
		const param *p = blip2_param(ck->model, i);
		rc = check_tensor(p, safetensors_find(st, p->name), err);
	}
	bool matrix_seen = false;
	for (size_t i = 0; i < n && rc == WN_OK; i++) {
		const param *p = blip2_param(ck->model, i);
		const tensor *t = safetensors_find(st, p->name);
		float *w = blip2_weights(ck->model) + p->offset;
		if (!matrix_seen && p->rank == 2) {
			ck->stored_dtype = t->dtype;
			matrix_seen = true;
		}
		dtype_to_f32(w, t->data, t->dtype, p->count);
		rc = check_finite(p->name, w, p->count, err);
	}
	if (rc == WN_OK)
		rc = check_extra(ck->model, st, err);
done:
	safetensors_close(&st);
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
	if (strcmp(ck->manifest.precision, "int8") == 0)
		return wn_fail(err, WN_UNSUPPORTED, "%s: precision: found \"int8\", this build runs f32", path);
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
	    (rc = load_weights(out, config, dir, opt->read_weights, &local)))
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
	blip2_close(&c->model);
	tokenizer_close(&c->tokenizer);
	if (c->has_manifest)
		manifest_close(&c->manifest);
	memset(c, 0, sizeof *c);
}

/* ---- saving ---- */

static wn_code save_weights(const char *path, const blip2 *m, dtype d, wn_error *err)
{
	const size_t n = blip2_num_params(m), size = dtype_size(d);
	const float *weights = blip2_weights((blip2 *)m);
	size_t total = 0;
	unsigned char *converted = NULL;
	wn_code rc = WN_OK;
	safetensors_entry *entries = calloc(n, sizeof *entries);
	for (size_t i = 0; i < n; i++)
		total += blip2_param(m, i)->count;
	if (d != DTYPE_F32)
		converted = malloc(total * size);
	if (!entries || (d != DTYPE_F32 && !converted)) {
		rc = wn_fail(err, WN_NOMEM, "%s: out of memory for %zu bytes", path, total * size);
		goto done;
	}
	size_t at = 0;
	for (size_t i = 0; i < n; i++) {
		const param *p = blip2_param(m, i);
		entries[i].name = p->name;
		entries[i].tensor = (tensor){.dtype = d, .rank = p->rank, .data = (void *)(weights + p->offset)};
		memcpy(entries[i].tensor.shape, p->shape, (size_t)p->rank * sizeof *p->shape);
		if (d != DTYPE_F32) {
			dtype_from_f32(converted + at, weights + p->offset, d, p->count);
			entries[i].tensor.data = converted + at;
			at += p->count * size;
		}
	}
	rc = safetensors_write(path, entries, n, err);
done:
	free(converted);
	free(entries);
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
	char *text = root ? json_dumps(root, JSON_INDENT(2) | JSON_SORT_KEYS | JSON_REAL_PRECISION(9)) : NULL;
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

wn_code checkpoint_save(const char *dir, const blip2 *m, const manifest *man, const image_processor *ip,
                        const char *tokenizer_path, dtype d, wn_error *err)
{
	char clean[PATH_MAX], tmp[PATH_MAX], path[PATH_MAX];
	wn_code rc;
	size_t len = strlen(dir);
	while (len > 1 && dir[len - 1] == '/')
		len--;
	if (len == 0 || len >= sizeof clean - 16)
		return wn_fail(err, WN_INVALID, "%.200s: expected a directory name of 1 to %d bytes", dir, PATH_MAX - 17);
	snprintf(clean, sizeof clean, "%.*s", (int)len, dir);
	if (d != DTYPE_F32 && d != DTYPE_F16 && d != DTYPE_BF16)
		return wn_fail(err, WN_UNSUPPORTED, "%s: dtype %s, expected F32, F16 or BF16", clean, dtype_name(d));
	if (!man && !hf_config_is_uniform(blip2_get_config(m)))
		return wn_fail(err, WN_INVALID, "%s: blocks of different widths need a winnow.json, and there is none", clean);
	if ((rc = checkpoint_check_target(clean, err)))
		return rc;
	if ((rc = file_temporary_dir(clean, tmp, err)))
		return rc;
	if ((rc = join(path, tmp, "config.json", err)) || (rc = save_config(path, m, d, err)))
		goto failed;
	if ((rc = join(path, tmp, "model.safetensors", err)) || (rc = save_weights(path, m, d, err)))
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
