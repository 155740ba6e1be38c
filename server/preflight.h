/* preflight.h: what a configuration says about things outside it, held against them: keys, the certificate, the access log,
 * directories of models. A start, SIGHUP and --check-config ask the same questions in the same words; what they cannot answer
 * (ports, whether a model can be loaded) only a start finds out. */
#ifndef WINNOW_SERVER_PREFLIGHT_H
#define WINNOW_SERVER_PREFLIGHT_H

#include "server/access.h"

/* What SIGHUP reads again. The rules are the caller's (access_release); the certificate is what new connections are shown from
 * here on (tls.h). Warns of keys that others than their owner can read. On failure nothing has changed and *rules is NULL. */
wn_code preflight(access_rules **rules, const server_config *c, wn_error *err);

/* That the registry and the models' directories in it are there, or model.dir. */
wn_code preflight_models(const server_config *c, wn_error *err);

#endif
