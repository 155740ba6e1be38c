/* quantize_probe.h: calibration samples, and what engines make of them: ads of a split, or random inputs. */
#ifndef WINNOW_PRUNE_QUANTIZE_PROBE_H
#define WINNOW_PRUNE_QUANTIZE_PROBE_H

#include "model/checkpoint.h"
#include "prune/quantize.h"

typedef struct quantize_samples quantize_samples;

typedef struct quantize_samples_options {
	const char *data, *split; /* an imagefolder's; data NULL: random pixels and tokens, which have no labels */
	int samples;              /* the first so many; 0: all (random: 8) */
} quantize_samples_options;

/* Reads and preprocesses them. Borrows ck, which needs winnow.json with labels when there is data. */
wn_code quantize_samples_open(quantize_samples **out, const checkpoint *ck, const quantize_samples_options *o, wn_error *err);
void quantize_samples_close(quantize_samples **s);
/* Borrows s. The first score is taken as f32's: later ones are compared with its logits. */
quantize_probe quantize_samples_probe(quantize_samples *s);
size_t quantize_samples_count(const quantize_samples *s);
const char *quantize_samples_digest(const quantize_samples *s); /* of metadata.jsonl; "" of random ones */

#endif
