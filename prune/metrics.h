/* metrics.h: label probabilities against the truth: accuracy, precision, recall, F1, confusion, calibration, percentiles.
 *
 * Pure functions. Conventions are scikit-learn's: precision, recall and F1 are 0 where they are undefined; macro-F1 is the
 * plain mean over the classes that occur in truth or prediction. ECE is Guo et al. 2017 ("On Calibration of Modern
 * Neural Networks"): 15 equal bins of confidence, (lo, hi], weighted by their share. */
#ifndef WINNOW_PRUNE_METRICS_H
#define WINNOW_PRUNE_METRICS_H

#include <stddef.h>
#include <stdint.h>

#include "model/manifest.h"

#define METRICS_ECE_BINS 15

typedef struct class_metrics {
	int64_t support, predicted, correct; /* of this class in truth, in prediction, in both */
	double precision, recall, f1;
} class_metrics;

typedef struct metrics {
	int64_t count;
	int num_classes;
	double accuracy, macro_f1;
	double nll; /* mean -log p(truth) */
	double ece;
	class_metrics classes[MAX_LABELS];
	int64_t confusion[MAX_LABELS][MAX_LABELS]; /* [truth][prediction] */
} metrics;

/* probs [count][num_classes], truth[i] in [0, num_classes). Ties go to the lower index. count 0 gives zeros. */
void metrics_compute(metrics *out, const float *probs, const int *truth, size_t count, int num_classes);

/* The q-quantile (0..1) of values, sorted in place; linear between ranks as numpy.percentile. 0 when count is 0. */
double metrics_quantile(double *values, size_t count, double q);

#endif
