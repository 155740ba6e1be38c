/* access.h: who may do what, and how often.
 *
 * The rules (keys, rate limits, deadlines a client may ask for) are what SIGHUP can change for requests: an immutable
 * snapshot behind one reference-counted pointer, but for the rate limits' buckets. A request is judged by the snapshot it
 * finds; a reload that fails leaves the old one. Buckets are full after a reload. */
#ifndef WINNOW_SERVER_ACCESS_H
#define WINNOW_SERVER_ACCESS_H

#include <stdbool.h>
#include <stdint.h>

#include "server/config.h"
#include "server/keys.h"
#include "server/rate.h"
#include "server/request.h"
#include "server/routes.h"

typedef struct access_rules {
	atomic_int references;
	key_set keys[ROLE_COUNT];
	rate_limit limits[ROLE_COUNT];
	rate_bucket buckets[ROLE_COUNT][KEYS_MAX + 1]; /* one for each key; the last: everybody without one */
	int64_t deadline_ns, max_deadline_ns;
} access_rules;

typedef struct access_control access_control;

/* Reads the keys. WN_INVALID when an address that can be reached from outside would be served without keys. Given back with
 * access_release, or handed to one of the next. */
wn_code access_rules_load(access_rules **out, const server_config *c, wn_error *err);
/* Takes *rules over, also on failure. */
wn_code access_open(access_control **out, access_rules **rules, wn_error *err);
void access_close(access_control **a);
/* Other rules from now on; cannot fail. */
void access_replace(access_control *a, access_rules *rules);

access_rules *access_acquire(access_control *a);
void access_release(access_rules **rules);

typedef struct access_question {
	role wanted;
	const char *key;         /* presented, or NULL */
	bool client_is_loopback; /* the client's address */
	bool from_browser;       /* a web page may have sent it */
	bool listener_is_public; /* the address it came to can be reached from outside */
	int64_t now_ns;
} access_question;

/* Whether r may go on; r->key_name tells by which key. Without keys for a role: inference is for everybody (a public
 * address needs keys, see access_rules_load), metrics for loopback clients, administration for loopback clients of a listener
 * that nobody else can reach (behind a proxy every client looks like one), and not for web pages that they look at. Refused: REASON_UNAUTHORIZED, _FORBIDDEN or
 * _RATE_LIMITED. */
reason access_check(access_rules *rules, const access_question *q, request *r);

#endif
