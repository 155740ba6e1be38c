/* image_turbo.c: JPEG pixels by libjpeg-turbo, whole or at n/8 of their size; the only file that includes jpeglib.h.
 *
 * Settings are the library's defaults, which are Pillow's: the accurate inverse transform, smooth chroma upsampling. So
 * a whole picture equals Pillow's bit for bit. At n/8 the inverse transform itself yields n x n samples of every 8 x 8
 * block, so that most of a large picture is never computed; only the entropy decoding stays.
 *
 * libjpeg reports by callbacks. Its errors, and the warnings that mean a part of the picture is missing (it would go on
 * and paint that part grey, and an answer must never be about half an image), end in one longjmp to the setjmp of
 * guarded(); other warnings (stray bytes before a marker, an unknown JFIF revision) are met in sound files and pass.
 * Nothing is printed. What the decoder owns lives in a `decoder` of image_jpeg_turbo's frame, outside the function that
 * calls setjmp, so that its values are certain after the jump.
 *
 * Bounds: image_jpeg_scan has checked sizes and structure and counted the scans; libjpeg's largest buffers, the
 * coefficients of a file in several scans, are capped to what the size justifies. Stateless: any number of threads. */
#include "model/image_internal.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include <jpeglib.h>
/* After it: the numbers of its messages depend on the version that jpeglib.h names. */
#include <jerror.h>

enum { ROWS_A_CALL = 16 };

typedef struct decoder {
	struct jpeg_decompress_struct jpeg;
	struct jpeg_error_mgr manager;
	jmp_buf back;
	const image_header *h;
	const uint8_t *bytes;
	size_t len;
	int eighths;
	image out;
	wn_code code; /* of the failure that jumped back */
	wn_error *err;
} decoder;

static wn_code describe(decoder *d)
{
	char why[JMSG_LENGTH_MAX];
	const int what = d->manager.msg_code;
	switch (what) {
	case JERR_OUT_OF_MEMORY:
		return wn_fail(d->err, WN_NOMEM, "out of memory decoding a %dx%d jpeg", d->h->width, d->h->height);
	case JERR_NO_BACKING_STORE: /* what it says when the cap is passed */
		return wn_fail(d->err, WN_INVALID, "jpeg holds far more data than its %dx%d pixels need", d->h->width,
			       d->h->height);
	case JWRN_HIT_MARKER:
	case JWRN_JPEG_EOF:
		return wn_fail(d->err, WN_INVALID, "jpeg is cut short: its image data end before its %dx%d pixels do",
			       d->h->width, d->h->height);
	case JWRN_MUST_RESYNC:
		return wn_fail(d->err, WN_INVALID, "jpeg cannot be decoded: a part between restart markers is missing");
	case JWRN_HUFF_BAD_CODE:
		return wn_fail(d->err, WN_INVALID, "jpeg cannot be decoded: bad Huffman code");
	default:
		d->manager.format_message((j_common_ptr)&d->jpeg, why);
		return wn_fail(d->err, what == JERR_FRACT_SAMPLE_NOTIMPL ? WN_UNSUPPORTED : WN_INVALID,
			       "jpeg cannot be decoded: %s", why);
	}
}

static _Noreturn void on_error(j_common_ptr jpeg)
{
	decoder *d = jpeg->client_data;
	d->code = describe(d);
	longjmp(d->back, 1);
}

static void on_message(j_common_ptr jpeg, int level)
{
	if (level >= 0)
		return; /* a trace */
	switch (jpeg->err->msg_code) {
	case JWRN_HIT_MARKER:
	case JWRN_JPEG_EOF:
	case JWRN_MUST_RESYNC:
	case JWRN_HUFF_BAD_CODE:
		on_error(jpeg);
	default:
		break;
	}
}

static void print_nothing(j_common_ptr jpeg) { (void)jpeg; }

/* Adobe's inverted CMYK as Pillow's cmyk2rgb has it: (c * k) / 255, rounded in its way. */
static void cmyk_to_rgb(uint8_t *rgb, const uint8_t *cmyk, int width)
{
	for (int x = 0; x < width; x++, rgb += 3, cmyk += 4) {
		const int k = cmyk[3];
		for (int i = 0; i < 3; i++) {
			int t = (255 - cmyk[i]) * k + 128, v = k - ((t + (t >> 8)) >> 8);
			rgb[i] = (uint8_t)(v < 0 ? 0 : v);
		}
	}
}

static void read_rows(decoder *d)
{
	struct jpeg_decompress_struct *j = &d->jpeg;
	const size_t row = (size_t)d->out.width * 3;
	/* Four components need a row of their own; libjpeg frees it. */
	JSAMPARRAY cmyk = j->output_components == 4
			      ? j->mem->alloc_sarray((j_common_ptr)j, JPOOL_IMAGE, j->output_width * 4, 1)
			      : NULL;
	while (j->output_scanline < j->output_height) {
		uint8_t *at = d->out.rgb + j->output_scanline * row;
		if (cmyk) {
			jpeg_read_scanlines(j, cmyk, 1);
			cmyk_to_rgb(at, cmyk[0], d->out.width);
			continue;
		}
		JSAMPROW rows[ROWS_A_CALL];
		JDIMENSION n = j->output_height - j->output_scanline;
		n = n < ROWS_A_CALL ? n : ROWS_A_CALL;
		for (JDIMENSION i = 0; i < n; i++)
			rows[i] = at + i * row;
		jpeg_read_scanlines(j, rows, n);
	}
}

/* A side at that scale, rounded up, and how far that reaches beyond the picture. */
static int reduced(float *beyond, int side, int eighths)
{
	const int64_t exact = (int64_t)side * eighths, whole = (exact + 7) / 8;
	*beyond = (float)(whole * 8 - exact) / 8;
	return (int)whole;
}

static wn_code decode(decoder *d)
{
	struct jpeg_decompress_struct *j = &d->jpeg;
	const image_header *h = d->h;
	jpeg_create_decompress(j);
	/* Two bytes a coefficient, at most four components, sides rounded up to whole units; 1 MiB covers the rest. */
	j->mem->max_memory_to_use =
	    (long)(((size_t)h->width + 64) * ((size_t)h->height + 64) * 4 * 2 + ((size_t)1 << 20));
	jpeg_mem_src(j, d->bytes, d->len);
	jpeg_read_header(j, TRUE);
	if (j->image_width != (JDIMENSION)h->width || j->image_height != (JDIMENSION)h->height)
		return wn_fail(d->err, WN_INVALID, "jpeg contradicts itself: %dx%d and %ux%u pixels", h->width,
			       h->height, j->image_width, j->image_height);
	j->scale_num = (unsigned)d->eighths;
	j->scale_denom = 8;
	j->out_color_space = j->num_components == 4 ? JCS_CMYK : JCS_RGB;
	jpeg_start_decompress(j);
	image *o = &d->out;
	o->width = reduced(&o->beyond[2], h->width, d->eighths);
	o->height = reduced(&o->beyond[3], h->height, d->eighths);
	if (j->output_width != (JDIMENSION)o->width || j->output_height != (JDIMENSION)o->height)
		return wn_fail(d->err, WN_INTERNAL, "jpeg at %d/8 is %ux%u pixels, %dx%d were expected", d->eighths,
			       j->output_width, j->output_height, o->width, o->height);
	o->rgb = malloc((size_t)o->width * (size_t)o->height * 3);
	if (!o->rgb)
		return wn_fail(d->err, WN_NOMEM, "out of memory for a %dx%d image", o->width, o->height);
	read_rows(d);
	jpeg_finish_decompress(j);
	return WN_OK;
}

static wn_code guarded(decoder *d) { return setjmp(d->back) ? d->code : decode(d); }

wn_code image_jpeg_turbo(image *out, const image_header *h, const uint8_t *b, size_t len, int eighths, wn_error *err)
{
	decoder d = {.h = h, .bytes = b, .len = len, .eighths = eighths, .err = err};
	d.jpeg.err = jpeg_std_error(&d.manager);
	d.jpeg.client_data = &d;
	d.manager.error_exit = on_error;
	d.manager.emit_message = on_message;
	d.manager.output_message = print_nothing;
	wn_code rc = guarded(&d);
	jpeg_destroy_decompress(&d.jpeg);
	if (rc)
		image_free(&d.out);
	else
		*out = d.out;
	return rc;
}
