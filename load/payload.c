/* payload.c: see payload.h. */
#include "load/payload.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <jansson.h>
#include <nettle/base64.h>

#include "load/schedule.h"

#define BOUNDARY_SIZE 48

wn_code header_check(const char *header, wn_error *err)
{
	static const char *const OWN[] = {"Host", "Content-Length", "Content-Type", "Transfer-Encoding", "Connection"};
	const size_t name =
	    strspn(header, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~");
	if (!name || header[name] != ':')
		return wn_fail(err, WN_INVALID, "--header: found \"%.60s\", expected \"Name: value\"", header);
	for (const char *p = header; *p; p++)
		if (((unsigned char)*p < 0x20 && *p != '\t') || *p == 0x7f)
			return wn_fail(err, WN_INVALID, "--header: found a control character in \"%.60s\"", header);
	for (size_t i = 0; i < sizeof OWN / sizeof *OWN; i++)
		if (strlen(OWN[i]) == name && strncasecmp(header, OWN[i], name) == 0)
			return wn_fail(err, WN_INVALID, "--header: %s is winnow-load's own", OWN[i]);
	return WN_OK;
}

wn_code key_check(const char *key, const char *option, wn_error *err)
{
	size_t len = 0;
	for (; key[len]; len++)
		if (key[len] <= ' ' || key[len] >= 0x7f)
			return wn_fail(err, WN_INVALID, "%s: found a character that is not visible ASCII", option);
	return len && len <= 1024
		   ? WN_OK
		   : wn_fail(err, WN_INVALID, "%s: found %zu characters, expected 1 to 1024", option, len);
}

/* ---- one request ---- */

static void write_head(FILE *f, const request_head *h, const char *path, const char *content_type,
		       size_t content_length)
{
	fprintf(f,
		"POST %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: winnow-load/" WINNOW_VERSION
		"\r\nAccept: */*\r\nContent-Type: %s\r\n"
		"Content-Length: %zu\r\n",
		path, h->to->authority, content_type, content_length);
	if (h->key)
		fprintf(f, "Authorization: Bearer %s\r\n", h->key);
	if (h->deadline_ms)
		fprintf(f, "X-Deadline-Ms: %d\r\n", h->deadline_ms);
	for (int i = 0; i < h->num_headers; i++)
		fprintf(f, "%s\r\n", h->headers[i]);
	fputs("\r\n", f);
}

/* A memory stream: head, then len bytes. */
static wn_code join(char **out, size_t *out_len, const request_head *h, const char *path, const char *content_type,
		    const char *body, size_t len, wn_error *err)
{
	FILE *f = open_memstream(out, out_len);
	if (!f)
		return wn_fail(err, WN_NOMEM, "no memory for a request");
	write_head(f, h, path, content_type, len);
	fwrite(body, 1, len, f);
	const bool bad = ferror(f);
	if (fclose(f) == 0 && !bad)
		return WN_OK;
	free(*out);
	*out = NULL;
	return wn_fail(err, WN_NOMEM, "no memory for a request of %zu bytes", len);
}

wn_code payload_json_post(char **out, size_t *len, const request_head *head, const char *path, const char *json,
			  wn_error *err)
{
	request_head plain = *head;
	plain.deadline_ms = 0; /* of audits */
	return join(out, len, &plain, path, "application/json", json, strlen(json), err);
}

/* ---- bodies ---- */

static const char *image_type(const ad *a)
{
	if (a->image_len >= 8 && memcmp(a->image, "\x89PNG\r\n\x1a\n", 8) == 0)
		return "image/png";
	return a->image_len >= 3 && memcmp(a->image, "\xff\xd8\xff", 3) == 0 ? "image/jpeg"
									     : "application/octet-stream";
}

static void write_part(FILE *f, const char *boundary, const char *name, const char *text)
{
	fprintf(f, "--%s\r\nContent-Disposition: form-data; name=\"%s\"\r\n\r\n%s\r\n", boundary, name, text);
}

static void write_multipart(FILE *f, const ad *a, const char *boundary)
{
	fprintf(f, "--%s\r\nContent-Disposition: form-data; name=\"image\"; filename=\"", boundary);
	for (const char *p = a->name; *p; p++) /* as browsers do */
		if (*p == '"' || *p == '\\' || (unsigned char)*p < 0x20)
			fprintf(f, "%%%02X", (unsigned)(unsigned char)*p);
		else
			fputc(*p, f);
	fprintf(f, "\"\r\nContent-Type: %s\r\n\r\n", image_type(a));
	fwrite(a->image, 1, a->image_len, f);
	fputs("\r\n", f);
	write_part(f, boundary, "text", a->text);
	if (a->assist && *a->assist)
		write_part(f, boundary, "assist", a->assist);
	fprintf(f, "--%s--\r\n", boundary);
}

/* One that does not occur in what it parts. */
static void choose_boundary(char boundary[BOUNDARY_SIZE], const ad *a, uint64_t *random)
{
	do
		snprintf(boundary, BOUNDARY_SIZE, "----winnow-load-%016llx", (unsigned long long)random_next(random));
	while (memmem(a->image, a->image_len, boundary, strlen(boundary)) || strstr(a->text, boundary) ||
	       (a->assist && strstr(a->assist, boundary)));
}

static void write_json(FILE *f, const ad *a)
{
	const size_t len = BASE64_ENCODE_RAW_LENGTH(a->image_len);
	char *image = malloc(len + 1);
	json_t *text = json_string(a->text), *assist = a->assist && *a->assist ? json_string(a->assist) : NULL;
	if (image && text) {
		base64_encode_raw(image, a->image_len, a->image);
		fputs("{\"image\":\"", f);
		fwrite(image, 1, len, f);
		fputs("\",\"text\":", f);
		json_dumpf(text, f, JSON_ENCODE_ANY);
		if (assist) {
			fputs(",\"assist\":", f);
			json_dumpf(assist, f, JSON_ENCODE_ANY);
		}
		fputs("}", f);
	}
	json_decref(text);
	json_decref(assist);
	free(image);
}

static wn_code make_one(payload *out, const ad *a, body_format format, const request_head *head, uint64_t *random,
			wn_error *err)
{
	char boundary[BOUNDARY_SIZE], type[BOUNDARY_SIZE + 40] = "application/json", *body = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&body, &len);
	if (!f)
		return wn_fail(err, WN_NOMEM, "no memory for a request");
	if (format == FORMAT_MULTIPART) {
		choose_boundary(boundary, a, random);
		snprintf(type, sizeof type, "multipart/form-data; boundary=%s", boundary);
		write_multipart(f, a, boundary);
	} else {
		write_json(f, a);
	}
	const bool bad = ferror(f) | (fclose(f) != 0);
	wn_code code = bad || !len ? wn_fail(err, WN_NOMEM, "no memory for a request with %s", a->name)
				   : join(&out->bytes, &out->len, head, head->to->path, type, body, len, err);
	free(body);
	if (code == WN_OK && (!(out->name = strdup(a->name)) || (a->label && !(out->label = strdup(a->label)))))
		code = wn_fail(err, WN_NOMEM, "no memory for the name of %s", a->name);
	return code;
}

wn_code payloads_make(payloads *out, const ads *a, body_format format, const request_head *head, uint64_t seed,
		      wn_error *err)
{
	wn_code code = WN_OK;
	*out = (payloads){.items = calloc(a->count, sizeof *out->items)};
	if (!out->items)
		return wn_fail(err, WN_NOMEM, "no memory for %zu requests", a->count);
	for (; out->count < a->count && code == WN_OK; out->count++)
		code = make_one(&out->items[out->count], &a->items[out->count], format, head, &seed, err);
	if (code != WN_OK) {
		payloads_close(out);
		return code;
	}
	for (size_t i = out->count; i > 1; i--) { /* Fisher-Yates */
		const size_t j = (size_t)(((unsigned __int128)random_next(&seed) * i) >> 64);
		const payload t = out->items[i - 1];
		out->items[i - 1] = out->items[j];
		out->items[j] = t;
	}
	return WN_OK;
}

void payloads_close(payloads *p)
{
	for (size_t i = 0; i < p->count; i++) {
		free(p->items[i].bytes);
		free(p->items[i].name);
		free(p->items[i].label);
	}
	free(p->items);
	*p = (payloads){0};
}
