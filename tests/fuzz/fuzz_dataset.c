/* metadata.jsonl of a split: what is read is complete, and every image lies inside the split. */
#include "fuzz_files.h"
#include "prune/dataset.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_samples(const dataset *d, int labels)
{
	char path[4096];
	wn_error err = {0};
	for (size_t i = 0; i < d->count; i++) {
		const sample *s = &d->samples[i];
		if (!s->file_name || !s->text || !s->assist || !s->caption || s->label < -1 || s->label >= labels)
			abort();
		if (dataset_image_path(d, i, path, sizeof path, &err) == WN_OK &&
		    (strncmp(path, d->dir, strlen(d->dir)) != 0 || strstr(path + strlen(d->dir), "/../")))
			abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const label_spec labels[] = {{.name = "compliant"}, {.name = "gambling"}};
	static bool made;
	char path[128];
	if (!made) {
		snprintf(path, sizeof path, "%s/train", fuzz_dir());
		mkdir(path, 0700);
		made = true;
	}
	fuzz_put("train/metadata.jsonl", data, size);
	for (unsigned needs = 0; needs <= (DATASET_NEEDS_LABEL | DATASET_NEEDS_CAPTION); needs++) {
		dataset d;
		wn_error err = {0};
		if (dataset_read(&d, fuzz_dir(), "train", labels, 2, needs, 0, &err) == WN_OK) {
			check_samples(&d, 2);
			dataset_close(&d);
		} else if (!*err.message || d.samples) {
			abort();
		}
	}
	return 0;
}
