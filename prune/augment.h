/* augment.h: one training view of a cached image: crop, flip, colour jitter, cutout, normalise.
 *
 * A pure function of the pixels, the options and the key; any thread may call it. Nothing here changes what an image
 * shows so far that its label could change: mild crops, no vertical flips, small cutouts. */
#ifndef WINNOW_PRUNE_AUGMENT_H
#define WINNOW_PRUNE_AUGMENT_H

#include <stdbool.h>
#include <stdint.h>

#include "model/image.h"
#include "prune/rng.h"

#define AUGMENT_MAX_SIZE 1024 /* pixels; side of an output */

typedef struct augment_options {
	double crop_scale_min; /* the smallest share of the image's area a crop keeps; 1 = the whole image always */
	double crop_ratio_max; /* crops are between 1:r and r:1; 1 = square */
	double flip;           /* probability of a horizontal flip */
	double brightness;     /* factor drawn from [1-x, 1+x], as are the next two */
	double contrast;       /* around the crop's mean luma */
	double saturation;     /* around each pixel's luma */
	double cutout;         /* probability of one square filled with the mean colour */
	double cutout_max;     /* its side, as a share of the image's */
} augment_options;

/* No change at all: only resampling and normalising. */
augment_options augment_none(void);
/* Whether any of its options changes a picture. */
bool augment_changes(const augment_options *o);

/* in [side][side][3] -> out [3][p->size][p->size], normalised as image_preprocess does. p->size <= AUGMENT_MAX_SIZE. */
void augment_image(float *out, const image_processor *p, const uint8_t *in, int side, const augment_options *o, rng key);

#endif
