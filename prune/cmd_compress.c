/* cmd_compress.c: `winnow-prune compress`: options, and the plan before the first step. */
#include <stdio.h>
#include <stdlib.h>

#include <omp.h>

#include "model/omp_policy.h"
#include "prune/commands.h"
#include "prune/compress/compress_cost.h"
#include "prune/compress/compress_plan_print.h"
#include "prune/compress/compressor.h"
#include "prune/options.h"
#include "prune/run_command.h"

typedef struct compress_job {
	workspace_options workspace;
	compressor_options compressor;
	const run_line *line; /* how it was started */
} compress_job;

static wn_code plan_and_run(workspace *w, const compress_job *job, compress_plan *p, wn_error *err)
{
	compress_cost cost;
	wn_code rc = compress_cost_open(&cost, w, err);
	if (rc)
		return rc;
	rc = compress_plan_make(p, w, job->workspace.resume, cost.model, err);
	if (!rc && !job->workspace.dry)
		rc = compress_plan_save(p, w, cost.model, err);
	if (!rc)
		rc = compress_plan_print(p, w, cost.model, stderr, err);
	if (!rc && !job->workspace.dry)
		rc = compressor_run(w, p, cost.model, &job->compressor, err);
	compress_cost_close(&cost);
	return rc;
}

static int run(const command_info *info, const compress_config *c, const compress_job *job)
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
	if (rc == WN_CANCELLED)
		return run_interrupted(stderr, job->line, &err, !job->workspace.dry);
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
		{"dry-run", OPTION_FLAG, &dry, NULL, "print the plan: shapes, parameters, steps, time; only decoded training images are written"},
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
	const run_line line = {.command = "compress", .config_path = config_path, .sets = sets, .num_sets = num_sets};
	const compress_job job = {.workspace = {.resume = resume, .dry = dry, .stop = catch_stop_signals(), .out = stderr},
				  .compressor = {.resume = resume, .max_steps = max_steps},
				  .line = &line};
	int rc = run(&info, &c, &job);
	compress_config_free(&c);
	return rc;
}
