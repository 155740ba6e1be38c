/* server.h: the parts of winnow-serve put together: keys, model, metrics, access log, audit service, HTTP. */
#ifndef WINNOW_SERVER_SERVER_H
#define WINNOW_SERVER_SERVER_H

#include "server/access.h"

typedef struct server server;

/* Loads the model and warms it up. c must outlive the server; *rules, of preflight, is taken over. */
wn_code server_open(server **out, const server_config *c, access_rules **rules, wn_error *err);
/* Once: listens, and serves. After a failure there is server_close. */
wn_code server_listen(server *s, wn_error *err);
/* Takes over what SIGHUP may change (CONFIG_RELOADABLE) from c, which need not live on: keys, rate limits, deadlines, the log's
 * level, certificate and key; and opens the access log anew. All of it, or nothing when something is wrong. */
wn_code server_reload(server *s, const server_config *c, wn_error *err);
/* Is not ready for drain.delay and serves on; then refuses new audits, lets those accepted finish for at most drain.timeout,
 * then stops everything. What still does not end five seconds later ends with the process, whose exit code is 0 then, or 1
 * when it never listened. */
void server_close(server **s);

int server_port(const server *s);

#endif
