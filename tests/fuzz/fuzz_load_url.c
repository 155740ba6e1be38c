/* winnow-load's URL: what is taken goes into request lines and headers, and parses to the same again. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "load/url.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A blank or a line end would begin another header, or another request. */
static void check_bytes(const char *s)
{
	for (; *s; s++)
		if ((unsigned char)*s <= ' ' || *s == 0x7f)
			abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);
	url u, again;
	wn_error err = {0};
	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = 0;
	wn_code rc = url_parse(&u, text, "/v1/audit", &err);
	free(text);
	if (rc != WN_OK) {
		if (!*err.message)
			abort();
		return 0;
	}
	check_bytes(u.host);
	check_bytes(u.path);
	check_bytes(u.authority);
	if (u.port < 1 || u.port > 65535 || u.path[0] != '/' || !*u.host)
		abort();
	char whole[sizeof u.authority + sizeof u.path + 8];
	snprintf(whole, sizeof whole, "http://%s%s", u.authority, u.path);
	if (url_parse(&again, whole, "/", &err) != WN_OK || strcmp(u.host, again.host) != 0 || u.port != again.port ||
	    strcmp(u.path, again.path) != 0 || strcmp(u.authority, again.authority) != 0)
		abort();
	return 0;
}
