/* What is asked: URLs, folders of ads, the bytes of requests, and what the command line refuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>
#include <nettle/base64.h>

#include "base/file.h"
#include "load/options.h"
#include "load/payload.h"
#include "tests/base/temp_dir.h"

static void urls(void **state)
{
	static const struct {
		const char *text, *host;
		int port;
		const char *path, *authority;
	} good[] = {
	    {"http://127.0.0.1:8080", "127.0.0.1", 8080, "/v1/audit", "127.0.0.1:8080"},
	    {"127.0.0.1:8080/", "127.0.0.1", 8080, "/v1/audit", "127.0.0.1:8080"},
	    {"HTTP://example.org/a/b?c=d#e", "example.org", 80, "/a/b?c=d", "example.org"},
	    {"http://[::1]:99/x", "::1", 99, "/x", "[::1]:99"},
	    {"http://[fe80::1]", "fe80::1", 80, "/v1/audit", "[fe80::1]"},
	    {"http://h?x=1", "h", 80, "/?x=1", "h"},
	    {"localhost:80", "localhost", 80, "/v1/audit", "localhost"},
	};
	static const struct {
		const char *text;
		wn_code code;
		const char *why;
	} bad[] = {
	    {"https://h", WN_UNSUPPORTED, "https is not supported"},
	    {"ftp://h", WN_UNSUPPORTED, "expected http://"},
	    {"http://", WN_INVALID, "host of 0"},
	    {"http://:80", WN_INVALID, "host of 0"},
	    {"http://h:0", WN_INVALID, "port \"0\""},
	    {"http://h:65536", WN_INVALID, "65536"},
	    {"http://h:8o", WN_INVALID, "8o"},
	    {"http://h:123456789", WN_INVALID, "123456789"},
	    {"http://::1/x", WN_INVALID, "brackets"},
	    {"http://[::1/x", WN_INVALID, "without \"]\""},
	    {"http://[::1]x", WN_INVALID, "after \"]\""},
	    {"http://user:secret@h", WN_UNSUPPORTED, "--key"},
	    {"http://h/a b", WN_INVALID, "blank"},
	    {"http://h/\r\nX: y", WN_INVALID, "control"},
	};
	url u;
	for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
		wn_error err = {0};
		assert_int_equal(url_parse(&u, good[i].text, "/v1/audit", &err), WN_OK);
		assert_string_equal(u.host, good[i].host);
		assert_int_equal(u.port, good[i].port);
		assert_string_equal(u.path, good[i].path);
		assert_string_equal(u.authority, good[i].authority);
	}
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		wn_error err = {0};
		assert_int_equal(url_parse(&u, bad[i].text, "/v1/audit", &err), bad[i].code);
		assert_non_null(strstr(err.message, bad[i].why));
		assert_null(strstr(err.message, "secret"));
	}
	char path[4000] = "http://h/";
	memset(path + 9, 'x', sizeof path - 10);
	assert_int_equal(url_parse(&u, path, "/", NULL), WN_TOO_LARGE);
	memset(path + 7, 'x', 300);
	path[307] = 0;
	assert_int_equal(url_parse(&u, path, "/", NULL), WN_INVALID);
}

static void the_sample_ads(void **state)
{
	ads a;
	wn_error err = {0};
	assert_int_equal(ads_read(&a, SAMPLES_DIR "/test", 0, &err), WN_OK);
	assert_true(a.count > 40);
	assert_int_equal(a.labelled, a.count);
	assert_string_equal(a.items[0].name, "000000.jpg");
	assert_string_equal(a.items[0].label, "unreadable");
	assert_memory_equal(a.items[0].image, "\xff\xd8\xff", 3);
	ads_close(&a);
	assert_int_equal(ads_read(&a, SAMPLES_DIR "/test/metadata.jsonl", 3, &err), WN_OK);
	assert_int_equal(a.count, 3);
	ads_close(&a);
	assert_int_equal(ads_read(&a, SAMPLES_DIR, 0, &err), WN_NOT_FOUND);
	assert_non_null(strstr(err.message, "/test"));
}

static void folders_that_are_refused(void **state)
{
	static const struct {
		const char *lines;
		wn_code code;
		const char *why;
	} bad[] = {
	    {"", WN_INVALID, "holds no ads"},
	    {"\n \n", WN_INVALID, "holds no ads"},
	    {"{\"file_name\": \"a.png\"}\nnonsense\n", WN_INVALID, ":2: expected one JSON object"},
	    {"[1]", WN_INVALID, ":1: expected one JSON object"},
	    {"{\"text\": \"x\"}", WN_INVALID, ":1: found neither"},
	    {"{\"file_name\": 3}", WN_INVALID, ":1: found neither"},
	    {"{\"file_name\": \"a.png\", \"text\": 3}", WN_INVALID, ":1: \"text\" is not a string"},
	    {"{\"file_name\": \"../a.png\"}", WN_INVALID, ":1: file_name"},
	    {"{\"file_name\": \"/etc/passwd\"}", WN_INVALID, ":1: file_name"},
	    {"{\"file_name\": \"b.png\"}", WN_NOT_FOUND, ":1: "},
	    {"{\"file_name\": \"empty.png\"}", WN_INVALID, "is empty"},
	    {"{\"image\": \"not base64!\"}", WN_INVALID, ":1: \"image\" is not base64"},
	    {"{\"image\": \"\"}", WN_INVALID, ":1: \"image\" is not base64"},
	};
	ads a;
	temp_file("a.png", "PNG", 3);
	temp_file("empty.png", "", 0);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		wn_error err = {0};
		temp_file("metadata.jsonl", bad[i].lines, strlen(bad[i].lines));
		assert_int_equal(ads_read(&a, temp_dir, 0, &err), bad[i].code);
		assert_non_null(strstr(err.message, bad[i].why));
		assert_null(a.items);
	}
	assert_int_equal(ads_read(&a, "/no/such/folder", 0, NULL), WN_NOT_FOUND);
}

/* Head and body of a request; body_len must be what Content-Length says. */
static const char *split(const payload *p, size_t *body_len)
{
	const char *end = memmem(p->bytes, p->len, "\r\n\r\n", 4);
	assert_non_null(end);
	*body_len = p->len - (size_t)(end + 4 - p->bytes);
	const char *length = strstr(p->bytes, "Content-Length: ");
	assert_non_null(length);
	assert_int_equal(atol(length + 16), *body_len);
	return end + 4;
}

static void multipart_requests(void **state)
{
	static const char lines[] =
	    "{\"file_name\": \"a\\\".png\", \"text\": \"限时特价\", \"assist\": \"行业\", \"label\": \"ok\"}\n";
	static const char *const headers[] = {"X-Extra: 1"};
	const char image[] = "\x89PNG\r\n\x1a\n--\r\n\0----winnow-load-";
	ads a;
	payloads p;
	url u;
	wn_error err = {0};
	size_t len;
	temp_file("a\".png", image, sizeof image);
	temp_file("metadata.jsonl", lines, strlen(lines));
	assert_int_equal(ads_read(&a, temp_dir, 0, &err), WN_OK);
	assert_int_equal(url_parse(&u, "http://[::1]:8080", "/v1/audit", &err), WN_OK);
	const request_head head = {
	    .to = &u, .key = "key-of-16-characters", .deadline_ms = 250, .headers = headers, .num_headers = 1};
	assert_int_equal(payloads_make(&p, &a, FORMAT_MULTIPART, &head, 1, &err), WN_OK);
	assert_string_equal(p.items[0].label, "ok");
	const char *body = split(&p.items[0], &len), *bytes = p.items[0].bytes;
	assert_memory_equal(bytes, "POST /v1/audit HTTP/1.1\r\nHost: [::1]:8080\r\n", 43);
	assert_non_null(strstr(bytes, "\r\nAuthorization: Bearer key-of-16-characters\r\n"));
	assert_non_null(strstr(bytes, "\r\nX-Deadline-Ms: 250\r\n"));
	assert_non_null(strstr(bytes, "\r\nX-Extra: 1\r\n"));
	char boundary[80];
	assert_int_equal(sscanf(strstr(bytes, "boundary="), "boundary=%79[^\r]", boundary), 1);
	char expected[1000];
	const int n = snprintf(expected, sizeof expected,
			       "--%s\r\nContent-Disposition: form-data; name=\"image\"; "
			       "filename=\"a%%22.png\"\r\nContent-Type: image/png\r\n\r\n",
			       boundary);
	assert_memory_equal(body, expected, (size_t)n);
	assert_memory_equal(body + n, image, sizeof image);
	snprintf(expected, sizeof expected,
		 "\r\n--%s\r\nContent-Disposition: form-data; name=\"text\"\r\n\r\n限时特价\r\n--%s\r\n"
		 "Content-Disposition: form-data; name=\"assist\"\r\n\r\n行业\r\n--%s--\r\n",
		 boundary, boundary, boundary);
	assert_int_equal(len, (size_t)n + sizeof image + strlen(expected));
	assert_memory_equal(body + n + sizeof image, expected, strlen(expected));
	payloads_close(&p);
	ads_close(&a);
}

static void json_requests(void **state)
{
	/* an image given in the line itself */
	static const char lines[] = "{\"image\": \"/9j/4A==\", \"text\": \"\\\"x\\\"\\n\"}\n";
	ads a;
	payloads p;
	url u;
	wn_error err = {0};
	size_t len;
	temp_file("metadata.jsonl", lines, strlen(lines));
	assert_int_equal(ads_read(&a, temp_dir, 0, &err), WN_OK);
	assert_int_equal(a.items[0].image_len, 4);
	assert_int_equal(url_parse(&u, "http://h", "/v1/audit", &err), WN_OK);
	const request_head head = {.to = &u};
	assert_int_equal(payloads_make(&p, &a, FORMAT_JSON, &head, 1, &err), WN_OK);
	assert_null(p.items[0].label);
	const char *body = split(&p.items[0], &len);
	json_t *root = json_loadb(body, len, 0, NULL);
	assert_string_equal(json_string_value(json_object_get(root, "image")), "/9j/4A==");
	assert_string_equal(json_string_value(json_object_get(root, "text")), "\"x\"\n");
	assert_int_equal(json_object_size(root), 2);
	json_decref(root);
	assert_null(strstr(p.items[0].bytes, "Authorization"));
	payloads_close(&p);
	ads_close(&a);
	char *bytes;
	assert_int_equal(payload_json_post(&bytes, &len, &(request_head){.to = &u, .key = "k", .deadline_ms = 9},
					   "/v2/x", "{\"a\":1}", &err),
			 WN_OK);
	assert_memory_equal(bytes, "POST /v2/x HTTP/1.1\r\n", 21);
	assert_string_equal(bytes + len - 11, "\r\n\r\n{\"a\":1}");
	assert_null(strstr(bytes, "Deadline"));
	free(bytes);
}

/* Every ad once, in an order that the seed decides. */
static void the_seed_orders_the_ads(void **state)
{
	ads a;
	payloads one, again, other;
	url u;
	wn_error err = {0};
	assert_int_equal(url_parse(&u, "http://h", "/", &err), WN_OK);
	assert_int_equal(ads_read(&a, SAMPLES_DIR "/test", 0, &err), WN_OK);
	const request_head head = {.to = &u};
	assert_int_equal(payloads_make(&one, &a, FORMAT_MULTIPART, &head, 1, &err), WN_OK);
	assert_int_equal(payloads_make(&again, &a, FORMAT_MULTIPART, &head, 1, &err), WN_OK);
	assert_int_equal(payloads_make(&other, &a, FORMAT_MULTIPART, &head, 2, &err), WN_OK);
	size_t same = 0, total = 0, expected = 0;
	for (size_t i = 0; i < one.count; i++) {
		assert_int_equal(one.items[i].len, again.items[i].len);
		assert_memory_equal(one.items[i].bytes, again.items[i].bytes, one.items[i].len);
		same += one.items[i].len == other.items[i].len;
		total += one.items[i].len;
		expected += other.items[i].len;
	}
	assert_int_equal(total, expected);
	assert_true(same < one.count / 2);
	payloads_close(&one);
	payloads_close(&again);
	payloads_close(&other);
	ads_close(&a);
}

static void headers_and_keys(void **state)
{
	assert_int_equal(header_check("X-A: b c", NULL), WN_OK);
	assert_int_equal(header_check("X-A:", NULL), WN_OK);
	assert_int_equal(header_check("no colon", NULL), WN_INVALID);
	assert_int_equal(header_check("a b: c", NULL), WN_INVALID);
	assert_int_equal(header_check("X: a\r\nY: b", NULL), WN_INVALID);
	assert_int_equal(header_check("content-length: 3", NULL), WN_INVALID);
	assert_int_equal(key_check("visible-ASCII_only", "--key", NULL), WN_OK);
	assert_int_equal(key_check("a b", "--key", NULL), WN_INVALID);
	assert_int_equal(key_check("a\r\nX: y", "--key", NULL), WN_INVALID);
	assert_int_equal(key_check("", "--key", NULL), WN_INVALID);
}

#define PARSE(o, ...)                                                                                                  \
	options_parse(o, (int)(sizeof((const char *[]){"winnow-load", __VA_ARGS__}) / sizeof(char *)),                 \
		      (char *[]){"winnow-load", __VA_ARGS__})

/* Its messages go to stderr; the exact words are e2e.py's business. */
static void command_lines(void **state)
{
	load_options o;
	assert_true(PARSE(&o, "--ads", "x", "--rate=30", "--duration", "2m", "--warmup", "500ms", "--arrivals",
			  "constant", "--seed", "18446744073709551615", "--expect", "labels", "--header", "A: b",
			  "--header", "C: d", "--format", "json", "--find-max"));
	assert_true(o.rate == 30 && o.duration_ns == 120000000000 && o.warmup_ns == 500000000 && o.arrivals == 1 &&
		    o.seed == UINT64_MAX);
	assert_true(o.expect_labels && o.headers.count == 2 && o.format == FORMAT_JSON && o.find_max);
	assert_true(o.target_ms == 90 && o.percentile == 99 && o.max_lag_ms == 4.5 && o.connections == 128);
	assert_true(PARSE(&o, "--ads", "x", "--target-ms", "5"));
	assert_true(o.max_lag_ms == 1);
	assert_true(PARSE(&o, "--help") && o.help);
	static const char *const bad[][4] = {
	    {"--rate", "0"},
	    {"--rate", "-1"},
	    {"--rate", "nan"},
	    {"--rate", "10x"},
	    {"--duration", "10d"},
	    {"--duration", "0"},
	    {"--percentile", "101"},
	    {"--connections", "1.5"},
	    {"--connections", "0"},
	    {"--seed", "-1"},
	    {"--seed", "1e3"},
	    {"--arrivals", "burst"},
	    {"--expect", "miracles"},
	    {"--ads", ""},
	    {"--rate", "1e6", "--duration", "1h"},
	    {"--swap-path", "/x"},
	    {"--swap-body", "{}"},
	    {"--header", "x"},
	    {"--key", "a b"},
	    {"--html", "-"},
	    {"--swap-path", "x", "--swap-every", "1s"},
	    {"--no-such", "x"},
	    {"--find-max=1", "--quiet"},
	    {"--rate", "20000", "--find-max", "--quiet"},
	};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		char *argv[8] = {"winnow-load", "--ads", "x"};
		int argc = 3;
		for (int k = 0; k < 4 && bad[i][k]; k++)
			argv[argc++] = (char *)bad[i][k];
		assert_false(options_parse(&o, argc, argv));
	}
	assert_false(PARSE(&o, "--rate", "5"));
	assert_false(PARSE(&o, "--ads", "x", "--rate"));
	assert_false(PARSE(&o, "--ads", "x", "stray"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(urls),
	    cmocka_unit_test(the_sample_ads),
	    cmocka_unit_test(folders_that_are_refused),
	    cmocka_unit_test(multipart_requests),
	    cmocka_unit_test(json_requests),
	    cmocka_unit_test(the_seed_orders_the_ads),
	    cmocka_unit_test(headers_and_keys),
	    cmocka_unit_test(command_lines),
	};
	return cmocka_run_group_tests(tests, temp_dir_make, temp_dir_remove);
}
