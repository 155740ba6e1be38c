/* YAML of `winnow-prune train` and `compress`: labels, stages and shapes are small languages of their own. */
#include "fuzz_files.h"
#include "prune/compress/compress_config.h"
#include "prune/train_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_train(const char *path)
{
	static blip2_config shape;
	train_config c;
	manifest m = {0};
	wn_error err = {0};
	if (train_config_load(&c, path, NULL, 0, &err) != WN_OK) {
		if (!*err.message)
			abort();
		return;
	}
	if (train_config_manifest(&c, &m, &err) == WN_OK) {
		for (int i = 0; i < m.num_labels; i++)
			if (!*m.labels[i].name || !*m.labels[i].verbalizer)
				abort();
		manifest_close(&m);
	} else if (!*err.message) {
		abort();
	}
	wn_error other = {0};
	if (train_config_model(&c, &shape, &other) != WN_OK && !*other.message)
		abort();
	train_config_free(&c);
}

static void check_compress(const char *path)
{
	compress_config c;
	stage stages[MAX_STAGES];
	wn_error err = {0};
	if (compress_config_load(&c, path, NULL, 0, &err) != WN_OK) {
		if (!*err.message)
			abort();
		return;
	}
	const int n = compress_config_stages(&c, stages);
	if (n < 0 || n > MAX_STAGES)
		abort();
	compress_config_free(&c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int fd;
	const char *path = fuzz_file(&fd, data, size);
	check_train(path);
	check_compress(path);
	close(fd);
	return 0;
}
