/* url.c: see url.h. */
#include "load/url.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

/* Host and port from "HOST", "HOST:PORT", "[V6]" or "[V6]:PORT", len bytes. */
static wn_code parse_authority(url *out, const char *text, const char *s, size_t len, wn_error *err)
{
	const char *host = s, *colon;
	size_t host_len;
	const bool bracketed = len && *s == '[';
	if (bracketed) {
		const char *close = memchr(s, ']', len);
		if (!close)
			return wn_fail(err, WN_INVALID, "%.100s: \"[\" without \"]\"", text);
		host = s + 1;
		host_len = (size_t)(close - host);
		colon = close + 1;
		if (colon < s + len && *colon != ':')
			return wn_fail(err, WN_INVALID, "%.100s: found \"%c\" after \"]\", expected \":\" and a port",
				       text, *colon);
	} else {
		colon = memchr(s, ':', len);
		colon = colon ? colon : s + len;
		host_len = (size_t)(colon - s);
		if (colon < s + len && memchr(colon + 1, ':', (size_t)(s + len - colon - 1)))
			return wn_fail(err, WN_INVALID, "%.100s: an IPv6 address stands in brackets: http://[::1]:8080",
				       text);
	}
	if (!host_len || host_len >= sizeof out->host)
		return wn_fail(err, WN_INVALID, "%.100s: found a host of %zu characters, expected 1 to %zu", text,
			       host_len, sizeof out->host - 1);
	memcpy(out->host, host, host_len);
	out->host[host_len] = 0;
	out->port = 80;
	const bool has_port = colon + 1 < s + len;
	if (has_port) {
		char digits[6] = "";
		const size_t n = (size_t)(s + len - colon - 1);
		if (n < sizeof digits)
			memcpy(digits, colon + 1, n);
		out->port = n < sizeof digits && strspn(digits, "0123456789") == n ? atoi(digits) : 0;
		if (out->port < 1 || out->port > 65535)
			return wn_fail(err, WN_INVALID, "%.100s: found port \"%.*s\", expected 1 to 65535", text,
				       (int)(n < 20 ? n : 20), colon + 1);
	}
	const char *fmt = bracketed ? "[%s]%s" : "%s%s";
	char port[8] = "";
	if (out->port != 80)
		snprintf(port, sizeof port, ":%d", out->port);
	snprintf(out->authority, sizeof out->authority, fmt, out->host, port);
	return WN_OK;
}

wn_code url_parse(url *out, const char *text, const char *default_path, wn_error *err)
{
	*out = (url){0};
	const char *s = text;
	for (const char *p = text; *p; p++)
		if ((unsigned char)*p <= ' ' || *p == 0x7f)
			return wn_fail(err, WN_INVALID, "%.100s: found a blank or control character in the URL", text);
	if (strncasecmp(s, "https://", 8) == 0)
		return wn_fail(err, WN_UNSUPPORTED,
			       "%.100s: https is not supported, expected http:// (measure behind whatever ends TLS)",
			       text);
	if (strncasecmp(s, "http://", 7) == 0)
		s += 7;
	else if (strstr(s, "://"))
		return wn_fail(err, WN_UNSUPPORTED, "%.100s: expected http://", text);
	const size_t len = strcspn(s, "/?#");
	if (memchr(s, '@', len))
		return wn_fail(err, WN_UNSUPPORTED, "found a user in the URL, expected --key instead");
	wn_code code = parse_authority(out, text, s, len, err);
	if (code != WN_OK)
		return code;
	s += len;
	const size_t path_len = strcspn(s, "#");
	const char *path = path_len && !(path_len == 1 && *s == '/') ? s : default_path;
	const int n = path == s
			  ? snprintf(out->path, sizeof out->path, "%s%.*s", *s == '/' ? "" : "/", (int)path_len, s)
			  : snprintf(out->path, sizeof out->path, "%s", path);
	if (n < 0 || (size_t)n >= sizeof out->path)
		return wn_fail(err, WN_TOO_LARGE, "%.100s…: the path is longer than %zu characters", text,
			       sizeof out->path - 1);
	return WN_OK;
}

/* 0, or the errno of a connection that did not come about. */
static int try_connect(const struct sockaddr *address, socklen_t len, int timeout_ms)
{
	int error = 0;
	int fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return errno;
	if (connect(fd, address, len) != 0) {
		error = errno;
		if (error == EINPROGRESS) {
			struct pollfd p = {.fd = fd, .events = POLLOUT};
			socklen_t size = sizeof error;
			const int ready = poll(&p, 1, timeout_ms);
			if (ready == 0)
				error = ETIMEDOUT;
			else if (ready < 0 || getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0)
				error = errno;
		}
	}
	close(fd);
	return error;
}

static void describe(endpoint *e, const struct addrinfo *a, int port)
{
	char host[INET6_ADDRSTRLEN + 20] = "?";
	getnameinfo(a->ai_addr, a->ai_addrlen, host, sizeof host, NULL, 0, NI_NUMERICHOST);
	snprintf(e->text, sizeof e->text, "%s port %d", host, port);
}

wn_code endpoint_find(endpoint *out, const url *u, int timeout_ms, wn_error *err)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
	struct addrinfo *list = NULL;
	char port[8];
	snprintf(port, sizeof port, "%d", u->port);
	*out = (endpoint){0};
	const int rc = getaddrinfo(u->host, port, &hints, &list);
	if (rc != 0)
		return wn_fail(err, WN_NOT_FOUND, "%s: cannot find the host: %s", u->host,
			       rc == EAI_SYSTEM ? strerror(errno) : gai_strerror(rc));
	int error = 0;
	for (const struct addrinfo *a = list; a; a = a->ai_next) {
		describe(out, a, u->port);
		error = try_connect(a->ai_addr, a->ai_addrlen, timeout_ms);
		if (error)
			continue;
		memcpy(&out->address, a->ai_addr, a->ai_addrlen);
		out->address_len = a->ai_addrlen;
		break;
	}
	freeaddrinfo(list);
	return out->address_len ? WN_OK : wn_fail(err, WN_IO, "cannot connect to %s: %s", out->text, strerror(error));
}
