/* cmd_compress.c: `winnow-prune compress`: options, and the plan before the first step. */
#include <stdio.h>
#include <stdlib.h>

#include <omp.h>

#include "model/omp_policy.h"
#include "prune/commands.h"
#include "prune/compress/compressor.h"
#include "prune/options.h"
#include "prune/run_command.h"

typedef struct compress_job {
	workspace_options workspace;
	compressor_options compressor;
} compress_job;

static wn_code plan_and_run(workspace *w, const compress_job *job, compress_plan *p, wn_error *err)
{
	const compress_config *c = w->config;
	const cost_request request = {.text_len = c->request_tokens, .logit_rows = 1, .threads = c->threads};
	cost_model *cost = NULL;
	wn_code rc = cost_open(&cost, &request, err);
	if (!rc)
		rc = compress_plan_make(p, w, job->workspace.resume, cost, err);
	if (!rc && !job->workspace.dry)
		rc = compress_plan_save(p, w, cost, err);
	if (!rc)
		rc = compress_plan_print(p, w, cost, stderr, err);
	if (!rc && !job->workspace.dry)
		rc = compressor_run(w, p, cost, &job->compressor, err);
	cost_close(&cost);
	return rc;
}

static int run(const command_info *info, const compress_config *c, const compress_job *job, const char *config_path)
{
	wn_error err = {0};
	workspace w;
	compress_plan *p = calloc(1, sizeof *p); /* too large for the stack: it holds every iteration's shape */
	wn_code rc = p ? workspace_open(&w, c, &job->workspace, &err) : wn_fail(&err, WN_NOMEM, "no memory for a plan");
	if (!rc) {
		rc = plan_and_run(&w, job, p, &err);
		workspace_close(&w);
	}
	free(p);
	if (rc == WN_CANCELLED) {
		fprintf(stderr, "\n%s; continue with: winnow-prune compress --config %s --resume\n", err.message, config_path);
		return EXIT_INTERRUPTED;
	}
	return rc ? command_fail(info, &err) : EXIT_DONE;
}

int cmd_compress(int argc, char **argv)
{
	omp_wait_passively();
	const char *config_path = NULL, *sets[MAX_SETS], *set_help = NULL;
	bool resume = false, dry = false, print = false;
	int max_steps = 0;
	int num_sets = take_sets(&argc, argv, sets);
	const option_spec specs[] = {
		{"config", OPTION_STRING, &config_path, "FILE", "YAML configuration (see --print-config)"},
		{"set", OPTION_STRING, &set_help, "KEY=VALUE", "override one key of the configuration; may be repeated"},
		{"resume", OPTION_FLAG, &resume, NULL, "continue from the run's last checkpoint, if there is one"},
		{"max-steps", OPTION_INT, &max_steps, "N", "stop, resumable, after N steps in all", .min = 0, .max = 1e9},
		{"dry-run", OPTION_FLAG, &dry, NULL, "print the plan: shapes, parameters, steps, time; only decoded images are written"},
		{"print-config", OPTION_FLAG, &print, NULL, "print every key with its default and meaning"},
		{0}};
	const command_info info = {"compress", "make a small, fast student from a teacher by pruning and distillation",
				   "winnow-prune compress --config configs/compress.yaml --dry-run\n"
				   "winnow-prune compress --config configs/compress.yaml\n"
				   "winnow-prune compress --config configs/compress.yaml --resume\n"
				   "winnow-prune compress --config configs/compress.yaml --set target.kind=latency_ms --set target.value=1.5\n",
				   specs};
	if (num_sets < 0) {
		fprintf(stderr, "winnow-prune compress: --set: expected KEY=VALUE, at most %d times\n", MAX_SETS);
		return EXIT_USAGE;
	}
	int parsed = options_parse(&info, argc, argv);
	if (parsed != OPTIONS_OK)
		return parsed == OPTIONS_HELP ? EXIT_DONE : EXIT_USAGE;
	if (print) {
		config_print(&COMPRESS_CONFIG_SCHEMA, NULL, stdout);
		return EXIT_DONE;
	}
	if (!config_path) {
		fprintf(stderr, "winnow-prune compress: --config is missing (try --help)\n");
		return EXIT_USAGE;
	}
	wn_error err = {0};
	compress_config c;
	if (compress_config_load(&c, config_path, sets, num_sets, &err))
		return command_fail(&info, &err);
	if (c.threads)
		omp_set_num_threads(c.threads);
	const compress_job job = {.workspace = {.resume = resume, .dry = dry, .stop = catch_stop_signals(), .out = stderr},
				  .compressor = {.resume = resume, .max_steps = max_steps}};
	int rc = run(&info, &c, &job, config_path);
	compress_config_free(&c);
	return rc;
}
