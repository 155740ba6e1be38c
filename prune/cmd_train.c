/* cmd_train.c: `winnow-prune train`: options, and the summary before the first step. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <omp.h>

#include "model/omp_policy.h"
#include "prune/commands.h"
#include "prune/options.h"
#include "prune/run_command.h"
#include "prune/trainer.h"

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

static int run(const command_info *info, const train_config *c, const train_run_options *ro, const trainer_options *to,
	       const run_line *line)
{
	wn_error err = {0};
	train_run r;
	wn_code rc = train_run_open(&r, c, ro, &err);
	if (!rc) {
		print_summary(stderr, &r);
		if (!ro->dry)
			rc = trainer_run(&r, to, &err);
		train_run_close(&r);
	}
	if (rc == WN_CANCELLED)
		return run_interrupted(stderr, line, &err, !ro->dry);
	return rc ? command_fail(info, &err) : EXIT_DONE;
}

int cmd_train(int argc, char **argv)
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
		{"dry-run", OPTION_FLAG, &dry, NULL, "print shapes, parameters and steps; write nothing"},
		{"print-config", OPTION_FLAG, &print, NULL, "print every key with its default and meaning"},
		{0}};
	const command_info info = {"train", "train a teacher from scratch, or fine-tune a checkpoint",
				   "winnow-prune train --config configs/train.yaml\n"
				   "winnow-prune train --config configs/train.yaml --resume\n"
				   "winnow-prune train --config configs/train.yaml --set run_dir=runs/b --set audit.steps=2000\n"
				   "winnow-prune train --config configs/train.yaml --set model.init_from=hf/blip2-opt --dry-run\n",
				   specs};
	if (num_sets < 0) {
		fprintf(stderr, "winnow-prune train: --set: expected KEY=VALUE, at most %d times\n", MAX_SETS);
		return EXIT_USAGE;
	}
	int parsed = options_parse(&info, argc, argv);
	if (parsed != OPTIONS_OK)
		return parsed == OPTIONS_HELP ? EXIT_DONE : EXIT_USAGE;
	if (print) {
		config_print(&TRAIN_CONFIG_SCHEMA, NULL, stdout);
		return EXIT_DONE;
	}
	if (!config_path) {
		fprintf(stderr, "winnow-prune train: --config is missing (try --help)\n");
		return EXIT_USAGE;
	}
	wn_error err = {0};
	train_config c;
	if (train_config_load(&c, config_path, sets, num_sets, &err))
		return command_fail(&info, &err);
	if (c.threads)
		omp_set_num_threads(c.threads);
	train_run_options ro = {.resume = resume, .dry = dry, .stop = catch_stop_signals(), .out = stderr};
	trainer_options to = {.resume = resume, .max_steps = max_steps, .reducer = {.ranks = 1}};
	const run_line line = {.command = "train", .config_path = config_path, .sets = sets, .num_sets = num_sets};
	int rc = run(&info, &c, &ro, &to, &line);
	train_config_free(&c);
	return rc;
}
