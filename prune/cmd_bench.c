/* cmd_bench.c: the time of one request (or, with --train, of one training step), beside what the machine's matrix product reaches in the same minutes.
 *
 * What one request is, bench_request.h says. The peak is the best of large products in the same precision measured right after the
 * runs, on the same threads: a figure from another day (other clock, other neighbours) would make the percentage meaningless. After,
 * so that its matrices do not count as the model's memory. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <jansson.h>
#include <omp.h>

#include "model/checkpoint.h"
#include "model/dnn.h"
#include "model/omp_policy.h"
#include "model/ops.h"
#include "prune/bench_peak.h"
#include "prune/bench_request.h"
#include "prune/bench_train.h"
#include "prune/commands.h"
#include "prune/options.h"

#define TRAIN_LABEL_TOKENS 4 /* of each sample in --train */

typedef struct bench_options {
	const char *model, *precision;
	int tokens, threads, runs, batch;
	bool json, train;
} bench_options;

typedef struct bench_result {
	const char *precision;
	double load_ms; /* to the first answer */
	double median_ms, p99_ms, min_ms;
	double gflop, peak_gflops;
	long peak_rss_bytes;
} bench_result;

static void first_answer(void *ctx) { ((bench_result *)ctx)->load_ms += bench_now_ms(); }

static wn_code bench(const bench_options *o, bench_result *r, wn_error *err)
{
	const checkpoint_options opt = {.skip_digest = true, .leave_weights = !o->train};
	checkpoint ck = {0};
	double *times = calloc((size_t)o->runs, sizeof *times);
	if (!times)
		return wn_fail(err, WN_NOMEM, "out of memory for %d runs", o->runs);
	omp_set_num_threads(o->threads);
	const double start = bench_now_ms();
	wn_code rc = checkpoint_load(&ck, o->model, &opt, err);
	if (rc)
		goto done;
	r->precision = o->precision ? o->precision : PRECISION_NAMES[checkpoint_precision(&ck)];
	const blip2_config *c = blip2_get_config(ck.model);
	const int room = c->max_position_embeddings - c->num_query_tokens;
	if (o->tokens > room) {
		rc = wn_fail(err, WN_TOO_LARGE, "--tokens: found %d, this model has room for %d behind its queries", o->tokens, room);
		goto done;
	}
	if (o->train) {
		const bench_train_options t = {.batch = o->batch, .tokens = o->tokens, .label_tokens = TRAIN_LABEL_TOKENS, .runs = o->runs,
		                               .bf16 = !strcmp(r->precision, "bf16")};
		rc = bench_train(ck.model, &t, times, err);
	} else {
		const bench_request_options t = {.precision = (precision)precision_of(r->precision), .source = ck.source, .tokens = o->tokens,
		                                 .logit_rows = 1, .runs = o->runs, .first_answer = first_answer, .ctx = r};
		r->load_ms = -start;
		rc = bench_request(ck.model, &t, times, err);
	}
	if (rc)
		goto done;
	struct rusage usage;
	getrusage(RUSAGE_SELF, &usage);
	r->peak_rss_bytes = usage.ru_maxrss * 1024L;
	if ((rc = bench_peak((precision)precision_of(r->precision), &r->peak_gflops, err)))
		goto done;
	r->median_ms = bench_median(times, o->runs);
	r->min_ms = times[0];
	r->p99_ms = times[(99 * o->runs + 99) / 100 - 1]; /* nearest rank */
	const int samples = o->train ? o->batch : 1, rows = o->train ? TRAIN_LABEL_TOKENS : 1;
	const double passes = o->train ? 3 : 1; /* a backward costs two forwards */
	r->gflop = 1e-9 * passes * samples * blip2_request_flops(c, o->tokens, rows);
done:
	checkpoint_close(&ck);
	free(times);
	return rc;
}

static void print_result(const bench_options *o, const bench_result *r)
{
	const double gflops = 1e3 * r->gflop / r->median_ms, percent = 100 * gflops / r->peak_gflops;
	if (o->train) {
		const double rate = 1e3 * o->batch / r->median_ms;
		if (o->json)
			printf("{\"train\": true, \"precision\": \"%s\", \"batch\": %d, \"tokens\": %d, \"threads\": %d, \"median_step_ms\": %.1f, "
			       "\"min_step_ms\": %.1f, \"samples_per_s\": %.1f}\n",
			       r->precision, o->batch, o->tokens, o->threads, r->median_ms, r->min_ms, rate);
		else
			printf("training step of %d images with %d tokens, %s, %d threads, %d runs\n"
			       "  step      median %.1f ms, min %.1f ms: %.1f samples/s\n"
			       "  work      %.1f GFLOP, %.1f GFLOP/s (matmul peak %.1f)\n",
			       o->batch, o->tokens, r->precision, o->threads, o->runs, r->median_ms, r->min_ms, rate, r->gflop, gflops,
			       r->peak_gflops);
		return;
	}
	if (o->json) {
		json_t *root = json_pack("{s:s, s:s, s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:I, s:s, s:s, s:s}", "model",
		                         o->model, "precision", r->precision, "tokens", o->tokens, "threads", o->threads, "runs",
		                         o->runs, "median_ms", r->median_ms, "p99_ms", r->p99_ms, "min_ms", r->min_ms, "gflop",
		                         r->gflop, "gflops", gflops, "peak_gflops", r->peak_gflops, "percent_of_peak", percent,
		                         "load_ms", r->load_ms, "peak_rss_bytes", (json_int_t)r->peak_rss_bytes, "onednn",
		                         dnn_version(), "onednn_isa", dnn_isa(), "kernels", ops->name);
		json_dumpf(root, stdout, JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(6));
		putchar('\n');
		json_decref(root);
		return;
	}
	printf("%s, %s, 1 image + %d tokens, %d threads, %d runs\n", o->model, r->precision, o->tokens, o->threads, o->runs);
	printf("  latency   median %.2f ms, p99 %.2f ms, min %.2f ms\n", r->median_ms, r->p99_ms, r->min_ms);
	printf("  work      %.3f GFLOP, %.1f GFLOP/s, %.0f%% of this machine's matmul peak (%.1f GFLOP/s)\n", r->gflop, gflops,
	       percent, r->peak_gflops);
	printf("  memory    peak RSS %.1f MiB\n", (double)r->peak_rss_bytes / 1048576);
	printf("  load      %.1f ms to the first answer\n", r->load_ms);
	printf("  runs on   oneDNN %s (%s), kernels %s\n", dnn_version(), dnn_isa(), ops->name);
}

int cmd_bench(int argc, char **argv)
{
	bench_options o = {.tokens = 64, .threads = 2, .runs = 100, .batch = 32};
	const option_spec options[] = {
		{"model", OPTION_STRING, &o.model, "DIR", "model directory", .required = true},
		{"precision", OPTION_CHOICE, &o.precision, "P", "f32, bf16 or int8; default: the model's own", .choices = "f32 bf16 int8"},
		{"tokens", OPTION_INT, &o.tokens, "N", "text tokens of the request", .min = 1, .max = 100000},
		{"threads", OPTION_INT, &o.threads, "N", "threads of one request; 0: as many as this process may use", .min = 0, .max = 1024},
		{"runs", OPTION_INT, &o.runs, "N", "timed runs", .min = 1, .max = 10000000},
		{"train", OPTION_FLAG, &o.train, NULL, "time training steps (forward, backward, AdamW) instead of requests"},
		{"batch", OPTION_INT, &o.batch, "N", "with --train: samples a step", .min = 1, .max = 4096},
		{"json", OPTION_FLAG, &o.json, NULL, "print one JSON line"},
		{0}};
	const command_info info = {"bench", "time one request (one image, N tokens, last-position logits)",
	                           "winnow-prune bench --model student --precision int8\n"
	                           "winnow-prune bench --model student --tokens 32 --threads 1 --runs 500 --json\n"
	                           "winnow-prune bench --model student --train --batch 32 --tokens 24 --runs 10 --precision bf16", options};
	int rc = options_parse(&info, argc, argv);
	if (rc != OPTIONS_OK)
		return rc == OPTIONS_HELP ? EXIT_DONE : EXIT_USAGE;
	omp_spin_long();
	if (!o.threads)
		o.threads = omp_get_max_threads();
	bench_result r = {0};
	wn_error err = {0};
	if (o.train && o.precision && !strcmp(o.precision, "int8")) {
		wn_fail(&err, WN_UNSUPPORTED, "--precision int8: models are trained in f32 or bf16");
		return command_fail(&info, &err);
	}
	if (bench(&o, &r, &err))
		return command_fail(&info, &err);
	print_result(&o, &r);
	return EXIT_DONE;
}
