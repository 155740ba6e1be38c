/* in_process.c: see in_process.h. Whoever asks sleeps on a semaphore that its request carries where the HTTP side keeps its own. */
#include "in_process.h"

#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <omp.h>

#include "server/log.h"

struct in_process {
	server_config config;
	placement placement;
	registry *registry;
	metrics *metrics;
	result_cache *cache;
	request_pool *pool;
	comparer *comparer;
	audit_service *audit;
	manager *manager;
	bool started;
};

static void ended(request *r) { sem_post(r->http); }
static bool never_gone(const request *r) { return false; }

static wn_code configure(server_config *c, const char *root, const char *const *settings, wn_error *err)
{
	/* a helper would be this same program, which is no winnow-serve */
	static const char *const DEFAULTS[] = {"inference.threads=1", "inference.deadline=1h", "inference.max_deadline=1h", "log.level=error",
					       "decode.isolation=thread", NULL};
	char text[700];
	wn_code rc = config_defaults(&SERVER_CONFIG_SCHEMA, c, err);
	snprintf(text, sizeof text, "model.registry=%s", root);
	if (!rc)
		rc = config_set(&SERVER_CONFIG_SCHEMA, c, text, err);
	for (int i = 0; DEFAULTS[i] && !rc; i++)
		rc = config_set(&SERVER_CONFIG_SCHEMA, c, DEFAULTS[i], err);
	for (int i = 0; settings[i] && !rc; i++)
		rc = config_set(&SERVER_CONFIG_SCHEMA, c, settings[i], err);
	return rc ? rc : server_config_check(c, err);
}

static wn_code open_parts(in_process *p, wn_error *err)
{
	const server_config *c = &p->config;
	wn_code rc = result_cache_open(&p->cache, c->cache_bytes, c->cache_max_age_ns, err);
	if (!rc)
		rc = registry_open(&p->registry, c->model_name, err);
	if (!rc)
		rc = metrics_open(&p->metrics, err);
	if (!rc) /* keeps nothing: every request takes its memory anew */
		rc = request_pool_open(&p->pool, 0, c->body_budget, err);
	if (!rc)
		rc = compare_open(&p->comparer, c, err);
	const audit_options audit = {.config = c, .placement = &p->placement, .registry = p->registry, .metrics = p->metrics, .comparer = p->comparer,
				     .cache = p->cache, .done = ended, .gone = never_gone};
	if (!rc)
		rc = audit_open(&p->audit, &audit, err);
	const manager_options models = {.config = c, .placement = &p->placement, .registry = p->registry, .run_on = audit_run_on, .cls = p->audit};
	return rc ? rc : manager_open(&p->manager, &models, err);
}

wn_code in_process_open(in_process **out, const char *registry_root, const char *const *settings, wn_error *err)
{
	in_process *p = *out = calloc(1, sizeof *p);
	if (!p)
		return wn_fail(err, WN_NOMEM, "out of memory");
	wn_code rc = configure(&p->config, registry_root, settings, err);
	log_set_level((log_level)p->config.log_level);
	p->placement = (placement){.mode = "latency", .instances = 1, .threads = 1};
	omp_set_num_threads(1);
	if (!rc)
		rc = open_parts(p, err);
	if (rc)
		in_process_close(out);
	return rc;
}

void in_process_close(in_process **pp)
{
	in_process *p = *pp;
	if (!p)
		return;
	*pp = NULL;
	if (p->started)
		manager_stop(p->manager);
	audit_close(&p->audit);
	compare_close(&p->comparer);
	request_pool_close(&p->pool);
	manager_close(&p->manager);
	metrics_close(&p->metrics);
	registry_close(&p->registry);
	result_cache_close(&p->cache);
	config_free(&SERVER_CONFIG_SCHEMA, &p->config);
	free(p);
}

wn_code in_process_start_manager(in_process *p, wn_error *err)
{
	wn_code rc = manager_start(p->manager, err);
	p->started = rc == WN_OK;
	return rc;
}

static void command_ended(model_command *c) { sem_post(c->cls); }

void in_process_submit(in_process *p, model_command *c)
{
	sem_t end;
	sem_init(&end, 0, 0);
	c->done = command_ended;
	c->cls = &end;
	manager_submit(p->manager, c);
	while (sem_wait(&end) != 0)
		;
	sem_destroy(&end);
}

model_command in_process_command(in_process *p, command_kind kind, const char *name, int version)
{
	model_command c = {.kind = kind, .version = version};
	snprintf(c.name, sizeof c.name, "%s", name);
	in_process_submit(p, &c);
	return c;
}

request *in_process_ask(in_process *p, const char *content_type, const void *body, size_t len)
{
	return in_process_ask_within(p, content_type, body, len, p->config.deadline_ns);
}

request *in_process_ask_within(in_process *p, const char *content_type, const void *body, size_t len, int64_t budget_ns)
{
	wn_error err = {0};
	sem_t end;
	request *r = request_pool_get(p->pool);
	if (!r)
		return NULL;
	request_random_id(r->id);
	snprintf(r->content_type, sizeof r->content_type, "%s", content_type);
	r->begun_ns = r->received_ns = monotonic_ns();
	r->deadline_budget_ns = budget_ns;
	wn_code rc = bytes_append(&r->body, body, len, p->config.max_body, &err);
	if (rc == WN_OK && audit_admit(p->audit, r) == REASON_OK) {
		sem_init(&end, 0, 0);
		r->http = &end;
		audit_submit(p->audit, r);
		while (sem_wait(&end) != 0)
			;
		sem_destroy(&end);
	}
	if (rc != WN_OK) /* as http.c says it */
		request_fail(r, rc == WN_NOMEM ? REASON_OUT_OF_MEMORY : REASON_BODY_TOO_LARGE, "%s", err.message);
	return r;
}

void in_process_put(in_process *p, request *r) { request_pool_put(p->pool, r); }

audit_service *in_process_audit(in_process *p) { return p->audit; }
manager *in_process_manager(in_process *p) { return p->manager; }
request_pool *in_process_pool(in_process *p) { return p->pool; }
registry *in_process_registry(in_process *p) { return p->registry; }
const server_config *in_process_config(const in_process *p) { return &p->config; }
