/* self_test.c: see self_test.h.
 *
 * The picture takes the way of a request's picture, resize and normalisation included; only the decoding of JPEG and PNG is
 * left out. It is drawn in integers, so that no compiler and no libm can change a pixel. */
#include "model/self_test.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/prompt.h"

#define GRADIENT_1_WIDTH 320
#define GRADIENT_1_HEIGHT 240
#define CHECKER 16 /* pixels */

wn_code self_test_image(image *out, const char *name, wn_error *err)
{
	memset(out, 0, sizeof *out);
	if (strcmp(name, "gradient-1") != 0)
		return wn_fail(err, WN_UNSUPPORTED, "image: found \"%.64s\", expected \"gradient-1\"", name);
	uint8_t *p = malloc((size_t)3 * GRADIENT_1_WIDTH * GRADIENT_1_HEIGHT);
	if (!p)
		return wn_fail(err, WN_NOMEM, "out of memory for the self test's image");
	*out = (image){GRADIENT_1_WIDTH, GRADIENT_1_HEIGHT, p};
	for (int y = 0; y < GRADIENT_1_HEIGHT; y++)
		for (int x = 0; x < GRADIENT_1_WIDTH; x++, p += 3) {
			p[0] = (uint8_t)(x * 255 / (GRADIENT_1_WIDTH - 1));
			p[1] = (uint8_t)(y * 255 / (GRADIENT_1_HEIGHT - 1));
			p[2] = (x / CHECKER + y / CHECKER) % 2 ? 255 : 0; /* edges, which a broken resize shows in */
		}
	return WN_OK;
}

typedef struct sample {
	const char *image, *text, *assist;
} sample;

static wn_code answer(const classifier *c, classifier_session *s, const sample *q, float probs[MAX_LABELS], wn_error *err)
{
	const image_processor *ip = &classifier_checkpoint(c)->image_processor;
	int32_t ids[PROMPT_MAX_TOKENS];
	int count = 0;
	image img = {0};
	float *pixels = malloc(3 * (size_t)ip->size * (size_t)ip->size * sizeof *pixels);
	wn_code rc = pixels ? WN_OK : wn_fail(err, WN_NOMEM, "out of memory for %d x %d pixels", ip->size, ip->size);
	if (rc || (rc = self_test_image(&img, q->image, err)) || (rc = image_preprocess(pixels, ip, &img, err)) ||
	    (rc = classifier_encode_prompt(c, q->text, q->assist, ids, &count, err)))
		goto done;
	const classifier_input in = {pixels, ids, count};
	rc = classifier_run(s, &in, 1, probs, err);
done:
	image_free(&img);
	free(pixels);
	return rc;
}

/* ---- making one ---- */

/* Room for what other machines may compute otherwise: sums in another order in f32; bf16 products where the processor has
 * them, f32 ones elsewhere; int8 products that saturate on some processors. */
static double tolerance_of(const classifier *c)
{
	static const double tolerances[] = {0.001, 0.02, 0.05};
	return tolerances[engine_precision(classifier_engine(c))];
}

wn_code self_test_make(json_t **out, const classifier *c, classifier_session *s, wn_error *err)
{
	static const sample candidates[] = {{"gradient-1", "", ""},
	                                    {"gradient-1", "限时特价，全场五折", "行业:电商"},
	                                    {"gradient-1", "三天见效，无效退款", "行业:医药"},
	                                    {"gradient-1", "Family board game, free shipping", ""}};
	const int n = classifier_num_labels(c);
	float probs[MAX_LABELS] = {0}, kept[MAX_LABELS] = {0};
	const sample *chosen = NULL;
	float least = INFINITY;
	*out = NULL;
	/* The least certain answer is kept: one that is certain stays so in a model that is slightly broken. */
	for (size_t i = 0; i < sizeof candidates / sizeof *candidates; i++) {
		wn_code rc = answer(c, s, &candidates[i], probs, err);
		if (rc)
			return rc;
		float best = 0;
		for (int l = 0; l < n; l++)
			best = probs[l] > best ? probs[l] : best;
		if (best < least) {
			least = best;
			chosen = &candidates[i];
			memcpy(kept, probs, sizeof kept);
		}
	}
	if (!chosen)
		return wn_fail(err, WN_INTERNAL, "no label has a probability");
	json_t *list = json_array();
	int bad = 0;
	for (int l = 0; l < n; l++)
		bad |= json_array_append_new(list, json_real(round(1e6 * (double)kept[l]) / 1e6));
	*out = json_pack("{s:s, s:s, s:s, s:o, s:f}", "image", chosen->image, "text", chosen->text, "assist", chosen->assist,
	                 "probabilities", list, "tolerance", tolerance_of(c));
	if (*out && !bad)
		return WN_OK;
	json_decref(*out);
	*out = NULL;
	return wn_fail(err, WN_NOMEM, "out of memory for the self test");
}

/* ---- running one ---- */

static wn_code parse_text(const char **out, const json_t *test, const char *key, const char *fallback, wn_error *err)
{
	const json_t *v = json_object_get(test, key);
	*out = v ? json_string_value(v) : fallback;
	if (!*out)
		return wn_fail(err, WN_INVALID, "%s: found %s, expected a text", key, v ? "something else" : "nothing");
	return WN_OK;
}

static wn_code check_keys(const json_t *test, wn_error *err)
{
	static const char *const known[] = {"image", "text", "assist", "probabilities", "tolerance"};
	const char *key;
	json_t *v;
	json_object_foreach((json_t *)test, key, v)
	{
		bool found = false;
		for (size_t i = 0; i < sizeof known / sizeof *known; i++)
			found |= !strcmp(key, known[i]);
		if (!found)
			return wn_fail(err, WN_INVALID,
			               "%.64s: found an unknown key, expected image, text, assist, probabilities, tolerance", key);
	}
	return WN_OK;
}

static wn_code parse(sample *q, double *tolerance, const json_t *test, int labels, wn_error *err)
{
	const json_t *list = json_object_get(test, "probabilities"), *t = json_object_get(test, "tolerance");
	wn_code rc = check_keys(test, err);
	if (rc || (rc = parse_text(&q->image, test, "image", NULL, err)) || (rc = parse_text(&q->text, test, "text", NULL, err)) ||
	    (rc = parse_text(&q->assist, test, "assist", "", err)))
		return rc;
	if (!json_is_array(list) || json_array_size(list) != (size_t)labels)
		return wn_fail(err, WN_INVALID, "probabilities: found %zu, expected %d, one per label", json_array_size(list), labels);
	for (int i = 0; i < labels; i++) {
		const json_t *v = json_array_get(list, (size_t)i);
		if (!json_is_number(v) || !(json_number_value(v) >= 0 && json_number_value(v) <= 1))
			return wn_fail(err, WN_INVALID, "probabilities[%d]: expected a number from 0 to 1", i);
	}
	*tolerance = json_number_value(t);
	if (!json_is_number(t) || !(*tolerance > 0 && *tolerance <= 1))
		return wn_fail(err, WN_INVALID, "tolerance: expected a number above 0, at most 1");
	return WN_OK;
}

static wn_code run(const classifier *c, classifier_session *s, const json_t *test, wn_error *err)
{
	const int n = classifier_num_labels(c);
	float probs[MAX_LABELS];
	double tolerance = 0;
	sample q;
	wn_code rc = parse(&q, &tolerance, test, n, err);
	if (rc || (rc = answer(c, s, &q, probs, err)))
		return rc;
	if (engine_precision(classifier_engine(c)) != checkpoint_precision(classifier_checkpoint(c)))
		tolerance = fmax(tolerance, tolerance_of(c)); /* the answer was noted in another precision */
	for (int i = 0; i < n; i++) {
		const double expected = json_number_value(json_array_get(json_object_get(test, "probabilities"), (size_t)i));
		if (!(fabs((double)probs[i] - expected) <= tolerance))
			return wn_fail(err, WN_INVALID, "label %s: found probability %.6f, expected %.6f within %g",
			               classifier_label(c, i)->name, (double)probs[i], expected, tolerance);
	}
	return WN_OK;
}

wn_code self_test_run(const classifier *c, classifier_session *s, const manifest *m, wn_error *err)
{
	if (!m->self_test)
		return WN_OK;
	wn_code rc = run(c, s, m->self_test, err);
	if (rc)
		wn_fail_prefix(err, "self_test");
	return rc;
}
