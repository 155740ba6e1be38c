/* image_png.c: a walk over a PNG's chunks, and the minimal PNG that stb_image is shown in its stead.
 *
 * The walk checks what stb_image does not (check sums, the end chunk, that the compressed data can hold the picture at
 * all) and finds the orientation. The rewrite keeps only IHDR, a palette padded to 256 entries (stb_image reads
 * beyond a short one; Pillow pads with black, too) and the pixel data in one piece. That leaves tRNS, gAMA and unknown
 * chunks out, which convert("RGB") ignores as well, and keeps stb_image off the one static buffer it writes to for an
 * unknown chunk. The walk allocates nothing; both are stateless but for the check-sum table. */
#include "model/image_internal.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK(a, b, c, d) ((uint32_t)(a) << 24 | (uint32_t)(b) << 16 | (uint32_t)(c) << 8 | (uint32_t)(d))
enum { SIGNATURE_LEN = 8, CHUNK_EXTRA = 12 /* length, type, check sum */ };

/* CRC-32 eight bytes a step: a byte at a time costs 2 ms a megabyte, as much as a tenth of the decoding. */
static uint32_t crc_table[8][256];
static pthread_once_t crc_once = PTHREAD_ONCE_INIT;

static void crc_fill(void)
{
	for (uint32_t i = 0; i < 256; i++) {
		uint32_t c = i;
		for (int bit = 0; bit < 8; bit++)
			c = c & 1 ? 0xEDB88320u ^ c >> 1 : c >> 1;
		crc_table[0][i] = c;
	}
	for (int k = 1; k < 8; k++)
		for (int i = 0; i < 256; i++)
			crc_table[k][i] = crc_table[k - 1][i] >> 8 ^ crc_table[0][crc_table[k - 1][i] & 255];
}

static uint32_t crc32_of(const uint8_t *p, size_t n)
{
	pthread_once(&crc_once, crc_fill);
	uint32_t c = 0xFFFFFFFFu;
	for (; n >= 8; n -= 8, p += 8) {
		c ^= (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
		c = crc_table[7][c & 255] ^ crc_table[6][c >> 8 & 255] ^ crc_table[5][c >> 16 & 255] ^
		    crc_table[4][c >> 24] ^ crc_table[3][p[4]] ^ crc_table[2][p[5]] ^ crc_table[1][p[6]] ^
		    crc_table[0][p[7]];
	}
	for (; n; n--, p++)
		c = crc_table[0][(c ^ *p) & 255] ^ c >> 8;
	return ~c;
}

typedef struct chunk {
	uint32_t type, len;
	const uint8_t *data;
} chunk;

/* The chunk at *at, which moves past it. The type's letters go into messages only when they are letters. */
static wn_code next_chunk(chunk *c, size_t *at, const uint8_t *b, size_t len, wn_error *err)
{
	size_t left = len - *at;
	if (left < CHUNK_EXTRA)
		return wn_fail(err, WN_INVALID, "png is cut short: %zu bytes hold no end chunk", len);
	const uint8_t *p = b + *at;
	c->len = image_be32(p);
	c->type = image_be32(p + 4);
	c->data = p + 8;
	for (int i = 4; i < 8; i++)
		if (!((p[i] | 32) >= 'a' && (p[i] | 32) <= 'z'))
			return wn_fail(err, WN_INVALID, "png chunk at byte %zu has no valid name", *at);
	if (c->len > left - CHUNK_EXTRA)
		return wn_fail(err, WN_INVALID, "png is cut short: chunk %.4s of %u bytes passes the end of %zu bytes",
			       (const char *)p + 4, c->len, len);
	if (crc32_of(p + 4, (size_t)c->len + 4) != image_be32(c->data + c->len))
		return wn_fail(err, WN_INVALID, "png chunk %.4s at byte %zu has a wrong check sum", (const char *)p + 4, *at);
	*at += CHUNK_EXTRA + (size_t)c->len;
	return WN_OK;
}

static int samples_per_pixel(int color_type)
{
	return color_type == 2 ? 3 : color_type == 4 ? 2 : color_type == 6 ? 4 : 1;
}

static wn_code header_chunk(image_header *h, const chunk *c, const image_limits *limits, wn_error *err)
{
	if (c->type != CHUNK('I', 'H', 'D', 'R') || c->len != 13)
		return wn_fail(err, WN_INVALID, "png does not begin with a 13-byte IHDR chunk");
	int depth = c->data[8], type = c->data[9];
	static const unsigned depths[7] = {/* bit d set: depth d is allowed, by color type */
					   [0] = 1u << 1 | 1u << 2 | 1u << 4 | 1u << 8 | 1u << 16,
					   [2] = 1u << 8 | 1u << 16,
					   [3] = 1u << 1 | 1u << 2 | 1u << 4 | 1u << 8,
					   [4] = 1u << 8 | 1u << 16,
					   [6] = 1u << 8 | 1u << 16};
	if (type > 6 || depth > 16 || !(depths[type] >> depth & 1))
		return wn_fail(err, WN_INVALID, "png has color type %d with %d bits a sample", type, depth);
	if (c->data[10] || c->data[11] || c->data[12] > 1)
		return wn_fail(err, WN_INVALID, "png has compression %d, filter %d, interlace %d; 0, 0 and 0 or 1 exist",
			       c->data[10], c->data[11], c->data[12]);
	h->bit_depth = depth;
	h->color_type = type;
	h->interlaced = c->data[12];
	uint32_t w = image_be32(c->data), ht = image_be32(c->data + 4);
	wn_code rc = image_check_size(w, ht, limits, err);
	if (rc)
		return rc;
	h->width = (int)w;
	h->height = (int)ht;
	return WN_OK;
}

/* iTXt: keyword NUL, compression flag and method, language NUL, translated keyword NUL, text. */
static void text_chunk(image_header *h, const chunk *c)
{
	static const char key[] = "XML:com.adobe.xmp";
	if (c->len < sizeof key + 2 || memcmp(c->data, key, sizeof key) != 0 || c->data[sizeof key] != 0)
		return; /* XMP forbids compressing it */
	h->xmp_orientation = image_xmp_orientation(c->data + sizeof key + 2, c->len - sizeof key - 2);
}

static wn_code later_chunk(image_header *h, const chunk *c, wn_error *err)
{
	switch (c->type) {
	case CHUNK('P', 'L', 'T', 'E'):
		if (h->palette || !c->len || c->len > 768 || c->len % 3)
			return wn_fail(err, WN_INVALID, "png has %s", h->palette ? "two palettes" : "a malformed palette");
		h->palette = c->data;
		h->palette_len = c->len;
		return WN_OK;
	case CHUNK('I', 'D', 'A', 'T'):
		if (h->color_type == 3 && !h->palette)
			return wn_fail(err, WN_INVALID, "png has indexed pixels before their palette");
		h->idat_len += c->len;
		return WN_OK;
	case CHUNK('e', 'X', 'I', 'f'):
		if (!h->exif_orientation)
			h->exif_orientation = image_exif_orientation(c->data, c->len);
		return WN_OK;
	case CHUNK('i', 'T', 'X', 't'):
		text_chunk(h, c);
		return WN_OK;
	default:
		if (c->type >> 29 & 1)
			return WN_OK;
		return wn_fail(err, WN_UNSUPPORTED, "png needs chunk %c%c%c%c, which is not part of the standard",
			       (int)(c->type >> 24), (int)(c->type >> 16 & 255), (int)(c->type >> 8 & 255),
			       (int)(c->type & 255));
	}
}

wn_code image_png_scan(image_header *out, const uint8_t *b, size_t len, const image_limits *limits, wn_error *err)
{
	*out = (image_header){0};
	size_t at = SIGNATURE_LEN;
	chunk c;
	wn_code rc = next_chunk(&c, &at, b, len, err);
	if (rc == WN_OK)
		rc = header_chunk(out, &c, limits, err);
	while (rc == WN_OK) {
		rc = next_chunk(&c, &at, b, len, err);
		if (rc != WN_OK || c.type == CHUNK('I', 'E', 'N', 'D'))
			break;
		rc = later_chunk(out, &c, err);
	}
	if (rc)
		return rc;
	/* Deflate spends at least one bit on 129 bytes: less data than this cannot be the picture the header promises. */
	uint64_t row = ((uint64_t)out->width * (unsigned)(samples_per_pixel(out->color_type) * out->bit_depth) + 7) / 8;
	uint64_t need = row * (unsigned)out->height / 1040;
	if (out->idat_len < 6 || out->idat_len < need)
		return wn_fail(err, WN_INVALID, "png has %zu bytes of image data, %dx%d pixels need at least %llu",
			       out->idat_len, out->width, out->height, (unsigned long long)(need < 6 ? 6 : need));
	return WN_OK;
}

static uint8_t *put_chunk_head(uint8_t *o, uint32_t type, size_t len)
{
	for (int i = 0; i < 4; i++) {
		o[i] = (uint8_t)(len >> (24 - 8 * i));
		o[4 + i] = (uint8_t)(type >> (24 - 8 * i));
	}
	return o + 8;
}

wn_code image_png_rewrite(uint8_t **out, size_t *out_len, const image_header *h, const uint8_t *b, size_t len,
			  wn_error *err)
{
	size_t palette_room = h->color_type == 3 ? 768 : 0;
	size_t total = SIGNATURE_LEN + CHUNK_EXTRA + 13 + (palette_room ? CHUNK_EXTRA + palette_room : 0) + CHUNK_EXTRA +
		       h->idat_len + CHUNK_EXTRA;
	uint8_t *buf = malloc(total), *o = buf;
	if (!buf)
		return wn_fail(err, WN_NOMEM, "out of memory copying %zu bytes of png data", h->idat_len);
	const size_t head = SIGNATURE_LEN + CHUNK_EXTRA + 13;
	memcpy(o, b, head);
	o += head;
	if (palette_room) {
		o = put_chunk_head(o, CHUNK('P', 'L', 'T', 'E'), palette_room);
		memcpy(o, h->palette, h->palette_len);
		memset(o + h->palette_len, 0, palette_room - h->palette_len + 4);
		o += palette_room + 4;
	}
	o = put_chunk_head(o, CHUNK('I', 'D', 'A', 'T'), h->idat_len);
	for (size_t at = head; at + CHUNK_EXTRA <= len;) { /* lengths were checked by the scan */
		size_t n = image_be32(b + at);
		uint32_t type = image_be32(b + at + 4);
		if (type == CHUNK('I', 'E', 'N', 'D'))
			break;
		if (type == CHUNK('I', 'D', 'A', 'T')) {
			memcpy(o, b + at + 8, n);
			o += n;
		}
		at += CHUNK_EXTRA + n;
	}
	memset(o, 0, 4);
	o = put_chunk_head(o + 4, CHUNK('I', 'E', 'N', 'D'), 0);
	memset(o, 0, 4);
	*out = buf;
	*out_len = total;
	return WN_OK;
}
