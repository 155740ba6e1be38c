/* url.h: the address of a service as people write it, and the socket address behind it. */
#ifndef WINNOW_LOAD_URL_H
#define WINNOW_LOAD_URL_H

#include <sys/socket.h>

#include "base/error.h"

typedef struct url {
	char host[256];      /* name or address; an IPv6 address without its brackets */
	int port;            /* 80 when none is given */
	char path[2048];     /* with the query; begins with '/' */
	char authority[300]; /* of the Host header: "127.0.0.1:8080", "[::1]:8080", "example.org" */
} url;

/* "http://HOST[:PORT][/PATH]"; "http://" may be left out. Without a path, default_path. https is WN_UNSUPPORTED: the
 * tool measures the server, not a TLS library. */
wn_code url_parse(url *out, const char *text, const char *default_path, wn_error *err);

typedef struct endpoint {
	struct sockaddr_storage address;
	socklen_t address_len;
	char text[300]; /* "127.0.0.1 port 8080", for messages */
} endpoint;

/* Looks the host up and takes the first address that accepts a connection within timeout_ms. Blocks; before the run,
 * not in it. WN_NOT_FOUND: no such host. WN_IO: the last address' reason. */
wn_code endpoint_find(endpoint *out, const url *u, int timeout_ms, wn_error *err);

#endif
