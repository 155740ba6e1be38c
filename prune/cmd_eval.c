/* cmd_eval.c: `winnow-prune eval`: a model directory over a split, ad by ad from the file on disk to the verdict, as the
 * server would: quality, calibration, and where the milliseconds go. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>
#include <omp.h>

#include "model/classifier.h"
#include "model/omp_policy.h"
#include "prune/ad_input.h"
#include "prune/commands.h"
#include "prune/metrics.h"
#include "prune/options.h"
#include "prune/progress.h"

enum { STAGE_INFERENCE = AD_STAGES, STAGE_TOTAL, NUM_STAGES }; /* behind those of an ad's input */
static const char *const STAGE_NAMES[NUM_STAGES] = {"read", "decode", "preprocess", "tokenize", "inference", "total"};

typedef struct eval_job {
	const classifier *c;
	dataset data;
	modalities modalities; /* what the model was trained to see (its lineage) */
	int batch;
	size_t image_floats;
	int max_prompt;
	classifier_session *session;
	float *pixels;         /* [batch][3][size][size] */
	int32_t *ids;          /* [batch][max_prompt] */
	classifier_input *in;  /* [batch] */
	float *probs;          /* [count][labels] */
	int *truth;            /* [count] */
	double *seconds[NUM_STAGES]; /* [count] each */
} eval_job;

static void close_job(eval_job *j)
{
	classifier_session_close(&j->session);
	dataset_close(&j->data);
	free(j->pixels);
	free(j->ids);
	free(j->in);
	free(j->probs);
	free(j->truth);
	for (int s = 0; s < NUM_STAGES; s++)
		free(j->seconds[s]);
}

static wn_code open_job(eval_job *j, const classifier *c, const char *data, const char *split, int limit, int batch, wn_error *err)
{
	const checkpoint *ck = classifier_checkpoint(c);
	const size_t n = (size_t)batch, size = (size_t)ck->image_processor.size;
	j->c = c;
	j->batch = batch;
	j->image_floats = 3 * size * size;
	j->max_prompt = ck->manifest.max_text_tokens;
	j->modalities = ad_modalities(&ck->manifest);
	wn_code rc = dataset_read(&j->data, data, split, ck->manifest.labels, ck->manifest.num_labels, DATASET_NEEDS_LABEL,
				  (size_t)limit, err);
	if (rc)
		return rc;
	const size_t count = j->data.count;
	j->pixels = calloc(n * j->image_floats, sizeof(float));
	j->ids = calloc(n * (size_t)j->max_prompt, sizeof *j->ids);
	j->in = calloc(n, sizeof *j->in);
	j->probs = calloc(count * (size_t)classifier_num_labels(c), sizeof *j->probs);
	j->truth = calloc(count, sizeof *j->truth);
	bool ok = j->pixels && j->ids && j->in && j->probs && j->truth;
	for (int s = 0; s < NUM_STAGES; s++)
		ok &= (j->seconds[s] = calloc(count, sizeof(double))) != NULL;
	if (!ok)
		return wn_fail(err, WN_NOMEM, "no memory for %zu results", count);
	return classifier_session_open(&j->session, c, batch, err);
}

/* Sample i into slot k of the batch, with the time each stage took. */
static wn_code load_sample(eval_job *j, size_t i, int k, wn_error *err)
{
	float *pixels = j->pixels + (size_t)k * j->image_floats;
	int32_t *ids = j->ids + (size_t)k * (size_t)j->max_prompt;
	double seconds[AD_STAGES];
	wn_code rc = ad_input_load(&j->in[k], j->c, &j->data, i, j->modalities, pixels, ids, seconds, err);
	j->truth[i] = j->data.samples[i].label;
	for (int s = 0; s < AD_STAGES && !rc; s++)
		j->seconds[s][i] = seconds[s];
	return rc;
}

static wn_code run_job(eval_job *j, wn_error *err)
{
	const size_t count = j->data.count, labels = (size_t)classifier_num_labels(j->c);
	progress p;
	progress_start(&p, stderr, "eval", 0, (int64_t)count, 15);
	wn_code rc = WN_OK;
	for (size_t from = 0; !rc && from < count;) {
		int n = (int)(count - from < (size_t)j->batch ? count - from : (size_t)j->batch);
		for (int k = 0; !rc && k < n; k++)
			rc = load_sample(j, from + (size_t)k, k, err);
		double start = monotonic_seconds();
		if (!rc)
			rc = classifier_run(j->session, j->in, n, j->probs + from * labels, err);
		double inference = monotonic_seconds() - start;
		for (size_t i = from; i < from + (size_t)n; i++) {
			j->seconds[STAGE_INFERENCE][i] = inference; /* an ad in a batch waits for all of it */
			for (int s = 0; s < STAGE_TOTAL; s++)
				j->seconds[STAGE_TOTAL][i] += j->seconds[s][i];
		}
		from += (size_t)n;
		if (!rc)
			progress_update(&p, (int64_t)from, "");
	}
	if (!rc && p.tty)
		progress_finish(&p, (int64_t)count, "");
	return rc;
}

static void print_confusion(const eval_job *j, const metrics *m)
{
	printf("\nconfusion (rows: truth, columns: prediction)\n%-18s", "");
	for (int c = 0; c < m->num_classes; c++)
		printf("%6.5s", classifier_label(j->c, c)->name);
	printf("\n");
	for (int r = 0; r < m->num_classes; r++) {
		printf("%-18.18s", classifier_label(j->c, r)->name);
		for (int c = 0; c < m->num_classes; c++)
			printf("%6lld", (long long)m->confusion[r][c]);
		printf("\n");
	}
}

static void print_text(eval_job *j, const metrics *m)
{
	printf("samples %lld  accuracy %.4f  macro-F1 %.4f  ECE %.4f  NLL %.4f\n\n", (long long)m->count, m->accuracy, m->macro_f1,
	       m->ece, m->nll);
	printf("%-18s %9s %9s %9s %8s\n", "label", "precision", "recall", "F1", "support");
	for (int c = 0; c < m->num_classes; c++)
		printf("%-18s %9.4f %9.4f %9.4f %8lld\n", classifier_label(j->c, c)->name, m->classes[c].precision,
		       m->classes[c].recall, m->classes[c].f1, (long long)m->classes[c].support);
	print_confusion(j, m);
	printf("\nlatency an ad, batch %d, ms %8s %8s\n", j->batch, "p50", "p99");
	for (int s = 0; s < NUM_STAGES; s++)
		printf("%-27s %8.3f %8.3f\n", STAGE_NAMES[s], 1e3 * metrics_quantile(j->seconds[s], j->data.count, 0.5),
		       1e3 * metrics_quantile(j->seconds[s], j->data.count, 0.99));
}

static json_t *class_json(const eval_job *j, const metrics *m, int c)
{
	json_t *row = json_array();
	for (int k = 0; row && k < m->num_classes; k++)
		json_array_append_new(row, json_integer(m->confusion[c][k]));
	return json_pack("{s:s, s:f, s:f, s:f, s:I, s:o}", "label", classifier_label(j->c, c)->name, "precision",
			 m->classes[c].precision, "recall", m->classes[c].recall, "f1", m->classes[c].f1, "support",
			 (json_int_t)m->classes[c].support, "predicted_as", row);
}

static int print_json(eval_job *j, const metrics *m, const char *model, const char *data, const char *split)
{
	json_t *classes = json_array(), *latency = json_object();
	for (int c = 0; classes && c < m->num_classes; c++)
		json_array_append_new(classes, class_json(j, m, c));
	for (int s = 0; latency && s < NUM_STAGES; s++) {
		double p50 = metrics_quantile(j->seconds[s], j->data.count, 0.5), p99 = metrics_quantile(j->seconds[s], j->data.count, 0.99);
		json_object_set_new(latency, STAGE_NAMES[s], json_pack("{s:f, s:f}", "p50", 1e3 * p50, "p99", 1e3 * p99));
	}
	json_t *all = json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:f, s:f, s:f, s:f, s:i, s:o, s:o}", "model", model, "digest",
				classifier_checkpoint(j->c)->digest, "data", data, "split", split, "metadata", j->data.digest, "samples",
				(json_int_t)m->count, "accuracy", m->accuracy, "macro_f1", m->macro_f1, "ece", m->ece, "nll", m->nll,
				"batch", j->batch, "classes", classes, "latency_ms", latency);
	int bad = !all || json_dumpf(all, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) || putchar('\n') == EOF;
	json_decref(all);
	return bad;
}

int cmd_eval(int argc, char **argv)
{
	omp_spin_long();
	const char *model = NULL, *data = NULL, *split = "test", *precision_name = NULL;
	bool json = false;
	int limit = 0, batch = 1, threads = 0;
	const option_spec specs[] = {
		{"model", OPTION_STRING, &model, "DIR", "model directory with winnow.json", .required = true},
		{"data", OPTION_STRING, &data, "DIR", "imagefolder: DIR/SPLIT/metadata.jsonl", .required = true},
		{"split", OPTION_STRING, &split, "NAME", "split to use"},
		{"json", OPTION_FLAG, &json, NULL, "print JSON"},
		{"limit", OPTION_INT, &limit, "N", "the first N samples only; 0: all", .min = 0, .max = 1e9},
		{"batch", OPTION_INT, &batch, "N", "ads a forward; 1 times them as requests come", .min = 1, .max = 256},
		{"threads", OPTION_INT, &threads, "N", "OpenMP threads; 0: as many as this process may use", .min = 0, .max = 256},
		{"precision", OPTION_CHOICE, &precision_name, "P", "f32, bf16 or int8; default: the model's own", .choices = "f32 bf16 int8"},
		{0}};
	const command_info info = {"eval", "accuracy, F1, calibration and latency on a data set",
				   "winnow-prune eval --model runs/teacher/best --data data/synmaad\n"
				   "winnow-prune eval --model student --data data/synmaad --split test_unseen --json\n",
				   specs};
	int parsed = options_parse(&info, argc, argv);
	if (parsed != OPTIONS_OK)
		return parsed == OPTIONS_HELP ? EXIT_DONE : EXIT_USAGE;
	if (threads)
		omp_set_num_threads(threads);
	wn_error err = {0};
	const precision asked = precision_name ? (precision)precision_of(precision_name) : PRECISION_F32;
	const classifier_options co = {.load.verify_digests = true, .precision = precision_name ? &asked : NULL};
	classifier *c = NULL;
	eval_job j = {0};
	metrics *m = calloc(1, sizeof *m);
	wn_code rc = m ? classifier_open(&c, model, &co, &err) : wn_fail(&err, WN_NOMEM, "no memory");
	if (!rc)
		rc = open_job(&j, c, data, split, limit, batch, &err);
	if (!rc)
		rc = run_job(&j, &err);
	if (!rc) {
		metrics_compute(m, j.probs, j.truth, j.data.count, classifier_num_labels(c));
		if (!json)
			print_text(&j, m);
		else if (print_json(&j, m, model, data, split))
			rc = wn_fail(&err, WN_IO, "cannot write the result");
	}
	close_job(&j);
	classifier_close(&c);
	free(m);
	return rc ? command_fail(&info, &err) : EXIT_DONE;
}
