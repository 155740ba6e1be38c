/* weight_source.c: see weight_source.h. */
#include "model/weight_source.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/text.h"
#include "model/blip2_internal.h"
#include "model/parallel.h"
#include "model/safetensors.h"

#define CHUNK ((size_t)1 << 16) /* floats that make a thread's share worth waking it */

struct weight_source {
	safetensors *files;
	blip2 *model;
	const tensor **tensors; /* [params] */
	const float **scales;   /* [params]: of I8 tensors */
	dtype dtype;
	bool quantized;
};

/* ---- what the files hold, against what the model needs ---- */

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
	if (t->dtype != DTYPE_F32 && t->dtype != DTYPE_F16 && t->dtype != DTYPE_BF16 && (t->dtype != DTYPE_I8 || p->rank < 2))
		return wn_fail(err, WN_UNSUPPORTED, "tensor %s: dtype %s, expected F32, F16, BF16%s", p->name, dtype_name(t->dtype),
		               p->rank < 2 ? "" : " or I8");
	if (t->rank == p->rank && !memcmp(t->shape, p->shape, (size_t)p->rank * sizeof *p->shape))
		return WN_OK;
	format_shape(found, sizeof found, t->rank, t->shape);
	format_shape(expected, sizeof expected, p->rank, p->shape);
	return wn_fail(err, WN_INVALID, "tensor %s: shape %s, the config needs %s", p->name, found, expected);
}

/* The scales of an I8 tensor: one a row, finite and not negative. */
static wn_code find_scales(const float **out, const safetensors *st, const param *p, wn_error *err)
{
	char name[128];
	snprintf(name, sizeof name, "%s" WEIGHT_SCALE_SUFFIX, p->name);
	const tensor *t = safetensors_find(st, name);
	if (!t)
		return wn_fail(err, WN_NOT_FOUND, "tensor %s: missing, and %s is I8", name, p->name);
	if (t->dtype != DTYPE_F32 || t->rank != 1 || t->shape[0] != p->shape[0])
		return wn_fail(err, WN_INVALID, "tensor %s: expected %lld numbers in F32, a scale for each row of %s", name,
		               (long long)p->shape[0], p->name);
	*out = t->data;
	for (int64_t i = 0; i < p->shape[0]; i++)
		if (!isfinite((*out)[i]) || (*out)[i] < 0)
			return wn_fail(err, WN_INVALID, "tensor %s: element %lld is %f, expected a finite scale", name, (long long)i,
			               (double)(*out)[i]);
	return WN_OK;
}

/* The language-model head is tied to the token embedding. Some files carry it anyway; one that differs is another model. */
static wn_code check_lm_head(const weight_source *s, const tensor *t, wn_error *err)
{
	const param *p = blip2_find_param(s->model, "language_model.model.decoder.embed_tokens.weight");
	param head = *p;
	snprintf(head.name, sizeof head.name, "language_model.lm_head.weight");
	wn_code rc = check_tensor(&head, t, err);
	if (rc)
		return rc;
	const tensor *tied = safetensors_find(s->files, p->name);
	const size_t width = (size_t)p->shape[1], size = dtype_size(t->dtype), tied_size = dtype_size(tied->dtype);
	if (t->dtype == DTYPE_I8 || tied->dtype == DTYPE_I8)
		return wn_fail(err, WN_UNSUPPORTED, "tensor %s: expected none in a quantised model", head.name);
	float *rows = malloc(2 * width * sizeof *rows);
	if (!rows)
		return wn_fail(err, WN_NOMEM, "tensor %s: out of memory", head.name);
	for (size_t r = 0; rc == WN_OK && r < (size_t)p->shape[0]; r++) {
		dtype_to_f32(rows, (const char *)t->data + r * width * size, t->dtype, width);
		dtype_to_f32(rows + width, (const char *)tied->data + r * width * tied_size, tied->dtype, width);
		if (memcmp(rows, rows + width, width * sizeof *rows))
			rc = wn_fail(err, WN_UNSUPPORTED, "tensor %s: row %zu differs from embed_tokens, expected tied embeddings",
			             head.name, r);
	}
	free(rows);
	return rc;
}

/* Of an I8 parameter? */
static bool is_scale(const weight_source *s, const char *name)
{
	char base[128];
	if (!text_ends_with(name, WEIGHT_SCALE_SUFFIX) || strlen(name) >= sizeof base)
		return false;
	snprintf(base, sizeof base, "%.*s", (int)(strlen(name) - strlen(WEIGHT_SCALE_SUFFIX)), name);
	const tensor *t = blip2_find_param(s->model, base) ? safetensors_find(s->files, base) : NULL;
	return t && t->dtype == DTYPE_I8;
}

/* Tensors of the file that no parameter claims. */
static wn_code check_extra(const weight_source *s, wn_error *err)
{
	for (size_t i = 0; i < safetensors_count(s->files); i++) {
		const char *name;
		const tensor *t = safetensors_at(s->files, i, &name);
		if (blip2_find_param(s->model, name) || text_ends_with(name, ".position_ids") || is_scale(s, name))
			continue;
		if (strcmp(name, "language_model.lm_head.weight"))
			return wn_fail(err, WN_INVALID, "tensor %.200s: no parameter of this config has that name", name);
		wn_code rc = check_lm_head(s, t, err);
		if (rc)
			return rc;
	}
	return WN_OK;
}

static wn_code find_tensors(weight_source *s, wn_error *err)
{
	const size_t n = blip2_num_params(s->model);
	bool matrix_seen = false;
	s->tensors = calloc(n, sizeof *s->tensors);
	s->scales = calloc(n, sizeof *s->scales);
	if (!s->tensors || !s->scales)
		return wn_fail(err, WN_NOMEM, "out of memory for %zu tensors", n);
	for (size_t i = 0; i < n; i++) {
		const param *p = blip2_param(s->model, i);
		const tensor *t = s->tensors[i] = safetensors_find(s->files, p->name);
		wn_code rc = check_tensor(p, t, err);
		if (!rc && t->dtype == DTYPE_I8)
			rc = find_scales(&s->scales[i], s->files, p, err);
		if (rc)
			return rc;
		s->quantized |= t->dtype == DTYPE_I8;
		if (!matrix_seen && p->rank == 2) {
			s->dtype = t->dtype;
			matrix_seen = true;
		}
	}
	return WN_OK;
}

wn_code weight_source_open(weight_source **out, blip2 **model, const blip2_config *c, const char *dir, bool read, wn_error *err)
{
	*model = NULL;
	weight_source *s = *out = calloc(1, sizeof *s);
	if (!s)
		return wn_fail(err, WN_NOMEM, "out of memory");
	wn_code rc = read ? safetensors_read_dir(&s->files, dir, err) : safetensors_open_dir(&s->files, dir, err);
	if (!rc)
		rc = check_plausible(c, s->files, err);
	if (!rc)
		rc = blip2_create(&s->model, c, err);
	if (!rc)
		rc = find_tensors(s, err);
	if (!rc)
		rc = check_extra(s, err);
	if (rc) {
		blip2_close(&s->model);
		weight_source_close(out);
		return rc;
	}
	*model = s->model;
	return WN_OK;
}

void weight_source_close(weight_source **s)
{
	if (!*s)
		return;
	safetensors_close(&(*s)->files);
	free(*(void **)&(*s)->tensors);
	free(*(void **)&(*s)->scales);
	free(*s);
	*s = NULL;
}

dtype weight_source_dtype(const weight_source *s) { return s->dtype; }
bool weight_source_is_quantized(const weight_source *s) { return s->quantized; }

/* The first parameter at or behind an offset: they lie in the order of their offsets. */
static size_t param_from(const weight_source *s, size_t offset)
{
	size_t low = 0, high = blip2_num_params(s->model);
	while (low < high) {
		const size_t mid = low + (high - low) / 2;
		if (blip2_param(s->model, mid)->offset < offset)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* ---- reading ---- */

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

static void convert(float *w, const param *p, const tensor *t, const float *scale)
{
	const size_t rows = (size_t)p->shape[0], width = p->count / rows, size = dtype_size(t->dtype);
	PARALLEL_RANGE(rows, 1 + CHUNK / width, r0, r1)
	if (t->dtype != DTYPE_I8)
		dtype_to_f32(w + r0 * width, (const char *)t->data + r0 * width * size, t->dtype, (r1 - r0) * width);
	else
		for (size_t r = r0; r < r1; r++)
			for (size_t i = 0; i < width; i++)
				w[r * width + i] = scale[r] * ((const int8_t *)t->data)[r * width + i];
}

static wn_code read_param(const weight_source *s, size_t i, float *out, wn_error *err)
{
	const param *p = blip2_param(s->model, i);
	convert(out, p, s->tensors[i], s->scales[i]);
	return check_finite(p->name, out, p->count, err);
}

static wn_code fill_params(weight_source *s, bool matrices, wn_error *err)
{
	wn_code rc = WN_OK;
	for (size_t i = 0; i < blip2_num_params(s->model) && !rc; i++)
		if (matrices || !blip2_param(s->model, i)->decay)
			rc = read_param(s, i, blip2_weights(s->model) + blip2_param(s->model, i)->offset, err);
	return rc;
}

wn_code weight_source_fill(weight_source *s, wn_error *err) { return fill_params(s, true, err); }

wn_code weight_source_fill_small(weight_source *s, wn_error *err)
{
	s->model->without_matrices = true;
	/* A page for a bias, not two megabytes: the matrices between them will never be there. Advice only. */
	madvise(blip2_weights(s->model), blip2_weights_count(s->model) * sizeof(float), MADV_NOHUGEPAGE);
	return fill_params(s, false, err);
}

/* Walks the parameters of a range. */
#define FOR_PARAMS(s, i, first, count)                                                                                     \
	for (size_t i = param_from(s, first); i < blip2_num_params((s)->model) && blip2_param((s)->model, i)->offset < (first) + (count); i++)

wn_code weight_source_read(weight_source *s, size_t first, size_t count, float *out, wn_error *err)
{
	wn_code rc = WN_OK;
	FOR_PARAMS(s, i, first, count)
	if (!rc)
		rc = read_param(s, i, out + (blip2_param(s->model, i)->offset - first), err);
	return rc;
}

bool weight_source_is_int8(const weight_source *s, size_t first, size_t count)
{
	bool all = true;
	FOR_PARAMS(s, i, first, count)
	all &= s->tensors[i]->dtype == DTYPE_I8;
	return all;
}

void weight_source_read_int8(const weight_source *s, size_t first, size_t count, int8_t *q, float *scale)
{
	FOR_PARAMS(s, i, first, count)
	{
		const param *p = blip2_param(s->model, i);
		memcpy(q + (p->offset - first), s->tensors[i]->data, p->count);
		memcpy(scale, s->scales[i], (size_t)p->shape[0] * sizeof *scale);
		scale += p->shape[0];
	}
}

/* Whole pages only: what shares a page with them is somebody else's. */
static void give_back(const void *from, size_t bytes)
{
	const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	const uintptr_t first = ((uintptr_t)from + page - 1) / page * page, end = ((uintptr_t)from + bytes) / page * page;
	if (first < end)
		madvise((void *)first, end - first, MADV_DONTNEED);
}

void weight_source_release(weight_source *s, size_t first, size_t count)
{
	FOR_PARAMS(s, i, first, count)
	give_back(s->tensors[i]->data, blip2_param(s->model, i)->count * dtype_size(s->tensors[i]->dtype));
}
