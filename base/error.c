/* error.c: first error wins; messages are cut at the buffer, never allocated. */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Messages quote outside bytes (file names, JSON keys); a control character would break the one-line promise. */
static void make_one_line(char *s)
{
	for (; *s; s++)
		if ((unsigned char)*s < 0x20 || *s == 0x7f)
			*s = '?';
}

wn_code wn_fail(wn_error *err, wn_code code, const char *fmt, ...)
{
	if (!err || err->code != WN_OK)
		return code;
	err->code = code;
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(err->message, sizeof err->message, fmt, ap);
	va_end(ap);
	make_one_line(err->message);
	return code;
}

wn_code wn_fail_prefix(wn_error *err, const char *fmt, ...)
{
	if (!err)
		return WN_INTERNAL;
	char old[sizeof err->message];
	memcpy(old, err->message, sizeof old);
	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(err->message, sizeof err->message, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= sizeof err->message - 2)
		n = (int)sizeof err->message - 3;
	snprintf(err->message + n, sizeof err->message - (size_t)n, ": %s", old);
	make_one_line(err->message);
	return err->code;
}
