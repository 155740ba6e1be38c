/* Answers of every shape, read in one piece, byte by byte and cut in two anywhere: the same result, or the same
 * refusal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "load/answer.h"
#include "load/response.h"

typedef struct expectation {
	const char *text;
	wn_code code;
	int status;
	bool keep_alive;
	const char *body;
	bool needs_close; /* complete only when the peer closes */
	size_t extra;     /* bytes behind the answer */
	const char *why;  /* a refusal's message contains it */
} expectation;

#define OK "HTTP/1.1 200 OK\r\n"

static const expectation CASES[] = {
    {OK "Content-Length: 5\r\n\r\nhello", WN_OK, 200, true, "hello"},
    {"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", WN_OK, 200, true, ""},
    {"HTTP/1.1 429 \r\ncontent-LENGTH:2\t\r\n\r\nno", WN_OK, 429, true, "no"},
    {OK "Content-Length: 2\r\nConnection: close\r\n\r\nab", WN_OK, 200, false, "ab"},
    {OK "Content-Length: 2\r\nConnection: foo , Close\r\n\r\nab", WN_OK, 200, false, "ab"},
    {"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab", WN_OK, 200, false, "ab"},
    {"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: Keep-Alive\r\n\r\nab", WN_OK, 200, true, "ab"},
    {"HTTP/1.1 200 OK\nContent-Length: 2\n\nab", WN_OK, 200, true, "ab"}, /* bare line feeds */
    {"HTTP/1.1 204 No Content\r\n\r\n", WN_OK, 204, true, ""},
    {"HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n", WN_OK, 304, true, ""},
    {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" OK "Content-Length: 1\r\n\r\nx", WN_OK,
     200, true, "x"},
    {OK "Content-Length: 2\r\n\r\nabHTTP/1.1 500", WN_OK, 200, true, "ab", .extra = 12},
    {OK "Content-Length: 3, 3\r\nContent-Length: 3\r\n\r\nabc", WN_OK, 200, true, "abc"},
    {OK "\r\nuntil it closes", WN_OK, 200, false, "until it closes", .needs_close = true},
    {OK "Content-Type: x\r\n\r\n", WN_OK, 200, false, "", .needs_close = true},
    {OK "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;name=\"x\"\r\n world\r\n0\r\n\r\n", WN_OK, 200, true,
     "hello world"},
    {OK "Transfer-Encoding: Chunked\r\n\r\n00A \t\r\n0123456789\r\n0\r\nTrailer: 1\r\nContent-Length: 7\r\n\r\n", WN_OK,
     200, true, "0123456789"},
    {OK "Transfer-Encoding: chunked\n\n1\na\n0\n\n", WN_OK, 200, true, "a"},

    {"", WN_INVALID, .why = "without an answer"},
    {"HTTP/1.1 200 OK\r\nContent-Len", WN_INVALID, .why = "within the headers"},
    {OK "Content-Length: 5\r\n\r\nhell", WN_INVALID, .why = "within the body"},
    {OK "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", WN_INVALID, .why = "within the body"},
    {OK "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", WN_INVALID, .why = "within the body"},
    {"HTTP/1.1 100 Continue\r\n\r\n", WN_INVALID, .why = "closed"},
    {"\x15\x03\x01\x02\x02\x28\r\n", WN_INVALID, .why = "status line"}, /* a TLS alert */
    {"SSH-2.0-OpenSSH_9.2\r\n", WN_INVALID, .why = "SSH-2.0"},
    {"\r\n" OK "Content-Length: 0\r\n\r\n", WN_INVALID, .why = "status line"},
    {"HTTP/2 200\r\n\r\n", WN_INVALID, .why = "status line"},
    {"HTTP/1.2 200 OK\r\n\r\n", WN_INVALID, .why = "status line"},
    {"HTTP/1.1  200 OK\r\n\r\n", WN_INVALID, .why = "status line"},
    {"HTTP/1.1 2000 OK\r\n\r\n", WN_INVALID, .why = "status line"},
    {"HTTP/1.1 099 OK\r\n\r\n", WN_INVALID, .why = "status line"},
    {"HTTP/1.1 2x0 OK\r\n\r\n", WN_INVALID, .why = "status line"},
    {"HTTP/1.1 200 O\x01K\r\n\r\n", WN_INVALID, .why = "status line"},
    {"HTTP/1.1 101 Switching Protocols\r\n\r\n", WN_UNSUPPORTED, .why = "101"},
    {OK "no colon\r\n\r\n", WN_INVALID, .why = "header line"},
    {OK "Name : x\r\n\r\n", WN_INVALID, .why = "header line"},
    {OK "A: b\r\n folded\r\n\r\n", WN_INVALID, .why = "header line"},
    {OK "A: b\rc\r\n\r\n", WN_INVALID, .why = "header line"},
    {OK ": x\r\n\r\n", WN_INVALID, .why = "header line"},
    {OK "Content-Length: -1\r\n\r\n", WN_INVALID, .why = "Content-Length"},
    {OK "Content-Length: 0x5\r\n\r\n", WN_INVALID, .why = "Content-Length"},
    {OK "Content-Length: \r\n\r\n", WN_INVALID, .why = "Content-Length"},
    {OK "Content-Length: 5\r\nContent-Length: 6\r\n\r\n", WN_INVALID, .why = "found 5 and 6"},
    {OK "Content-Length: 99999999999999999999\r\n\r\n", WN_INVALID, .why = "Content-Length"},
    {OK "Content-Length: 9223372036854775807\r\n\r\n", WN_INVALID, .why = "Content-Length"},
    {OK "Content-Length: 922337203685477580\r\n\r\n", WN_TOO_LARGE, .why = "at most"},
    {OK "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", WN_INVALID, .why = "beside Content-Length"},
    {"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", WN_INVALID, .why = "HTTP/1.0"},
    {OK "Transfer-Encoding: gzip, chunked\r\n\r\n", WN_UNSUPPORTED, .why = "gzip"},
    {OK "Transfer-Encoding: chunked, chunked\r\n\r\n", WN_UNSUPPORTED, .why = "chunked alone"},
    {OK "Transfer-Encoding: chunked\r\n\r\n\r\n", WN_INVALID, .why = "size of a chunk"},
    {OK "Transfer-Encoding: chunked\r\n\r\nxyz\r\n", WN_INVALID, .why = "size of a chunk"},
    {OK "Transfer-Encoding: chunked\r\n\r\n5 5\r\nhello\r\n", WN_INVALID, .why = "size of a chunk"},
    {OK "Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n", WN_INVALID, .why = "size of a chunk"},
    {OK "Transfer-Encoding: chunked\r\n\r\n5\r\nhelloo\r\n", WN_INVALID, .why = "more bytes in a chunk"},
    {OK "Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF1\r\n", WN_TOO_LARGE, .why = "chunks"},
    {OK "Transfer-Encoding: chunked\r\n\r\n4000001\r\n", WN_TOO_LARGE, .why = "chunks"},
    {OK "Transfer-Encoding: chunked\r\n\r\n0\r\nbad trailer\r\n\r\n", WN_INVALID, .why = "header line"},
};

/* Feeds text in two pieces, or in steps when step is not 0, and closes. *open: the answer was not complete before that.
 */
static wn_code read_in_pieces(response *r, const char *text, size_t len, size_t cut, size_t step, size_t *used_of_all,
			      bool *open, wn_error *err)
{
	wn_code code = WN_OK;
	*used_of_all = 0;
	response_start(r);
	for (size_t at = 0; at < len && code == WN_OK && r->state != RESPONSE_DONE;) {
		size_t n = at < cut ? cut - at : len - at, used = 0;
		n = step && n > step ? step : n;
		/* exactly n bytes on the heap: the address sanitizer sees the first one read beyond */
		char *piece = malloc(n);
		memcpy(piece, text + at, n);
		code = response_read(r, piece, n, &used, err);
		free(piece);
		assert_true(used <= n);
		assert_true(code != WN_OK || used == n || r->state == RESPONSE_DONE);
		at += n;
		*used_of_all += used;
	}
	*open = r->state != RESPONSE_DONE;
	return code == WN_OK ? response_close(r, err) : code;
}

static void check(const expectation *e, response *r, size_t cut, size_t step)
{
	wn_error err = {0};
	size_t used;
	bool open;
	const size_t len = strlen(e->text);
	const wn_code code = read_in_pieces(r, e->text, len, cut, step, &used, &open, &err);
	if (code != e->code || (code != WN_OK && !strstr(err.message, e->why)))
		print_message("%.80s: \"%s\" (cut at %zu, steps of %zu)\n", e->text, err.message, cut, step);
	assert_int_equal(code, e->code);
	if (code != WN_OK) {
		assert_non_null(strstr(err.message, e->why));
		assert_int_equal(r->state, RESPONSE_FAILED);
		assert_false(r->keep_alive);
		return;
	}
	assert_int_equal(r->state, RESPONSE_DONE);
	assert_int_equal(open, e->needs_close);
	assert_int_equal(r->status, e->status);
	assert_int_equal(r->keep_alive, e->keep_alive);
	assert_int_equal(r->body_len, strlen(e->body));
	assert_int_equal(r->body_kept, strlen(e->body));
	if (r->body_kept)
		assert_memory_equal(r->body, e->body, r->body_kept);
	assert_int_equal(used, len - e->extra);
}

static void every_cut_gives_the_same(void **state)
{
	static response r; /* reused from case to case, as a connection does */
	for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
		const size_t len = strlen(CASES[i].text);
		for (size_t cut = 0; cut <= len; cut++)
			check(&CASES[i], &r, cut, 0);
		check(&CASES[i], &r, 0, 1);
		check(&CASES[i], &r, 0, 3);
	}
	response_free(&r);
}

/* text, then `unit` until the answer is refused or `limit` bytes are in. */
static wn_code flood(const char *text, const char *unit, size_t limit, wn_error *err)
{
	response *r = calloc(1, sizeof *r);
	size_t used, fed = 0;
	response_start(r);
	wn_code code = response_read(r, text, strlen(text), &used, err);
	for (; code == WN_OK && fed < limit && r->state != RESPONSE_DONE; fed += strlen(unit))
		code = response_read(r, unit, strlen(unit), &used, err);
	assert_true(r->body_room <= RESPONSE_KEPT);
	response_free(r);
	free(r);
	return code;
}

static void floods_end(void **state)
{
	wn_error err = {0};
	assert_int_equal(flood("", "x", 1 << 20, &err), WN_TOO_LARGE);
	assert_int_equal(flood(OK, "A: b\r\n", 1 << 20, NULL), WN_TOO_LARGE);
	assert_int_equal(flood(OK "A: ", "bbbbbbbb", 1 << 20, NULL), WN_TOO_LARGE);
	assert_int_equal(flood("", "HTTP/1.1 100 Continue\r\n\r\n", 1 << 20, NULL), WN_TOO_LARGE);
	assert_int_equal(flood(OK "Transfer-Encoding: chunked\r\n\r\n1", ";x", 1 << 20, NULL), WN_TOO_LARGE);
	assert_int_equal(flood(OK "Transfer-Encoding: chunked\r\n\r\n0\r\n", "A: b\r\n", 1 << 20, NULL), WN_TOO_LARGE);
	char block[65537];
	memset(block, 'x', sizeof block - 1);
	block[sizeof block - 1] = 0;
	assert_int_equal(flood(OK "\r\n", block, (size_t)80 << 20, NULL), WN_TOO_LARGE);
	/* many small chunks are no flood */
	assert_int_equal(flood(OK "Transfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n", 1 << 20, NULL), WN_OK);
}

static void long_bodies_are_counted_and_their_beginning_kept(void **state)
{
	enum { LEN = 3 * RESPONSE_KEPT + 7 };
	static response r;
	char head[80], *body = malloc(LEN);
	size_t used;
	wn_error err = {0};
	for (size_t i = 0; i < LEN; i++)
		body[i] = (char)(i * 31);
	for (int round = 0; round < 2; round++) {
		response_start(&r);
		snprintf(head, sizeof head, OK "Content-Length: %d\r\n\r\n", LEN);
		assert_int_equal(response_read(&r, head, strlen(head), &used, &err), WN_OK);
		for (size_t at = 0; at < LEN; at += used)
			assert_int_equal(response_read(&r, body + at, LEN - at < 1000 ? LEN - at : 1000, &used, &err),
					 WN_OK);
		assert_int_equal(r.state, RESPONSE_DONE);
		assert_int_equal(r.body_len, LEN);
		assert_int_equal(r.body_kept, RESPONSE_KEPT);
		assert_memory_equal(r.body, body, RESPONSE_KEPT);
	}
	response_free(&r);
	free(body);
}

static void labels_and_reasons_of_bodies(void **state)
{
	char out[16];
	static const char good[] = "{\"label\":\"gambling\",\"score\":0.9}", number[] = "{\"label\":3}",
			  list[] = "[\"label\"]", cut[] = "{\"label\":\"gam",
			  many[] = "{\"label\":\"0123456789abcdef\"}",
			  problem[] = "{\"title\":\"x\",\"detail\":\"the \\u001bqueue\"}",
			  open[] = "{\"error\":\"no model\"}",
			  audit[] = "{\"label\":\"x\",\"model\":{\"name\":\"m\",\"version\":\"3\"}}",
			  loaded[] = "{\"name\":\"m\",\"version\":\"\\u001b2\",\"state\":\"READY\"}";
	assert_true(answer_label(good, sizeof good - 1, out, sizeof out));
	assert_string_equal(out, "gambling");
	assert_false(answer_label(number, sizeof number - 1, out, sizeof out));
	assert_false(answer_label(list, sizeof list - 1, out, sizeof out));
	assert_false(answer_label(cut, sizeof cut - 1, out, sizeof out));
	assert_false(answer_label(many, sizeof many - 1, out, sizeof out));
	assert_false(answer_label(NULL, 0, out, sizeof out));
	assert_true(answer_model(audit, sizeof audit - 1, out, sizeof out));
	assert_string_equal(out, "m/3");
	assert_true(answer_model(loaded, sizeof loaded - 1, out, sizeof out));
	assert_string_equal(out, "m/?2");
	assert_false(answer_model(loaded, sizeof loaded - 1, out, 4));
	assert_false(answer_model(number, sizeof number - 1, out, sizeof out));
	assert_false(answer_model(list, sizeof list - 1, out, sizeof out));
	assert_false(answer_model(NULL, 0, out, sizeof out));
	answer_reason(problem, sizeof problem - 1, out, sizeof out);
	assert_string_equal(out, "the ?queue");
	answer_reason(open, sizeof open - 1, out, sizeof out);
	assert_string_equal(out, "no model");
	answer_reason("\x1b[2J<html>and more", 18, out, sizeof out);
	assert_string_equal(out, "?[2J<html>and m");
	answer_reason(NULL, 0, out, sizeof out);
	assert_string_equal(out, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(every_cut_gives_the_same),
	    cmocka_unit_test(floods_end),
	    cmocka_unit_test(long_bodies_are_counted_and_their_beginning_kept),
	    cmocka_unit_test(labels_and_reasons_of_bodies),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
