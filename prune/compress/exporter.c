/* exporter.c: see exporter.h. */
#include "prune/compress/exporter.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>

#include "prune/compress/compress_cost.h"
#include "prune/compress/compress_log.h"
#include "prune/compress/side_by_side.h"
#include "prune/export_dir.h"
#include "prune/run_dir.h"

/* RUN/best, written to `dir`. */
static wn_code write_export(const workspace *w, const char *dir, const char *name, int64_t best_step, wn_error *err)
{
	static const dtype dtypes[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
	const checkpoint_options o = {.skip_digest = true};
	char best[PATH_MAX];
	checkpoint ck = {0};
	wn_code rc = run_dir_path(w->config->run_dir, "best", best, err);
	if (!rc)
		rc = checkpoint_load(&ck, best, &o, err);
	if (!rc)
		rc = workspace_save_student(w, dir, ck.model, dtypes[w->config->export_dtype], name, best_step,
					    json_object_get(ck.manifest.lineage, "validation"), err);
	checkpoint_close(&ck);
	return rc;
}

static wn_code log_final(const workspace *w, const cost_model *cost, const blip2 *m, train_log *log, wn_error *err)
{
	const compress_config *c = w->config;
	const blip2_config *shape = blip2_get_config(m);
	const split_data *s = w->test.used ? &w->test : &w->validation;
	const side_by_side_options o = {.tokens = c->request_tokens, .threads = compress_request_threads(c), .runs = c->latency_runs,
					.stop = w->stop};
	request_use small = {NAN, NAN, NAN}, full = {NAN, NAN, NAN};
	json_t *eval = NULL, *teacher_eval = NULL;
	wn_code rc = o.runs ? side_by_side_measure(&small, &full, m, w->teacher.model, &o, err) : WN_OK;
	if (!rc)
		rc = workspace_evaluate_json(w, s, m, &eval, err);
	if (!rc)
		rc = workspace_evaluate_json(w, s, w->teacher.model, &teacher_eval, err);
	if (!rc && s->used)
		fprintf(w->out, "%s: student %.2f%% (macro-F1 %.4f), teacher %.2f%% (macro-F1 %.4f)\n", s->name,
			100 * eval_number(eval, "accuracy"), eval_number(eval, "macro_f1"), 100 * eval_number(teacher_eval, "accuracy"),
			eval_number(teacher_eval, "macro_f1"));
	if (!rc && o.runs)
		fprintf(w->out, "a request: student %.3f ms, teacher %.3f ms (%.1fx)\n", small.latency_ms, full.latency_ms,
			full.latency_ms / small.latency_ms);
	if (!rc)
		return train_log_write(log, json_pack("{s:s, s:f, s:f, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "event", "final",
						      "parameters", cost_parameters(shape), "flops", cost_flops(cost, shape), "eval", eval,
						      "teacher_eval", teacher_eval, "latency_ms", json_number(small.latency_ms),
						      "teacher_latency_ms", json_number(full.latency_ms), "cpu_seconds_per_request",
						      json_number(small.cpu_seconds), "teacher_cpu_seconds_per_request",
						      json_number(full.cpu_seconds), "joules_per_request",
						      json_number(small.joules), "teacher_joules_per_request",
						      json_number(full.joules)), err);
	json_decref(eval);
	json_decref(teacher_eval);
	return rc;
}

wn_code exporter_run(const workspace *w, cost_model *cost, const char *name, int64_t best_step, train_log *log, wn_error *err)
{
	const checkpoint_options o = {.verify_digests = true, .skip_digest = true};
	char dir[PATH_MAX];
	checkpoint ck = {0};
	wn_code rc = export_dir_path(w->config->run_dir, w->config->export_dir, dir, err);
	if (!rc)
		rc = write_export(w, dir, name, best_step, err);
	if (!rc)
		rc = checkpoint_load(&ck, dir, &o, err);
	if (!rc)
		rc = log_final(w, cost, ck.model, log, err);
	if (!rc)
		fprintf(w->out, "exported %s\n", dir);
	checkpoint_close(&ck);
	return rc;
}
