/* config.json: what parses is written and parses to the same again. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "model/hf_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static blip2_config c, again;
	wn_error err = {0};
	wn_code rc = hf_config_parse(&c, (const char *)data, size, &err);
	if (rc != WN_OK) {
		if (!*err.message || c.vision.hidden_size)
			abort();
		return 0;
	}
	char *text = hf_config_write(&c);
	if (!text || hf_config_parse(&again, text, strlen(text), &err) != WN_OK)
		abort();
	free(text);
	if (!*c.torch_dtype)
		strcpy(c.torch_dtype, "float32");
	if (memcmp(&c, &again, sizeof c) != 0)
		abort();
	return 0;
}
