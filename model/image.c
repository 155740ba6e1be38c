/* image.c: recognising formats, and the limits every decoder obeys. Stateless. */
#include "model/image_internal.h"

#include <stdlib.h>
#include <string.h>

static int starts(const uint8_t *b, size_t len, size_t at, const void *sig, size_t sig_len)
{
	return len >= at + sig_len && !memcmp(b + at, sig, sig_len);
}
#define STARTS(at, sig) starts(b, len, at, sig, sizeof sig - 1)

/* An SVG is XML text: a byte-order mark, white space, prologue and comments may precede <svg. */
static int looks_like_svg(const uint8_t *b, size_t len)
{
	size_t i = STARTS(0, "\xEF\xBB\xBF") ? 3 : 0;
	while (i < len && (b[i] == ' ' || (b[i] >= '\t' && b[i] <= '\r')))
		i++;
	if (STARTS(i, "<svg"))
		return 1;
	if (!STARTS(i, "<?xml") && !STARTS(i, "<!--") && !STARTS(i, "<!DOCTYPE svg"))
		return 0;
	size_t window = len - i < 2048 ? len - i : 2048;
	return memmem(b + i, window, "<svg", 4) != NULL;
}

/* HEIF family: an ftyp box whose major brand, or one of the first compatible brands, tells the codec. */
static const char *iso_brand(const uint8_t *b, size_t len)
{
	if (!STARTS(4, "ftyp"))
		return NULL;
	size_t end = image_be32(b);
	if (end > len)
		end = len;
	if (end > 64)
		end = 64;
	for (size_t at = 8; at + 4 <= end; at += at == 8 ? 8 : 4) { /* 12..15 is the minor version */
		if (STARTS(at, "avif") || STARTS(at, "avis"))
			return "avif";
		if (STARTS(at, "heic") || STARTS(at, "heix") || STARTS(at, "hevc") || STARTS(at, "heim"))
			return "heic";
	}
	return NULL;
}

const char *image_format(const void *bytes, size_t len)
{
	const uint8_t *b = bytes;
	if (STARTS(0, "\xFF\xD8\xFF"))
		return "jpeg";
	if (STARTS(0, "\x89PNG\r\n\x1a\n"))
		return "png";
	if (STARTS(0, "GIF87a") || STARTS(0, "GIF89a"))
		return "gif";
	if (STARTS(0, "RIFF") && STARTS(8, "WEBP"))
		return "webp";
	if (STARTS(0, "II*\0") || STARTS(0, "MM\0*"))
		return "tiff";
	if (STARTS(0, "%PDF-"))
		return "pdf";
	if (STARTS(0, "BM") && len >= 26) /* two letters alone are no proof; the reserved words are zero */
		return STARTS(6, "\0\0\0\0") ? "bmp" : "unknown";
	const char *brand = iso_brand(b, len);
	if (brand)
		return brand;
	return looks_like_svg(b, len) ? "svg" : "unknown";
}

image_limits image_limits_resolve(const image_limits *limits)
{
	image_limits l = limits ? *limits : (image_limits){0};
	if (l.max_side <= 0)
		l.max_side = 8192;
	if (l.max_side > 65535)
		l.max_side = 65535;
	if (l.max_pixels <= 0)
		l.max_pixels = (int64_t)16 << 20;
	if (l.max_pixels > (int64_t)128 << 20)
		l.max_pixels = (int64_t)128 << 20;
	if (l.max_bytes == 0)
		l.max_bytes = (size_t)32 << 20;
	if (l.max_bytes > (size_t)1 << 30)
		l.max_bytes = (size_t)1 << 30;
	return l;
}

wn_code image_check_size(int64_t width, int64_t height, const image_limits *limits, wn_error *err)
{
	if (width < 1 || height < 1)
		return wn_fail(err, WN_INVALID, "image header says %lldx%lld pixels", (long long)width, (long long)height);
	if (width > limits->max_side || height > limits->max_side)
		return wn_fail(err, WN_TOO_LARGE, "image is %lldx%lld pixels, the limit is %d a side", (long long)width,
			       (long long)height, limits->max_side);
	if (width * height > limits->max_pixels)
		return wn_fail(err, WN_TOO_LARGE, "image is %lldx%lld, %lld pixels, the limit is %lld", (long long)width,
			       (long long)height, (long long)(width * height), (long long)limits->max_pixels);
	return WN_OK;
}

void image_free(image *img)
{
	if (!img)
		return;
	free(img->rgb);
	*img = (image){0};
}
