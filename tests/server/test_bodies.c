/* Request bodies: multipart and JSON into fields, and every refusal with its reason. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "server/fields.h"
#include "server/multipart.h"

static const field_limits LIMITS = {.max_image = 64, .max_text = 32, .json_depth = 3};
static request_pool *pool;

static request *new_request(const char *type, const void *body, size_t len)
{
	wn_error err = {0};
	request *r = request_pool_get(pool);
	assert_non_null(r);
	snprintf(r->content_type, sizeof r->content_type, "%s", type);
	assert_int_equal(bytes_append(&r->body, body, len, len + 1, &err), WN_OK);
	/* Exactly the bytes, on their own: a sanitizer sees the first one read beyond them. */
	r->body.data = realloc(r->body.data, len ? len : 1);
	return r;
}

static void done(request *r)
{
	r->body.data = realloc(r->body.data, r->body.cap);
	request_pool_put(pool, r);
}

static void expect(const char *type, const char *body, size_t len, reason why, const char *detail)
{
	request *r = new_request(type, body, len);
	reason got = fields_parse(r, &LIMITS);
	if (got != why || r->outcome != why || (detail && strcmp(r->detail, detail) != 0))
		fail_msg("%.60s\nfound %s: %s\nexpected %s: %s", body, reason_name(got), r->detail, reason_name(why),
			 detail ? detail : "(any)");
	done(r);
}

#define MULTI             "multipart/form-data; boundary=b"
#define PART(name, value) "--b\r\nContent-Disposition: form-data; name=\"" name "\"\r\n\r\n" value "\r\n"
#define IMAGE_PART        PART("image", "IMG\x00\xff")
#define TEXT_PART         PART("text", "hello")
#define END               "--b--\r\n"

static void expect_multipart(const char *body, size_t len, reason why, const char *detail)
{
	expect(MULTI, body, len, why, detail);
}
#define MULTIPART(body, why, detail) expect_multipart(body, sizeof(body) - 1, why, detail)
#define JSON(body, why, detail)      expect("application/json", body, sizeof(body) - 1, why, detail)

static void multipart_fields_arrive_unchanged(void **state)
{
	static const char BODY[] =
	    "--b\r\ncontent-disposition: FORM-DATA; filename=\"C:\\ads\\1.png\"; name=image\r\nContent-Type: "
	    "image/png\r\n"
	    "Content-Transfer-Encoding: binary\r\n\r\n\x89PNG\r\n\x1a\n\r\n--a\x00\r\n--b \t\r\n"
	    "Content-Disposition: form-data; name=\"text\"\r\nContent-Type: text/plain; charset=UTF-8\r\n\r\n"
	    "\xe4\xbb\x8a\xe6\x97\xa5\r\n" PART("assist", "") PART("data_id", "id 7") PART("model", "ad-audit") "--b--";
	request *r = new_request("Multipart/Form-Data; charset=utf-8; Boundary=\"b\"", BODY, sizeof BODY - 1);
	if (fields_parse(r, &LIMITS) != REASON_OK)
		fail_msg("%s", r->detail);
	assert_int_equal(r->image_len, 14);
	assert_memory_equal(r->image, "\x89PNG\r\n\x1a\n\r\n--a\x00", 14);
	assert_string_equal((char *)r->text.data, "\xe4\xbb\x8a\xe6\x97\xa5");
	assert_string_equal((char *)r->assist.data, "");
	assert_string_equal(r->data_id, "id 7");
	assert_string_equal(r->model_name, "ad-audit");
	done(r);
}

static void boundary_is_read_as_clients_write_it(void **state)
{
	static const struct {
		const char *type, *boundary; /* NULL: refused */
	} CASES[] = {
	    {"multipart/form-data; boundary=abc", "abc"},
	    {"multipart/form-data; boundary=abc; charset=UTF-8", "abc"}, /* Java's HttpClient */
	    {"multipart/form-data; charset=\"a;b\" ; boundary=\"a b:c\"", "a b:c"},
	    {"multipart/form-data;boundary=abc;", "abc"},
	    {"multipart/form-data; BOUNDARY=----WebKitFormBoundary7MA4YWxkTrZu0gW",
	     "----WebKitFormBoundary7MA4YWxkTrZu0gW"},
	    {"multipart/form-data", NULL},
	    {"multipart/form-data; boundary=", NULL},
	    {"multipart/form-data; boundary=\"\"", NULL},
	    {"multipart/form-data; boundary=\"abc", NULL},
	    {"multipart/form-data; boundary=a; boundary=b", NULL},
	    {"multipart/form-data; xboundary=abc", NULL},
	    {"multipart/form-data; boundary=\"a\xc3\xa9\"", NULL},
	    {"multipart/form-data; boundary=\"ends in space \"", NULL},
	    {"multipart/form-data; boundary=aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffgggggggggg",
	     "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffgggggggggg"},
	    {"multipart/form-data; boundary=aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffgggggggggg1",
	     NULL},
	    {"multipart/form-data; boundary=a b", NULL},
	};
	for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
		char b[MULTIPART_BOUNDARY_SIZE];
		wn_error err = {0};
		wn_code code = multipart_boundary(b, CASES[i].type, &err);
		if ((code == WN_OK) != (CASES[i].boundary != NULL))
			fail_msg("%s: %s", CASES[i].type, err.message);
		if (code == WN_OK)
			assert_string_equal(b, CASES[i].boundary);
	}
}

static void malformed_multipart_is_refused_by_part(void **state)
{
	MULTIPART("", REASON_BAD_REQUEST, "the body is empty");
	MULTIPART("x" IMAGE_PART TEXT_PART END, REASON_BAD_MULTIPART,
		  "the body does not start with the boundary that Content-Type names");
	MULTIPART(IMAGE_PART TEXT_PART "--b-", REASON_BAD_MULTIPART, "part 3: its boundary line does not end in CRLF");
	MULTIPART(IMAGE_PART "--b\r\nContent-Disposition: form-data; name=\"text\"\r\n\r\nhel", REASON_BAD_MULTIPART,
		  "part 2 (\"text\"): the body ends before its closing boundary");
	MULTIPART("--b\r\nContent-Disposition: form-data; name=\"text\"", REASON_BAD_MULTIPART,
		  "part 1: its headers do not end within 2048 bytes");
	MULTIPART("--b\r\n\r\nx\r\n" END, REASON_BAD_MULTIPART, "part 1: no Content-Disposition header");
	MULTIPART("--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n" END, REASON_BAD_MULTIPART,
		  "part 1: Content-Disposition has no name");
	MULTIPART("--b\r\nContent-Disposition: attachment; name=text\r\n\r\nx\r\n" END, REASON_BAD_MULTIPART,
		  "part 1: Content-Disposition is not form-data");
	MULTIPART("--b\r\nContent-Disposition: form-data; name=text; name=image\r\n\r\nx\r\n" END, REASON_BAD_MULTIPART,
		  "part 1: Content-Disposition has two names");
	MULTIPART("--b\r\nContent-Disposition: form-data; name=\"te\r\n\r\nx\r\n" END, REASON_BAD_MULTIPART,
		  "part 1: malformed Content-Disposition");
	MULTIPART("--b\r\nno colon\r\n\r\nx\r\n" END, REASON_BAD_MULTIPART, "part 1: malformed header line");
	MULTIPART("--b\r\nContent-Disposition: form-data; name=text\r\nContent-Type: multipart/mixed; "
		  "boundary=c\r\n\r\nx\r\n" END,
		  REASON_BAD_MULTIPART, "part 1: found a nested multipart, expected plain parts");
	MULTIPART(
	    "--b\r\nContent-Disposition: form-data; name=text\r\nContent-Transfer-Encoding: base64\r\n\r\nx\r\n" END,
	    REASON_BAD_MULTIPART, "part 1: Content-Transfer-Encoding is not binary, 8bit or 7bit");
	MULTIPART(IMAGE_PART TEXT_PART END "more", REASON_BAD_MULTIPART, "found 4 bytes after the closing boundary");
	MULTIPART("--b--", REASON_MISSING_FIELD, "image is missing: send a JPEG or PNG file");
	MULTIPART(PART("a", "") PART("a", "") PART("a", "") PART("a", "") PART("a", "") PART("a", "") PART("a", "")
		      PART("a", "") PART("a", "") END,
		  REASON_BAD_MULTIPART, "found more than 8 parts");
}

static void fields_follow_the_same_rules_in_multipart(void **state)
{
	MULTIPART(IMAGE_PART TEXT_PART END, REASON_OK, NULL);
	MULTIPART(TEXT_PART IMAGE_PART END, REASON_OK, NULL);
	MULTIPART(TEXT_PART END, REASON_MISSING_FIELD, "image is missing: send a JPEG or PNG file");
	MULTIPART(IMAGE_PART END, REASON_MISSING_FIELD, "text is missing: send the ad's text, \"\" when it has none");
	MULTIPART(IMAGE_PART PART("text", "") END, REASON_OK, NULL);
	/* A part without content whose delimiter shares the blank line's CRLF. */
	MULTIPART(IMAGE_PART "--b\r\nContent-Disposition: form-data; name=\"text\"\r\n\r\n--b--\r\n", REASON_OK, NULL);
	MULTIPART(IMAGE_PART TEXT_PART TEXT_PART END, REASON_DUPLICATE_FIELD, "text is given twice");
	MULTIPART(IMAGE_PART IMAGE_PART TEXT_PART END, REASON_DUPLICATE_FIELD, "image is given twice");
	MULTIPART(IMAGE_PART TEXT_PART PART("url", "http://x") END, REASON_UNKNOWN_FIELD,
		  "part 3: expected image, text, assist, data_id or model");
	MULTIPART(PART("image", "") TEXT_PART END, REASON_MISSING_FIELD,
		  "image: found 0 bytes, expected a JPEG or PNG file");
	MULTIPART(PART("image", "0123456789012345678901234567890123456789012345678901234567890123X") TEXT_PART END,
		  REASON_IMAGE_TOO_LARGE, "image: found 65 bytes, expected at most 64");
	MULTIPART(IMAGE_PART PART("text", "012345678901234567890123456789012") END, REASON_TEXT_TOO_LARGE,
		  "text: found 33 bytes, expected at most 32");
	MULTIPART(IMAGE_PART PART("text", "a\xff") END, REASON_INVALID_UTF8, "text: invalid UTF-8 at byte 1");
	MULTIPART(IMAGE_PART PART("text", "\xed\xa0\x80") END, REASON_INVALID_UTF8, "text: invalid UTF-8 at byte 0");
	MULTIPART(IMAGE_PART PART("text", "a\0b") END, REASON_BAD_FIELD, "text: found a NUL character");
	MULTIPART(IMAGE_PART TEXT_PART PART("data_id", "a\nb") END, REASON_BAD_FIELD,
		  "data_id: found a control character");
	MULTIPART(IMAGE_PART TEXT_PART PART("model", "../x") END, REASON_BAD_FIELD,
		  "model: expected [A-Za-z0-9._-]{1,64} without a leading dot");
	MULTIPART(IMAGE_PART TEXT_PART PART("model", ".hidden") END, REASON_BAD_FIELD, NULL);
}

static void json_fields_arrive_unchanged(void **state)
{
	static const char BODY[] =
	    " {\"image\":\"iVBORw0KGgo=\",\"text\":\"\\u4eca\\u65e5 \\\"x\\\"\",\"assist\":null,\"data_id\":\"7\"}\n";
	request *r = new_request("application/json; charset=utf-8", BODY, sizeof BODY - 1);
	if (fields_parse(r, &LIMITS) != REASON_OK)
		fail_msg("%s", r->detail);
	assert_int_equal(r->image_len, 8);
	assert_memory_equal(r->image, "\x89PNG\r\n\x1a\n", 8);
	assert_string_equal((char *)r->text.data, "\xe4\xbb\x8a\xe6\x97\xa5 \"x\"");
	assert_int_equal(r->assist.len, 0);
	assert_string_equal(r->data_id, "7");
	done(r);
}

#define WITH_IMAGE(b64) "{\"text\":\"t\",\"image\":\"" b64 "\"}"

static void malformed_json_is_refused(void **state)
{
	JSON("{", REASON_BAD_JSON, NULL);
	JSON("[]", REASON_BAD_JSON, "found something else than an object, expected {\"image\": …, \"text\": …}");
	JSON("{} x", REASON_BAD_JSON, NULL);
	JSON("{'text':1}", REASON_BAD_JSON, "line 1, column 2: not valid JSON");
	/* 300 small objects; commas and brackets inside strings do not count. */
	char many[2048] = "{\"image\": [";
	for (int i = 0; i < 300; i++)
		strcat(many, i ? ",{}" : "{}");
	strcat(many, "]}");
	expect("application/json", many, strlen(many), REASON_BAD_JSON, "found 602 values, expected at most 64");
	strcpy(many, "{\"image\": \"SU1H\", \"data_id\": \"");
	for (int i = 0; i < 20; i++)
		strcat(many, ",[{,[{");
	strcat(many, "\", \"text\": \"\"}");
	expect("application/json", many, strlen(many), REASON_OK, NULL);
	JSON("[[[[1]]]]", REASON_BAD_JSON, "found nesting of depth 4, expected at most 3");
	JSON("{\"text\":\"[[[[[[ \\\" ]]]\"}", REASON_MISSING_FIELD, NULL); /* brackets in strings are text */
	JSON("{\"text\":\"a\",\"text\":\"b\"}", REASON_DUPLICATE_FIELD, NULL);
	JSON("{\"text\":\"\xff\"}", REASON_INVALID_UTF8, "the JSON body has invalid UTF-8 at byte 9");
	JSON("{\"text\":\"\\ud800\"}", REASON_BAD_JSON, NULL);
	JSON("{\"text\":\"a\\u0000b\"}", REASON_BAD_JSON, NULL);
	JSON("{\"text\":7}", REASON_BAD_FIELD, "text: expected a string");
	JSON("{\"text\":null}", REASON_BAD_FIELD, "text: expected a string");
	JSON("{\"image\":{\"url\":\"http://x\"}}", REASON_BAD_FIELD, "image: expected a string");
	JSON("{\"image_url\":\"http://x\"}", REASON_UNKNOWN_FIELD,
	     "found \"image_url\", expected image, text, assist, data_id or model");
	JSON("{\"text\":\"t\"}", REASON_MISSING_FIELD, "image is missing: send a JPEG or PNG file");
	JSON("{\"image\":\"AAAA\"}", REASON_MISSING_FIELD,
	     "text is missing: send the ad's text, \"\" when it has none");
}

static void base64_is_strict(void **state)
{
	JSON(WITH_IMAGE("AAAA"), REASON_OK, NULL);
	JSON(WITH_IMAGE("AAA="), REASON_OK, NULL);
	JSON(WITH_IMAGE("AA=="), REASON_OK, NULL);
	JSON(WITH_IMAGE(""), REASON_MISSING_FIELD, NULL);
	JSON(WITH_IMAGE("AAA"), REASON_BAD_BASE64, "image: found 3 characters of base64, expected a multiple of 4");
	JSON(WITH_IMAGE("A==="), REASON_BAD_BASE64, NULL);
	JSON(WITH_IMAGE("===="), REASON_BAD_BASE64, NULL);
	JSON(WITH_IMAGE("AA==AAAA"), REASON_BAD_BASE64, NULL);
	JSON(WITH_IMAGE("AAAA AAA"), REASON_BAD_BASE64, NULL);
	JSON(WITH_IMAGE("AAAA\\nAA="), REASON_BAD_BASE64, NULL);
	JSON(WITH_IMAGE("AA\\n\\n"), REASON_BAD_BASE64, NULL);
	JSON(WITH_IMAGE("AAB="), REASON_BAD_BASE64, NULL); /* bits behind the last byte */
	JSON(WITH_IMAGE("AA-_"), REASON_BAD_BASE64, NULL); /* the URL alphabet */
	JSON(WITH_IMAGE("data:image/png;base64,AAAA"), REASON_BAD_BASE64,
	     "image: found a data: URL, expected the base64 alone");
	JSON(WITH_IMAGE("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
	     REASON_IMAGE_TOO_LARGE, "image: found 65 bytes, expected at most 64");
}

/* The image is taken from the body itself when its base64 stands there as it is: whichever way, it is the same field. */
static void an_image_is_found_however_it_is_written(void **state)
{
	static const char *const BODIES[] = {
	    "{\"image\":\"SU1H\",\"text\":\"t\"}",
	    "{\"text\":\"t\",\"image\"\t:\r\n \"SU1H\"}",
	    "{\"text\":\"t\",\"im\\u0061ge\":\"SU1H\"}",
	    "{\"image\":\"SU\\u0031H\",\"text\":\"t\"}",
	    "{\"text\":\"image\",\"image\":\"SU1H\"}",
	    "{\"text\":\"\\\"image\\\":\\\"AAAA\\\"\",\"image\":\"SU1H\"}",
	    "{\"data_id\":\"image\",\"text\":\"\",\"image\":\"SU1H\",\"assist\":\"image\"}",
	};
	for (size_t i = 0; i < sizeof BODIES / sizeof BODIES[0]; i++) {
		request *r = new_request("application/json", BODIES[i], strlen(BODIES[i]));
		if (fields_parse(r, &LIMITS) != REASON_OK)
			fail_msg("%s: %s", BODIES[i], r->detail);
		assert_int_equal(r->image_len, 3);
		assert_memory_equal(r->image, "IMG", 3);
		done(r);
	}
	static const char SLASHES[] = WITH_IMAGE("\\/\\/\\/\\/");
	request *r = new_request("application/json", SLASHES, sizeof SLASHES - 1);
	if (fields_parse(r, &LIMITS) != REASON_OK)
		fail_msg("%s", r->detail);
	assert_memory_equal(r->image, "\xff\xff\xff", 3);
	done(r);
}

/* Nothing of it stands in for another, and a place in the body is one in the whole body. */
static void an_image_is_no_other_member_and_shifts_no_position(void **state)
{
	JSON("{\"text\":{\"image\":\"SU1H\"}}", REASON_BAD_FIELD, "text: expected a string");
	JSON("{\"text\":\"t\",\"image\":{\"image\":\"SU1H\"}}", REASON_BAD_FIELD, "image: expected a string");
	JSON("{\"text\":\"t\",\"image\":[\"image\",\"SU1H\"]}", REASON_BAD_FIELD, "image: expected a string");
	JSON("{\"text\":\"t\",\"image\":7}", REASON_BAD_FIELD, "image: expected a string");
	JSON("{\"text\":\"t\",\"image\":null}", REASON_BAD_FIELD, "image: expected a string");
	JSON("{\"text\":\"t\",\"Image\":\"SU1H\"}", REASON_UNKNOWN_FIELD, NULL);
	JSON("{\"image\":\"SU1H\",\"image\":\"AAAA\"}", REASON_DUPLICATE_FIELD, "line 1, column 23: a key is given twice");
	JSON("{\"image\":\"SU1H\",\"im\\u0061ge\":\"AAAA\"}", REASON_DUPLICATE_FIELD, NULL);
	JSON("{\"im\\u0061ge\":\"SU1H\",\"image\":\"AAAA\"}", REASON_DUPLICATE_FIELD, NULL);
	JSON("{\"image\":\"SU1H\",}", REASON_BAD_JSON, "line 1, column 17: not valid JSON");
	JSON("{\"image\":\"SU1H\" \"text\":\"t\"}", REASON_BAD_JSON, "line 1, column 22: not valid JSON");
	JSON("{\"text\":\"image\":\"SU1H\"}", REASON_BAD_JSON, "line 1, column 16: not valid JSON");
	JSON("{\"image\":\"SU\n1H\",\"text\":\"t\"}", REASON_BAD_JSON, NULL);
	JSON("{\"image\":\"SU1H", REASON_BAD_JSON, NULL);
	JSON("[\"image\",\"SU1H\"]", REASON_BAD_JSON, "found something else than an object, expected {\"image\": …, \"text\": …}");
}

static void other_media_types_are_refused(void **state)
{
	static const char *const TYPES[] = {"application/x-www-form-urlencoded",
					    "text/plain",
					    "multipart/mixed; boundary=b",
					    "application/jsonp",
					    "application/json5",
					    "multipart/form-datax; boundary=b",
					    ""};
	for (size_t i = 0; i < sizeof TYPES / sizeof TYPES[0]; i++)
		expect(TYPES[i], "{}", 2, REASON_UNSUPPORTED_MEDIA_TYPE,
		       "expected multipart/form-data or application/json");
}

/* Every prefix of a good body: never a crash, never an answer without all of it. */
static void truncation_at_every_byte_is_refused(void **state)
{
	static const char BODY[] = IMAGE_PART TEXT_PART PART("data_id", "x") END;
	for (size_t n = 1; n < sizeof BODY - 1; n++) {
		request *r = new_request(MULTI, BODY, n);
		reason why = fields_parse(r, &LIMITS);
		/* The last CRLF is optional. */
		if ((why == REASON_OK) != (n == sizeof BODY - 3))
			fail_msg("%zu bytes: %s", n, reason_name(why));
		done(r);
	}
	static const char DOCUMENT[] = "{\"image\":\"AAAA\",\"text\":\"t\",\"data_id\":\"x\"}";
	for (size_t n = 1; n < sizeof DOCUMENT - 1; n++)
		expect("application/json", DOCUMENT, n, REASON_BAD_JSON, NULL);
}

static int open_pool(void **state)
{
	wn_error err = {0};
	return request_pool_open(&pool, 2, 1 << 20, &err) == WN_OK ? 0 : -1;
}

static int close_pool(void **state)
{
	request_pool_close(&pool);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(multipart_fields_arrive_unchanged),
	    cmocka_unit_test(boundary_is_read_as_clients_write_it),
	    cmocka_unit_test(malformed_multipart_is_refused_by_part),
	    cmocka_unit_test(fields_follow_the_same_rules_in_multipart),
	    cmocka_unit_test(json_fields_arrive_unchanged),
	    cmocka_unit_test(malformed_json_is_refused),
	    cmocka_unit_test(base64_is_strict),
	    cmocka_unit_test(an_image_is_found_however_it_is_written),
	    cmocka_unit_test(an_image_is_no_other_member_and_shifts_no_position),
	    cmocka_unit_test(other_media_types_are_refused),
	    cmocka_unit_test(truncation_at_every_byte_is_refused),
	};
	return cmocka_run_group_tests(tests, open_pool, close_pool);
}
