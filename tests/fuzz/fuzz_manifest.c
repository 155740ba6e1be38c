/* winnow.json: parse, overlay the widths on a small model, and set them from it again. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "model/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char CONFIG[] = "{\"model_type\":\"blip-2\",\"vision_config\":{\"num_hidden_layers\":1},"
                             "\"qformer_config\":{\"num_hidden_layers\":1},\"text_config\":{\"num_hidden_layers\":1}}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static blip2_config c;
	manifest m;
	wn_error err = {0};
	if (manifest_parse(&m, (const char *)data, size, &err) != WN_OK) {
		if (!*err.message || m.prompt || m.files)
			abort();
		return 0;
	}
	if (hf_config_parse(&c, CONFIG, strlen(CONFIG), &err) != WN_OK)
		abort();
	if (manifest_apply_widths(&m, &c, &err) == WN_OK &&
	    (manifest_set_widths(&m, &c, &err) != WN_OK || (m.widths != NULL) == hf_config_is_uniform(&c) ||
	     manifest_apply_widths(&m, &c, &err) != WN_OK))
		abort();
	for (int i = 0; i < m.num_labels; i++)
		if (!(m.labels[i].threshold >= 0 && m.labels[i].threshold <= 1) || !*m.labels[i].verbalizer)
			abort();
	manifest_close(&m);
	return 0;
}
