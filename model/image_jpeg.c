/* image_jpeg.c: a walk over a JPEG's markers, before a decoder sees a byte.
 *
 * Decoders turn hostile bytes into *something* too readily for a service that must not judge half an image: they pad a
 * file that ends early, and stb_image takes tables that were never defined. So the walk demands what a complete picture has
 * (one frame header, tables before their use, at least one scan, the end marker) and bounds the work: size limits before
 * allocation, at most MAX_SCANS scans (each scan of a progressive file visits every block, however few bytes it
 * has), and at least one bit of data for every block, the least Huffman coding can spend.
 * Nothing is allocated. Stateless. */
#include "model/image_internal.h"

#include <string.h>

enum { MAX_SCANS = 64 }; /* encoders write 1 to about 12 */

typedef struct walk {
	const uint8_t *b;
	size_t len, at;
	const image_limits *limits;
	image_header *h;
	int have_frame, progressive, components, adobe_transform; /* -1 = no Adobe marker */
	uint8_t id[4], quant[4];
	unsigned quant_defined, dc_defined, ac_defined; /* bit per table */
	int scans;
	size_t entropy_bytes;
} walk;

/* libjpeg reduces chroma less than the rest as far as it is subsampled in *both* directions (4:2:0 comes out level); what is
 * subsampled in one direction more than in the other stays that much coarser. factors: across << 4 | down, a component. */
static void chroma_detail(image_header *h, const int *factors, int components)
{
	int most_across = 1, most_down = 1;
	for (int i = 0; i < components; i++) {
		most_across = factors[i] >> 4 > most_across ? factors[i] >> 4 : most_across;
		most_down = (factors[i] & 15) > most_down ? factors[i] & 15 : most_down;
	}
	h->coarser_across = h->coarser_down = 1;
	for (int i = 0; i < components; i++) {
		int across = most_across / (factors[i] >> 4), down = most_down / (factors[i] & 15);
		while (across % 2 == 0 && down % 2 == 0) {
			across /= 2;
			down /= 2;
		}
		h->coarser_across = across > h->coarser_across ? across : h->coarser_across;
		h->coarser_down = down > h->coarser_down ? down : h->coarser_down;
	}
}

static wn_code frame_header(walk *w, int marker, const uint8_t *p, size_t n, wn_error *err)
{
	if (w->have_frame)
		return wn_fail(err, WN_INVALID, "jpeg has two frame headers");
	if (n < 6)
		return wn_fail(err, WN_INVALID, "jpeg frame header is %zu bytes long", n);
	if (marker > 0xC2)
		return wn_fail(err, WN_UNSUPPORTED, "jpeg is %s coded; only baseline and progressive Huffman are read",
			       marker >= 0xC9 ? "arithmetic" : "lossless or hierarchically");
	if (p[0] != 8)
		return wn_fail(err, WN_UNSUPPORTED, "jpeg has %d bits a sample; only 8 are read", p[0]);
	w->components = p[5];
	if (w->components != 1 && w->components != 3 && w->components != 4)
		return wn_fail(err, WN_UNSUPPORTED, "jpeg has %d components; only 1, 3 and 4 are read", w->components);
	if (n != 6 + 3 * (size_t)w->components)
		return wn_fail(err, WN_INVALID, "jpeg frame header is %zu bytes long, %d components need %d", n,
			       w->components, 6 + 3 * w->components);
	w->h->height = (int)image_be16(p + 1);
	w->h->width = (int)image_be16(p + 3);
	wn_code rc = image_check_size(w->h->width, w->h->height, w->limits, err);
	if (rc)
		return rc;
	int factors[4];
	for (int i = 0; i < w->components; i++) {
		const uint8_t *c = p + 6 + 3 * i;
		if (c[1] >> 4 < 1 || c[1] >> 4 > 4 || (c[1] & 15) < 1 || (c[1] & 15) > 4 || c[2] > 3)
			return wn_fail(err, WN_INVALID, "jpeg component %d has sampling 0x%02x and table %d", i, c[1], c[2]);
		w->id[i] = c[0];
		w->quant[i] = c[2];
		factors[i] = c[1];
	}
	chroma_detail(w->h, factors, w->components);
	w->have_frame = 1;
	w->progressive = marker == 0xC2;
	return WN_OK;
}

static wn_code quant_tables(walk *w, const uint8_t *p, size_t n, wn_error *err)
{
	while (n) {
		size_t need = p[0] >> 4 ? 129 : 65;
		if (p[0] >> 4 > 1 || (p[0] & 15) > 3 || n < need)
			return wn_fail(err, WN_INVALID, "jpeg quantisation table 0x%02x is malformed", p[0]);
		w->quant_defined |= 1u << (p[0] & 15);
		p += need;
		n -= need;
	}
	return WN_OK;
}

static wn_code huffman_tables(walk *w, const uint8_t *p, size_t n, wn_error *err)
{
	while (n) {
		size_t need = 17;
		for (int i = 1; i <= 16 && n >= 17; i++)
			need += p[i];
		if (p[0] >> 4 > 1 || (p[0] & 15) > 3 || n < need || need > 17 + 256)
			return wn_fail(err, WN_INVALID, "jpeg Huffman table 0x%02x is malformed", p[0]);
		*(p[0] >> 4 ? &w->ac_defined : &w->dc_defined) |= 1u << (p[0] & 15);
		p += need;
		n -= need;
	}
	return WN_OK;
}

/* libjpeg's rule: without an Adobe marker four components are plain CMYK. stb_image would guess otherwise, and such
 * files hardly exist: refused rather than judged in wrong colours. */
static wn_code check_cmyk(const walk *w, wn_error *err)
{
	if (w->components == 4 && w->adobe_transform != 0 && w->adobe_transform != 2)
		return wn_fail(err, WN_UNSUPPORTED, "jpeg has 4 components without an Adobe CMYK or YCCK marker; convert it to RGB");
	return WN_OK;
}

static wn_code scan_header(walk *w, const uint8_t *p, size_t n, wn_error *err)
{
	if (!w->have_frame)
		return wn_fail(err, WN_INVALID, "jpeg scan comes before the frame header");
	if (++w->scans > MAX_SCANS)
		return wn_fail(err, WN_TOO_LARGE, "jpeg has more than %d scans", MAX_SCANS);
	if (n < 1 || p[0] < 1 || p[0] > w->components || n != 4 + 2 * (size_t)p[0])
		return wn_fail(err, WN_INVALID, "jpeg scan header is malformed");
	int first = p[1 + 2 * p[0]], refine = p[3 + 2 * p[0]] >> 4;
	for (int i = 0; i < p[0]; i++) {
		int dc = p[2 + 2 * i] >> 4, ac = p[2 + 2 * i] & 15, c = 0;
		while (c < w->components && w->id[c] != p[1 + 2 * i])
			c++;
		if (c == w->components)
			return wn_fail(err, WN_INVALID, "jpeg scan names component %d, which the frame lacks", p[1 + 2 * i]);
		if (!(w->quant_defined >> w->quant[c] & 1))
			return wn_fail(err, WN_INVALID, "jpeg uses quantisation table %d without defining it", w->quant[c]);
		if ((w->progressive ? first == 0 && !refine : 1) && !(w->dc_defined >> dc & 1))
			return wn_fail(err, WN_INVALID, "jpeg uses Huffman table DC %d without defining it", dc);
		if ((w->progressive ? first > 0 : 1) && !(w->ac_defined >> ac & 1))
			return wn_fail(err, WN_INVALID, "jpeg uses Huffman table AC %d without defining it", ac);
	}
	return check_cmyk(w, err);
}

static void app_segment(walk *w, int marker, const uint8_t *p, size_t n)
{
	static const char xmp[] = "http://ns.adobe.com/xap/1.0/"; /* its terminating NUL is part of the signature */
	if (marker == 0xE1 && n >= 6 && !memcmp(p, "Exif\0", 6)) {
		if (!w->h->exif_orientation)
			w->h->exif_orientation = image_exif_orientation(p + 6, n - 6);
	} else if (marker == 0xE1 && n >= sizeof xmp && !memcmp(p, xmp, sizeof xmp)) {
		w->h->xmp_orientation = image_xmp_orientation(p + sizeof xmp, n - sizeof xmp);
	} else if (marker == 0xEE && n >= 12 && !memcmp(p, "Adobe", 6)) {
		w->adobe_transform = p[11];
	}
}

/* Past the entropy-coded bytes: to the next 0xFF that is neither stuffed (00), a restart (D0..D7) nor fill (FF). */
static void skip_entropy(walk *w)
{
	size_t start = w->at;
	while (w->at + 1 < w->len) {
		const uint8_t *ff = memchr(w->b + w->at, 0xFF, w->len - 1 - w->at);
		if (!ff) {
			w->at = w->len;
			break;
		}
		w->at = (size_t)(ff - w->b);
		int next = ff[1];
		if (next == 0xFF) {
			w->at++;
		} else if (next == 0 || (next >= 0xD0 && next <= 0xD7)) {
			w->at += 2;
		} else {
			break;
		}
	}
	w->entropy_bytes += w->at - start;
}

static wn_code one_segment(walk *w, int marker, wn_error *err)
{
	if (w->len - w->at < 2)
		return wn_fail(err, WN_INVALID, "jpeg is cut short: %zu bytes hold no end marker", w->len);
	size_t n = image_be16(w->b + w->at);
	if (n < 2)
		return wn_fail(err, WN_INVALID, "jpeg segment FF%02X has length %zu", marker, n);
	if (n > w->len - w->at)
		return wn_fail(err, WN_INVALID, "jpeg is cut short: segment FF%02X of %zu bytes passes the end of %zu bytes",
			       marker, n, w->len);
	const uint8_t *p = w->b + w->at + 2;
	w->at += n;
	n -= 2;
	if (marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC)
		return frame_header(w, marker, p, n, err);
	if (marker == 0xDB)
		return quant_tables(w, p, n, err);
	if (marker == 0xC4)
		return huffman_tables(w, p, n, err);
	if (marker >= 0xE0 && marker <= 0xEF)
		app_segment(w, marker, p, n);
	if (marker != 0xDA)
		return WN_OK; /* comments, restart intervals and what the decoders themselves refuse */
	wn_code rc = scan_header(w, p, n, err);
	if (rc == WN_OK)
		skip_entropy(w);
	return rc;
}

wn_code image_jpeg_scan(image_header *out, const uint8_t *b, size_t len, const image_limits *limits, wn_error *err)
{
	*out = (image_header){0};
	walk w = {.b = b, .len = len, .at = 2, .limits = limits, .h = out, .adobe_transform = -1};
	for (;;) {
		const uint8_t *ff = w.at < len ? memchr(b + w.at, 0xFF, len - w.at) : NULL;
		w.at = ff ? (size_t)(ff - b) : len;
		while (w.at < len && b[w.at] == 0xFF)
			w.at++;
		if (w.at >= len)
			return wn_fail(err, WN_INVALID, "jpeg is cut short: %zu bytes hold no end marker", len);
		int marker = b[w.at++];
		if (marker == 0xD9)
			break;
		if (marker == 0 || marker == 1 || (marker >= 0xD0 && marker <= 0xD8))
			continue; /* stand-alone: no length follows */
		wn_code rc = one_segment(&w, marker, err);
		if (rc)
			return rc;
	}
	if (!w.have_frame || !w.scans)
		return wn_fail(err, WN_INVALID, "jpeg holds no image data");
	int64_t blocks = ((int64_t)out->width + 7) / 8 * (((int64_t)out->height + 7) / 8);
	if ((int64_t)w.entropy_bytes < blocks / 8)
		return wn_fail(err, WN_INVALID, "jpeg has %zu bytes of image data, %dx%d pixels need at least %lld",
			       w.entropy_bytes, out->width, out->height, (long long)(blocks / 8));
	return WN_OK;
}
