/* image_processor.c: preprocessor_config.json, and pixels to pixel_values.
 *
 * Follows transformers' BlipImageProcessorPil step by step: resize, rescale in double then rounded to float, normalise
 * in float. Each step after the resize depends on one 8-bit sample, so they collapse into a table of 3 x 256 floats,
 * which gives the reference's bits. What the JSON asks beyond that class is refused by name rather than ignored.
 * Stateless. */
#include "model/image_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json_text.h"

enum { MAX_CONFIG_BYTES = 1 << 20, MAX_SIZE = 4096, PIL_BICUBIC = 3 };

/* OPENAI_CLIP_MEAN and OPENAI_CLIP_STD of transformers.image_utils. */
static const image_processor blip_defaults = {
	.size = 384,
	.mean = {0.48145466f, 0.4578275f, 0.40821073f},
	.std = {0.26862954f, 0.26130258f, 0.27577711f},
	.rescale_factor = 1.0 / 255.0,
};

/* A boolean key that may be absent or null. */
static wn_code read_flag(int *out, const json_t *root, const char *key, int when_absent, wn_error *err)
{
	const json_t *v = json_object_get(root, key);
	*out = when_absent;
	if (!v || json_is_null(v))
		return WN_OK;
	if (!json_is_boolean(v))
		return wn_fail(err, WN_INVALID, "%s is not true or false", key);
	*out = json_is_true(v);
	return WN_OK;
}

static wn_code read_three(float out[3], const json_t *root, const char *key, double above, wn_error *err)
{
	const json_t *v = json_object_get(root, key);
	if (!v || json_is_null(v))
		return WN_OK;
	if (json_is_array(v) && json_array_size(v) != 3)
		return wn_fail(err, WN_INVALID, "%s has %zu numbers, 3 are expected", key, json_array_size(v));
	for (size_t i = 0; i < 3; i++) {
		const json_t *n = json_is_array(v) ? json_array_get(v, i) : v; /* one number stands for all channels */
		if (!json_is_number(n))
			return wn_fail(err, WN_INVALID, "%s is not a number or a list of 3 numbers", key);
		out[i] = (float)json_number_value(n);
		if (!isfinite(out[i]) || !(out[i] > above))
			return wn_fail(err, WN_INVALID, "%s[%zu] is %g, more than %g and finite is expected", key, i,
				       json_number_value(n), above);
	}
	return WN_OK;
}

/* {"height": H, "width": W} or one number; shortest_edge and the like do not give a square. */
static wn_code read_size(int *out, const json_t *root, wn_error *err)
{
	const json_t *v = json_object_get(root, "size");
	if (!v || json_is_null(v))
		return WN_OK;
	const json_t *h = v, *w = v;
	if (json_is_object(v)) {
		h = json_object_get(v, "height");
		w = json_object_get(v, "width");
		const char *key;
		json_t *value;
		json_object_foreach((json_t *)v, key, value)
			if (strcmp(key, "height") != 0 && strcmp(key, "width") != 0 && !json_is_null(value))
				return wn_fail(err, WN_UNSUPPORTED, "size has key %.40s; only height and width are supported", key);
	}
	if (!json_is_integer(h) || !json_is_integer(w))
		return wn_fail(err, WN_INVALID, "size needs the integers height and width");
	long long hh = json_integer_value(h), ww = json_integer_value(w);
	if (hh != ww)
		return wn_fail(err, WN_UNSUPPORTED, "size is %lldx%lld; only squares are supported", ww, hh);
	if (hh < 1 || hh > MAX_SIZE)
		return wn_fail(err, WN_INVALID, "size is %lld, 1 to %d is expected", hh, MAX_SIZE);
	*out = (int)hh;
	return WN_OK;
}

/* Refuses what would change the pixels in a way this file does not compute. */
static wn_code check_variant(const json_t *root, wn_error *err)
{
	const json_t *type = json_object_get(root, "image_processor_type");
	const char *name = json_string_value(type);
	if (type && (!name || (strcmp(name, "BlipImageProcessor") != 0 && strcmp(name, "BlipImageProcessorFast") != 0 &&
			       strcmp(name, "BlipImageProcessorPil") != 0)))
		return wn_fail(err, WN_UNSUPPORTED, "image_processor_type is %.60s, BlipImageProcessor is expected",
			       name ? name : "not a string");
	const json_t *resample = json_object_get(root, "resample");
	if (resample && !json_is_null(resample)) {
		if (!json_is_integer(resample))
			return wn_fail(err, WN_INVALID, "resample is not an integer");
		if (json_integer_value(resample) != PIL_BICUBIC)
			return wn_fail(err, WN_UNSUPPORTED, "resample is %lld, only 3 (bicubic) is supported",
				       (long long)json_integer_value(resample));
	}
	static const struct {
		const char *key;
		int only;
	} fixed[] = {{"do_resize", 1}, {"do_convert_rgb", 1}, {"do_center_crop", 0}, {"do_pad", 0}};
	for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) {
		int v;
		wn_code rc = read_flag(&v, root, fixed[i].key, fixed[i].only, err);
		if (rc)
			return rc;
		if (v != fixed[i].only)
			return wn_fail(err, WN_UNSUPPORTED, "%s is %s, only %s is supported", fixed[i].key,
				       v ? "true" : "false", v ? "false" : "true");
	}
	return WN_OK;
}

static wn_code read_config(image_processor *p, const json_t *root, wn_error *err)
{
	int rescale, normalise;
	wn_code rc = check_variant(root, err);
	if (rc || (rc = read_size(&p->size, root, err)) || (rc = read_flag(&rescale, root, "do_rescale", 1, err)) ||
	    (rc = read_flag(&normalise, root, "do_normalize", 1, err)) ||
	    (rc = read_three(p->mean, root, "image_mean", -INFINITY, err)) ||
	    (rc = read_three(p->std, root, "image_std", 0.0, err)))
		return rc;
	const json_t *factor = json_object_get(root, "rescale_factor");
	if (factor && !json_is_null(factor)) {
		p->rescale_factor = json_number_value(factor);
		if (!json_is_number(factor) || !isfinite(p->rescale_factor) || p->rescale_factor <= 0)
			return wn_fail(err, WN_INVALID, "rescale_factor is not a number above 0");
	}
	if (!rescale)
		p->rescale_factor = 1.0;
	for (int i = 0; i < 3 && !normalise; i++) {
		p->mean[i] = 0.0f;
		p->std[i] = 1.0f;
	}
	return WN_OK;
}

wn_code image_processor_parse(image_processor *out, const char *json, size_t len, wn_error *err)
{
	json_error_t je;
	image_processor p = blip_defaults;
	json_t *root = json_read(json, len, JSON_REJECT_DUPLICATES, &je);
	wn_code rc;
	if (!root)
		return wn_fail(err, json_read_code(&je), "line %d column %d: %s", je.line, je.column, je.text);
	const json_t *nested = json_object_get(root, "image_processor"); /* transformers 5's processor_config.json */
	const json_t *config = json_is_object(nested) ? nested : root;
	if (!json_is_object(root))
		rc = wn_fail(err, WN_INVALID, "top level is not an object");
	else
		rc = read_config(&p, config, err);
	if (rc == WN_OK)
		*out = p;
	json_decref(root);
	return rc;
}

wn_code image_processor_read(image_processor *out, const char *path, wn_error *err)
{
	char *text;
	size_t n;
	wn_code rc = file_read(path, MAX_CONFIG_BYTES, &text, &n, err);
	if (rc != WN_OK)
		return rc;
	if ((rc = image_processor_parse(out, text, n, err)) != WN_OK)
		wn_fail_prefix(err, "%s", path);
	free(text);
	return rc;
}

wn_code image_preprocess(float *out, const image_processor *p, const image *in, wn_error *err)
{
	const size_t side = (size_t)p->size, n = side * side;
	if (p->size < 1 || p->size > MAX_SIZE)
		return wn_fail(err, WN_INVALID, "image processor size is %d, 1 to %d is expected", p->size, MAX_SIZE);
	uint8_t *rgb = malloc(n * 3);
	if (!rgb)
		return wn_fail(err, WN_NOMEM, "out of memory for %d x %d pixels", p->size, p->size);
	wn_code rc = image_resize(rgb, p->size, p->size, in, err);
	if (rc == WN_OK) {
		float table[3][256];
		for (int c = 0; c < 3; c++)
			for (int v = 0; v < 256; v++)
				table[c][v] = ((float)(v * p->rescale_factor) - p->mean[c]) / p->std[c];
		float *r = out, *g = out + n, *b = out + 2 * n;
		for (size_t i = 0; i < n; i++) {
			r[i] = table[0][rgb[3 * i]];
			g[i] = table[1][rgb[3 * i + 1]];
			b[i] = table[2][rgb[3 * i + 2]];
		}
	}
	free(rgb);
	return rc;
}
