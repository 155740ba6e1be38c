/* response.c: see response.h. Lines are gathered into r->line, then interpreted by the state; bodies are taken in runs.
 */
#include "load/response.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

void response_start(response *r)
{
	char *body = r->body;
	const size_t room = r->body_room;
	/* all but the line, which is as long as line_len says */
	memset(r, 0, offsetof(response, line));
	r->body = body;
	r->body_room = room;
}

void response_free(response *r)
{
	free(r->body);
	r->body = NULL;
	r->body_room = r->body_kept = 0;
}

/* ---- header fields ---- */

static bool is_token(const char *s, size_t len)
{
	static const char OTHERS[] = "!#$%&'*+-.^_`|~";
	for (size_t i = 0; i < len; i++) {
		const char c = s[i];
		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
		      (c && strchr(OTHERS, c))))
			return false;
	}
	return len > 0;
}

static bool word_is(const char *s, size_t len, const char *word)
{
	return len == strlen(word) && strncasecmp(s, word, len) == 0;
}

/* Takes the next element of a comma-separated list off [*p, end), trimmed; false at the end. Empty elements are
 * skipped. */
static bool next_element(const char **p, const char *end, const char **element, size_t *len)
{
	while (*p < end && (**p == ',' || **p == ' ' || **p == '\t'))
		++*p;
	if (*p == end)
		return false;
	const char *comma = memchr(*p, ',', (size_t)(end - *p));
	const char *stop = comma ? comma : end;
	*element = *p;
	*p = stop;
	while (stop > *element && (stop[-1] == ' ' || stop[-1] == '\t'))
		stop--;
	*len = (size_t)(stop - *element);
	return true;
}

/* Digits only, up to 2^63. */
static bool read_decimal(const char *s, size_t len, uint64_t *out)
{
	*out = 0;
	for (size_t i = 0; i < len; i++) {
		if (s[i] < '0' || s[i] > '9' || *out > (UINT64_MAX >> 1) / 10 - 1)
			return false;
		*out = *out * 10 + (uint64_t)(s[i] - '0');
	}
	return len > 0;
}

static wn_code take_length(response *r, const char *value, const char *end, wn_error *err)
{
	const char *element;
	size_t len;
	bool any = false;
	while (next_element(&value, end, &element, &len)) {
		uint64_t n;
		if (!read_decimal(element, len, &n))
			return wn_fail(err, WN_INVALID, "Content-Length: found \"%.*s\", expected a number",
				       (int)(len < 40 ? len : 40), element);
		if (r->has_length && n != r->length)
			return wn_fail(err, WN_INVALID, "Content-Length: found %llu and %llu",
				       (unsigned long long)r->length, (unsigned long long)n);
		r->length = n;
		r->has_length = any = true;
	}
	return any ? WN_OK : wn_fail(err, WN_INVALID, "Content-Length: empty");
}

static wn_code take_coding(response *r, const char *value, const char *end, wn_error *err)
{
	const char *element;
	size_t len;
	while (next_element(&value, end, &element, &len)) {
		if (r->chunked || !word_is(element, len, "chunked"))
			return wn_fail(err, WN_UNSUPPORTED, "Transfer-Encoding: found \"%.*s\", expected chunked alone",
				       (int)(len < 40 ? len : 40), element);
		r->chunked = true;
	}
	return WN_OK;
}

/* Every byte of a line: HTAB, visible ASCII, blanks, or beyond ASCII. */
static bool is_text(const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (((unsigned char)s[i] < 0x20 && s[i] != '\t') || s[i] == 0x7f)
			return false;
	return true;
}

static wn_code take_header(response *r, const char *line, size_t len, wn_error *err)
{
	const char *colon = memchr(line, ':', len), *end = line + len, *element;
	size_t element_len;
	if (!colon || !is_token(line, (size_t)(colon - line)) || !is_text(line, len))
		return wn_fail(err, WN_INVALID, "found \"%.*s\", expected a header line", (int)(len < 60 ? len : 60),
			       line);
	if (r->state == RESPONSE_TRAILERS)
		return WN_OK; /* nothing in them changes what was read */
	const size_t name = (size_t)(colon - line);
	const char *value = colon + 1;
	if (word_is(line, name, "Content-Length"))
		return take_length(r, value, end, err);
	if (word_is(line, name, "Transfer-Encoding"))
		return take_coding(r, value, end, err);
	if (word_is(line, name, "Connection"))
		while (next_element(&value, end, &element, &element_len)) {
			r->close |= word_is(element, element_len, "close");
			r->keep |= word_is(element, element_len, "keep-alive");
		}
	return WN_OK;
}

/* ---- lines ---- */

static wn_code take_status_line(response *r, const char *line, size_t len, wn_error *err)
{
	/* HTTP/1.x SP 3DIGIT [ SP reason ] */
	const bool shaped = len >= 12 && memcmp(line, "HTTP/1.", 7) == 0 && (line[7] == '0' || line[7] == '1') &&
			    line[8] == ' ' && (len == 12 || line[12] == ' ') && is_text(line, len);
	uint64_t status = 0;
	if (!shaped || !read_decimal(line + 9, 3, &status) || status < 100)
		return wn_fail(err, WN_INVALID, "found \"%.*s\", expected an HTTP/1.1 status line",
			       (int)(len < 60 ? len : 60), line);
	r->status = (int)status;
	r->minor_0 = line[7] == '0';
	r->has_length = r->chunked = r->close = r->keep = false;
	r->length = 0;
	r->state = RESPONSE_HEADERS;
	return WN_OK;
}

/* The empty line behind the headers: what follows? */
static wn_code end_headers(response *r, wn_error *err)
{
	if (r->status == 101)
		return wn_fail(err, WN_UNSUPPORTED, "found status 101, expected an answer in HTTP/1.1");
	if (r->status < 200) { /* informational: the answer is still to come */
		r->state = RESPONSE_STATUS_LINE;
		return WN_OK;
	}
	if (r->chunked && (r->has_length || r->minor_0))
		return wn_fail(err, WN_INVALID, "found Transfer-Encoding %s",
			       r->has_length ? "beside Content-Length" : "in HTTP/1.0");
	if (r->length > RESPONSE_MAX_BODY)
		return wn_fail(err, WN_TOO_LARGE, "Content-Length: found %llu, expected at most %llu",
			       (unsigned long long)r->length, (unsigned long long)RESPONSE_MAX_BODY);
	const bool bodyless = r->status == 204 || r->status == 304;
	r->keep_alive = !r->close && (!r->minor_0 || r->keep);
	r->left = r->length;
	if (bodyless || (r->has_length && !r->length))
		r->state = RESPONSE_DONE;
	else if (r->chunked)
		r->state = RESPONSE_CHUNK_SIZE;
	else if (r->has_length)
		r->state = RESPONSE_BODY_LENGTH;
	else
		r->state = RESPONSE_BODY_CLOSE;
	r->keep_alive &= r->state != RESPONSE_BODY_CLOSE;
	return WN_OK;
}

static int hex_digit(char c)
{
	return c >= '0' && c <= '9'   ? c - '0'
	       : c >= 'a' && c <= 'f' ? c - 'a' + 10
	       : c >= 'A' && c <= 'F' ? c - 'A' + 10
				      : -1;
}

/* Bytes that frame content are bounded as the content is: a long answer in small chunks is no flood of headers. */
static void forgive(response *r, size_t bytes) { r->head_len -= bytes < r->head_len ? bytes : r->head_len; }

static wn_code take_chunk_size(response *r, const char *line, size_t len, wn_error *err)
{
	size_t n = 0;
	uint64_t size = 0;
	for (; n < len && hex_digit(line[n]) >= 0; n++) {
		if (size > RESPONSE_MAX_BODY)
			break;
		size = size * 16 + (uint64_t)hex_digit(line[n]);
	}
	if (size > RESPONSE_MAX_BODY || r->body_len + size > RESPONSE_MAX_BODY)
		return wn_fail(err, WN_TOO_LARGE, "the chunks are more than %llu bytes",
			       (unsigned long long)RESPONSE_MAX_BODY);
	size_t blanks = n;
	while (blanks < len && (line[blanks] == ' ' || line[blanks] == '\t'))
		blanks++;
	if (!n || (blanks < len && line[blanks] != ';') || !is_text(line, len))
		return wn_fail(err, WN_INVALID, "found \"%.*s\", expected the size of a chunk",
			       (int)(len < 40 ? len : 40), line);
	r->left = size;
	r->state = size ? RESPONSE_CHUNK_DATA : RESPONSE_TRAILERS;
	if (size)
		forgive(r, blanks + 2);
	return WN_OK;
}

static wn_code take_line(response *r, wn_error *err)
{
	const size_t len = r->line_len;
	r->line_len = 0;
	switch (r->state) {
	case RESPONSE_STATUS_LINE:
		return take_status_line(r, r->line, len, err);
	case RESPONSE_CHUNK_SIZE:
		return take_chunk_size(r, r->line, len, err);
	case RESPONSE_CHUNK_END:
		if (len)
			return wn_fail(err, WN_INVALID, "found more bytes in a chunk than its size says");
		forgive(r, 2);
		r->state = RESPONSE_CHUNK_SIZE;
		return WN_OK;
	default: /* headers, trailers */
		if (len)
			return take_header(r, r->line, len, err);
		if (r->state == RESPONSE_HEADERS)
			return end_headers(r, err);
		r->state = RESPONSE_DONE;
		return WN_OK;
	}
}

/* Gathers bytes up to a line's end and has the line interpreted when it is there. */
static wn_code read_line(response *r, const char *data, size_t len, size_t *used, wn_error *err)
{
	const char *eol = memchr(data, '\n', len);
	const size_t n = eol ? (size_t)(eol - data) : len;
	/* Byte by byte or at once: the same bytes are counted before the same limit is looked at. */
	const size_t line_room = sizeof r->line - 1 - r->line_len, head_room = RESPONSE_MAX_HEAD - r->head_len;
	if (n > line_room || n + (eol != NULL) > head_room)
		return wn_fail(err, WN_TOO_LARGE, "a line or all of them are longer than %d or %d bytes",
			       RESPONSE_MAX_LINE, RESPONSE_MAX_HEAD);
	memcpy(r->line + r->line_len, data, n);
	r->line_len += n;
	*used = n + (eol != NULL);
	r->head_len += *used;
	if (!eol)
		return WN_OK;
	if (r->line_len && r->line[r->line_len - 1] == '\r')
		r->line_len--;
	if (r->line_len > RESPONSE_MAX_LINE)
		return wn_fail(err, WN_TOO_LARGE, "a line is longer than %d bytes", RESPONSE_MAX_LINE);
	return take_line(r, err);
}

/* ---- bodies ---- */

static wn_code keep_body(response *r, const char *data, size_t len, wn_error *err)
{
	r->body_len += len;
	if (r->body_len > RESPONSE_MAX_BODY)
		return wn_fail(err, WN_TOO_LARGE, "the body is longer than %llu bytes",
			       (unsigned long long)RESPONSE_MAX_BODY);
	const size_t keep = len < RESPONSE_KEPT - r->body_kept ? len : RESPONSE_KEPT - r->body_kept;
	if (r->body_kept + keep > r->body_room) {
		size_t room = r->body_room ? r->body_room : 1024;
		while (room < r->body_kept + keep)
			room *= 2;
		char *grown = realloc(r->body, room);
		if (!grown)
			return wn_fail(err, WN_NOMEM, "no memory for an answer of %zu bytes", room);
		r->body = grown;
		r->body_room = room;
	}
	if (keep)
		memcpy(r->body + r->body_kept, data, keep);
	r->body_kept += keep;
	return WN_OK;
}

static wn_code read_counted(response *r, const char *data, size_t len, size_t *used, wn_error *err)
{
	*used = len < r->left ? len : (size_t)r->left;
	wn_code code = keep_body(r, data, *used, err);
	r->left -= *used;
	if (code == WN_OK && !r->left)
		r->state = r->state == RESPONSE_CHUNK_DATA ? RESPONSE_CHUNK_END : RESPONSE_DONE;
	return code;
}

wn_code response_read(response *r, const char *data, size_t len, size_t *used, wn_error *err)
{
	wn_code code = WN_OK;
	*used = 0;
	r->begun |= len > 0;
	while (code == WN_OK && *used < len && r->state != RESPONSE_DONE) {
		const char *p = data + *used;
		size_t left = len - *used, taken = 0;
		switch (r->state) {
		case RESPONSE_BODY_LENGTH:
		case RESPONSE_CHUNK_DATA:
			code = read_counted(r, p, left, &taken, err);
			break;
		case RESPONSE_BODY_CLOSE:
			code = keep_body(r, p, left, err);
			taken = left;
			break;
		case RESPONSE_FAILED:
			return wn_fail(err, WN_INVALID, "the answer was broken before");
		default:
			code = read_line(r, p, left, &taken, err);
		}
		*used += taken;
	}
	if (code != WN_OK) {
		r->state = RESPONSE_FAILED;
		r->keep_alive = false;
	}
	return code;
}

wn_code response_close(response *r, wn_error *err)
{
	if (r->state == RESPONSE_DONE)
		return WN_OK;
	r->keep_alive = false;
	if (r->state == RESPONSE_BODY_CLOSE) {
		r->state = RESPONSE_DONE;
		return WN_OK;
	}
	const bool in_head = r->state == RESPONSE_STATUS_LINE || r->state == RESPONSE_HEADERS;
	r->state = RESPONSE_FAILED;
	if (!r->begun)
		return wn_fail(err, WN_INVALID, "the connection was closed without an answer");
	return wn_fail(err, WN_INVALID, "the connection was closed within the %s of the answer",
		       in_head ? "headers" : "body");
}
