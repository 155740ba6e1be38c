/* split.c: see split.h. */
#include "prune/split.h"

#include <limits.h>
#include <string.h>

#include <omp.h>

#include "prune/progress.h"
#include "prune/run_dir.h"

wn_code split_read(split_data *s, const char *data_dir, const char *name, const char *key, const label_spec *labels, int num_labels,
		   unsigned needs, size_t limit, wn_error *err)
{
	if (snprintf(s->name, sizeof s->name, "%s", name) >= (int)sizeof s->name || strchr(name, '/'))
		return wn_fail(err, WN_INVALID, "%s: split \"%.60s\" is not a directory's name", key, name);
	wn_code rc = dataset_read(&s->dataset, data_dir, name, labels, num_labels, needs, limit, err);
	s->limit = limit;
	s->used = rc == WN_OK;
	return rc;
}

typedef struct decoding {
	const split_decoding *options;
	progress progress;
} decoding;

static int show_decoding(void *ctx, size_t done, size_t total)
{
	decoding *d = ctx;
	(void)total;
	progress_update(&d->progress, (int64_t)done, "");
	return d->options->stop && *d->options->stop;
}

wn_code split_open_images(split_data *s, int side, const split_decoding *o, wn_error *err)
{
	char file[PATH_MAX], label[64];
	decoding d = {.options = o};
	wn_code rc = run_dir_make(o->cache_dir, err);
	if (rc)
		return rc;
	int n = s->limit ? snprintf(file, sizeof file, "%s/%s-%d-first%zu.rgb", o->cache_dir, s->name, side, s->limit)
			 : snprintf(file, sizeof file, "%s/%s-%d.rgb", o->cache_dir, s->name, side);
	if (n >= (int)sizeof file)
		return wn_fail(err, WN_TOO_LARGE, "data.cache: path too long");
	snprintf(label, sizeof label, "decode %.40s", s->name);
	progress_start(&d.progress, o->out, label, 0, (int64_t)s->dataset.count, o->log_seconds);
	int threads = o->threads ? o->threads : omp_get_max_threads();
	rc = image_cache_open(&s->images, file, &s->dataset, side, threads, show_decoding, &d, err);
	if (!rc && s->images.decoded)
		progress_finish(&d.progress, (int64_t)s->dataset.count, "");
	return rc;
}

void split_close(split_data *s)
{
	image_cache_close(&s->images);
	sequence_set_close(&s->sequences);
	dataset_close(&s->dataset);
	*s = (split_data){0};
}
