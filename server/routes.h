/* routes.h: paths to what they mean. Pure. */
#ifndef WINNOW_SERVER_ROUTES_H
#define WINNOW_SERVER_ROUTES_H

#include <stdbool.h>

typedef enum route_id {
	ROUTE_NONE,
	ROUTE_AUDIT,       /* POST /v1/audit */
	ROUTE_SERVER,      /* GET /v2 */
	ROUTE_LIVE,        /* GET /v2/health/live */
	ROUTE_READY,       /* GET /v2/health/ready */
	ROUTE_MODEL,       /* GET /v2/models/NAME[/versions/V] */
	ROUTE_MODEL_READY, /* GET /v2/models/NAME[/versions/V]/ready */
	ROUTE_METRICS,     /* GET /metrics */
	ROUTE_INDEX,       /* POST /v2/repository/index */
	ROUTE_LOAD,        /* POST /v2/repository/models/NAME/load */
	ROUTE_UNLOAD,      /* POST /v2/repository/models/NAME/unload */
} route_id;

typedef struct route {
	route_id id;
	char model[65];   /* of a model route */
	char version[24]; /* "" when the path names none */
} route;

route route_of(const char *path);
/* /v2/repository: what only an administrator may do. */
bool route_is_repository(route_id id);

/* Whose key a route asks for. */
typedef enum role { ROLE_INFERENCE, ROLE_METRICS, ROLE_ADMIN, ROLE_COUNT, ROLE_ANYBODY } role;
role route_role(route_id id);
const char *role_name(role r); /* "inference", "metrics", "admin"; of one below ROLE_COUNT */
/* With an admin listener of its own, /metrics and /v2/repository are found there only, audits and models on the main one
 * only, and what is for anybody on both. */
bool route_is_on(route_id id, bool admin_listener);

/* The Allow header's value. */
const char *route_methods(route_id id);
bool route_allows(route_id id, const char *method);

#endif
