/* An HTTP response as winnow-load reads it, in one piece and byte by byte: both must agree; then what its body is
 * searched for. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "load/answer.h"
#include "load/response.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static wn_code read_all(response *r, const char *data, size_t size, size_t step, size_t *used_of_all)
{
	wn_error err = {0};
	wn_code code = WN_OK;
	*used_of_all = 0;
	response_start(r);
	while (*used_of_all < size && code == WN_OK && r->state != RESPONSE_DONE) {
		size_t n = size - *used_of_all, used;
		n = n < step ? n : step;
		code = response_read(r, data + *used_of_all, n, &used, &err);
		*used_of_all += used;
		if (code == WN_OK && used != n && r->state != RESPONSE_DONE)
			abort();
	}
	if (code == WN_OK)
		code = response_close(r, &err);
	if ((code == WN_OK) != !*err.message || (code == WN_OK) != (r->state == RESPONSE_DONE))
		abort();
	return code;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static response whole, bytes;
	size_t used_whole, used_bytes;
	const wn_code a = read_all(&whole, (const char *)data, size, SIZE_MAX, &used_whole);
	const wn_code b = read_all(&bytes, (const char *)data, size, 1, &used_bytes);
	if (a != b)
		abort();
	if (a == WN_OK &&
	    (used_whole != used_bytes || whole.status != bytes.status || whole.keep_alive != bytes.keep_alive ||
	     whole.body_len != bytes.body_len || whole.body_kept != bytes.body_kept ||
	     whole.body_len > RESPONSE_MAX_BODY || whole.body_kept > RESPONSE_KEPT || whole.status < 200 ||
	     (whole.body_kept && memcmp(whole.body, bytes.body, whole.body_kept) != 0)))
		abort();
	if (a != WN_OK)
		return 0;
	/* exactly its bytes on the heap */
	char *body = malloc(whole.body_kept ? whole.body_kept : 1), label[32], reason[32];
	if (!body)
		abort();
	if (whole.body_kept)
		memcpy(body, whole.body, whole.body_kept);
	if (answer_label(body, whole.body_kept, label, sizeof label) && strlen(label) >= sizeof label)
		abort();
	answer_reason(body, whole.body_kept, reason, sizeof reason);
	for (const char *p = reason; *p; p++)
		if (*p < ' ' || *p >= 0x7f)
			abort();
	free(body);
	return 0;
}
