/* http.c: see http.h. The callbacks of one connection all run on one libmicrohttpd thread; between
 * MHD_suspend_connection and MHD_resume_connection none of them runs, and the request belongs to the audit service. */
#include "server/http_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/answers.h"
#include "server/fields.h"
#include "server/headers.h"
#include "server/repository.h"

static const char *header(connection *c, const char *name)
{
	return MHD_lookup_connection_value(c->mhd, MHD_HEADER_KIND, name);
}

/* ---- answering ---- */

static enum MHD_Result send_answer(connection *c, request *r)
{
	http *h = c->http;
	if (r->outcome == REASON_CLIENT_CLOSED)
		return MHD_NO;
	if (r->outcome != REASON_OK) {
		bool v2 = c->route.id != ROUTE_AUDIT && c->route.id != ROUTE_NONE;
		free(r->answer);
		r->answer = v2 ? answer_v2_error(r) : answer_problem(r);
		r->answer_type = v2 ? TYPE_JSON : TYPE_PROBLEM;
	}
	c->unanswered = true;
	if (!r->answer)
		return MHD_NO;
	r->answer_len = strlen(r->answer);
	struct MHD_Response *response =
	    MHD_create_response_from_buffer(r->answer_len, r->answer, MHD_RESPMEM_MUST_FREE);
	if (!response)
		return MHD_NO;
	c->unanswered = false;
	r->answer = NULL;
	if (strcmp(r->method, "HEAD") == 0)
		r->answer_len = 0; /* the library sends the headers only: this is for the log */
	int status = reason_status(r->outcome);
	MHD_add_response_header(response, "Content-Type", r->answer_type);
	MHD_add_response_header(response, "Cache-Control", "no-store");
	MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
	MHD_add_response_header(response, "X-Request-Id", r->id);
	if (status == 405)
		MHD_add_response_header(response, "Allow", r->allow);
	if (status == 401)
		MHD_add_response_header(response, "WWW-Authenticate", "Bearer realm=\"winnow\"");
	if (status == 429 || status == 503 || status == 504) {
		char seconds[16];
		snprintf(seconds, sizeof seconds, "%d",
			 r->retry_after_s ? r->retry_after_s : audit_retry_after(h->opt.audit));
		MHD_add_response_header(response, "Retry-After", seconds);
	}
	if (atomic_load(&h->draining) || http_is_crowded(c->listener))
		MHD_add_response_header(response, "Connection", "close");
	enum MHD_Result ok = MHD_queue_response(c->mhd, (unsigned)status, response);
	MHD_destroy_response(response);
	return ok;
}

void http_request_done(request *r) { MHD_resume_connection(((connection *)r->http)->mhd); }

bool http_client_gone(const request *r) { return connection_is_left(r->http); }

static char *metrics_answer(http *h)
{
	served_model *m = registry_acquire(h->opt.registry);
	const bool ready = m && !atomic_load(&h->draining);
	registry_release(&m);
	metrics_gauges g = {.queue_depth = audit_waiting(h->opt.audit),
			    .predicted_wait_ns = audit_predicted_wait_ns(h->opt.audit),
			    .queue_capacity = (size_t)h->opt.config->queue_capacity,
			    .in_flight = atomic_load(&h->in_flight),
			    .connections = (size_t)atomic_load(&h->listeners[0].open) + (size_t)atomic_load(&h->listeners[1].open),
			    .connections_evicted = atomic_load(&h->listeners[0].evicted) + atomic_load(&h->listeners[1].evicted),
			    .body_bytes = request_pool_bytes(h->opt.pool),
			    .body_budget = h->opt.config->body_budget,
			    .access_log_dropped = access_log_dropped(h->opt.access_log),
			    .decoder_restarts = audit_decoder_restarts(h->opt.audit),
			    .cache = result_cache_read(h->opt.cache),
			    .placement = h->opt.placement,
			    .ready = ready,
			    .manager = h->opt.manager};
	return metrics_text(h->opt.metrics, &g);
}

/* GET routes: fills r's answer or outcome. */
static void answer_get(connection *c, request *r)
{
	http *h = c->http;
	/* Without a model in the path: the default one, which is what makes the server ready. */
	served_model *m = registry_find(h->opt.registry, c->route.model, c->route.version);
	r->answer_type = TYPE_JSON;
	switch (c->route.id) {
	case ROUTE_SERVER:
		r->answer = answer_server_metadata();
		break;
	case ROUTE_LIVE:
		r->answer = strdup("{\"live\":true}");
		break;
	case ROUTE_READY:
		if (atomic_load(&h->draining))
			request_fail(r, REASON_DRAINING, "the server is shutting down");
		else if (!m)
			request_fail(r, REASON_NO_MODEL, "no model is loaded");
		else
			r->answer = strdup("{\"ready\":true}");
		break;
	case ROUTE_MODEL:
	case ROUTE_MODEL_READY:
		if (!m)
			request_fail(r, REASON_UNKNOWN_MODEL, "model \"%s\"%s%s is not served here", c->route.model,
				     c->route.version[0] ? " version " : "", c->route.version);
		else if (c->route.id == ROUTE_MODEL)
			r->answer = answer_model_metadata(m, h->opt.placement);
		else if (atomic_load(&h->draining))
			request_fail(r, REASON_DRAINING, "the server is shutting down");
		else
			r->answer = answer_ready(m->name, m->version);
		break;
	case ROUTE_METRICS:
		r->answer = metrics_answer(h);
		r->answer_type = TYPE_METRICS;
		break;
	default:
		break;
	}
	registry_release(&m);
	if (!r->answer)
		request_no_memory(r);
}

/* ---- commands to the model manager ---- */

static bool is_command(const connection *c) { return c->route.id == ROUTE_LOAD || c->route.id == ROUTE_UNLOAD; }

/* Requests that a drain waits for. */
static bool is_counted(const connection *c) { return c->route.id == ROUTE_AUDIT || is_command(c); }

/* c's request is one of those from now on, or no longer. */
static void count(connection *c, bool counted)
{
	if (counted && !c->counted)
		atomic_fetch_add(&c->http->in_flight, 1);
	else if (!counted && c->counted)
		atomic_fetch_sub(&c->http->in_flight, 1);
	c->counted = counted;
}

/* In the manager's thread, or in manager_submit. */
static void command_done(model_command *cmd)
{
	request *r = cmd->cls;
	if (cmd->outcome != REASON_OK)
		request_fail(r, cmd->outcome, "%s", cmd->detail);
	else if (!(r->answer = repository_answer_command(cmd)))
		request_no_memory(r);
	r->answer_type = TYPE_JSON;
	free(cmd);
	http_request_done(r);
}

/* True when the command is under way and the connection suspended. */
static bool submit_command(connection *c, request *r)
{
	model_command *cmd = calloc(1, sizeof *cmd);
	if (!cmd) {
		request_no_memory(r);
		return false;
	}
	cmd->kind = c->route.id == ROUTE_LOAD ? COMMAND_LOAD : COMMAND_UNLOAD;
	memcpy(cmd->name, c->route.model, sizeof cmd->name);
	cmd->done = command_done;
	cmd->cls = r;
	if (repository_parse_command(r, cmd) != REASON_OK) {
		free(cmd);
		return false;
	}
	c->submitted = true;
	MHD_suspend_connection(c->mhd);
	manager_submit(c->http->opt.manager, cmd);
	return true;
}

static void answer_index(connection *c, request *r)
{
	bool ready_only;
	if (repository_parse_index(r, &ready_only) != REASON_OK)
		return;
	r->answer_type = TYPE_JSON;
	if (!(r->answer = repository_answer_index(c->http->opt.manager, ready_only)))
		request_no_memory(r);
}

/* ---- refusing early: everything the headers can tell ---- */

static const char *presented_key(connection *c)
{
	const char *authorization = header(c, "Authorization");
	const char *key = authorization ? header_bearer(authorization) : NULL;
	return key ? key : header(c, "X-Api-Key");
}

static reason check_deadline(connection *c, request *r, const access_rules *rules)
{
	const char *text = header(c, "X-Deadline-Ms");
	r->deadline_budget_ns = rules->deadline_ns;
	if (!text)
		return REASON_OK;
	const long long most = rules->max_deadline_ns / 1000000, ms = header_deadline_ms(text, most);
	if (ms == 0)
		return request_fail(r, REASON_BAD_DEADLINE, "X-Deadline-Ms: found \"%.40s\", expected a whole number from 1 to %lld", text,
				    most);
	r->deadline_budget_ns = ms * 1000000;
	return REASON_OK;
}

static reason check_audit_headers(connection *c, request *r, const access_rules *rules)
{
	http *h = c->http;
	const char *type = header(c, "Content-Type");
	const char *length = header(c, "Content-Length");
	if (atomic_load(&h->refusing))
		return request_fail(r, REASON_DRAINING, "the server is shutting down");
	if (!length && !header(c, "Transfer-Encoding"))
		return request_fail(r, REASON_LENGTH_REQUIRED, "send a body with Content-Length or chunked");
	if (!type || strlen(type) >= sizeof r->content_type || body_kind_of(type) == BODY_NONE)
		return request_fail(r, REASON_UNSUPPORTED_MEDIA_TYPE,
				    "Content-Type: found %.60s, expected multipart/form-data or "
				    "application/json",
				    type ? type : "none");
	snprintf(r->content_type, sizeof r->content_type, "%s", type);
	if (length && header_length(length) > h->opt.config->max_body)
		return request_fail(r, REASON_BODY_TOO_LARGE, "found a body of %.20s bytes, expected at most %zu",
				    length, h->opt.config->max_body);
	return check_deadline(c, r, rules);
}

static void check_allowed(connection *c, request *r, access_rules *rules)
{
	access_question q = {.wanted = route_role(c->route.id),
			     .key = presented_key(c),
			     .client_is_loopback = c->loopback,
			     .listener_is_public = c->listener->reachable,
			     .from_browser = header(c, "Origin") != NULL,
			     .now_ns = r->begun_ns};
	if (access_check(rules, &q, r) != REASON_OK)
		return;
	if (c->route.id == ROUTE_AUDIT)
		check_audit_headers(c, r, rules);
	else if (is_command(c) && atomic_load(&c->http->refusing))
		request_fail(r, REASON_DRAINING, "the server is shutting down");
}

static void check_headers(connection *c, request *r)
{
	if (c->route.id == ROUTE_NONE) {
		request_fail(r, REASON_NOT_FOUND, "there is nothing at this path");
	} else if (!route_allows(c->route.id, r->method)) {
		r->allow = route_methods(c->route.id);
		request_fail(r, REASON_METHOD_NOT_ALLOWED, "expected %s", r->allow);
	} else {
		access_rules *rules = access_acquire(c->http->opt.access);
		check_allowed(c, r, rules);
		access_release(&rules);
	}
}

/* ---- one request, callback by callback ---- */

/* A refusal before the body was read closes the connection, and a client still sending may then lose the answer. Bodies
 * up to this size are read and thrown away first. */
static bool worth_draining(connection *c)
{
	const char *length = header(c, "Content-Length");
	if (header(c, "Expect"))
		return false; /* it waits for our word before it sends */
	return !length || header_length(length) <= 2 * (unsigned long long)c->http->opt.config->max_body;
}

/* The connection is closed: there is nothing that an answer could be made of. */
static enum MHD_Result no_memory_to_begin(http *h, const char *url)
{
	metrics_count_unbegun(h->opt.metrics, route_of(url).id == ROUTE_AUDIT);
	access_log_write(h->opt.access_log, NULL);
	return MHD_NO;
}

/* False: the watcher has given the connection up. It reads request_id from the step on. */
static bool begin_to_receive(connection *c)
{
	const char *id = header(c, "X-Request-Id");
	if (atomic_load(&c->phase) != PHASE_AWAITING)
		return false;
	if (id && request_id_is_valid(id))
		snprintf(c->request_id, sizeof c->request_id, "%s", id);
	else
		request_random_id(c->request_id);
	return connection_step(c, PHASE_AWAITING, PHASE_RECEIVING);
}

static enum MHD_Result begin(http *h, connection *c, const char *url, const char *method, void **request_slot)
{
	if (!begin_to_receive(c))
		return MHD_NO;
	/* Counted first, then asked: either http_finish waits for this request, or this request sees that it comes too late. */
	atomic_fetch_add(&h->begun, 1);
	const bool too_late = atomic_load(&h->finishing);
	request *r = too_late ? NULL : request_pool_get(h->opt.pool);
	if (!r) {
		atomic_fetch_sub(&h->begun, 1);
		return too_late ? MHD_NO : no_memory_to_begin(h, url);
	}
	r->begun_ns = monotonic_ns();
	r->http = c;
	snprintf(r->method, sizeof r->method, "%s", method);
	snprintf(r->path, sizeof r->path, "%s", url);
	memcpy(r->id, c->request_id, sizeof r->id);
	c->route = route_of(url);
	if (!c->listener->everything && !route_is_on(c->route.id, c->listener->admin))
		c->route.id = ROUTE_NONE;
	c->submitted = false;
	c->unanswered = false;
	c->discarded = 0;
	*request_slot = r;
	count(c, is_counted(c));
	check_headers(c, r);
	/* However many are turned away meanwhile, and however slowly they send what nobody will read: a drain ends. */
	if (r->outcome != REASON_OK && atomic_load(&h->draining))
		count(c, false);
	if (r->outcome == REASON_OK || worth_draining(c))
		return MHD_YES;
	return connection_step(c, PHASE_RECEIVING, PHASE_BUSY) ? send_answer(c, r) : MHD_NO;
}

static enum MHD_Result receive(connection *c, request *r, const char *data, size_t size)
{
	size_t max = route_is_repository(c->route.id) ? REPOSITORY_MAX_BODY : c->http->opt.config->max_body;
	r->bytes_in += size;
	if (r->outcome == REASON_OK) {
		wn_error err = {0};
		if (c->route.id != ROUTE_AUDIT && !route_is_repository(c->route.id))
			request_fail(r, REASON_BAD_REQUEST, "expected no body");
		else if (size > max || r->body.len > max - size)
			request_fail(r, REASON_BODY_TOO_LARGE, "found a body larger than %zu bytes", max);
		else if (bytes_append(&r->body, data, size, max, &err) == WN_TOO_LARGE)
			request_fail(r, REASON_BODY_BUDGET, "%s; try again shortly", err.message);
		else if (err.code != WN_OK)
			request_no_memory(r);
	}
	if (r->outcome != REASON_OK) {
		bytes_free(&r->body);
		c->discarded += size;
	}
	return c->discarded > 2 * max ? MHD_NO : MHD_YES;
}

static enum MHD_Result complete(connection *c, request *r)
{
	http *h = c->http;
	if (!connection_step(c, PHASE_RECEIVING, PHASE_BUSY))
		return MHD_NO;
	r->received_ns = monotonic_ns();
	if (c->route.id == ROUTE_AUDIT)
		r->stage_ns[STAGE_RECEIVE] = r->received_ns - r->begun_ns;
	if (r->outcome == REASON_OK && is_command(c)) {
		if (submit_command(c, r))
			return MHD_YES;
	} else if (r->outcome == REASON_OK && c->route.id == ROUTE_INDEX) {
		answer_index(c, r);
	} else if (r->outcome == REASON_OK && c->route.id != ROUTE_AUDIT)
		answer_get(c, r);
	else if (r->outcome == REASON_OK && audit_admit(h->opt.audit, r) == REASON_OK) {
		c->submitted = true;
		/* Before the hand-over: a worker may resume it at once. */
		MHD_suspend_connection(c->mhd);
		audit_submit(h->opt.audit, r);
		return MHD_YES;
	}
	return send_answer(c, r);
}

enum MHD_Result http_handle(void *cls, struct MHD_Connection *mhd, const char *url, const char *method,
			    const char *version, const char *upload_data, size_t *upload_data_size, void **request_slot)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	connection *c = info ? info->socket_context : NULL;
	request *r = *request_slot;
	if (!c)
		return no_memory_to_begin(((const listener *)cls)->http, url);
	if (!r)
		return begin(((const listener *)cls)->http, c, url, method, request_slot);
	if (*upload_data_size > 0) {
		size_t size = *upload_data_size;
		*upload_data_size = 0;
		return receive(c, r, upload_data, size);
	}
	return c->submitted ? send_answer(c, r) : complete(c, r);
}

/* A library that is being stopped takes no answer any more: version 1 then calls that an error, 0.9 its shutdown. */
static bool cut_off_by_us(http *h, enum MHD_RequestTerminationCode how)
{
	return how == MHD_REQUEST_TERMINATED_DAEMON_SHUTDOWN ||
	       (how == MHD_REQUEST_TERMINATED_WITH_ERROR && atomic_load(&h->finishing));
}

void http_completed(void *cls, struct MHD_Connection *mhd, void **request_slot, enum MHD_RequestTerminationCode how)
{
	http *h = ((const listener *)cls)->http;
	request *r = *request_slot;
	if (!r)
		return;
	*request_slot = NULL;
	connection *c = r->http;
	if (how != MHD_REQUEST_TERMINATED_COMPLETED_OK) {
		/* Also an answer that could not be delivered: to the client it never happened. */
		r->outcome = REASON_OK;
		if (atomic_load(&c->phase) == PHASE_TIMED_OUT)
			request_fail(r, REASON_RECEIVE_TIMEOUT, "timed out");
		else if (cut_off_by_us(h, how))
			request_fail(r, REASON_DRAINING, "shut down");
		else if (c->unanswered)
			request_fail(r, REASON_OUT_OF_MEMORY, "no memory for an answer");
		else
			request_fail(r, REASON_CLIENT_CLOSED, "closed");
		r->answer_len = 0;
	}
	bool is_audit = c->route.id == ROUTE_AUDIT;
	metrics_count_request(h->opt.metrics, r, is_audit);
	if (h->opt.access_log)
		access_log_write(h->opt.access_log, access_log_line(r));
	request_pool_put(h->opt.pool, r);
	count(c, false);
	if (atomic_load(&c->phase) != PHASE_TIMED_OUT) {
		atomic_store(&c->since_ns, monotonic_ns());
		atomic_store(&c->phase, PHASE_AWAITING);
	}
	atomic_fetch_sub(&h->begun, 1);
}
