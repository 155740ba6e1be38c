/* split.h: one split of a data set as a run uses it: its rows, its token sequences, its decoded images. */
#ifndef WINNOW_PRUNE_SPLIT_H
#define WINNOW_PRUNE_SPLIT_H

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>

#include "prune/batch.h"
#include "prune/dataset.h"
#include "prune/image_cache.h"

typedef struct split_data {
	bool used;
	char name[128];
	size_t limit; /* first samples only; 0: all */
	dataset dataset;
	sequence_set sequences;
	image_cache images;
} split_data;

/* Reads DATA/name. The name must be a directory's; `key` names it in errors. */
wn_code split_read(split_data *s, const char *data_dir, const char *name, const char *key, const label_spec *labels, int num_labels,
		   unsigned needs, size_t limit, wn_error *err);

typedef struct split_decoding {
	const char *cache_dir; /* made when it is not there */
	int threads;           /* 0: as many as OpenMP's */
	double log_seconds;
	volatile sig_atomic_t *stop; /* may be NULL */
	FILE *out;             /* progress */
} split_decoding;

/* Opens (decoding what is missing) the squares of the given side: CACHE/name-side[-firstN].rgb. */
wn_code split_open_images(split_data *s, int side, const split_decoding *o, wn_error *err);
void split_close(split_data *s);

#endif
