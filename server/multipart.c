/* multipart.c: see multipart.h. */
#include "server/multipart.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static const char TOKEN[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~";

/* One "; name=value" of a header. Cursor over [p, end). */
typedef struct parameter {
	const char *name;
	size_t name_len;
	char value[256];
	bool too_long; /* value did not fit */
} parameter;

static const char *skip_blanks(const char *p, const char *end)
{
	while (p < end && (*p == ' ' || *p == '\t'))
		p++;
	return p;
}

static size_t token_length(const char *p, const char *end)
{
	size_t n = 0;
	while (p + n < end && p[n] && strchr(TOKEN, p[n]))
		n++;
	return n;
}

static const char *read_quoted(const char *p, const char *end, parameter *out)
{
	size_t n = 0;
	for (p++; p < end && *p != '"'; p++) {
		/* Only \" and \\ are escapes: old browsers send file names such as C:\ad.png with bare backslashes. */
		if (*p == '\\' && p + 1 < end && (p[1] == '"' || p[1] == '\\'))
			p++;
		if (n + 1 < sizeof out->value)
			out->value[n++] = *p;
		else
			out->too_long = true;
	}
	out->value[n] = 0;
	return p < end ? p + 1 : NULL;
}

/* Reads one parameter after its ';'. Next position, or NULL when malformed. */
static const char *read_parameter(const char *p, const char *end, parameter *out)
{
	memset(out, 0, sizeof *out);
	p = skip_blanks(p, end);
	out->name = p;
	out->name_len = token_length(p, end);
	p += out->name_len;
	if (out->name_len == 0 || p >= end || *p != '=')
		return NULL;
	p++;
	if (p < end && *p == '"') {
		p = read_quoted(p, end, out);
	} else {
		size_t n = token_length(p, end);
		out->too_long = n >= sizeof out->value;
		snprintf(out->value, sizeof out->value, "%.*s", (int)(out->too_long ? sizeof out->value - 1 : n), p);
		p = n > 0 ? p + n : NULL;
	}
	return p ? skip_blanks(p, end) : NULL;
}

static bool name_is(const parameter *p, const char *name)
{
	return p->name_len == strlen(name) && strncasecmp(p->name, name, p->name_len) == 0;
}

/* RFC 2046's bcharsnospace and inner spaces. */
static bool boundary_is_valid(const char *b)
{
	size_t n = strlen(b);
	return n > 0 && n < MULTIPART_BOUNDARY_SIZE && b[n - 1] != ' ' &&
	       strspn(b, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789'()+_,-./:=? ") == n;
}

wn_code multipart_boundary(char out[MULTIPART_BOUNDARY_SIZE], const char *content_type, wn_error *err)
{
	const char *end = content_type + strlen(content_type);
	const char *p = strchr(content_type, ';');
	bool found = false;
	while (p && p < end && *p == ';') {
		parameter param;
		if (skip_blanks(p + 1, end) == end)
			break; /* a trailing semicolon */
		p = read_parameter(p + 1, end, &param);
		if (!p)
			return wn_fail(err, WN_INVALID, "Content-Type: malformed parameter, expected boundary=…");
		if (!name_is(&param, "boundary"))
			continue;
		if (found)
			return wn_fail(err, WN_INVALID, "Content-Type: found boundary twice");
		if (param.too_long || !boundary_is_valid(param.value))
			return wn_fail(err, WN_INVALID,
				       "Content-Type: the boundary is not 1 to 70 characters of RFC 2046");
		snprintf(out, MULTIPART_BOUNDARY_SIZE, "%.70s", param.value);
		found = true;
	}
	if (p && p < end && *p != ';')
		return wn_fail(err, WN_INVALID, "Content-Type: malformed parameter, expected ';' between parameters");
	return found ? WN_OK : wn_fail(err, WN_INVALID, "Content-Type: multipart/form-data without a boundary");
}

static wn_code parse_disposition(multipart_part *part, const char *p, const char *end, size_t index, wn_error *err)
{
	p = skip_blanks(p, end);
	size_t n = token_length(p, end);
	if (n != 9 || strncasecmp(p, "form-data", 9) != 0)
		return wn_fail(err, WN_INVALID, "part %zu: Content-Disposition is not form-data", index);
	p = skip_blanks(p + n, end);
	bool found = false;
	while (p < end) {
		parameter param;
		p = *p == ';' ? read_parameter(p + 1, end, &param) : NULL;
		if (!p)
			return wn_fail(err, WN_INVALID, "part %zu: malformed Content-Disposition", index);
		if (!name_is(&param, "name"))
			continue;
		if (found)
			return wn_fail(err, WN_INVALID, "part %zu: Content-Disposition has two names", index);
		if (param.too_long || strlen(param.value) >= sizeof part->name)
			return wn_fail(err, WN_INVALID, "part %zu: the name is longer than %zu bytes", index,
				       sizeof part->name - 1);
		memcpy(part->name, param.value, strlen(param.value) + 1);
		found = true;
	}
	if (!found || !part->name[0])
		return wn_fail(err, WN_INVALID, "part %zu: Content-Disposition has no name", index);
	return WN_OK;
}

static bool header_is(const char *line, size_t name_len, const char *name)
{
	return name_len == strlen(name) && strncasecmp(line, name, name_len) == 0;
}

static wn_code parse_header(multipart_part *part, const char *line, const char *end, size_t index, wn_error *err)
{
	size_t n = token_length(line, end);
	if (n == 0 || line + n >= end || line[n] != ':')
		return wn_fail(err, WN_INVALID, "part %zu: malformed header line", index);
	const char *value = skip_blanks(line + n + 1, end);
	size_t len = (size_t)(end - value);
	if (header_is(line, n, "Content-Disposition")) {
		if (part->name[0])
			return wn_fail(err, WN_INVALID, "part %zu: Content-Disposition is given twice", index);
		return parse_disposition(part, value, end, index, err);
	}
	if (header_is(line, n, "Content-Type") && len >= 10 && strncasecmp(value, "multipart/", 10) == 0)
		return wn_fail(err, WN_INVALID, "part %zu: found a nested multipart, expected plain parts", index);
	if (header_is(line, n, "Content-Transfer-Encoding")) {
		size_t t = token_length(value, end);
		if (!header_is(value, t, "binary") && !header_is(value, t, "8bit") && !header_is(value, t, "7bit"))
			return wn_fail(err, WN_INVALID,
				       "part %zu: Content-Transfer-Encoding is not binary, 8bit or 7bit", index);
	}
	return WN_OK;
}

/* Reads header lines up to the empty line. *pos moves to the content. */
static wn_code parse_headers(multipart_part *part, const unsigned char *body, size_t *pos, size_t len, size_t index,
			     wn_error *err)
{
	size_t start = *pos;
	for (;;) {
		size_t room = len - *pos, limit = MULTIPART_MAX_HEADERS - (*pos - start);
		const char *line = (const char *)body + *pos;
		const char *eol = memmem(line, room < limit ? room : limit, "\r\n", 2);
		if (!eol)
			return wn_fail(err, WN_INVALID, "part %zu: its headers do not end within %d bytes", index,
				       MULTIPART_MAX_HEADERS);
		*pos += (size_t)(eol - line) + 2;
		if (eol == line)
			break;
		wn_code code = parse_header(part, line, eol, index, err);
		if (code != WN_OK)
			return code;
	}
	if (!part->name[0])
		return wn_fail(err, WN_INVALID, "part %zu: no Content-Disposition header", index);
	return WN_OK;
}

wn_code multipart_parse(multipart_part parts[MULTIPART_MAX_PARTS], size_t *count, const char *boundary,
			const unsigned char *body, size_t len, wn_error *err)
{
	/* CRLF--boundary: the first one may lack the CRLF, as it starts the body. */
	char delimiter[MULTIPART_BOUNDARY_SIZE + 4];
	size_t dlen = (size_t)snprintf(delimiter, sizeof delimiter, "\r\n--%s", boundary);
	size_t pos = 0;
	*count = 0;
	if (len >= dlen - 2 && memcmp(body, delimiter + 2, dlen - 2) == 0)
		pos = dlen - 2;
	else if (len >= dlen && memcmp(body, delimiter, dlen) == 0)
		pos = dlen;
	else
		return wn_fail(err, WN_INVALID, "the body does not start with the boundary that Content-Type names");
	for (;;) {
		if (len - pos >= 2 && memcmp(body + pos, "--", 2) == 0) {
			pos += 2;
			break;
		}
		while (pos < len && (body[pos] == ' ' || body[pos] == '\t'))
			pos++; /* RFC 2046's transport padding */
		if (len - pos < 2 || memcmp(body + pos, "\r\n", 2) != 0)
			return wn_fail(err, WN_INVALID, "part %zu: its boundary line does not end in CRLF", *count + 1);
		pos += 2;
		if (*count == MULTIPART_MAX_PARTS)
			return wn_fail(err, WN_TOO_LARGE, "found more than %d parts", MULTIPART_MAX_PARTS);
		multipart_part *part = &parts[*count];
		memset(part, 0, sizeof *part);
		wn_code code = parse_headers(part, body, &pos, len, *count + 1, err);
		if (code != WN_OK)
			return code;
		if (len - pos >= dlen - 2 && memcmp(body + pos, delimiter + 2, dlen - 2) == 0) {
			/* Without any content the delimiter's CRLF may be the blank line's own. */
			part->data = body + pos;
			pos += dlen - 2;
			(*count)++;
			continue;
		}
		const unsigned char *end = memmem(body + pos, len - pos, delimiter, dlen);
		if (!end)
			return wn_fail(err, WN_INVALID, "part %zu (\"%s\"): the body ends before its closing boundary",
				       *count + 1, part->name);
		part->data = body + pos;
		part->len = (size_t)(end - part->data);
		pos = (size_t)(end - body) + dlen;
		(*count)++;
	}
	if (len - pos >= 2 && memcmp(body + pos, "\r\n", 2) == 0)
		pos += 2;
	if (pos != len)
		return wn_fail(err, WN_INVALID, "found %zu bytes after the closing boundary", len - pos);
	return WN_OK;
}
