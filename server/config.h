/* config.h: everything winnow-serve can be told, one struct filled from one table of keys (base/yaml_config.h).
 *
 * `winnow-serve --print-config` documents every key from that table; docs/server.md quotes its output. */
#ifndef WINNOW_SERVER_CONFIG_H
#define WINNOW_SERVER_CONFIG_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/yaml_config.h"

struct model_spec; /* policy.h */

#define SERVER_MAX_INSTANCES 256
#define SERVER_MAX_BATCH     16
#define SERVER_MAX_DECODE_THREADS 64

enum { MODE_LATENCY, MODE_THROUGHPUT };  /* inference.mode */
enum { AFFINITY_AUTO, AFFINITY_NONE };   /* inference.affinity */

typedef enum decode_isolation { DECODE_AUTO, DECODE_IN_PROCESS, DECODE_IN_THREAD } decode_isolation;

enum { CANARY_OFF, CANARY_ROLLBACK, CANARY_BOTH }; /* what a trial may do by itself */

typedef struct server_config {
	char *listen_address;
	int port;

	char *model_dir; /* "" = use the registry */
	char *registry_root;
	char *model_name;
	char *model_version;      /* policy.h */
	string_list other_models; /* policy.h's model_spec, each */
	bool verify_digests;
	size_t memory_budget; /* bytes; 0 = no limit */
	bool watch_registry;
	int64_t poll_interval_ns;

	int http_threads;
	int max_connections;
	int max_connections_per_ip; /* 0 = no limit */
	size_t connection_memory;   /* bytes: request line and headers must fit */
	int64_t idle_timeout_ns;
	int64_t receive_timeout_ns;

	size_t max_body;
	size_t max_image;
	size_t max_text;    /* bytes, text and assist each */
	size_t body_budget; /* bytes of all bodies held at once */
	int json_depth;
	int image_side;
	int64_t image_pixels;

	int inference_mode; /* MODE_ */
	int instances;      /* 0 = as placement.h decides */
	int threads;        /* per instance; 0 = as placement.h decides */
	int affinity;       /* AFFINITY_ */
	int precision; /* 0: the model's own; else 1 + precision (model/precision.h) */
	int max_batch;
	int decode_threads;
	int queue_capacity;
	int64_t deadline_ns;
	int64_t max_deadline_ns;

	string_list canaries; /* trial.h's trial_spec, each */
	int canary_automatic; /* CANARY_ */
	int canary_min_requests;
	double canary_min_agreement;
	double canary_max_latency_ratio; /* 0 = not judged */
	int canary_max_errors;           /* 0 = not judged */

	char *inference_key, *inference_key_file;
	char *metrics_key, *metrics_key_file;
	char *admin_key, *admin_key_file;
	double rate_inference, rate_metrics, rate_admin; /* per second and key; 0 = no limit */
	int rate_burst;

	char *admin_address; /* "" = no listener of its own */
	int admin_port;
	char *tls_certificate, *tls_key; /* PEM files; "" = no TLS */
	bool tls_admin;

	int decode_isolation; /* enum decode_isolation */
	int64_t decode_timeout_ns;

	size_t cache_bytes; /* 0 = no cache */
	int64_t cache_max_age_ns;

	int log_level; /* index into LOG_LEVELS, as in log.h */

	char *access_log;      /* "-" = stdout, "" = none, else a path */
	int access_log_buffer; /* lines */
	int64_t drain_delay_ns, drain_timeout_ns;
} server_config;

/* Keys with CONFIG_RELOADABLE take effect on SIGHUP. */
extern const config_schema SERVER_CONFIG_SCHEMA;

/* The rules between keys that a range cannot say (one model source, an address that parses, one source per key).
 * WN_INVALID names the keys. */
wn_code server_config_check(const server_config *c, wn_error *err);

/* Models to serve from the registry: model.name, then model.others. The first is the default. */
size_t server_config_num_models(const server_config *c);
wn_code server_config_model(const server_config *c, size_t i, struct model_spec *out, wn_error *err);

/* The numeric address and port to bind; WN_INVALID for a host name. */
wn_code server_config_address(const server_config *c, struct sockaddr_storage *out, socklen_t *len, wn_error *err);
/* The same of the admin listener; admin_address is not "". */
wn_code server_config_admin_address(const server_config *c, struct sockaddr_storage *out, socklen_t *len, wn_error *err);
/* 127.0.0.0/8 and ::1. */
bool address_is_loopback(const struct sockaddr *a);

/* "ADDR:PORT", "[V6]:PORT", ":PORT" (keeps the address) or "PORT" into c. */
wn_code server_config_set_listen(server_config *c, const char *arg, wn_error *err);

#endif
