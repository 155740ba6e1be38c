/* ad_input.c: see ad_input.h. */
#include "prune/ad_input.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "prune/progress.h"

#define MAX_IMAGE_BYTES ((size_t)64 << 20)

modalities ad_modalities(const manifest *m)
{
	const char *seen = m->lineage ? json_string_value(json_object_get(m->lineage, "modalities")) : NULL;
	modalities found = MODALITIES_BOTH;
	for (int i = 0; seen && MODALITY_NAMES[i]; i++)
		if (!strcmp(seen, MODALITY_NAMES[i]))
			found = (modalities)i;
	return found;
}

static wn_code load_pixels(const classifier *c, const char *path, float *pixels, double *at, wn_error *err)
{
	char *bytes = NULL;
	size_t len = 0;
	image img = {0};
	wn_code rc = file_read(path, MAX_IMAGE_BYTES, &bytes, &len, err);
	at[AD_READ] = monotonic_seconds();
	if (!rc)
		rc = image_decode(&img, bytes, len, NULL, err);
	at[AD_DECODE] = monotonic_seconds();
	if (!rc)
		rc = image_preprocess(pixels, &classifier_checkpoint(c)->image_processor, &img, err);
	image_free(&img);
	free(bytes);
	return rc;
}

wn_code ad_input_load(classifier_input *out, const classifier *c, const dataset *d, size_t i, modalities seen, float *pixels, int32_t *ids,
                      double *seconds, wn_error *err)
{
	const size_t size = (size_t)classifier_checkpoint(c)->image_processor.size;
	const sample *s = &d->samples[i];
	const bool blank = seen == MODALITIES_IMAGE;
	char path[PATH_MAX];
	double at[AD_STAGES];
	int count = 0;
	wn_code rc = dataset_image_path(d, i, path, sizeof path, err);
	if (rc)
		return rc;
	double from = monotonic_seconds();
	rc = load_pixels(c, path, pixels, at, err);
	if (!rc && seen == MODALITIES_TEXT)
		memset(pixels, 0, 3 * size * size * sizeof *pixels); /* the mean colour, as in its training */
	at[AD_PREPROCESS] = monotonic_seconds();
	if (!rc)
		rc = classifier_encode_prompt(c, blank ? "" : s->text, blank ? "" : s->assist, ids, &count, err);
	at[AD_TOKENIZE] = monotonic_seconds();
	for (int k = 0; k < AD_STAGES && seconds; from = at[k++])
		seconds[k] = at[k] - from;
	*out = (classifier_input){.pixel_values = pixels, .prompt_ids = ids, .prompt_len = count};
	return rc ? wn_fail_prefix(err, "%s", path) : WN_OK;
}
