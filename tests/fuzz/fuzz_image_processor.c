/* fuzz_image_processor.c: any bytes as preprocessor_config.json. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include "model/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	image_processor p = {0};
	wn_error err = {0};
	wn_code rc = image_processor_parse(&p, (const char *)data, size, &err);
	if (rc != err.code || (rc != WN_OK && (!err.message[0] || p.size != 0)))
		abort();
	if (rc != WN_OK)
		return 0;
	if (p.size < 1 || p.size > 4096 || !(p.rescale_factor > 0) || !isfinite(p.rescale_factor))
		abort();
	for (int i = 0; i < 3; i++)
		if (!isfinite(p.mean[i]) || !(p.std[i] > 0) || !isfinite(p.std[i]))
			abort();
	return 0;
}
