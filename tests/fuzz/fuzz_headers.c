/* Values of request headers; each line is taken for every one of them. libmicrohttpd hands over what stood behind the colon, with
 * a NUL where it ended. */
#include <limits.h>

#include "fuzz_files.h"
#include "server/fields.h"
#include "server/headers.h"
#include "server/multipart.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MOST_MS 60000

static void check_numbers(const char *text)
{
	char again[32];
	const char *digits = text + strspn(text, "0");
	const long long ms = header_deadline_ms(text, MOST_MS);
	const unsigned long long length = header_length(text);
	snprintf(again, sizeof again, "%lld", ms);
	if (ms < 0 || ms > MOST_MS || (ms && strcmp(again, digits) != 0))
		abort();
	snprintf(again, sizeof again, "%llu", length);
	if (length != ULLONG_MAX && strcmp(again, *digits ? digits : "0") != 0)
		abort();
	if (ms && (unsigned long long)ms != length)
		abort();
}

static void check_key(const char *text)
{
	const char *key = header_bearer(text);
	if (key && (key < text + strlen("Bearer ") || key > text + strlen(text) || *key == ' ' || (*text | 32) != 'b'))
		abort();
}

static void check_id(const char *text)
{
	const size_t n = strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");
	if (request_id_is_valid(text) != (n > 0 && n < REQUEST_ID_SIZE && !text[n]))
		abort();
}

static void check_type(const char *text)
{
	char boundary[MULTIPART_BOUNDARY_SIZE];
	wn_error err = {0};
	const body_kind kind = body_kind_of(text);
	const wn_code rc = multipart_boundary(boundary, text, &err);
	if (rc != WN_OK ? !*err.message : !*boundary || !strstr(text, boundary))
		abort();
	if (kind != BODY_NONE && (*text | 32) != (kind == BODY_JSON ? 'a' : 'm'))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t len;
	for (size_t at = 0; at < size;) {
		const size_t next = at + fuzz_line(data + at, size - at, &len);
		char *text = malloc(len + 1); /* exactly its bytes on the heap */
		if (!text)
			return 0;
		memcpy(text, data + at, len);
		text[len] = 0;
		check_numbers(text);
		check_key(text);
		check_id(text);
		check_type(text);
		free(text);
		at = next;
	}
	return 0;
}
