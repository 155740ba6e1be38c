/* bench_image.c: what it costs to turn an image file into a model's pixel_values, decoder against decoder. Not a test.
 *
 *   bench_image [--size N] [--runs N] [--grain N] [--progressive] [--scales] [FILE...]
 *     --size N       the model's input side, 1 to 4096 (112)
 *     --runs N       rounds; every figure is a median over them (51)
 *     --grain N      noise of the made pictures, +-N of 255, 0 to 64 (8)
 *     --progressive  the made pictures are progressive JPEGs
 *     --scales       also every scale that image_decode_for would not choose
 *     FILE           JPEG or PNG files in place of the made pictures
 *
 * The made pictures are the sample ads side by side in their own resolution, cut to 0.4, 1 and 2 megapixels and encoded
 * at quality 85, 4:2:0: ads' detail at any size, and nothing to keep in the repository. Drawn ads are smooth, and much
 * of decoding is reading coefficients, so grain gives them about the bytes per pixel that photographs have. The
 * decoders take turns within a round, so that whatever disturbs the machine disturbs all of them. Milliseconds of one
 * thread; decoding includes the walk over the file's markers. WINNOW_ISA chooses the resize's kernels. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <jpeglib.h>

#include "model/image_internal.h"

enum { MOST_ARMS = 10, MOST_RUNS = 10000, MOST_FILE = 32 << 20 };

typedef struct options {
	int size, runs, grain, progressive, scales;
} options;

/* One way to decode. eighths: of libjpeg-turbo; 0 = stb_image. */
typedef struct arm {
	const char *name;
	int eighths;
	double decode[MOST_RUNS], process[MOST_RUNS]; /* ms, a round each */
} arm;

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

static double median(double *ms, int runs)
{
	qsort(ms, (size_t)runs, sizeof *ms, by_value);
	return ms[runs / 2];
}

static void die(const char *what, const wn_error *err)
{
	fprintf(stderr, "bench_image: %s%s%s\n", what, err ? ": " : "", err ? err->message : "");
	exit(1);
}

static uint8_t *read_file(const char *path, size_t *len)
{
	FILE *f = fopen(path, "rb");
	uint8_t *b = malloc(MOST_FILE);
	if (!f || !b)
		die(path, &(wn_error){.message = "cannot be opened"});
	*len = fread(b, 1, MOST_FILE, f);
	fclose(f);
	return b;
}

/* ---- pictures ---- */

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* [height][width][3] of sample ads: shelves as high as their first ad, ads side by side, cut at the right and below. */
static uint8_t *mosaic(int width, int height)
{
	static char *names[512];
	static size_t n;
	DIR *d = n ? NULL : opendir(SAMPLES);
	for (struct dirent *e; d && (e = readdir(d)) && n < 512;)
		if (strstr(e->d_name, ".jpg"))
			names[n++] = strdup(e->d_name);
	if (d)
		closedir(d);
	if (!n)
		die(SAMPLES, &(wn_error){.message = "has no sample ads"});
	qsort(names, n, sizeof *names, by_name);
	uint8_t *canvas = calloc((size_t)width * (size_t)height, 3);
	if (!canvas)
		die("out of memory", NULL);
	int x = 0, y = 0, shelf = 0;
	for (size_t i = 0; y < height; i++) {
		char path[1024];
		size_t len;
		snprintf(path, sizeof path, "%s/%s", SAMPLES, names[i % n]);
		uint8_t *b = read_file(path, &len);
		image ad;
		wn_error err = {0};
		if (image_decode(&ad, b, len, NULL, &err))
			die(path, &err);
		free(b);
		shelf = shelf ? shelf : ad.height;
		int w = ad.width < width - x ? ad.width : width - x, h = ad.height < shelf ? ad.height : shelf;
		h = h < height - y ? h : height - y;
		for (int row = 0; row < h; row++)
			memcpy(canvas + ((size_t)(y + row) * (size_t)width + (size_t)x) * 3,
			       ad.rgb + (size_t)row * (size_t)ad.width * 3, (size_t)w * 3);
		image_free(&ad);
		x += w;
		if (x == width) {
			x = 0;
			y += shelf;
			shelf = 0;
		}
	}
	return canvas;
}

static void add_grain(uint8_t *rgb, size_t pixels, int grain)
{
	uint32_t seed = 1;
	for (size_t i = 0; i < pixels; i++) {
		seed = seed * 1664525u + 1013904223u;
		const int by = (int)(seed >> 8) % (2 * grain + 1) - grain; /* the same for all colours: brightness */
		for (int c = 0; c < 3; c++) {
			int v = rgb[3 * i + (size_t)c] + by;
			rgb[3 * i + (size_t)c] = (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
		}
	}
}

static uint8_t *encode(const uint8_t *rgb, int width, int height, int progressive, size_t *len)
{
	struct jpeg_compress_struct c = {0};
	struct jpeg_error_mgr e; /* its errors end the program, with a line */
	unsigned char *out = NULL;
	unsigned long n = 0;
	c.err = jpeg_std_error(&e);
	jpeg_create_compress(&c);
	jpeg_mem_dest(&c, &out, &n);
	c.image_width = (JDIMENSION)width;
	c.image_height = (JDIMENSION)height;
	c.input_components = 3;
	c.in_color_space = JCS_RGB;
	jpeg_set_defaults(&c); /* 4:2:0 */
	jpeg_set_quality(&c, 85, TRUE);
	if (progressive)
		jpeg_simple_progression(&c);
	jpeg_start_compress(&c, TRUE);
	while (c.next_scanline < c.image_height) {
		JSAMPROW row = (JSAMPROW)(uintptr_t)(rgb + (size_t)c.next_scanline * (size_t)width * 3); /* only read */
		jpeg_write_scanlines(&c, &row, 1);
	}
	jpeg_finish_compress(&c);
	jpeg_destroy_compress(&c);
	*len = n;
	return out;
}

/* ---- measuring ---- */

static wn_code decode(image *out, const arm *a, int jpeg, const uint8_t *b, size_t len, wn_error *err)
{
	*out = (image){0};
	if (!jpeg)
		return image_decode(out, b, len, NULL, err);
	const image_limits limits = image_limits_resolve(NULL);
	image_header h;
	wn_code rc = image_jpeg_scan(&h, b, len, &limits, err);
	if (rc)
		return rc;
	rc = a->eighths ? image_jpeg_turbo(out, &h, b, len, a->eighths, err) : image_jpeg_stb(out, &h, b, len, err);
	return rc ? rc : image_orient(out, h.exif_orientation ? h.exif_orientation : h.xmp_orientation, err);
}

static int choose_arms(arm *arms, const options *o, int jpeg, const uint8_t *b, size_t len)
{
	int n = 0;
	arms[n++] = (arm){.name = "stb_image", .eighths = 0};
	if (!jpeg)
		return n;
	const image_limits limits = image_limits_resolve(NULL);
	image_header h;
	wn_error err = {0};
	if (image_jpeg_scan(&h, b, len, &limits, &err))
		die("not a JPEG to measure", &err);
	const int chosen = image_jpeg_eighths(&h, o->size, o->size);
	arms[n++] = (arm){.name = "libjpeg-turbo", .eighths = 8};
	if (chosen != 8)
		arms[n++] = (arm){.name = "  reduced", .eighths = chosen};
	for (int e = 7; e >= 1 && o->scales; e--)
		if (e != chosen)
			arms[n++] = (arm){.name = "  not chosen", .eighths = e};
	return n;
}

static void measure(const char *name, const uint8_t *b, size_t len, const options *o)
{
	static arm arms[MOST_ARMS];
	const int jpeg = !strcmp(image_format(b, len), "jpeg"), n = choose_arms(arms, o, jpeg, b, len);
	image_processor p;
	image_processor_parse(&p, "{}", 2, NULL);
	p.size = o->size;
	float *out = malloc(3 * (size_t)o->size * (size_t)o->size * sizeof *out);
	int width = 0, height = 0;
	for (int r = 0; r < o->runs; r++)
		for (int i = 0; i < n && out; i++) {
			image img;
			wn_error err = {0};
			double t0 = now_ms();
			if (decode(&img, &arms[i], jpeg, b, len, &err))
				die(name, &err);
			double t1 = now_ms();
			if (image_preprocess(out, &p, &img, &err))
				die(name, &err);
			double t2 = now_ms();
			arms[i].decode[r] = t1 - t0;
			arms[i].process[r] = t2 - t1;
			width = i ? width : img.width;
			height = i ? height : img.height;
			image_free(&img);
		}
	if (!out)
		die("out of memory", NULL);
	free(out);
	printf("\n%s: %dx%d, %.2f megapixels, %zu bytes\n", name, width, height, width * height * 1e-6, len);
	double base = 0;
	for (int i = 0; i < n; i++) {
		double d = median(arms[i].decode, o->runs), pr = median(arms[i].process, o->runs);
		base = i ? base : d + pr;
		printf("  %-14s %d/8 %9.3f %9.3f %9.3f %8.2fx\n", arms[i].name, arms[i].eighths ? arms[i].eighths : 8,
		       d, pr, d + pr, base / (d + pr));
	}
}

static int usage(void)
{
	fprintf(stderr, "usage: bench_image [--size N] [--runs N] [--grain N] [--progressive] [--scales] [FILE...]\n");
	return 2;
}

int main(int argc, char **argv)
{
	options o = {.size = 112, .runs = 51, .grain = 8};
	int i = 1;
	for (; i < argc && argv[i][0] == '-'; i++) {
		if (!strcmp(argv[i], "--size") && i + 1 < argc)
			o.size = atoi(argv[++i]);
		else if (!strcmp(argv[i], "--runs") && i + 1 < argc)
			o.runs = atoi(argv[++i]);
		else if (!strcmp(argv[i], "--grain") && i + 1 < argc)
			o.grain = atoi(argv[++i]);
		else if (!strcmp(argv[i], "--progressive"))
			o.progressive = 1;
		else if (!strcmp(argv[i], "--scales"))
			o.scales = 1;
		else
			return usage();
	}
	if (o.size < 1 || o.size > 4096 || o.runs < 1 || o.runs > MOST_RUNS || o.grain < 0 || o.grain > 64)
		return usage();
	printf("to %dx%d, kernels %s, median of %d rounds\n", o.size, o.size, ops->name, o.runs);
	printf("  %-14s %3s %9s %9s %9s\n", "decoder", "at", "decode ms", "process", "total");
	for (int f = i; f < argc; f++) {
		size_t len;
		uint8_t *b = read_file(argv[f], &len);
		measure(argv[f], b, len, &o);
		free(b);
	}
	static const int sides[][2] = {{736, 552}, {1152, 864}, {1632, 1224}};
	for (size_t k = 0; k < 3 && i == argc; k++) {
		size_t len;
		uint8_t *rgb = mosaic(sides[k][0], sides[k][1]);
		add_grain(rgb, (size_t)sides[k][0] * (size_t)sides[k][1], o.grain);
		uint8_t *b = encode(rgb, sides[k][0], sides[k][1], o.progressive, &len);
		measure(o.progressive ? "sample ads, progressive" : "sample ads", b, len, &o);
		free(rgb);
		free(b);
	}
	return 0;
}
