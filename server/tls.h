/* tls.h: the certificate that new connections are shown.
 *
 * One for the process, because the library's callback carries no argument. It can be replaced while connections are open:
 * those keep what they were shown. Built without GnuTLS (meson says so), or on a libmicrohttpd without it, loading is refused
 * with one line. */
#ifndef WINNOW_SERVER_TLS_H
#define WINNOW_SERVER_TLS_H

#include "base/error.h"

#define TLS_PRIORITIES "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"

/* Reads PEM files: the certificate, followed by its chain, and its unencrypted key. WN_INVALID when they are not that, or do
 * not belong together; what was loaded before then stays. */
wn_code tls_load(const char *certificate, const char *key, wn_error *err);
void tls_unload(void);

/* For MHD_OPTION_HTTPS_CERT_CALLBACK2. */
void *tls_callback(void);

#endif
