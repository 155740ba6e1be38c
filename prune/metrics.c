/* metrics.c: see metrics.h. */
#include "prune/metrics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct bin {
	double confidence, correct;
	int64_t count;
} bin;

static void finish_classes(metrics *m)
{
	double sum = 0;
	int seen = 0;
	for (int c = 0; c < m->num_classes; c++) {
		class_metrics *k = &m->classes[c];
		k->correct = m->confusion[c][c];
		for (int o = 0; o < m->num_classes; o++) {
			k->support += m->confusion[c][o];
			k->predicted += m->confusion[o][c];
		}
		k->precision = k->predicted ? (double)k->correct / (double)k->predicted : 0;
		k->recall = k->support ? (double)k->correct / (double)k->support : 0;
		k->f1 = k->support + k->predicted ? 2.0 * (double)k->correct / (double)(k->support + k->predicted) : 0;
		if (k->support + k->predicted) {
			sum += k->f1;
			seen++;
		}
	}
	m->macro_f1 = seen ? sum / seen : 0;
}

void metrics_compute(metrics *out, const float *probs, const int *truth, size_t count, int num_classes)
{
	memset(out, 0, sizeof *out);
	out->count = (int64_t)count;
	out->num_classes = num_classes;
	bin bins[METRICS_ECE_BINS] = {{0}};
	int64_t correct = 0;
	for (size_t i = 0; i < count; i++) {
		const float *p = probs + i * (size_t)num_classes;
		int best = 0;
		for (int c = 1; c < num_classes; c++)
			if (p[c] > p[best])
				best = c;
		out->confusion[truth[i]][best]++;
		correct += best == truth[i];
		double pt = p[truth[i]];
		out->nll -= log(pt > 1e-30 ? pt : 1e-30);
		int b = (int)ceil((double)p[best] * METRICS_ECE_BINS) - 1; /* (lo, hi] */
		b = b < 0 ? 0 : b >= METRICS_ECE_BINS ? METRICS_ECE_BINS - 1 : b;
		bins[b].confidence += p[best];
		bins[b].correct += best == truth[i];
		bins[b].count++;
	}
	if (count == 0)
		return;
	out->accuracy = (double)correct / (double)count;
	out->nll /= (double)count;
	for (int b = 0; b < METRICS_ECE_BINS; b++)
		out->ece += fabs(bins[b].confidence - bins[b].correct) / (double)count;
	finish_classes(out);
}

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

double metrics_quantile(double *values, size_t count, double q)
{
	if (count == 0)
		return 0;
	qsort(values, count, sizeof *values, compare_doubles);
	double rank = q * (double)(count - 1);
	size_t lo = (size_t)rank;
	if (lo + 1 >= count)
		return values[count - 1];
	return values[lo] + (rank - (double)lo) * (values[lo + 1] - values[lo]);
}
