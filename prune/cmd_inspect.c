/* cmd_inspect.c: what a model directory holds, as a table or as JSON: parameters, bytes and FLOPs per component, every block's
 * own widths, and what this machine would run it on. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/processors.h"
#include "model/checkpoint.h"
#include "model/dnn.h"
#include "model/engine_probe.h"
#include "model/ops.h"
#include "prune/commands.h"
#include "prune/options.h"

typedef struct component_report {
	const stack_config *stack;
	size_t parameters;
	double bytes; /* as stored */
	double flops; /* of one request */
} component_report;

/* What this machine would do with the model. */
typedef struct runtime_report {
	char engine[3][ENGINE_PROBE_SIZE]; /* by precision */
	processors processors;
} runtime_report;

static wn_code look_at_machine(runtime_report *out, const checkpoint *ck, wn_error *err)
{
	wn_code rc = WN_OK;
	for (int p = 0; !rc && p < 3; p++)
		rc = engine_probe(out->engine[p], blip2_get_config(ck->model), (precision)p, err);
	processors_look(&out->processors, NULL);
	return rc;
}

static json_t *runtime_json(const runtime_report *r)
{
	json_t *by_precision = json_object();
	for (int p = 0; p < 3; p++)
		json_object_set_new(by_precision, PRECISION_NAMES[p], json_string(r->engine[p]));
	return json_pack("{s:s, s:s, s:s, s:o, s:i, s:s}", "onednn", dnn_version(), "onednn_isa", dnn_isa(), "kernels", ops->name, "engine",
	                 by_precision, "threads", r->processors.usable, "threads_reason", r->processors.reason);
}

static void measure(component_report out[NUM_COMPONENTS], const checkpoint *ck, int tokens)
{
	const blip2_config *c = blip2_get_config(ck->model);
	for (int i = 0; i < NUM_COMPONENTS; i++)
		out[i] = (component_report){.stack = shape_stack(c, (component)i)};
	for (size_t i = 0; i < blip2_num_params(ck->model); i++) {
		const param *p = blip2_param(ck->model, i);
		out[p->component].parameters += p->count;
	}
	for (int i = 0; i < NUM_COMPONENTS; i++) {
		out[i].bytes = (double)out[i].parameters * (double)dtype_size(ck->stored_dtype);
		out[i].flops = blip2_flops(c, (component)i, tokens, 1);
	}
}

static json_t *component_json(const component_report *r)
{
	return json_pack("{s:I, s:I, s:f, s:i, s:i, s:o}", "parameters", (json_int_t)r->parameters, "bytes", (json_int_t)r->bytes,
	                 "flops", r->flops, "hidden_size", r->stack->hidden_size, "num_hidden_layers",
	                 r->stack->num_hidden_layers, "blocks", shape_blocks_json(r->stack));
}

static int print_json(const checkpoint *ck, const component_report *r, const runtime_report *machine, int tokens)
{
	const blip2_config *c = blip2_get_config(ck->model);
	json_t *components = json_object(), *labels = json_array();
	double flops = 0, bytes = 0;
	for (int i = 0; i < NUM_COMPONENTS; i++) {
		json_object_set_new(components, shape_stack_name((component)i), component_json(&r[i]));
		flops += r[i].flops;
		bytes += r[i].bytes;
	}
	for (int i = 0; ck->has_manifest && i < ck->manifest.num_labels; i++)
		json_array_append_new(labels, json_string(ck->manifest.labels[i].name));
	json_t *root = json_pack("{s:I, s:I, s:f, s:i, s:s, s:s, s:i, s:i, s:i, s:i, s:i, s:b, s:b, s:o, s:o, s:o}",
	                         "parameters", (json_int_t)blip2_parameter_count(ck->model), "bytes", (json_int_t)bytes, "flops",
	                         flops, "flops_tokens", tokens, "dtype", dtype_name(ck->stored_dtype), "digest", ck->digest,
	                         "image_size", c->image_size, "patch_size", c->patch_size, "num_query_tokens",
	                         c->num_query_tokens, "vocab_size", c->vocab_size, "max_position_embeddings",
	                         c->max_position_embeddings, "tokenizer", ck->tokenizer != NULL, "uniform_widths",
	                         (int)hf_config_is_uniform(c), "labels", labels, "components", components, "runtime",
	                         runtime_json(machine));
	if (root && ck->has_manifest) {
		json_object_set_new(root, "name", json_string(ck->manifest.name));
		if (ck->manifest.lineage)
			json_object_set(root, "lineage", ck->manifest.lineage);
	}
	int rc = root && json_dumpf(root, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER) == 0 ? EXIT_DONE : EXIT_FAILED;
	putchar('\n');
	json_decref(root);
	return rc;
}

/* Runs of equal blocks share a line. */
static void print_blocks(const char *name, const stack_config *s)
{
	for (int i = 0, end; i < s->num_hidden_layers; i = end) {
		const block_widths *w = &s->blocks[i];
		for (end = i + 1; end < s->num_hidden_layers && shape_same_widths(w, &s->blocks[end]); end++)
			;
		char range[24];
		snprintf(range, sizeof range, end - i > 1 ? "%d-%d" : "%d", i, end - 1);
		printf("  %-8s block %-7s %3d heads x %-4d", name, range, w->num_heads, w->head_dim);
		if (w->cross_num_heads)
			printf(" cross %3d x %-4d", w->cross_num_heads, w->cross_head_dim);
		printf(" ffn %d\n", w->ffn_dim);
	}
}

static void print_table(const checkpoint *ck, const component_report *r, const runtime_report *machine, const char *dir, int tokens)
{
	const blip2_config *c = blip2_get_config(ck->model);
	double flops = 0, bytes = 0;
	printf("%s%s%s\n", dir, ck->has_manifest ? ": " : "", ck->has_manifest ? ck->manifest.name : "");
	printf("  image %d px, patch %d, %d queries, vocabulary %d, %d positions, stored as %s\n", c->image_size, c->patch_size,
	       c->num_query_tokens, c->vocab_size, c->max_position_embeddings, dtype_name(ck->stored_dtype));
	printf("  weights %s\n\n", ck->digest);
	printf("  %-10s %7s %7s %14s %12s %10s\n", "component", "blocks", "hidden", "parameters", "bytes", "GFLOP");
	for (int i = 0; i < NUM_COMPONENTS; i++) {
		printf("  %-10s %7d %7d %14zu %12.0f %10.4f\n", shape_stack_name((component)i), r[i].stack->num_hidden_layers,
		       r[i].stack->hidden_size, r[i].parameters, r[i].bytes, 1e-9 * r[i].flops);
		flops += r[i].flops;
		bytes += r[i].bytes;
	}
	printf("  %-10s %7s %7s %14zu %12.0f %10.4f   (one image, %d tokens, last logits)\n\n", "total", "", "",
	       blip2_parameter_count(ck->model), bytes, 1e-9 * flops, tokens);
	for (int i = 0; i < NUM_COMPONENTS; i++)
		print_blocks(shape_stack_name((component)i), r[i].stack);
	printf("\n  runs on oneDNN %s (%s), kernels %s\n", dnn_version(), dnn_isa(), ops->name);
	for (int p = 0; p < 3; p++)
		printf("    %-8s %s\n", PRECISION_NAMES[p], machine->engine[p]);
	printf("    threads  %s\n", machine->processors.reason);
	if (!ck->has_manifest)
		return;
	printf("  labels:");
	for (int i = 0; i < ck->manifest.num_labels; i++)
		printf(" %s (%s)", ck->manifest.labels[i].name, action_name(ck->manifest.labels[i].action));
	printf("\n");
}

int cmd_inspect(int argc, char **argv)
{
	const char *model = NULL;
	bool json = false;
	int tokens = 64;
	const option_spec options[] = {
		{"model", OPTION_STRING, &model, "DIR", "model directory", .required = true},
		{"tokens", OPTION_INT, &tokens, "N", "text tokens of the request that FLOPs are counted for", .min = 1, .max = 100000},
		{"json", OPTION_FLAG, &json, NULL, "print JSON"},
		{0}};
	const command_info info = {"inspect", "parameters, FLOPs and bytes per component of a model directory",
	                           "winnow-prune inspect --model teacher\n"
	                           "winnow-prune inspect --model student --json", options};
	int rc = options_parse(&info, argc, argv);
	if (rc != OPTIONS_OK)
		return rc == OPTIONS_HELP ? EXIT_DONE : EXIT_USAGE;
	checkpoint ck;
	wn_error err = {0};
	if (checkpoint_load(&ck, model, NULL, &err))
		return command_fail(&info, &err);
	component_report r[NUM_COMPONENTS];
	runtime_report machine;
	measure(r, &ck, tokens);
	if (look_at_machine(&machine, &ck, &err)) {
		checkpoint_close(&ck);
		return command_fail(&info, &err);
	}
	rc = EXIT_DONE;
	if (json)
		rc = print_json(&ck, r, &machine, tokens);
	else
		print_table(&ck, r, &machine, model, tokens);
	checkpoint_close(&ck);
	return rc;
}
