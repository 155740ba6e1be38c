/* What isolating the image decoder costs: the same images decoded in this process and in a helper, alternately.
 *
 *   bench_decoder [ROUNDS] [FILE...]      default: 200 rounds over the sample ads
 *
 * Prints, per file and for both ways, the median and the 99th percentile in microseconds, and their difference. */
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/file.h"
#include "server/decoder.h"

static double now_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int ascending(const void *a, const void *b)
{
	double d = *(const double *)a - *(const double *)b;
	return (d > 0) - (d < 0);
}

static int bench_file(const char *path, decoder *const ways[2], int rounds, double medians[2])
{
	char *data;
	size_t len;
	wn_error err = {0};
	double *took[2] = {calloc((size_t)rounds, sizeof(double)), calloc((size_t)rounds, sizeof(double))};
	int bad = !took[0] || !took[1] || file_read(path, 64 << 20, &data, &len, &err) != WN_OK;
	image img = {0};
	for (int i = -5; !bad && i < rounds; i++) { /* five to warm up */
		for (int w = 0; !bad && w < 2; w++) {
			double start = now_us();
			bad = decoder_decode(ways[w], &img, data, len, 224, 224, INT64_MAX, &err) != WN_OK;
			if (i >= 0)
				took[w][i] = now_us() - start;
			if (w == 0)
				decoder_release(ways[w], &img);
		}
	}
	if (bad) {
		fprintf(stderr, "bench_decoder: %s: %s\n", path, err.message);
	} else {
		for (int w = 0; w < 2; w++) {
			qsort(took[w], (size_t)rounds, sizeof(double), ascending);
			medians[w] = took[w][rounds / 2];
		}
		const char *name = strrchr(path, '/');
		printf("%-24s %5zu KiB %5dx%-5d thread %8.0f (p99 %8.0f)  process %8.0f (p99 %8.0f)  %+7.0f us\n",
		       name ? name + 1 : path, len >> 10, img.width, img.height, medians[0], took[0][rounds * 99 / 100],
		       medians[1], took[1][rounds * 99 / 100], medians[1] - medians[0]);
		free(data);
	}
	free(took[0]);
	free(took[1]);
	return bad;
}

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], DECODE_HELPER_OPTION) == 0)
		return decode_helper_main();
	int rounds = argc > 1 ? atoi(argv[1]) : 200;
	glob_t files = {0};
	if (argc <= 2 && glob(SAMPLES "/*.[jp][pn]g", 0, NULL, &files) != 0)
		return 1;
	decoder_options opt = {.isolation = DECODE_IN_THREAD, .limits = {.max_side = 8192, .max_pixels = 1 << 24, .max_bytes = 64 << 20},
			       .timeout_ns = 60000000000};
	decoder *ways[2] = {0};
	wn_error err = {0};
	int bad = rounds < 1 || decoder_open(&ways[0], &opt, &err) != WN_OK;
	opt.isolation = DECODE_IN_PROCESS;
	bad = bad || decoder_open(&ways[1], &opt, &err) != WN_OK;
	if (bad)
		fprintf(stderr, "bench_decoder: %s\n", rounds < 1 ? "expected a number of rounds" : err.message);
	double sums[2] = {0}, medians[2];
	size_t n = argc > 2 ? (size_t)argc - 2 : files.gl_pathc;
	for (size_t i = 0; !bad && i < n; i++) {
		bad = bench_file(argc > 2 ? argv[i + 2] : files.gl_pathv[i], ways, rounds, medians);
		sums[0] += medians[0];
		sums[1] += medians[1];
	}
	if (!bad)
		printf("mean of %zu medians: thread %.0f us, process %.0f us, %+.0f us (%+.1f %%)\n", n, sums[0] / (double)n,
		       sums[1] / (double)n, (sums[1] - sums[0]) / (double)n, 100 * (sums[1] / sums[0] - 1));
	decoder_close(&ways[0]);
	decoder_close(&ways[1]);
	globfree(&files);
	return bad;
}
