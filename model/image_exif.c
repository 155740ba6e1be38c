/* image_exif.c: which way is up.
 *
 * EXIF is a TIFF file inside the image: a byte order, an offset to a directory, twelve-byte entries. Only tag 0x0112 of
 * the first directory matters, and every other byte is untrusted ballast, so this reads that one entry and nothing
 * else. A broken block means "no orientation", never an undecodable image: cameras and editors damage EXIF often.
 * Stateless. */
#include "model/image_internal.h"

#include <stdlib.h>
#include <string.h>

enum { TAG_ORIENTATION = 0x0112, TYPE_SHORT = 3, TYPE_LONG = 4 };

static uint32_t read_uint(const uint8_t *p, int bytes, int little)
{
	uint32_t v = 0;
	for (int i = 0; i < bytes; i++)
		v |= (uint32_t)p[i] << 8 * (little ? i : bytes - 1 - i);
	return v;
}

int image_exif_orientation(const uint8_t *tiff, size_t len)
{
	if (len < 8)
		return 0;
	int little = !memcmp(tiff, "II*\0", 4);
	if (!little && memcmp(tiff, "MM\0*", 4) != 0)
		return 0;
	size_t dir = read_uint(tiff + 4, 4, little);
	if (dir > len - 2)
		return 0;
	size_t entries = read_uint(tiff + dir, 2, little);
	const uint8_t *e = tiff + dir + 2;
	size_t room = (len - dir - 2) / 12;
	int found = 0;
	for (size_t i = 0; i < entries && i < room; i++, e += 12) {
		if (read_uint(e, 2, little) != TAG_ORIENTATION)
			continue;
		uint32_t type = read_uint(e + 2, 2, little), count = read_uint(e + 4, 4, little);
		uint32_t v = 0;
		if (count == 1 && type == TYPE_SHORT)
			v = read_uint(e + 8, 2, little);
		else if (count == 1 && type == TYPE_LONG)
			v = read_uint(e + 8, 4, little);
		found = v >= 1 && v <= 8 ? (int)v : 1; /* a repeated tag: the last one counts, as in Pillow */
	}
	return found;
}

/* Pillow searches the packet's text for tiff:Orientation="N" or tiff:Orientation>N; so do we: no XML parser needed. */
int image_xmp_orientation(const uint8_t *xmp, size_t len)
{
	static const char key[] = "tiff:Orientation";
	const size_t key_len = sizeof key - 1;
	const uint8_t *p = xmp, *end = xmp + len;
	while ((p = memmem(p, (size_t)(end - p), key, key_len))) {
		p += key_len;
		size_t left = (size_t)(end - p);
		const uint8_t *digit = NULL;
		if (left >= 3 && p[0] == '=' && p[1] == '"')
			digit = p + 2;
		else if (left >= 2 && p[0] == '>')
			digit = p + 1;
		if (digit && *digit >= '0' && *digit <= '9')
			return *digit >= '1' && *digit <= '8' ? *digit - '0' : 1;
	}
	return 0;
}

wn_code image_orient(image *img, int orientation, wn_error *err)
{
	if (orientation <= 1 || orientation > 8)
		return WN_OK;
	const ptrdiff_t w = img->width, h = img->height;
	const ptrdiff_t px = 3, row = w * 3, last_x = (w - 1) * px, last_y = (h - 1) * row;
	/* Where the output's first pixel comes from, how the source moves with the output's x and y, and which side of the
	 * source becomes the output's left, top, right and bottom. */
	enum { LEFT, TOP, RIGHT, BOTTOM };
	const struct {
		ptrdiff_t start, dx, dy;
		int side[4];
	} walk[9] = {
		[2] = {last_x, -px, row, {RIGHT, TOP, LEFT, BOTTOM}},           /* mirrored */
		[3] = {last_x + last_y, -px, -row, {RIGHT, BOTTOM, LEFT, TOP}}, /* half turn */
		[4] = {last_y, px, -row, {LEFT, BOTTOM, RIGHT, TOP}},           /* upside down, mirrored */
		[5] = {0, row, px, {TOP, LEFT, BOTTOM, RIGHT}},                 /* transposed */
		[6] = {last_y, -row, px, {BOTTOM, LEFT, TOP, RIGHT}},           /* needs a quarter turn clockwise */
		[7] = {last_x + last_y, -row, -px, {BOTTOM, RIGHT, TOP, LEFT}}, /* transposed over the other diagonal */
		[8] = {last_x, row, -px, {TOP, RIGHT, BOTTOM, LEFT}},           /* needs a quarter turn anticlockwise */
	};
	int out_w = orientation >= 5 ? img->height : img->width;
	int out_h = orientation >= 5 ? img->width : img->height;
	uint8_t *out = malloc((size_t)w * (size_t)h * 3); /* as large as the image that already exists */
	if (!out)
		return wn_fail(err, WN_NOMEM, "out of memory turning a %dx%d image upright", img->width, img->height);
	uint8_t *o = out;
	for (int y = 0; y < out_h; y++) {
		ptrdiff_t at = walk[orientation].start + y * walk[orientation].dy;
		for (int x = 0; x < out_w; x++, o += 3, at += walk[orientation].dx) {
			o[0] = img->rgb[at];
			o[1] = img->rgb[at + 1];
			o[2] = img->rgb[at + 2];
		}
	}
	image upright = {.width = out_w, .height = out_h, .rgb = out};
	for (int i = 0; i < 4; i++)
		upright.beyond[i] = img->beyond[walk[orientation].side[i]];
	free(img->rgb);
	*img = upright;
	return WN_OK;
}
