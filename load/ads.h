/* ads.h: a folder of ads to ask about, in Hugging Face's imagefolder layout: metadata.jsonl and the images it names.
 *
 * Each line is a JSON object with `file_name` (relative, inside the folder) or `image` (base64), and as needed `text`,
 * `assist` and `label`; other members are ignored. Read whole into memory: nothing is read from disk while requests are
 * timed. Errors name file and line. */
#ifndef WINNOW_LOAD_ADS_H
#define WINNOW_LOAD_ADS_H

#include <stddef.h>

#include "base/error.h"

#define ADS_MAX_METADATA ((size_t)256 << 20) /* bytes of metadata.jsonl */
#define ADS_MAX_IMAGE    ((size_t)64 << 20)  /* bytes of one image */
#define ADS_MAX_BYTES    ((size_t)1 << 30)   /* of all images; more ads need --limit */

typedef struct ad {
	char *name;   /* of the image's file, without folders: "ad.jpg" */
	char *text;   /* "" when absent */
	char *assist; /* NULL when absent */
	char *label;  /* NULL when absent */
	unsigned char *image;
	size_t image_len;
} ad;

typedef struct ads {
	ad *items; /* owned */
	size_t count;
	size_t labelled; /* how many have a label */
	size_t bytes;    /* of all images */
} ads;

/* path: a folder with metadata.jsonl, or such a file itself. At most `limit` ads when limit > 0. *out is zeroed on
 * failure. */
wn_code ads_read(ads *out, const char *path, size_t limit, wn_error *err);
void ads_close(ads *a);

#endif
