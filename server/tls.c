/* tls.c: see tls.h. The PEM texts are kept, and parsed for every handshake into an object that GnuTLS frees with the
 * session: a handshake costs far more, and nothing has to be counted or outlive anything. */
#include "server/tls.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#ifdef HAVE_GNUTLS

#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>
#include <microhttpd.h>

#include "base/file.h"

#define MAX_PEM   ((size_t)1 << 18)
#define MAX_CHAIN 16

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards current */
static struct {
	gnutls_datum_t certificate, key; /* PEM, malloc'ed */
} current;

static int show_certificate(gnutls_session_t session, const struct gnutls_cert_retr_st *info, gnutls_pcert_st **certs,
			    unsigned *count, gnutls_ocsp_data_st **ocsp, unsigned *ocsp_count, gnutls_privkey_t *key,
			    unsigned *flags)
{
	*certs = gnutls_calloc(MAX_CHAIN, sizeof **certs);
	*count = MAX_CHAIN;
	*ocsp = NULL;
	*ocsp_count = 0;
	*key = NULL;
	if (!*certs || gnutls_privkey_init(key) != 0) {
		gnutls_free(*certs);
		return -1;
	}
	pthread_mutex_lock(&lock);
	int bad = gnutls_pcert_list_import_x509_raw(*certs, count, &current.certificate, GNUTLS_X509_FMT_PEM, 0);
	int bad_key = gnutls_privkey_import_x509_raw(*key, &current.key, GNUTLS_X509_FMT_PEM, NULL, 0);
	pthread_mutex_unlock(&lock);
	if (bad == 0 && bad_key == 0) {
		*flags = GNUTLS_CERT_RETR_DEINIT_ALL;
		return 0;
	}
	for (unsigned i = 0; bad == 0 && i < *count; i++)
		gnutls_pcert_deinit(*certs + i);
	gnutls_free(*certs);
	gnutls_privkey_deinit(*key);
	return -1;
}

void *tls_callback(void) { return (void *)show_certificate; }

static void forget(gnutls_datum_t *d)
{
	if (d->data)
		explicit_bzero(d->data, d->size);
	free(d->data);
	*d = (gnutls_datum_t){0};
}

static wn_code read_pem(gnutls_datum_t *out, const char *path, wn_error *err)
{
	char *text = NULL;
	size_t len = 0;
	wn_code code = file_read(path, MAX_PEM, &text, &len, err);
	if (code == WN_OK)
		*out = (gnutls_datum_t){.data = (unsigned char *)text, .size = (unsigned)len};
	return code;
}

/* That the two are what they should be and belong together. */
static wn_code check_pair(const gnutls_datum_t *certificate, const gnutls_datum_t *key, const char *path, wn_error *err)
{
	gnutls_certificate_credentials_t c;
	gnutls_x509_crt_t chain[MAX_CHAIN];
	unsigned count = MAX_CHAIN;
	if (gnutls_certificate_allocate_credentials(&c) != 0)
		return wn_fail(err, WN_NOMEM, "%s: out of memory", path);
	wn_code code = WN_OK;
	int e = gnutls_x509_crt_list_import(chain, &count, certificate, GNUTLS_X509_FMT_PEM,
					    GNUTLS_X509_CRT_LIST_IMPORT_FAIL_IF_EXCEED);
	if (e < 0) {
		code = wn_fail(err, WN_INVALID, "tls.certificate: %s: expected PEM certificates, at most %d: %s", path, MAX_CHAIN,
			       gnutls_strerror(e));
	} else {
		for (unsigned i = 0; i < count; i++)
			gnutls_x509_crt_deinit(chain[i]);
		e = gnutls_certificate_set_x509_key_mem(c, certificate, key, GNUTLS_X509_FMT_PEM);
		if (e < 0)
			code = wn_fail(err, WN_INVALID, "tls.key: expected the unencrypted PEM key of %s: %s", path,
				       gnutls_strerror(e));
	}
	gnutls_certificate_free_credentials(c);
	return code;
}

wn_code tls_load(const char *certificate, const char *key, wn_error *err)
{
	gnutls_datum_t c = {0}, k = {0};
	if (MHD_is_feature_supported(MHD_FEATURE_TLS) != MHD_YES ||
	    MHD_is_feature_supported(MHD_FEATURE_HTTPS_CERT_CALLBACK2) != MHD_YES)
		return wn_fail(err, WN_UNSUPPORTED, "tls.certificate: this libmicrohttpd was built without TLS");
	wn_code code = read_pem(&c, certificate, err);
	if (code == WN_OK)
		code = read_pem(&k, key, err);
	if (code == WN_OK)
		code = check_pair(&c, &k, certificate, err);
	if (code == WN_OK) {
		pthread_mutex_lock(&lock);
		gnutls_datum_t old_c = current.certificate, old_k = current.key;
		current.certificate = c;
		current.key = k;
		pthread_mutex_unlock(&lock);
		c = old_c;
		k = old_k;
	}
	forget(&c);
	forget(&k);
	return code;
}

void tls_unload(void)
{
	pthread_mutex_lock(&lock);
	forget(&current.certificate);
	forget(&current.key);
	pthread_mutex_unlock(&lock);
}

#else

wn_code tls_load(const char *certificate, const char *key, wn_error *err)
{
	return wn_fail(err, WN_UNSUPPORTED, "tls.certificate: winnow-serve was built without GnuTLS");
}

void tls_unload(void) {}

void *tls_callback(void) { return NULL; }

#endif
