/* cmd_train.c: `winnow-prune train`: the summary before the first step, then the run. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <omp.h>

#include "model/omp_policy.h"
#include "prune/commands.h"
#include "prune/run_command.h"
#include "prune/trainer.h"

static const run_command COMMAND = {
	.info = {.name = "train",
	         .summary = "train a teacher from scratch, or fine-tune a checkpoint",
	         .examples = "winnow-prune train --config configs/train.yaml\n"
	                     "winnow-prune train --config configs/train.yaml --resume\n"
	                     "winnow-prune train --config configs/train.yaml --set run_dir=runs/b --set audit.steps=2000\n"
	                     "winnow-prune train --config configs/train.yaml --set model.init_from=hf/blip2-opt --dry-run\n"},
	.dry_help = "print shapes, parameters and steps; write nothing",
	.schema = &TRAIN_CONFIG_SCHEMA,
};

static void print_stack(FILE *f, const char *name, const stack_config *s)
{
	const block_widths *b = &s->blocks[0];
	fprintf(f, "  %-9s hidden %d, %d blocks, %d heads of %d, ffn %d\n", name, s->hidden_size, s->num_hidden_layers, b->num_heads,
		b->head_dim, b->ffn_dim);
}

static void print_summary(FILE *f, const train_run *r)
{
	const blip2_config *c = blip2_get_config(r->model);
	double count[3] = {0};
	static const char *const names[] = {"vision", "q-former", "text"};
	for (size_t i = 0; i < blip2_num_params(r->model); i++)
		count[blip2_param(r->model, i)->component] += (double)blip2_param(r->model, i)->count;
	fprintf(f, "model %s: %.2f M parameters (", r->manifest.name, (double)blip2_parameter_count(r->model) / 1e6);
	for (int i = 0; i < 3; i++)
		fprintf(f, "%s%s %.2f M", i ? ", " : "", names[i], count[i] / 1e6);
	fprintf(f, ")\n");
	print_stack(f, "vision", &c->vision);
	print_stack(f, "q-former", &c->qformer);
	print_stack(f, "text", &c->text);
	fprintf(f, "  %d px, patch %d, %d queries, vocabulary %d, %d positions\n", c->image_size, c->patch_size, c->num_query_tokens,
		c->vocab_size, c->max_position_embeddings);
	task tasks[NUM_TASKS];
	int n = train_config_phases(r->config, tasks);
	for (int i = 0; i < n; i++) {
		const phase_config *p = &r->config->phase[tasks[i]];
		int64_t steps = train_run_steps(r, tasks[i]);
		double fresh = p->batch_size * (1 - (tasks[i] == TASK_AUDIT ? p->caption_replay : 0));
		fprintf(f, "phase %s: %lld steps of %d (micro-batch %d), %zu samples, %.1f epochs, learning rate %g\n",
			TASK_NAMES[tasks[i]], (long long)steps, p->batch_size, p->micro_batch ? p->micro_batch : p->batch_size,
			r->train[tasks[i]].dataset.count, (double)steps * fresh / (double)r->train[tasks[i]].dataset.count,
			p->learning_rate);
		if (r->train[tasks[i]].sequences.count)
			fprintf(f, "  longest sequence %d tokens\n", r->train[tasks[i]].sequences.longest);
	}
}

static wn_code run(const train_config *c, const run_arguments *a, wn_error *err)
{
	const train_run_options ro = {.resume = a->resume, .dry = a->dry, .stop = catch_stop_signals(), .out = stderr};
	const trainer_options to = {.resume = a->resume, .max_steps = a->max_steps, .reducer = {.ranks = 1}};
	train_run r;
	wn_code rc = train_run_open(&r, c, &ro, err);
	if (rc)
		return rc;
	print_summary(stderr, &r);
	if (!a->dry)
		rc = trainer_run(&r, &to, err);
	train_run_close(&r);
	return rc;
}

int cmd_train(int argc, char **argv)
{
	omp_spin_long();
	run_arguments a;
	const int ended = run_arguments_parse(&a, &COMMAND, argc, argv);
	if (ended != RUN_GOES_ON)
		return ended;
	wn_error err = {0};
	train_config c;
	wn_code rc = train_config_load(&c, a.config_path, a.sets, a.num_sets, &err);
	if (!rc) {
		if (c.threads)
			omp_set_num_threads(c.threads);
		rc = run(&c, &a, &err);
		train_config_free(&c);
	}
	return run_exit_status(stderr, &COMMAND, &a, rc, &err);
}
