/* augment.c: see augment.h. Resampling is bilinear without prefiltering: the cache is at most a little larger than the
 * output, so there is nothing to alias. */
#include "prune/augment.h"

#include <math.h>
#include <stddef.h>

augment_options augment_none(void) { return (augment_options){.crop_scale_min = 1, .crop_ratio_max = 1}; }

bool augment_changes(const augment_options *o)
{
	return o->crop_scale_min < 1 || o->crop_ratio_max > 1 || o->flip > 0 || o->brightness > 0 || o->contrast > 0 || o->saturation > 0 ||
	       o->cutout > 0;
}

typedef struct crop {
	double x, y, width, height; /* in cache pixels */
} crop;

static crop draw_crop(rng *r, const augment_options *o, int side)
{
	double area = rng_uniform(r, o->crop_scale_min, 1.0);
	double log_ratio = log(o->crop_ratio_max > 1 ? o->crop_ratio_max : 1);
	double ratio = exp(rng_uniform(r, -log_ratio, log_ratio));
	crop c;
	c.width = fmin(sqrt(area * ratio), 1.0) * side;
	c.height = fmin(sqrt(area / ratio), 1.0) * side;
	c.x = rng_double(r) * (side - c.width);
	c.y = rng_double(r) * (side - c.height);
	return c;
}

typedef struct tap {
	int lo, hi; /* source indices */
	float w;    /* weight of hi */
} tap;

/* Pixel centres of `size` output samples over [from, from+extent), clamped to the source. */
static void make_taps(tap *t, int size, double from, double extent, int side, int stride)
{
	for (int i = 0; i < size; i++) {
		double s = from + (i + 0.5) * extent / size - 0.5;
		s = fmin(fmax(s, 0.0), (double)(side - 1));
		int lo = (int)s;
		t[i].lo = lo * stride;
		t[i].hi = (lo + 1 < side ? lo + 1 : lo) * stride;
		t[i].w = (float)(s - lo);
	}
}

/* in [side][side][3] -> out [3][size][size] in 0..255 */
static void resample(float *out, int size, const uint8_t *in, int side, const crop *c, int flip)
{
	tap tx[AUGMENT_MAX_SIZE], ty[AUGMENT_MAX_SIZE];
	make_taps(tx, size, c->x, c->width, side, 3);
	make_taps(ty, size, c->y, c->height, side, side * 3);
	const size_t plane = (size_t)size * (size_t)size;
	for (int y = 0; y < size; y++) {
		const uint8_t *top = in + ty[y].lo, *bottom = in + ty[y].hi;
		const float wy = ty[y].w;
		float *row = out + (size_t)y * (size_t)size;
		for (int x = 0; x < size; x++) {
			const tap *t = &tx[x];
			float *px = row + (flip ? size - 1 - x : x);
			for (int k = 0; k < 3; k++) {
				float a = top[t->lo + k] + t->w * (float)(top[t->hi + k] - top[t->lo + k]);
				float b = bottom[t->lo + k] + t->w * (float)(bottom[t->hi + k] - bottom[t->lo + k]);
				px[(size_t)k * plane] = a + wy * (b - a);
			}
		}
	}
}

static float clamp255(float v) { return v < 0 ? 0 : v > 255 ? 255 : v; }

/* ITU-R 601 luma, as Pillow's convert("L") */
static float luma(float r, float g, float b) { return 0.299f * r + 0.587f * g + 0.114f * b; }

static void jitter(float *out, size_t plane, float brightness, float contrast, float saturation)
{
	float *red = out, *green = out + plane, *blue = out + 2 * plane;
	double sum = 0;
	for (size_t i = 0; i < plane; i++)
		sum += luma(red[i], green[i], blue[i]);
	const float mean = brightness * (float)(sum / (double)plane);
	for (size_t i = 0; i < plane; i++) {
		float r = mean + contrast * (brightness * red[i] - mean);
		float g = mean + contrast * (brightness * green[i] - mean);
		float b = mean + contrast * (brightness * blue[i] - mean);
		float grey = luma(r, g, b);
		red[i] = clamp255(grey + saturation * (r - grey));
		green[i] = clamp255(grey + saturation * (g - grey));
		blue[i] = clamp255(grey + saturation * (b - grey));
	}
}

void augment_image(float *out, const image_processor *p, const uint8_t *in, int side, const augment_options *o, rng key)
{
	/* Every option draws its numbers whether it is on or not: switching one off leaves the others' views alone. */
	rng r = key;
	const int size = p->size;
	const size_t plane = (size_t)size * (size_t)size;
	crop c = draw_crop(&r, o, side);
	int flip = rng_double(&r) < o->flip;
	float brightness = (float)rng_uniform(&r, 1 - o->brightness, 1 + o->brightness);
	float contrast = (float)rng_uniform(&r, 1 - o->contrast, 1 + o->contrast);
	float saturation = (float)rng_uniform(&r, 1 - o->saturation, 1 + o->saturation);
	int cut = rng_double(&r) < o->cutout;
	int cut_side = (int)(rng_uniform(&r, 0.25, 1.0) * o->cutout_max * size);
	int cut_x = (int)rng_below(&r, (uint64_t)(size > cut_side ? size - cut_side : 1));
	int cut_y = (int)rng_below(&r, (uint64_t)(size > cut_side ? size - cut_side : 1));

	resample(out, size, in, side, &c, flip);
	if (brightness != 1 || contrast != 1 || saturation != 1)
		jitter(out, plane, brightness, contrast, saturation);
	for (int k = 0; k < 3; k++) {
		const float scale = p->rescale_factor / p->std[k], shift = -p->mean[k] / p->std[k];
		float *channel = out + (size_t)k * plane;
		for (size_t i = 0; i < plane; i++)
			channel[i] = channel[i] * scale + shift;
	}
	if (!cut)
		return;
	for (int k = 0; k < 3; k++)
		for (int y = cut_y; y < cut_y + cut_side && y < size; y++)
			for (int x = cut_x; x < cut_x + cut_side && x < size; x++)
				out[(size_t)k * plane + (size_t)y * (size_t)size + (size_t)x] = 0; /* the mean colour */
}
