/* server.c: see server.h. Opening goes from the bottom up, so that the port opens last and the first request finds a
 * model that is warm; closing goes the other way, with the one twist that the audit service must have let go of every
 * suspended connection before the HTTP library may stop.
 *
 * Closing joins threads whose work has no bound of its own: a load reads disks that may not answer, and in the background it hardly
 * gets on where others hold the processors. An overseer bounds all that follows drain.delay: drain.timeout and a little more, then the
 * process ends as it is. By then nobody waits for an answer but who wanted that load. */
#include "server/server.h"

#include <stdlib.h>
#include <time.h>

#include "model/dnn.h"
#include "model/ops.h"
#include "server/access_log.h"
#include "server/audit.h"
#include "server/decoder.h"
#include "server/heap.h"
#include "server/http.h"
#include "server/log.h"
#include "server/manager.h"
#include "server/overseer.h"
#include "server/placement.h"
#include "server/preflight.h"
#include "server/tls.h"

struct server {
	const server_config *config;
	placement placement;
	access_control *access;
	result_cache *cache;
	registry *registry;
	metrics *metrics;
	access_log *access_log;
	request_pool *pool;
	comparer *comparer;
	audit_service *audit;
	manager *manager;
	http *http;
};

#define FINISH_NS   1000000000 /* for the answers to what is not waited for until drain.timeout */
#define OVERTIME_NS 5000000000 /* after drain.timeout: that, stopping the threads and giving memory back */

static void log_start(const server *s)
{
	served_model *loaded[REGISTRY_MAX_LOADED];
	bool primary[REGISTRY_MAX_LOADED];
	for (size_t n = registry_loaded(s->registry, loaded, primary); n > 0; n--) {
		served_model *m = loaded[n - 1];
		const checkpoint *ckpt = classifier_checkpoint(m->classifier);
		log_info("model %s version %s %s: %zu parameters, %d labels, %s, on %d thread(s)%s", m->name, m->version, m->digest,
			 blip2_parameter_count(ckpt->model), classifier_num_labels(m->classifier),
			 engine_describe(classifier_engine(m->classifier)), m->threads, primary[n - 1] ? "" : ", beside the one that answers");
		registry_release(&loaded[n - 1]);
	}
	const placement *p = &s->placement;
	log_info("oneDNN %s on %s, kernels %s", dnn_version(), dnn_isa(), ops->name);
	log_info("mode %s: %d inference instance(s) of at most %d thread(s)%s, from %s", p->mode, p->instances, p->threads,
		 p->pinned ? ", pinned" : "", p->processors.reason);
	access_rules *rules = access_acquire(s->access);
	const char *scheme = *s->config->tls_certificate ? "https" : "http";
	if (*s->config->admin_address)
		log_info("administration on %s port %d, %s%s", s->config->admin_address, http_admin_port(s->http),
			 s->config->tls_admin ? scheme : "http", rules->keys[ROLE_ADMIN].count ? "" : ", without an admin key");
	log_info("listening on %s port %d, %s%s", s->config->listen_address, http_port(s->http), scheme,
		 rules->keys[ROLE_INFERENCE].count ? "" : ", without an inference key");
	access_release(&rules);
}

wn_code server_open(server **out, const server_config *c, access_rules **rules, wn_error *err)
{
	wn_error local = {0};
	err = err ? err : &local;
	server *s = *out = calloc(1, sizeof *s);
	if (!s) {
		access_release(rules);
		return wn_fail(err, WN_NOMEM, "out of memory for the server");
	}
	s->config = c;
	if (decoder_uses_helper((decode_isolation)c->decode_isolation))
		heap_keep_dense();
	processors found;
	processors_look(&found, NULL);
	placement_decide(&s->placement, c, &found);
	if (*s->placement.warning)
		log_warning("%s", s->placement.warning);
	wn_code code = access_open(&s->access, rules, err);
	if (code == WN_OK)
		code = result_cache_open(&s->cache, c->cache_bytes, c->cache_max_age_ns, err);
	if (code == WN_OK)
		code = registry_open(&s->registry, *c->model_dir ? NULL : c->model_name, err);
	if (code == WN_OK)
		code = metrics_open(&s->metrics, err);
	if (code == WN_OK)
		code = access_log_open(&s->access_log, c->access_log, (size_t)c->access_log_buffer, err);
	if (code == WN_OK)
		code = request_pool_open(&s->pool, (size_t)c->queue_capacity + 16, c->body_budget, err);
	if (code == WN_OK)
		code = compare_open(&s->comparer, c, err);
	if (code == WN_OK) {
		audit_options audit = {.config = c,
				       .placement = &s->placement,
				       .registry = s->registry,
				       .metrics = s->metrics,
				       .comparer = s->comparer,
				       .cache = s->cache,
				       .done = http_request_done,
				       .gone = http_client_gone};
		code = audit_open(&s->audit, &audit, err);
	}
	if (code == WN_OK) {
		manager_options models = {
		    .config = c, .placement = &s->placement, .registry = s->registry, .run_on = audit_run_on, .cls = s->audit};
		code = manager_open(&s->manager, &models, err);
	}
	if (code == WN_OK)
		code = manager_start(s->manager, err);
	if (code != WN_OK)
		server_close(out);
	return code;
}

wn_code server_listen(server *s, wn_error *err)
{
	const http_options web = {.config = s->config,
				  .placement = &s->placement,
				  .registry = s->registry,
				  .metrics = s->metrics,
				  .audit = s->audit,
				  .access_log = s->access_log,
				  .pool = s->pool,
				  .manager = s->manager,
				  .cache = s->cache,
				  .access = s->access};
	const wn_code code = http_open(&s->http, &web, err);
	if (code == WN_OK)
		log_start(s);
	return code;
}

/* Waits until no audit is in flight, at most until the given time. */
static bool wait_idle(server *s, int64_t until_ns)
{
	while (http_in_flight(s->http) > 0) {
		if (monotonic_ns() >= until_ns)
			return false;
		nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
	}
	return true;
}

/* Whoever sends requests here has this long to notice that the server is about to go. */
static void leave(server *s)
{
	const int64_t delay = s->config->drain_delay_ns, until = monotonic_ns() + delay;
	http_leave(s->http);
	if (delay > 0)
		log_info("not ready any more, serving for another %.3f s", (double)delay / 1e9);
	while (monotonic_ns() < until)
		nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
}

static void drain(server *s)
{
	int64_t start = monotonic_ns();
	http_drain(s->http);
	log_info("draining: %zu audits in flight", http_in_flight(s->http));
	if (!wait_idle(s, start + s->config->drain_timeout_ns)) {
		log_warning("drain.timeout is over: %zu audits are given up", http_in_flight(s->http));
		audit_abandon(s->audit);
	}
	manager_stop(s->manager); /* while it can still finish a warm-up on the inference threads */
	audit_stop(s->audit);
	/* Their connections were resumed just now: let the answers out, and those of whatever else is being answered. */
	size_t left = http_finish(s->http, monotonic_ns() + FINISH_NS);
	if (left > 0)
		log_warning("%zu requests are cut off: they were not sent, or their answers not taken, within a second", left);
	log_info("drained after %.3f s", (double)(monotonic_ns() - start) / 1e9);
}

void server_close(server **sp)
{
	server *s = *sp;
	if (!s)
		return;
	*sp = NULL;
	overseer bound;
	if (s->http)
		leave(s);
	overseer_start(&bound, monotonic_ns() + s->config->drain_timeout_ns + OVERTIME_NS, s->http ? 0 : 1); /* 1: it never served */
	if (s->http)
		drain(s);
	http_close(&s->http);
	manager_stop(s->manager);
	audit_close(&s->audit);
	compare_close(&s->comparer);
	request_pool_close(&s->pool);
	manager_close(&s->manager); /* nobody but the registry holds a model now */
	access_log_close(&s->access_log);
	metrics_close(&s->metrics);
	registry_close(&s->registry);
	result_cache_close(&s->cache);
	access_close(&s->access);
	tls_unload();
	free(s);
	overseer_stop(&bound);
}

wn_code server_reload(server *s, const server_config *c, wn_error *err)
{
	wn_error local = {0};
	err = err ? err : &local;
	const char *key = config_first_difference(&SERVER_CONFIG_SCHEMA, s->config, c, CONFIG_RELOADABLE);
	if (key)
		return wn_fail(err, WN_INVALID, "%s: found another value than at the start, expected a restart for it", key);
	if (!*c->tls_certificate != !*s->config->tls_certificate)
		return wn_fail(err, WN_INVALID, "tls.certificate: expected a restart to turn TLS on or off");
	access_rules *rules;
	wn_code code = preflight(&rules, c, err);
	if (code != WN_OK)
		return code;
	access_replace(s->access, rules);
	log_set_level((log_level)c->log_level);
	access_log_reopen(s->access_log);
	return WN_OK;
}

int server_port(const server *s) { return http_port(s->http); }
