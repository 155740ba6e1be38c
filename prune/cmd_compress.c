/* cmd_compress.c: `winnow-prune compress`: the plan before the first step, then the run. */
#include <stdio.h>
#include <stdlib.h>

#include <omp.h>

#include "model/omp_policy.h"
#include "prune/commands.h"
#include "prune/compress/compress_cost.h"
#include "prune/compress/compress_plan_print.h"
#include "prune/compress/compressor.h"
#include "prune/run_command.h"

static const run_command COMMAND = {
	.info = {.name = "compress",
	         .summary = "make a small, fast student from a teacher by pruning and distillation",
	         .examples = "winnow-prune compress --config configs/compress.yaml --dry-run\n"
	                     "winnow-prune compress --config configs/compress.yaml\n"
	                     "winnow-prune compress --config configs/compress.yaml --resume\n"
	                     "winnow-prune compress --config configs/compress.yaml --set target.kind=latency_ms --set target.value=1.5\n"},
	.dry_help = "print the plan: shapes, parameters, steps, time; only decoded training images are written",
	.schema = &COMPRESS_CONFIG_SCHEMA,
};

static wn_code plan_and_run(workspace *w, const run_arguments *a, compress_plan *p, wn_error *err)
{
	const compressor_options o = {.resume = a->resume, .max_steps = a->max_steps};
	compress_cost cost;
	wn_code rc = compress_cost_open(&cost, w, err);
	if (rc)
		return rc;
	rc = compress_plan_make(p, w, a->resume, cost.model, err);
	if (!rc && !a->dry)
		rc = compress_plan_save(p, w, cost.model, err);
	if (!rc)
		rc = compress_plan_print(p, w, cost.model, stderr, err);
	if (!rc && !a->dry)
		rc = compressor_run(w, p, cost.model, &o, err);
	compress_cost_close(&cost);
	return rc;
}

static wn_code run(const compress_config *c, const run_arguments *a, wn_error *err)
{
	const workspace_options o = {.resume = a->resume, .dry = a->dry, .stop = catch_stop_signals(), .out = stderr};
	workspace w;
	compress_plan *p = calloc(1, sizeof *p); /* too large for the stack: it holds every iteration's shape */
	wn_code rc = p ? workspace_open(&w, c, &o, err) : wn_fail(err, WN_NOMEM, "no memory for a plan");
	if (!rc) {
		rc = plan_and_run(&w, a, p, err);
		workspace_close(&w);
	}
	free(p);
	return rc;
}

int cmd_compress(int argc, char **argv)
{
	omp_spin_long();
	run_arguments a;
	const int ended = run_arguments_parse(&a, &COMMAND, argc, argv);
	if (ended != RUN_GOES_ON)
		return ended;
	wn_error err = {0};
	compress_config c;
	wn_code rc = compress_config_load(&c, a.config_path, a.sets, a.num_sets, &err);
	if (!rc) {
		if (c.threads)
			omp_set_num_threads(c.threads);
		rc = run(&c, &a, &err);
		compress_config_free(&c);
	}
	return run_exit_status(stderr, &COMMAND, &a, rc, &err);
}
