/* routes.c: see routes.h. */
#include "server/routes.h"

#include <stdio.h>
#include <string.h>

#include "model/manifest.h"

static const struct {
	const char *path;
	route_id id;
} FIXED[] = {
    {"/v1/audit", ROUTE_AUDIT},
    {"/v2", ROUTE_SERVER},
    {"/v2/", ROUTE_SERVER},
    {"/v2/health/live", ROUTE_LIVE},
    {"/v2/health/ready", ROUTE_READY},
    {"/metrics", ROUTE_METRICS},
    {"/v2/repository/index", ROUTE_INDEX},
};

/* Copies the segment up to '/' or the end; what follows it, or NULL when it does not fit or is empty. */
static const char *take_segment(char *out, size_t size, const char *p)
{
	size_t n = strcspn(p, "/");
	if (n == 0 || n >= size)
		return NULL;
	memcpy(out, p, n);
	out[n] = 0;
	return p + n;
}

static route model_route(const char *p)
{
	route r = {.id = ROUTE_NONE};
	p = take_segment(r.model, sizeof r.model, p);
	if (!p || !manifest_name_is_valid(r.model))
		return r;
	if (strncmp(p, "/versions/", 10) == 0) {
		p = take_segment(r.version, sizeof r.version, p + 10);
		if (!p)
			return r;
	}
	if (!*p)
		r.id = ROUTE_MODEL;
	else if (strcmp(p, "/ready") == 0)
		r.id = ROUTE_MODEL_READY;
	return r;
}

static route repository_route(const char *p)
{
	route r = {.id = ROUTE_NONE};
	p = take_segment(r.model, sizeof r.model, p);
	if (p && manifest_name_is_valid(r.model))
		r.id = strcmp(p, "/load") == 0 ? ROUTE_LOAD : strcmp(p, "/unload") == 0 ? ROUTE_UNLOAD : ROUTE_NONE;
	return r;
}

route route_of(const char *path)
{
	for (size_t i = 0; i < sizeof FIXED / sizeof FIXED[0]; i++)
		if (strcmp(path, FIXED[i].path) == 0)
			return (route){.id = FIXED[i].id};
	if (strncmp(path, "/v2/models/", 11) == 0)
		return model_route(path + 11);
	if (strncmp(path, "/v2/repository/models/", 22) == 0)
		return repository_route(path + 22);
	return (route){.id = ROUTE_NONE};
}

bool route_is_repository(route_id id) { return id == ROUTE_INDEX || id == ROUTE_LOAD || id == ROUTE_UNLOAD; }

role route_role(route_id id)
{
	switch (id) {
	case ROUTE_NONE:
	case ROUTE_SERVER:
	case ROUTE_LIVE:
	case ROUTE_READY:
		return ROLE_ANYBODY;
	case ROUTE_AUDIT:
	case ROUTE_MODEL:
	case ROUTE_MODEL_READY:
		return ROLE_INFERENCE;
	case ROUTE_METRICS:
		return ROLE_METRICS;
	default:
		break;
	}
	return ROLE_ADMIN; /* whatever nobody has thought about yet */
}

const char *role_name(role r)
{
	static const char *const NAMES[ROLE_COUNT] = {
	    [ROLE_INFERENCE] = "inference", [ROLE_METRICS] = "metrics", [ROLE_ADMIN] = "admin"};
	return NAMES[r];
}

bool route_is_on(route_id id, bool admin_listener)
{
	role r = route_role(id);
	return r == ROLE_ANYBODY || admin_listener == (r != ROLE_INFERENCE);
}

static bool is_post(route_id id) { return id == ROUTE_AUDIT || route_is_repository(id); }

const char *route_methods(route_id id) { return is_post(id) ? "POST" : "GET, HEAD"; }

bool route_allows(route_id id, const char *method)
{
	if (is_post(id))
		return strcmp(method, "POST") == 0;
	return strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0;
}
