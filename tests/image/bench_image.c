/* bench_image.c: milliseconds to decode and preprocess one file, median of many. Not a test.
 * Usage: bench_image FILE [SIZE [RUNS]]   (SIZE 224, RUNS 51) */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "model/image.h"

static double now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static void report(const char *what, double *ms, int runs)
{
	qsort(ms, (size_t)runs, sizeof *ms, by_value);
	printf("%-12s median %7.3f ms   min %7.3f ms   max %7.3f ms\n", what, ms[runs / 2], ms[0], ms[runs - 1]);
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		fprintf(stderr, "usage: bench_image FILE [SIZE [RUNS]]\n");
		return 2;
	}
	int size = argc > 2 ? atoi(argv[2]) : 224, runs = argc > 3 ? atoi(argv[3]) : 51;
	FILE *f = fopen(argv[1], "rb");
	if (!f || size < 1 || size > 4096 || runs < 1 || runs > 100000) {
		fprintf(stderr, "bench_image: cannot open %s, or SIZE or RUNS is out of range\n", argv[1]);
		return 2;
	}
	static unsigned char bytes[32 << 20];
	size_t len = fread(bytes, 1, sizeof bytes, f);
	fclose(f);
	image_processor p;
	image_processor_parse(&p, "{}", 2, NULL);
	p.size = size;
	float *out = malloc(3 * (size_t)size * (size_t)size * sizeof *out);
	double *decode = malloc((size_t)runs * sizeof *decode), *prepare = malloc((size_t)runs * sizeof *prepare);
	if (!out || !decode || !prepare)
		return 1;
	for (int i = 0; i < runs; i++) {
		wn_error err = {0};
		image img;
		double t0 = now_ms();
		if (image_decode(&img, bytes, len, NULL, &err)) {
			fprintf(stderr, "bench_image: %s\n", err.message);
			return 1;
		}
		double t1 = now_ms();
		if (image_preprocess(out, &p, &img, &err)) {
			fprintf(stderr, "bench_image: %s\n", err.message);
			return 1;
		}
		prepare[i] = now_ms() - t1;
		decode[i] = t1 - t0;
		if (i == 0)
			printf("%s, %zu bytes, %dx%d to %dx%d, %d runs\n", image_format(bytes, len), len, img.width, img.height,
			       size, size, runs);
		image_free(&img);
	}
	report("decode", decode, runs);
	report("preprocess", prepare, runs);
	free(out);
	free(decode);
	free(prepare);
	return 0;
}
