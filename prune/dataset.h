/* dataset.h: one split of a data set in Hugging Face's imagefolder layout: DIR/SPLIT/metadata.jsonl and the images it names.
 *
 * Each line is a JSON object with `file_name` (relative to the split, inside it), and as needed `text`, `assist`, `label`
 * (a label's name) and `caption`; other columns are ignored, as `datasets` would keep them. Every error names file and
 * line. Images are not opened here (image_cache.h). Immutable once read. */
#ifndef WINNOW_PRUNE_DATASET_H
#define WINNOW_PRUNE_DATASET_H

#include <stddef.h>
#include <stdint.h>

#include "base/digest.h"
#include "base/error.h"
#include "model/manifest.h"

#define DATASET_MAX_BYTES ((size_t)1 << 30) /* metadata.jsonl */
#define DATASET_MAX_SAMPLES ((size_t)1 << 24)

typedef struct sample {
	char *file_name; /* as in the file */
	char *text;      /* "" when absent and not needed */
	char *assist;    /* "" when absent */
	char *caption;   /* "" when absent and not needed */
	int label;       /* index into the labels given to dataset_read; -1 when absent and not needed */
} sample;

typedef enum dataset_need {
	DATASET_NEEDS_LABEL = 1, /* text and label must be there, and the label be known */
	DATASET_NEEDS_CAPTION = 2,
} dataset_need;

typedef struct dataset {
	char *dir; /* DIR/SPLIT, owned */
	sample *samples;
	size_t count;
	char digest[DIGEST_SIZE]; /* of metadata.jsonl */
} dataset;

/* Reads DIR/SPLIT/metadata.jsonl; at most `limit` samples when limit > 0. labels may be NULL (labels are then not looked
 * at). An empty split is an error. *out is zeroed on failure. */
wn_code dataset_read(dataset *out, const char *dir, const char *split, const label_spec *labels, int num_labels,
		     unsigned needs, size_t limit, wn_error *err);
void dataset_close(dataset *d);

/* Path of sample i's image, into buf; WN_TOO_LARGE when it does not fit. */
wn_code dataset_image_path(const dataset *d, size_t i, char *buf, size_t size, wn_error *err);

#endif
