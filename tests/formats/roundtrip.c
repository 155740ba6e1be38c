/* roundtrip IN OUT: reads config.json and the weights of directory IN and writes both into directory OUT with winnow's own
 * writers, so that check_roundtrip.py can compare OUT with IN in stock transformers. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "model/hf_config.h"
#include "model/safetensors.h"

int main(int argc, char **argv)
{
	char path[4096];
	static blip2_config config;
	safetensors *st = NULL;
	safetensors_entry *entries = NULL;
	wn_error err = {0};
	if (argc != 3) {
		fprintf(stderr, "usage: formats_roundtrip IN OUT\n");
		return 2;
	}
	snprintf(path, sizeof path, "%s/config.json", argv[1]);
	if (hf_config_read(&config, path, &err) != WN_OK || safetensors_open_dir(&st, argv[1], &err) != WN_OK)
		goto out;
	char *text = hf_config_write(&config);
	entries = calloc(safetensors_count(st) + 1, sizeof *entries);
	if (!text || !entries)
		abort();
	snprintf(path, sizeof path, "%s/config.json", argv[2]);
	if (file_write_atomic(path, text, strlen(text), &err) != WN_OK)
		goto out;
	free(text);
	for (size_t i = 0; i < safetensors_count(st); i++)
		entries[i].tensor = *safetensors_at(st, i, &entries[i].name);
	snprintf(path, sizeof path, "%s/model.safetensors", argv[2]);
	safetensors_write(path, entries, safetensors_count(st), &err);
out:
	free(entries);
	safetensors_close(&st);
	if (err.code != WN_OK)
		fprintf(stderr, "%s\n", err.message);
	return err.code != WN_OK;
}
