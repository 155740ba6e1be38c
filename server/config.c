/* config.c: see config.h. */
#include "server/config.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/policy.h"
#include "server/rate.h"
#include "server/trial.h"

#define GIB ((double)(1u << 30))

static const char *const CANARY_AUTOMATIC[] = {"off", "rollback", "both", NULL};
static const char *const RUN_PRECISIONS[] = {"model", "f32", "bf16", "int8", NULL};
static const char *const MODES[] = {"latency", "throughput", NULL}; /* as MODE_ */
static const char *const AFFINITIES[] = {"auto", "none", NULL};     /* as AFFINITY_ */
static const char *const ISOLATION[] = {"auto", "process", "thread", NULL}; /* as enum decode_isolation */
static const char *const LOG_LEVELS[] = {"info", "warning", "error", NULL}; /* as enum log_level in log.h */

static const config_key KEYS[] = {
    CONFIG_SECTION("listen", "where the server listens; any address but loopback needs an inference key"),
    CONFIG_STRING(server_config, listen_address, "listen.address", "127.0.0.1", "numeric IPv4 or IPv6 address"),
    CONFIG_INT(server_config, port, "listen.port", "8080", 0, 65535, "TCP port; 0 takes a free one and logs it"),

    CONFIG_SECTION("model", "what is served: NAME/VERSION under a registry, or one directory"),
    CONFIG_STRING(server_config, registry_root, "model.registry", "registry", "directory that holds NAME/VERSION/"),
    CONFIG_STRING(server_config, model_name, "model.name", "ad-audit",
		  "model to serve from the registry; answers requests that name none"),
    CONFIG_STRING(server_config, model_version, "model.version", "latest",
		  "latest (a new version takes over by itself), a number, or several (2,3), of which the largest answers"),
    CONFIG_STRING_LIST(server_config, other_models, "model.others", "[]",
		       "more models to serve beside it, each NAME (latest) or NAME=VERSIONS"),
    CONFIG_STRING(server_config, model_dir, "model.dir", "", "serve this model directory instead of the registry"),
    CONFIG_BOOL(server_config, verify_digests, "model.verify_digests", "true",
		"compare every file with the SHA-256 in winnow.json before serving it"),
    CONFIG_BYTES(server_config, memory_budget, "model.memory_budget", "0", 0, 1024 * GIB,
		 "memory of all loaded versions, by an estimate from their files; what does not fit is not loaded; 0: no limit"),
    CONFIG_BOOL(server_config, watch_registry, "model.watch", "true", "notice changes of the registry at once (inotify)"),
    CONFIG_DURATION(server_config, poll_interval_ns, "model.poll_interval", "10s", 0.05, 86400,
		    "look at the registry this often too, for file systems whose changes inotify does not see"),

    CONFIG_SECTION("canary", "a new version beside the one that answers: canary answers a share, shadow is asked in secret"),
    CONFIG_STRING_LIST(server_config, canaries, "canary.start", "[]",
		       "trials from the start, each NAME/VERSION:PERCENT or NAME/VERSION:PERCENT:shadow"),
    CONFIG_ENUM(server_config, canary_automatic, "canary.automatic", "rollback", CANARY_AUTOMATIC,
		"what the rules below may do by themselves: off, rollback, or both (promote too)"),
    CONFIG_INT(server_config, canary_min_requests, "canary.min_requests", "200", 1, 100000000,
	       "requests put to both versions before agreement and latency are judged"),
    CONFIG_DOUBLE(server_config, canary_min_agreement, "canary.min_agreement", "0.95", 0, 1,
		  "share of them with the same label and suggestion, at least"),
    CONFIG_DOUBLE(server_config, canary_max_latency_ratio, "canary.max_latency_ratio", "1.5", 0, 1000,
		  "median time of the new version divided by the old one's, at most; 0: not judged"),
    CONFIG_INT(server_config, canary_max_errors, "canary.max_errors", "1", 0, 1000000,
	       "this many requests that the new version cannot answer end the trial; 0: not judged"),

    CONFIG_SECTION("http", "connections"),
    CONFIG_INT(server_config, http_threads, "http.threads", "2", 1, 64, "threads that read requests and write answers"),
    CONFIG_INT(server_config, max_connections, "http.max_connections", "256", 1, 65536,
	       "open connections at most; when a sixteenth is left, those that wait longest for a request are closed"),
    CONFIG_INT(server_config, max_connections_per_ip, "http.max_connections_per_ip", "0", 0, 65536,
	       "open connections of one client address at most; 0: no limit of its own"),
    CONFIG_BYTES(server_config, connection_memory, "http.connection_memory", "64KiB", 4096, 1 << 22,
		 "memory of one connection; request line and headers must fit in it (else 431)"),
    CONFIG_DURATION(server_config, idle_timeout_ns, "http.idle_timeout", "30s", 1, 3600,
		    "a connection without any traffic for this long is closed (whole seconds)"),
    CONFIG_DURATION(server_config, receive_timeout_ns, "http.receive_timeout", "15s", 0.1, 3600,
		    "a request whose body is not in after this long is answered 408, however slowly it drips"),

    CONFIG_SECTION("limits", "sizes, each checked before anything of that size is allocated"),
    CONFIG_BYTES(server_config, max_body, "limits.body", "12MiB", 1024, GIB, "request body (413)"),
    CONFIG_BYTES(server_config, max_image, "limits.image", "8MiB", 64, GIB, "image file, after base64 (413)"),
    CONFIG_BYTES(server_config, max_text, "limits.text", "16KiB", 16, 1 << 24, "text, and assist, each (413)"),
    CONFIG_BYTES(server_config, body_budget, "limits.body_budget", "256MiB", 65536, 64 * GIB,
		 "bodies and decoded files of all requests held at once (429)"),
    CONFIG_INT(server_config, json_depth, "limits.json_depth", "4", 1, 64, "nesting of a JSON body (400)"),
    CONFIG_INT(server_config, image_side, "limits.image_side", "8192", 16, 65535,
	       "pixels of an image's longer side (413)"),
    CONFIG_INT64(server_config, image_pixels, "limits.image_pixels", "16777216", 256, 1 << 30,
		 "width x height of an image, read before it is decoded (413)"),

    CONFIG_SECTION("inference", "how the model runs"),
    CONFIG_ENUM(server_config, inference_mode, "inference.mode", "latency", MODES,
		"latency: one instance, every processor works on one request; throughput: an instance a processor, each with a request of its own"),
    CONFIG_INT(server_config, instances, "inference.instances", "0", 0, SERVER_MAX_INSTANCES,
	       "requests, or batches, worked on at the same time, each with scratch memory of its own; 0: by mode"),
    CONFIG_INT(server_config, threads, "inference.threads", "0", 0, 256,
	       "processors that one instance uses; 0: by mode, from those this process may use (affinity mask, cgroup quota)"),
    CONFIG_ENUM(server_config, affinity, "inference.affinity", "auto", AFFINITIES,
		"auto: threads that run the model are pinned when they are as many as the processors; none: never"),
    CONFIG_ENUM(server_config, precision, "inference.precision", "model", RUN_PRECISIONS,
		"that models run in, whatever they are stored in; model: as winnow.json says"),
    CONFIG_INT(server_config, max_batch, "inference.max_batch", "1", 1, SERVER_MAX_BATCH,
	       "requests run together when they are already queued; nobody waits for a batch to fill"),
    CONFIG_INT(server_config, decode_threads, "inference.decode_threads", "1", 1, SERVER_MAX_DECODE_THREADS,
	       "threads that turn request bodies into pixels and tokens"),
    CONFIG_INT(server_config, queue_capacity, "inference.queue_capacity", "32", 1, 65536,
	       "requests that may wait; one more is answered 429"),
    CONFIG_DURATION(server_config, deadline_ns, "inference.deadline", "90ms", 1e-3, 3600,
		    "time from the last byte of a request to its answer, unless X-Deadline-Ms says otherwise (504)",
		    .flags = CONFIG_RELOADABLE),
    CONFIG_DURATION(server_config, max_deadline_ns, "inference.max_deadline", "60s", 1e-3, 3600,
		    "largest X-Deadline-Ms accepted (400)", .flags = CONFIG_RELOADABLE),

    CONFIG_SECTION("rates", "requests a second for each key (without keys: for everybody together), beyond which they are answered 429; "
			    "0: no limit"),
    CONFIG_DOUBLE(server_config, rate_inference, "rates.inference", "0", 0, 1e6, "of inference keys", .flags = CONFIG_RELOADABLE),
    CONFIG_DOUBLE(server_config, rate_metrics, "rates.metrics", "0", 0, 1e6, "of metrics keys", .flags = CONFIG_RELOADABLE),
    CONFIG_DOUBLE(server_config, rate_admin, "rates.admin", "0", 0, 1e6, "of admin keys", .flags = CONFIG_RELOADABLE),
    CONFIG_INT(server_config, rate_burst, "rates.burst", "10", 1, 1000000, "requests that may come at once after a pause",
	       .flags = CONFIG_RELOADABLE),

    CONFIG_SECTION("admin", "a listener of its own for /metrics and /v2/repository, which the main one then does not serve"),
    CONFIG_STRING(server_config, admin_address, "admin.address", "",
		  "numeric address; \"\": none; any but loopback needs an admin key"),
    CONFIG_INT(server_config, admin_port, "admin.port", "8081", 0, 65535, "TCP port; 0 takes a free one and logs it"),

    CONFIG_SECTION("tls", "HTTPS, versions 1.2 and 1.3; SIGHUP reads the files again"),
    CONFIG_STRING(server_config, tls_certificate, "tls.certificate", "", "PEM file with the certificate and its chain; \"\": HTTP",
		  .flags = CONFIG_RELOADABLE),
    CONFIG_STRING(server_config, tls_key, "tls.key", "", "PEM file with its key, unencrypted", .flags = CONFIG_RELOADABLE),
    CONFIG_BOOL(server_config, tls_admin, "tls.admin", "true", "on the admin listener too"),

    CONFIG_SECTION("decode", "where images are decoded"),
    CONFIG_ENUM(server_config, decode_isolation, "decode.isolation", "auto", ISOLATION,
		"process: in a helper without rights, one for each decode thread, which may crash (422) without harm; auto: so where it can be confined, else in the thread"),
    CONFIG_DURATION(server_config, decode_timeout_ns, "decode.timeout", "5s", 0.01, 3600,
		    "a helper that takes longer for an image is replaced, and the image refused (422)"),

    CONFIG_SECTION("cache", "answers kept for audits of the same image, text, assist and model"),
    CONFIG_BYTES(server_config, cache_bytes, "cache.bytes", "0", 0, 64 * GIB, "memory for answers, about 0.2 KiB each; 0: no cache"),
    CONFIG_DURATION(server_config, cache_max_age_ns, "cache.max_age", "10m", 1e-3, 31536000, "an answer older than this is not given again"),

    CONFIG_SECTION("keys", "a request carries its key as Authorization: Bearer KEY or X-Api-Key: KEY"),
    CONFIG_STRING(server_config, inference_key, "keys.inference", "",
		  "key for /v1 and /v2/models; WINNOW_INFERENCE_KEY in the environment takes its place",
		  .flags = CONFIG_SECRET | CONFIG_RELOADABLE),
    CONFIG_STRING(server_config, inference_key_file, "keys.inference_file", "",
		  "file with inference keys, a line each: KEY or NAME KEY",
		  .flags = CONFIG_RELOADABLE),
    CONFIG_STRING(server_config, metrics_key, "keys.metrics", "",
		  "key for /metrics; WINNOW_METRICS_KEY in the environment takes its place; without one, "
		  "/metrics answers loopback clients only",
		  .flags = CONFIG_SECRET | CONFIG_RELOADABLE),
    CONFIG_STRING(server_config, metrics_key_file, "keys.metrics_file", "", "file with metrics keys, a line each: KEY or NAME KEY",
		  .flags = CONFIG_RELOADABLE),
    CONFIG_STRING(server_config, admin_key, "keys.admin", "",
		  "key for /v2/repository; WINNOW_ADMIN_KEY in the environment takes its place; without one, "
		  "/v2/repository answers loopback clients only",
		  .flags = CONFIG_SECRET | CONFIG_RELOADABLE),
    CONFIG_STRING(server_config, admin_key_file, "keys.admin_file", "", "file with admin keys, a line each: KEY or NAME KEY",
		  .flags = CONFIG_RELOADABLE),

    CONFIG_SECTION("log", "the server's own messages go to stderr"),
    CONFIG_ENUM(server_config, log_level, "log.level", "info", LOG_LEVELS, "the least important message that is written",
		.flags = CONFIG_RELOADABLE),
    CONFIG_STRING(server_config, access_log, "log.access", "-",
		  "access log, one JSON object per line: - is stdout, \"\" is none, else a file to append to"),
    CONFIG_INT(server_config, access_log_buffer, "log.access_buffer", "4096", 16, 1 << 20,
	       "lines that may wait for a slow disk or pipe; beyond it lines are dropped and counted"),

    CONFIG_SECTION("drain", "what SIGTERM and SIGINT do; a second signal exits at once"),
    CONFIG_DURATION(server_config, drain_delay_ns, "drain.delay", "0s", 0, 3600,
		    "the server says that it is not ready, and serves on for this long: longer than a balancer needs to notice"),
    CONFIG_DURATION(server_config, drain_timeout_ns, "drain.timeout", "20s", 0, 3600,
		    "then requests already accepted may take this long; what is left is answered 503"),
};

const config_schema SERVER_CONFIG_SCHEMA = CONFIG_SCHEMA(server_config, KEYS);

static wn_code parse_address(const char *key, const char *text, int port, struct sockaddr_storage *out, socklen_t *len,
			     wn_error *err)
{
	memset(out, 0, sizeof *out);
	struct sockaddr_in *v4 = (struct sockaddr_in *)out;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;
	if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons((uint16_t)port);
		*len = sizeof *v4;
		return WN_OK;
	}
	if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons((uint16_t)port);
		*len = sizeof *v6;
		return WN_OK;
	}
	return wn_fail(err, WN_INVALID, "%s: found \"%.64s\", expected a numeric IPv4 or IPv6 address", key, text);
}

wn_code server_config_address(const server_config *c, struct sockaddr_storage *out, socklen_t *len, wn_error *err)
{
	return parse_address("listen.address", c->listen_address, c->port, out, len, err);
}

wn_code server_config_admin_address(const server_config *c, struct sockaddr_storage *out, socklen_t *len, wn_error *err)
{
	return parse_address("admin.address", c->admin_address, c->admin_port, out, len, err);
}

bool address_is_loopback(const struct sockaddr *a)
{
	if (a->sa_family == AF_INET)
		return (ntohl(((const struct sockaddr_in *)a)->sin_addr.s_addr) >> 24) == 127;
	if (a->sa_family == AF_INET6) {
		const struct in6_addr *v6 = &((const struct sockaddr_in6 *)a)->sin6_addr;
		return IN6_IS_ADDR_LOOPBACK(v6) || (IN6_IS_ADDR_V4MAPPED(v6) && v6->s6_addr[12] == 127);
	}
	return false;
}

size_t server_config_num_models(const server_config *c) { return 1 + c->other_models.count; }

wn_code server_config_model(const server_config *c, size_t i, model_spec *out, wn_error *err)
{
	if (i > 0)
		return model_spec_parse(out, c->other_models.items[i - 1], "model.others", err);
	snprintf(out->name, sizeof out->name, "%s", c->model_name);
	return policy_parse(&out->policy, c->model_version, "model.version", err);
}

static bool is_configured(const server_config *c, const char *model)
{
	model_spec spec;
	for (size_t i = 0; i < server_config_num_models(c); i++)
		if (server_config_model(c, i, &spec, NULL) == WN_OK && strcmp(spec.name, model) == 0)
			return true;
	return false;
}

static wn_code check_models(const server_config *c, wn_error *err)
{
	model_spec spec, earlier;
	trial_spec started;
	if (server_config_num_models(c) > REGISTRY_MAX_MODELS)
		return wn_fail(err, WN_INVALID, "model.others: found %zu models, expected at most %d", c->other_models.count,
			       REGISTRY_MAX_MODELS - 1);
	if (*c->model_dir && c->other_models.count > 0)
		return wn_fail(err, WN_INVALID, "model.dir and model.others are both set, expected one of them");
	for (size_t i = 0; i < c->canaries.count; i++) {
		if (trial_spec_parse(&started, c->canaries.items[i], err) != WN_OK)
			return WN_INVALID;
		if (!*c->model_dir && !is_configured(c, started.name))
			return wn_fail(err, WN_INVALID, "canary.start: %s: this model is not served", c->canaries.items[i]);
	}
	for (size_t i = 0; i < server_config_num_models(c); i++) {
		if (server_config_model(c, i, &spec, err) != WN_OK)
			return WN_INVALID;
		for (size_t k = 0; k < i; k++)
			if (server_config_model(c, k, &earlier, err) == WN_OK && strcmp(earlier.name, spec.name) == 0)
				return wn_fail(err, WN_INVALID, "model.others: found \"%s\" twice, expected once",
					       spec.name);
	}
	return WN_OK;
}

static wn_code check_rates(const server_config *c, wn_error *err)
{
	const struct {
		const char *key;
		double per_second;
	} rates[] = {{"inference", c->rate_inference}, {"metrics", c->rate_metrics}, {"admin", c->rate_admin}};
	for (size_t i = 0; i < sizeof rates / sizeof rates[0]; i++)
		if (!rate_is_possible(rates[i].per_second, c->rate_burst))
			return wn_fail(err, WN_INVALID,
				       "rates.%s: found %g, with rates.burst %d; expected 0 or at least %g, so that the burst comes back within a year",
				       rates[i].key, rates[i].per_second, c->rate_burst, (double)c->rate_burst / RATE_MAX_FILL_S);
	return WN_OK;
}

/* Every address of its family; :: takes IPv4 too. */
static bool is_any(const struct sockaddr_storage *a)
{
	return a->ss_family == AF_INET ? ((const struct sockaddr_in *)a)->sin_addr.s_addr == htonl(INADDR_ANY)
				       : IN6_IS_ADDR_UNSPECIFIED(&((const struct sockaddr_in6 *)a)->sin6_addr);
}

static wn_code check_listeners(const server_config *c, wn_error *err)
{
	struct sockaddr_storage a, b;
	socklen_t a_len, b_len;
	if (server_config_address(c, &a, &a_len, err) != WN_OK)
		return WN_INVALID;
	if (!*c->admin_address)
		return WN_OK;
	if (server_config_admin_address(c, &b, &b_len, err) != WN_OK)
		return WN_INVALID;
	const bool any = is_any(&a) || is_any(&b);
	const bool meet = a.ss_family == b.ss_family ? any || memcmp(&a, &b, a_len) == 0
						     : is_any(a.ss_family == AF_INET6 ? &a : &b);
	if (c->port != 0 && c->port == c->admin_port && meet)
		return wn_fail(err, WN_INVALID, "admin.port: found %d, which listen.port is too, expected another one", c->port);
	return WN_OK;
}

wn_code server_config_check(const server_config *c, wn_error *err)
{
	if (check_listeners(c, err) != WN_OK)
		return WN_INVALID;
	if (!*c->model_dir && (!*c->registry_root || !*c->model_name))
		return wn_fail(err, WN_INVALID, "model.dir is empty: expected model.registry and model.name to be set");
	if (check_models(c, err) != WN_OK || check_rates(c, err) != WN_OK)
		return WN_INVALID;
	if (*c->inference_key && *c->inference_key_file)
		return wn_fail(err, WN_INVALID,
			       "keys.inference and keys.inference_file are both set, expected one of them");
	if (*c->metrics_key && *c->metrics_key_file)
		return wn_fail(err, WN_INVALID,
			       "keys.metrics and keys.metrics_file are both set, expected one of them");
	if (*c->admin_key && *c->admin_key_file)
		return wn_fail(err, WN_INVALID, "keys.admin and keys.admin_file are both set, expected one of them");
	if (!*c->tls_certificate != !*c->tls_key)
		return wn_fail(err, WN_INVALID, "tls.certificate and tls.key: found one of them, expected both or neither");
	if (c->inference_mode == MODE_LATENCY && c->instances > 1)
		return wn_fail(err, WN_INVALID, "inference.instances: found %d, inference.mode latency has one; expected mode throughput",
			       c->instances);
	if (c->deadline_ns > c->max_deadline_ns)
		return wn_fail(err, WN_INVALID, "inference.deadline: found %g ms, expected at most inference.max_deadline, %g ms",
			       (double)c->deadline_ns / 1e6, (double)c->max_deadline_ns / 1e6);
	if (c->max_image > c->max_body)
		return wn_fail(err, WN_INVALID, "limits.image: found %zu bytes, expected at most limits.body, %zu", c->max_image,
			       c->max_body);
	if (c->max_body > c->body_budget)
		return wn_fail(err, WN_INVALID, "limits.body: found %zu bytes, expected at most limits.body_budget, %zu", c->max_body,
			       c->body_budget);
	return WN_OK;
}

wn_code server_config_set_listen(server_config *c, const char *arg, wn_error *err)
{
	const char *colon = strrchr(arg, ':');
	const char *port = colon ? colon + 1 : arg;
	char *end = NULL;
	long n = strtol(port, &end, 10);
	if (port[0] < '0' || port[0] > '9' || *end)
		return wn_fail(err, WN_INVALID, "--listen: found \"%.80s\", expected ADDRESS:PORT, [IPV6]:PORT or PORT",
			       arg);
	if (n > 65535)
		return wn_fail(err, WN_INVALID, "--listen: found port %.40s, expected one from 0 to 65535", port);
	if (colon && colon > arg) {
		const char *start = arg;
		size_t len = (size_t)(colon - arg);
		if (start[0] == '[' && start[len - 1] == ']') {
			start++;
			len -= 2;
		}
		char *copy = strndup(start, len);
		if (!copy)
			return wn_fail(err, WN_NOMEM, "--listen: out of memory");
		free(c->listen_address);
		c->listen_address = copy;
	}
	c->port = (int)n;
	return WN_OK;
}
