/* fuzz_tokenizer_json.c: any bytes as tokenizer.json. What loads must also encode and decode without harm. */
#include <stdint.h>
#include <stdlib.h>

#include "model/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char text[] = " ab ab</s> <mask>  a\xe6\x96\xb0 1's\n";
	tokenizer *t;
	wn_error err = {0};
	wn_code rc = tokenizer_parse(&t, (const char *)data, size, &err);
	if ((rc == WN_OK) != (t != NULL) || (rc != WN_OK && (err.code != rc || !err.message[0])))
		abort();
	if (rc != WN_OK)
		return 0;
	int32_t ids[512];
	size_t count;
	char *out;
	if (tokenizer_encode(t, text, sizeof text - 1, true, ids, 512, &count, NULL) == WN_OK &&
	    tokenizer_decode(t, ids, count, &out, NULL) == WN_OK)
		free(out);
	for (size_t i = 0; i < count && i < 512; i++)
		if (ids[i] < 0 || (size_t)ids[i] >= tokenizer_vocab_size(t))
			abort();
	tokenizer_close(&t);
	return 0;
}
