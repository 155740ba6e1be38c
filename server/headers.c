/* headers.c: see headers.h. */
#include "server/headers.h"

#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* strtoull also takes white space, a sign, and nothing at all. */
static bool is_number(const char *text) { return *text && !text[strspn(text, "0123456789")]; }

long long header_deadline_ms(const char *text, long long most)
{
	const long long ms = is_number(text) && strlen(text) <= 9 ? atoll(text) : 0;
	return ms <= most ? ms : 0;
}

const char *header_bearer(const char *text)
{
	static const char SCHEME[] = "Bearer ";
	const size_t n = sizeof SCHEME - 1;
	return strncasecmp(text, SCHEME, n) == 0 ? text + n + strspn(text + n, " ") : NULL;
}

unsigned long long header_length(const char *text)
{
	return is_number(text) ? strtoull(text, NULL, 10) : ULLONG_MAX; /* which is also what it gives beyond its range */
}
