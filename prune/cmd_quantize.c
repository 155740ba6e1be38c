/* cmd_quantize.c: `winnow-prune quantize`: a model directory whose layers are stored, and run, in int8 or bf16 (quantize.h). */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>
#include <omp.h>

#include "base/file.h"
#include "model/omp_policy.h"
#include "prune/commands.h"
#include "prune/options.h"
#include "prune/progress.h"
#include "prune/quantize.h"
#include "prune/quantize_probe.h"
#include "prune/run_command.h"

typedef struct quantize_command {
	const char *model, *data, *split, *out, *precision;
	int samples, threads;
	double layer_cosine, model_cosine, max_loss; /* max_loss: points */
	bool quick, json;
} quantize_command;

static void show_layer(void *ctx, size_t done, size_t total, const char *layer) { progress_update(ctx, (int64_t)done, layer); }

static json_t *score_json(const quantize_score *s)
{
	return json_pack("{s:f, s:o}", "cosine", s->cosine, "accuracy", isnan(s->accuracy) ? json_null() : json_real(s->accuracy));
}

/* winnow.json's "quantization", and what --json prints. */
static json_t *plan_json(const quantize_command *c, const quantize_plan *p, const char *digest, size_t samples)
{
	json_t *layers = json_array();
	for (size_t i = 0; i < p->count; i++) {
		const quantize_layer *l = &p->layers[i];
		json_array_append_new(layers, json_pack("{s:s, s:s, s:o}", "name", l->first->name, "precision", PRECISION_NAMES[l->precision],
							"alone", l->tried ? score_json(&l->alone) : json_null()));
	}
	return json_pack("{s:s, s:s, s:s, s:{s:s, s:s, s:I}, s:o, s:o, s:o}", "scheme", "symmetric", "weights", "a scale for each output",
			 "activations", "a scale for each row, when it runs", "calibration", "split", c->data ? c->split : "random",
			 "metadata", digest, "samples", (json_int_t)samples, "f32", score_json(&p->f32), "whole", score_json(&p->whole),
			 "layers", layers);
}

static size_t count_int8(const quantize_plan *p)
{
	size_t count = 0;
	for (size_t i = 0; i < p->count; i++)
		count += p->layers[i].precision == PRECISION_INT8;
	return count;
}

static void print_accuracy(double a)
{
	if (isnan(a))
		printf("         -");
	else
		printf("  %7.2f%%", 100 * a);
}

static void print_plan(const quantize_command *c, const quantize_plan *p)
{
	printf("%-72s %-5s %10s %9s\n", "layer, alone in int8", "kept", "cosine", "accuracy");
	for (size_t i = 0; i < p->count; i++) {
		const quantize_layer *l = &p->layers[i];
		printf("%-72s %-5s", l->first->name, PRECISION_NAMES[l->precision]);
		if (!l->tried) {
			printf("          -         -\n");
			continue;
		}
		printf(" %10.6f", l->alone.cosine);
		print_accuracy(l->alone.accuracy);
		printf("\n");
	}
	printf("%-78s %10.6f", "f32", p->f32.cosine);
	print_accuracy(p->f32.accuracy);
	printf("\n%-78s %10.6f", "as written", p->whole.cosine);
	print_accuracy(p->whole.accuracy);
	printf("\n%zu of %zu layers in int8\n", count_int8(p), p->count);
}

/* The manifest of what is written: m's, with this stage's lineage on top. */
static wn_code derive_manifest(manifest *out, const checkpoint *ck, precision p, json_t *quantization, wn_error *err)
{
	*out = ck->manifest;
	snprintf(out->precision, sizeof out->precision, "%s", PRECISION_NAMES[p]);
	out->self_test = out->files = out->widths = NULL;
	out->quantization = quantization;
	json_t *seen = ck->manifest.lineage ? json_object_get(ck->manifest.lineage, "modalities") : NULL;
	out->lineage = json_pack("{s:s, s:s, s:s, s:O*, s:O*}", "stage", "quantize", "program", "winnow " WINNOW_VERSION, "model", ck->digest,
				 "modalities", seen, "from", ck->manifest.lineage);
	return out->lineage && quantization ? WN_OK : wn_fail(err, WN_NOMEM, "no memory for the manifest");
}

static wn_code write_model(const quantize_command *c, const checkpoint *ck, const quantize_plan *plan, json_t *quantization, wn_error *err)
{
	char path[4096];
	manifest man = {0};
	dtype *dtypes = malloc(blip2_num_params(ck->model) * sizeof *dtypes);
	wn_code rc = dtypes ? WN_OK : wn_fail(err, WN_NOMEM, "no memory for the types of tensors");
	if (!rc && ck->has_manifest)
		rc = derive_manifest(&man, ck, plan && count_int8(plan) ? PRECISION_INT8 : PRECISION_BF16, quantization, err);
	snprintf(path, sizeof path, "%s/tokenizer.json", c->model);
	if (!rc) {
		quantize_dtypes(dtypes, ck->model, plan);
		rc = checkpoint_save_quantized(c->out, ck->model, ck->has_manifest ? &man : NULL, &ck->image_processor,
					       ck->tokenizer ? path : NULL, dtypes, err);
	}
	json_decref(man.lineage);
	free(dtypes);
	return rc;
}

static wn_code make_plan(const quantize_command *c, const checkpoint *ck, quantize_plan *plan, json_t **quantization, wn_error *err)
{
	const quantize_samples_options so = {.data = c->data, .split = c->split, .samples = c->samples};
	quantize_samples *samples = NULL;
	progress p;
	wn_code rc = quantize_samples_open(&samples, ck, &so, err);
	if (rc)
		return rc;
	progress_start(&p, stderr, "quantize", 0, 1, 15);
	const quantize_probe probe = quantize_samples_probe(samples);
	const quantize_options o = {.quick = c->quick, .layer_cosine = c->layer_cosine, .model_cosine = c->model_cosine, .max_loss = c->max_loss / 100,
				    .progress = show_layer, .ctx = &p, .stop = catch_stop_signals()};
	p.total = (int64_t)quantize_count_layers(ck->model);
	rc = quantize_plan_make(plan, ck->model, &probe, &o, err);
	if (!rc) {
		if (p.tty)
			progress_finish(&p, p.total, "");
		*quantization = plan_json(c, plan, quantize_samples_digest(samples), quantize_samples_count(samples));
	}
	quantize_samples_close(&samples);
	return rc;
}

static wn_code quantize(const quantize_command *c, wn_error *err)
{
	checkpoint ck = {0};
	quantize_plan plan = {0};
	json_t *quantization = NULL;
	const bool int8 = !strcmp(c->precision, "int8");
	wn_code rc = checkpoint_check_target(c->out, err);
	if (!rc)
		rc = checkpoint_load(&ck, c->model, &(checkpoint_options){.verify_digests = false}, err);
	if (!rc && ck.has_manifest && ck.manifest.quantization)
		rc = wn_fail(err, WN_INVALID, "%s: is quantised already (precision %s)", c->model, ck.manifest.precision);
	if (!rc)
		rc = int8 ? make_plan(c, &ck, &plan, &quantization, err) : WN_OK;
	if (!rc && !int8)
		quantization = json_pack("{s:s}", "scheme", "rounded");
	if (!rc)
		rc = write_model(c, &ck, int8 ? &plan : NULL, quantization, err);
	if (!rc && c->json)
		json_dumpf(quantization, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
	else if (!rc && int8)
		print_plan(c, &plan);
	if (!rc && int8 && !plan.reached)
		fprintf(stderr, "winnow-prune quantize: note: even with all layers in bf16 the model does not reach --model-cosine %g and --max-loss %g\n",
			c->model_cosine, c->max_loss);
	if (!rc && !c->json)
		printf("written to %s\n", c->out);
	json_decref(quantization);
	quantize_plan_close(&plan);
	checkpoint_close(&ck);
	return rc;
}

int cmd_quantize(int argc, char **argv)
{
	quantize_command c = {.split = "validation", .precision = "int8", .samples = 200, .layer_cosine = 0.9995, .model_cosine = 0.999,
			      .max_loss = 0.5};
	const option_spec options[] = {
		{"model", OPTION_STRING, &c.model, "DIR", "model directory", .required = true},
		{"out", OPTION_STRING, &c.out, "DIR", "where the quantised model goes; a model there is replaced", .required = true},
		{"data", OPTION_STRING, &c.data, "DIR", "imagefolder to calibrate on; without it random inputs, and no accuracy"},
		{"split", OPTION_STRING, &c.split, "NAME", "split to use; default validation"},
		{"samples", OPTION_INT, &c.samples, "N", "its first N ads (default 200); 0: all", .min = 0, .max = 1e9},
		{"precision", OPTION_CHOICE, &c.precision, "P", "int8 (default), or bf16: everything rounded, nothing calibrated",
		 .choices = "int8 bf16"},
		{"layer-cosine", OPTION_DOUBLE, &c.layer_cosine, "X", "layers that alone turn the logits further stay in bf16; default 0.9995",
		 .min = 0, .max = 1},
		{"model-cosine", OPTION_DOUBLE, &c.model_cosine, "X", "more of them until the model reaches this; default 0.999", .min = 0, .max = 1},
		{"max-loss", OPTION_DOUBLE, &c.max_loss, "POINTS", "... and loses no more accuracy than this; default 0.5", .min = 0, .max = 100},
		{"quick", OPTION_FLAG, &c.quick, NULL, "try layers one by one only when the whole model in int8 falls short of these"},
		{"threads", OPTION_INT, &c.threads, "N", "OpenMP threads; 0: as many as this process may use", .min = 0, .max = 256},
		{"json", OPTION_FLAG, &c.json, NULL, "print JSON"},
		{0}};
	const command_info info = {"quantize", "a model that is stored and run in int8 or bf16",
				   "winnow-prune quantize --model runs/student/export --data data/synmaad --out runs/student/int8\n"
				   "winnow-prune quantize --model student --data data/synmaad --samples 0 --max-loss 0.2 --out student-int8\n"
				   "winnow-prune quantize --model checkpoint --precision bf16 --out checkpoint-bf16\n",
				   options};
	int parsed = options_parse(&info, argc, argv);
	if (parsed != OPTIONS_OK)
		return parsed == OPTIONS_HELP ? EXIT_DONE : EXIT_USAGE;
	if (c.threads)
		omp_set_num_threads(c.threads);
	omp_spin_long();
	wn_error err = {0};
	wn_code rc = quantize(&c, &err);
	if (rc)
		command_fail(&info, &err);
	return rc == WN_CANCELLED ? EXIT_INTERRUPTED : rc ? EXIT_FAILED : EXIT_DONE;
}
