/* main.c: winnow-serve's command line and signals.
 *
 * Signals are blocked before the first thread exists and taken by sigwait here: no handler code runs anywhere. SIGHUP
 * reloads. After the first SIGTERM or SIGINT they get their default action back, so that a second one ends the process at
 * once. A start may take long, or wait for a disk that does not answer: until the server listens a thread of its own takes those
 * two, and ends the process as it is. */
#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/thread.h"
#include "model/omp_policy.h"
#include "server/decoder.h"
#include "server/log.h"
#include "server/preflight.h"
#include "server/server.h"
#include "server/tls.h"

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

typedef struct arguments {
	const char *config, *model_dir, *registry, *listen;
	const char *sets[64];
	int num_sets;
	bool print, check, help, version;
} arguments;

static void usage(FILE *f)
{
	fputs("winnow-serve: audits ads (an image and its text) over HTTP\n"
	      "\n"
	      "Usage: winnow-serve [options]\n"
	      "  --config FILE       read settings from a YAML file\n"
	      "  --registry DIR      directory with NAME/VERSION/ models (model.registry)\n"
	      "  --model-dir DIR     serve this one model directory (model.dir)\n"
	      "  --listen ADDR:PORT  listen there, e.g. 127.0.0.1:8080, [::1]:8080 or 8080\n"
	      "  --set KEY=VALUE     set one key of the configuration; may be repeated\n"
	      "  --print-config      print the effective configuration with every key explained, and exit\n"
	      "  --check-config      check the configuration and what it names (keys, certificate, files), and exit\n"
	      "  --version, --help\n"
	      "\n"
	      "Examples:\n"
	      "  winnow-serve --registry registry\n"
	      "  winnow-serve --config configs/serve.yaml --set inference.deadline=200ms\n"
	      "  curl -F image=@ad.jpg -F 'text=今日特价' http://127.0.0.1:8080/v1/audit\n"
	      "  curl http://127.0.0.1:8080/metrics\n"
	      "\n"
	      "WINNOW_INFERENCE_KEY, WINNOW_METRICS_KEY and WINNOW_ADMIN_KEY in the environment set the keys; an address other than "
	      "loopback\n"
	      "needs an inference key. SIGTERM and SIGINT finish what was accepted, then exit 0; a second signal exits "
	      "at once.\n"
	      "SIGHUP reloads keys, limits, certificate and log level.\n"
	      "Exit codes: 0 done, 1 the server failed, 2 usage or configuration.\n",
	      f);
}

/* EXIT_DONE, or EXIT_USAGE after a line on stderr. */
static int parse_arguments(arguments *a, int argc, char **argv)
{
	enum { CONFIG = 1, REGISTRY, MODEL_DIR, LISTEN, SET, PRINT, CHECK, VERSION, HELP };
	static const struct option OPTIONS[] = {{"config", required_argument, NULL, CONFIG},
						{"registry", required_argument, NULL, REGISTRY},
						{"model-dir", required_argument, NULL, MODEL_DIR},
						{"listen", required_argument, NULL, LISTEN},
						{"set", required_argument, NULL, SET},
						{"print-config", no_argument, NULL, PRINT},
						{"check-config", no_argument, NULL, CHECK},
						{"version", no_argument, NULL, VERSION},
						{"help", no_argument, NULL, HELP},
						{0}};
	int o;
	while ((o = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1) {
		switch (o) {
		case CONFIG:
			a->config = optarg;
			break;
		case REGISTRY:
			a->registry = optarg;
			break;
		case MODEL_DIR:
			a->model_dir = optarg;
			break;
		case LISTEN:
			a->listen = optarg;
			break;
		case PRINT:
			a->print = true;
			break;
		case CHECK:
			a->check = true;
			break;
		case VERSION:
			a->version = true;
			break;
		case HELP:
			a->help = true;
			break;
		case SET:
			if (a->num_sets == (int)(sizeof a->sets / sizeof a->sets[0])) {
				fprintf(stderr, "winnow-serve: more than %d --set options\n", a->num_sets);
				return EXIT_USAGE;
			}
			a->sets[a->num_sets++] = optarg;
			break;
		default:
			return EXIT_USAGE; /* getopt has said why */
		}
	}
	if (optind < argc) {
		fprintf(stderr, "winnow-serve: found \"%.80s\", expected options only (try --help)\n", argv[optind]);
		return EXIT_USAGE;
	}
	return EXIT_DONE;
}

static wn_code set_string(char **field, const char *value, wn_error *err)
{
	char *copy = strdup(value);
	if (!copy)
		return wn_fail(err, WN_NOMEM, "out of memory");
	free(*field);
	*field = copy;
	return WN_OK;
}

/* File, then --set, then the named options: the most specific wins. */
static wn_code load_config(server_config *c, const arguments *a, wn_error *err)
{
	wn_code code = a->config ? config_load(&SERVER_CONFIG_SCHEMA, c, a->config, err)
				 : config_defaults(&SERVER_CONFIG_SCHEMA, c, err);
	for (int i = 0; code == WN_OK && i < a->num_sets; i++)
		if ((code = config_set(&SERVER_CONFIG_SCHEMA, c, a->sets[i], err)) != WN_OK)
			wn_fail_prefix(err, "--set");
	if (code == WN_OK && a->registry && a->model_dir)
		return wn_fail(err, WN_INVALID, "--registry and --model-dir: found both, expected one of them");
	if (code == WN_OK && a->registry) {
		code = set_string(&c->registry_root, a->registry, err);
		if (code == WN_OK)
			code = set_string(&c->model_dir, "", err); /* --registry means the registry */
	}
	if (code == WN_OK && a->model_dir)
		code = set_string(&c->model_dir, a->model_dir, err);
	if (code == WN_OK && a->listen)
		code = server_config_set_listen(c, a->listen, err);
	if (code != WN_OK)
		return code;
	code = server_config_check(c, err);
	return code == WN_OK || !a->config ? code : wn_fail_prefix(err, "%s", a->config);
}

/* What a start needs besides ports and models: a mistake in it is the configuration's. */
static wn_code prepare(access_rules **rules, const server_config *c, wn_error *err)
{
	log_set_level((log_level)c->log_level);
	wn_code code = preflight_models(c, err);
	return code == WN_OK ? preflight(rules, c, err) : code;
}

/* SIGHUP: the configuration again, from the same arguments. What is wrong is logged and changes nothing. */
static void reload(server *s, const arguments *a)
{
	server_config c = {0};
	wn_error err = {0};
	if (load_config(&c, a, &err) == WN_OK && server_reload(s, &c, &err) == WN_OK)
		log_info("reloaded keys, limits, certificate and log level");
	else
		log_error("nothing is reloaded: %s", err.message);
	config_free(&SERVER_CONFIG_SCHEMA, &c);
}

static int fail(const wn_error *err, int rc)
{
	fprintf(stderr, "winnow-serve: %s\n", err->message);
	return err->code == WN_NOMEM ? EXIT_FAILED : rc;
}

static int check(const server_config *c)
{
	access_rules *rules = NULL;
	wn_error err = {0};
	if (prepare(&rules, c, &err) != WN_OK)
		return fail(&err, EXIT_USAGE);
	access_release(&rules);
	tls_unload();
	puts("the configuration is good; whether its models can be loaded and its ports are free was not tried");
	return EXIT_DONE;
}

#define SIGNAL_STARTED SIGUSR1 /* to start_guard's thread alone, which has it blocked */

typedef struct start_guard {
	pthread_t thread;
	bool running;
} start_guard;

static void *guard_main(void *arg)
{
	sigset_t awaited;
	int number = 0;
	sigemptyset(&awaited);
	sigaddset(&awaited, SIGTERM);
	sigaddset(&awaited, SIGINT);
	sigaddset(&awaited, SIGNAL_STARTED);
	while (sigwait(&awaited, &number) != 0)
		;
	if (number == SIGNAL_STARTED)
		return NULL;
	log_info("received %s before the server was ready", strsignal(number));
	_exit(EXIT_DONE); /* nobody was let in, so there is nothing to finish */
}

/* Until guard_stop SIGTERM and SIGINT end the process. */
static void guard_start(start_guard *g) { g->running = thread_start(&g->thread, "start guard", guard_main, NULL) == 0; }

/* What comes later waits for sigwait in main. */
static void guard_stop(start_guard *g)
{
	if (!g->running)
		return;
	pthread_kill(g->thread, SIGNAL_STARTED);
	pthread_join(g->thread, NULL);
}

/* All of the start that takes long. An exit code. */
static int open_guarded(server **s, const server_config *c, wn_error *err)
{
	access_rules *rules = NULL;
	start_guard guard;
	guard_start(&guard);
	int rc = prepare(&rules, c, err) == WN_OK ? EXIT_DONE : EXIT_USAGE;
	if (rc == EXIT_DONE && server_open(s, c, &rules, err) != WN_OK)
		rc = EXIT_FAILED;
	guard_stop(&guard);
	return rc;
}

static int serve(const server_config *c, const arguments *a, const sigset_t *signals)
{
	server *s = NULL;
	wn_error err = {0};
	int rc = open_guarded(&s, c, &err);
	if (rc == EXIT_DONE && server_listen(s, &err) != WN_OK) {
		server_close(&s);
		rc = EXIT_FAILED;
	}
	if (rc != EXIT_DONE)
		return fail(&err, rc);
	int signal_number = 0;
	while (sigwait(signals, &signal_number) != 0 || signal_number == SIGHUP)
		if (signal_number == SIGHUP)
			reload(s, a);
	sigset_t stop = *signals;
	sigdelset(&stop, SIGHUP);
	pthread_sigmask(SIG_UNBLOCK, &stop, NULL);
	log_info("received %s", strsignal(signal_number));
	server_close(&s);
	return EXIT_DONE;
}

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], DECODE_HELPER_OPTION) == 0)
		return decode_helper_main();
	arguments a = {0};
	server_config c = {0};
	wn_error err = {0};
	sigset_t signals;
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	int rc = parse_arguments(&a, argc, argv);
	if (rc != EXIT_DONE)
		return rc;
	if (a.help || a.version) {
		if (a.help)
			usage(stdout);
		else
			puts("winnow-serve " WINNOW_VERSION);
		return EXIT_DONE;
	}
	if (!a.print && !a.check)
		omp_spin_briefly(); /* may start this program again: before anything is read */
	if (load_config(&c, &a, &err) != WN_OK) {
		config_free(&SERVER_CONFIG_SCHEMA, &c);
		return fail(&err, EXIT_USAGE);
	}
	if (a.print) {
		config_print(&SERVER_CONFIG_SCHEMA, &c, stdout);
	} else if (a.check) {
		rc = check(&c);
	} else {
		pthread_sigmask(SIG_BLOCK, &signals, NULL);
		signal(SIGPIPE, SIG_IGN);
		rc = serve(&c, &a, &signals);
	}
	config_free(&SERVER_CONFIG_SCHEMA, &c);
	return rc;
}
